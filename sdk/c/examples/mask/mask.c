/* mask puts stars over the values of text columns, in place. The first character stays, and the domain of an e-mail
 * address. What cannot be read with stars in it (JSON, an array, a binary form of something else) becomes NULL. Which
 * columns, the operator says in the gateway's configuration. */
#include "../../weir.h"

enum { MASKED = 1, MOST_COLUMNS = 4096 };

static bool configure(weir_json config) {
	weir_items i = weir_items_of(config);
	if (!weir_json_is(config, '{') || weir_next_item(&i)) {
		weir_log(WEIR_ERROR, "mask takes no configuration: name the columns in the gateway's");
		return false;
	}
	return true;
}

/* Where the '@' of an e-mail address is, or 0: words and points on both sides, a point in the domain, no space. */
static inline uint32_t at_sign(const uint8_t *p, uint32_t n) {
	uint32_t at = 0, point = 0;
	for (; p[at] != '@'; at++)
		if (p[at] <= ' ') return 0; /* there is an '@' */
	for (uint32_t i = at + 1; i < n; i++) {
		uint8_t c = p[i];
		if (c == '.') point = i;
		else if (!((uint8_t)((c | 32) - 'a') < 26 || (uint8_t)(c - '0') < 10 || c == '-')) return 0;
	}
	return point > at + 1 && point + 1 < n ? at : 0;
}

static inline void mask(uint8_t *p, uint32_t n) {
	uint32_t keep = 1, end = weir_has((weir_bytes){p, n}, '@') ? at_sign(p, n) : 0;
	if (!end) end = n;
	if (p[0] >= 0xc0) /* the first character is of several bytes */
		while (keep < end && (p[keep] & 0xc0) == 0x80) keep++;
	if (keep >= end) keep = 0; /* there is no more than it: it would tell all */
	weir_fill(p + keep, '*', end - keep);
}

static void on_rows(weir_event *e) {
	static bool nulled[MOST_COLUMNS];
	uint32_t column = 0, masked = 0, edited = 0;
	for (weir_attributes a = weir_attributes_of(e, WEIR_COLUMN); weir_next_attribute(&a); column++) {
		weir_column c = weir_column_of(a.value);
		if (column < MOST_COLUMNS)
			nulled[column] = c.class == WEIR_CLASS_JSON || c.class == WEIR_CLASS_ARRAY || (c.binary && c.class != WEIR_CLASS_TEXT);
	}
	if (column != e->columns || column > MOST_COLUMNS) {
		weir_fail(e, "the columns are not described, or too many");
		return;
	}
	for (weir_cells c = weir_begin(e); weir_next(&c);) {
		if (!c.value.p) continue;
		if (nulled[c.column]) {
			weir_set_null(e, c.cell);
		} else if (c.value.n) {
			mask(c.value.p, c.value.n);
			edited++;
		} else {
			continue;
		}
		masked++;
	}
	weir_touch_all(e, edited);
	if (masked && e->verdict >= 0) weir_count(MASKED, masked); /* else the same rows come again */
}

WEIR_PLUGIN(
	.name = "mask", .version = "1.0.0", .mutates = true,
	.subscribe = {{.kinds = WEIR_ROWS, .columns = {"type:text"}}},
	.metrics = {{.id = MASKED, .name = "masked"}},
	.configure = configure,
	.on_rows = on_rows)
