/* record adds a finding to the record for each thing that a command touches, and counts the rows that come back. */
#include "../../weir.h"

enum { RESOURCES = 1, ROWS = 2 };

static void on_command(weir_event *e) {
	int64_t n = 0;
	for (weir_attributes a = weir_attributes_of(e, WEIR_RESOURCE); weir_next_attribute(&a); n++) {
		weir_resource r = weir_resource_of(a.value);
		uint8_t text[256];
		weir_bytes more = {text, 0};
		weir_bytes parts[] = {r.name, WEIR_TEXT(": "), r.uses};
		for (int i = 0; i < 3; i++) {
			uint32_t most = sizeof text - more.n, m = parts[i].n < most ? parts[i].n : most;
			weir_move(text + more.n, parts[i].p, m);
			more.n += m;
		}
		weir_found(r.kind, more);
	}
	if (n) weir_count(RESOURCES, n);
}

static void on_rows(weir_event *e) { weir_observe(ROWS, e->rows); }

WEIR_PLUGIN(
	.name = "record", .version = "1.0.0",
	.subscribe = {{.kinds = WEIR_COMMAND | WEIR_ROWS}},
	.metrics = {{.id = RESOURCES, .name = "resources"}, {.id = ROWS, .name = "batch_rows", .histogram = true}},
	.on_command = on_command,
	.on_rows = on_rows)
