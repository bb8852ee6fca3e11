/* block refuses commands that may do what the configuration names: {"effects": ["ddl", "privilege"]}. A command whose facts
 * cannot be relied on is refused as well. */
#include "../../weir.h"

static const char *const known[] = {"read", "write", "ddl", "privilege", "session", "file", "process", "network", "admin", "unknown"};
enum { KNOWN = sizeof known / sizeof *known };
static bool blocked[KNOWN];

static int effect(weir_bytes b) {
	for (int i = 0; i < KNOWN; i++)
		if (weir_is(b, known[i])) return i;
	return -1;
}

static bool configure(weir_json config) {
	weir_json effects = weir_json_get(config, "effects");
	int n = 0;
	for (weir_items i = weir_items_of(config); weir_next_item(&i);)
		if (!weir_json_equals(i.name, "effects")) {
			weir_log(WEIR_ERROR, "the only setting is effects");
			return false;
		}
	if (weir_json_is(effects, '['))
		for (weir_items i = weir_items_of(effects); weir_next_item(&i); n++) {
			int k = effect(weir_json_text(i.value));
			if (k < 0) {
				weir_log(WEIR_ERROR, "effects: known are read, write, ddl, privilege, session, file, process, network, admin, unknown");
				return false;
			}
			blocked[k] = true;
		}
	if (!n) weir_log(WEIR_ERROR, "effects must be a list of at least one effect");
	return n > 0;
}

static void refuse(weir_event *e, weir_bytes effect) {
	uint8_t text[64] = "commands with this effect are refused: ";
	uint32_t n = weir_length((char *)text), m = effect.n < sizeof text - n ? effect.n : sizeof text - n;
	weir_move(text + n, effect.p, m);
	weir_say(e, WEIR_DENIED, WEIR_TEXT("block-effect"), (weir_bytes){text, n + m}, WEIR_TEXT("leave that part out, or ask who runs this gateway"));
}

static void on_command(weir_event *e) {
	if (!weir_known(e)) {
		weir_deny(e, "block-effect", "what this command does is not known", "write it in a simpler way");
		return;
	}
	for (weir_attributes a = weir_attributes_of(e, WEIR_EFFECT); weir_next_attribute(&a);) {
		int k = effect(a.value);
		if (k < 0 || blocked[k]) {
			refuse(e, a.value);
			return;
		}
	}
}

WEIR_PLUGIN(
	.name = "block", .version = "1.0.0",
	.subscribe = {{.kinds = WEIR_COMMAND}},
	.schema = "{\"type\":\"object\",\"required\":[\"effects\"],\"properties\":{\"effects\":{\"type\":\"array\",\"minItems\":1,\"items\":{\"type\":\"string\"}}}}",
	.configure = configure,
	.on_command = on_command)
