/* Guard leaves the last characters of each value that it sees, and refuses statements that change every row of a table.
 *
 *	config: {keep: 4}   # how many characters stay
 */
#include "weir.h"

enum { MASKED = 1, COLUMNS = 1024 };

static int64_t keep = 4;

static bool refuse(const char *why) {
	weir_log(WEIR_ERROR, why);
	return false;
}

static bool configure(weir_json config) {
	weir_json k = weir_json_get(config, "keep");
	if (!weir_json_is(config, '{')) return refuse("the only setting is keep");
	for (weir_items i = weir_items_of(config); weir_next_item(&i);)
		if (!weir_json_equals(i.name, "keep")) return refuse("the only setting is keep");
	if (k.p && (!weir_json_int(k, &keep) || keep < 0 || keep > 64)) return refuse("keep is a number from 0 to 64");
	return true;
}

static void on_command(weir_event *e) {
	if (weir_has_effect(e, "write") && !weir_where(e))
		weir_deny(e, "guard-every-row", "this changes every row of a table", "add a WHERE that names the rows");
}

/* Puts stars over all of v but the last characters, and over all of it where there are no more. */
static void stars(weir_bytes v) {
	uint32_t at = v.n, left = (uint32_t)keep;
	while (at && left)
		if ((v.p[--at] & 0xc0) != 0x80) left--; /* not within a character of UTF-8 */
	weir_fill(v.p, '*', at ? at : v.n);
}

static void on_rows(weir_event *e) {
	static bool text[COLUMNS];
	uint32_t columns = 0, masked = 0;
	for (weir_attributes a = weir_attributes_of(e, WEIR_COLUMN); weir_next_attribute(&a); columns++)
		if (columns < COLUMNS) text[columns] = weir_column_of(a.value).class == WEIR_CLASS_TEXT;
	if (columns != e->columns || columns > COLUMNS) {
		weir_fail(e, "the columns are not described, or too many");
		return;
	}
	for (weir_cells c = weir_begin(e); weir_next(&c);) {
		if (!c.value.n) continue; /* NULL, or nothing */
		if (text[c.column]) {
			stars(c.value);
			weir_touch(e);
		} else {
			weir_set_null(e, c.cell); /* JSON, an array: with stars in it nobody could read it */
		}
		masked++;
	}
	if (masked && e->verdict >= 0) weir_count(MASKED, masked); /* else the same rows come again */
}

WEIR_PLUGIN(
	.name = "guard", .version = "1.0.0", .mutates = true,
	.subscribe = {{.kinds = WEIR_COMMAND}, {.kinds = WEIR_ROWS, .columns = {"type:text"}}},
	.metrics = {{.id = MASKED, .name = "masked"}},
	.schema = "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{\"keep\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":64}}}",
	.configure = configure,
	.on_command = on_command,
	.on_rows = on_rows)
