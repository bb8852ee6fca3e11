/* weir.h: write Weir plugins in C. One header, no library, no libc.
 *
 *	#include "weir.h"
 *
 *	static void on_command(weir_event *e) {
 *		if (weir_has_effect(e, "ddl"))
 *			weir_deny(e, "no-ddl", "the schema is not changed here", "write a migration");
 *	}
 *
 *	WEIR_PLUGIN(.name = "no-ddl", .version = "1.0.0",
 *		.subscribe = {{.kinds = WEIR_COMMAND}},
 *		.on_command = on_command)
 *
 *	clang --target=wasm32 -nostdlib -ffreestanding -O2 -Wl,--no-entry -o no-ddl.wasm no-ddl.c
 *
 * Include it in one file of the plugin: it defines the exports. The contract behind it is sdk/ABI.md. An event and all
 * that points into it end with the handler. An instance serves one session after the other: keep nothing of an event.
 */
#ifndef WEIR_H
#define WEIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "frames are little-endian, as WebAssembly is"
#endif

#define WEIR_INLINE static inline __attribute__((always_inline, unused))
#define WEIR_FUNC static __attribute__((unused))
#define WEIR_EXPORT(name) __attribute__((export_name(name), used))
#define WEIR_IMPORT(name) __attribute__((import_module("weir_v1"), import_name(name)))

/* ---- What a plugin says of itself ---------------------------------------------------------------------------- */

/* The kinds of event, for a subscription. */
enum {
	WEIR_OPEN = 1 << 1,
	WEIR_COMMAND = 1 << 2,
	WEIR_ROWS = 1 << 3,
	WEIR_BYTES = 1 << 4,
	WEIR_COLUMNS = 1 << 7,
	WEIR_RESULT = 1 << 8,
	WEIR_NOTICE = 1 << 10,
	WEIR_CLOSE = 1 << 11,
	WEIR_EVERYTHING = WEIR_OPEN | WEIR_COMMAND | WEIR_ROWS | WEIR_BYTES | WEIR_COLUMNS | WEIR_RESULT | WEIR_NOTICE | WEIR_CLOSE,
};

#define WEIR_MAX_LIST 8

/* Which events a plugin wants. */
typedef struct {
	uint32_t kinds;
	const char *protocols[WEIR_MAX_LIST]; /* none: all */
	const char *columns[WEIR_MAX_LIST];   /* whose cells it sees: globs of names, "type:text", "*"; none: no cells */
} weir_subscription;

/* A number of the plugin's own, shown among the gateway's metrics. */
typedef struct {
	uint32_t id;
	const char *name; /* lower-case words joined with _ */
	bool histogram;   /* else a counter */
} weir_metric;

typedef struct weir_event weir_event;
typedef struct weir_json weir_json;

/* What a plugin is. What is left out is zero: no handler, no metric, "deny" when it fails. */
typedef struct {
	const char *name;
	const char *version;
	bool mutates;         /* it changes values; without it a change is an error */
	const char *on_error; /* "deny" (the default) or "pass" */
	bool clock;           /* weir_now tells the real time */
	bool connection;      /* an instance of its own for each session: what the program keeps belongs to it */
	bool kv;              /* weir_kv_… work; the operator grants it */
	uint32_t deadline_ms; /* of one batch of rows; 0: the gateway's default */
	uint32_t memory_pages;
	const char *schema; /* a JSON Schema of the configuration, for people; configure is what checks it */
	weir_subscription subscribe[WEIR_MAX_LIST];
	weir_metric metrics[32];

	/* Takes the configuration, once in each instance. False refuses to start: say why with weir_log(WEIR_ERROR, …). */
	bool (*configure)(weir_json config);
	/* For .connection: a session begins, before its first event; false refuses it. And it is over. */
	bool (*begin)(weir_event *e);
	void (*end)(uint64_t session);
	/* One for each kind of event; on_result sees notices, too. */
	void (*on_open)(weir_event *e);
	void (*on_command)(weir_event *e);
	void (*on_columns)(weir_event *e);
	void (*on_rows)(weir_event *e);
	void (*on_bytes)(weir_event *e);
	void (*on_result)(weir_event *e);
	void (*on_close)(weir_event *e);
} weir_plugin;

extern const weir_plugin weir_registered;

/* Makes the plugin of this program. */
#define WEIR_PLUGIN(...) const weir_plugin weir_registered = {__VA_ARGS__};

/* ---- Bytes --------------------------------------------------------------------------------------------------- */

/* Some bytes that belong to somebody else; p is a null pointer for NULL. */
typedef struct {
	uint8_t *p;
	uint32_t n;
} weir_bytes;

#define WEIR_TEXT(literal) ((weir_bytes){(uint8_t *)(literal), sizeof(literal) - 1})

/* A loop that the compiler may not turn into a call of memset or strlen, which are not there. */
#define WEIR_PLAIN_LOOP __asm__ volatile("")

WEIR_FUNC uint32_t weir_length(const char *s) {
	uint32_t n = 0;
	for (; s && s[n]; n++) WEIR_PLAIN_LOOP;
	return n;
}

WEIR_INLINE weir_bytes weir_string(const char *s) { return (weir_bytes){(uint8_t *)s, weir_length(s)}; }

WEIR_FUNC bool weir_same(weir_bytes a, weir_bytes b) {
	if (a.n != b.n || !a.p != !b.p) return false;
	for (uint32_t i = 0; i < a.n; i++)
		if (a.p[i] != b.p[i]) return false;
	return true;
}

/* Whether some bytes are a text. */
WEIR_INLINE bool weir_is(weir_bytes a, const char *s) { return a.p && weir_same(a, weir_string(s)); }

WEIR_FUNC void weir_move(uint8_t *to, const uint8_t *from, uint32_t n) {
	for (; n >= 8; n -= 8, to += 8, from += 8) __builtin_memcpy(to, from, 8);
	for (; n; n--) {
		*to++ = *from++;
		WEIR_PLAIN_LOOP;
	}
}

/* Writes c over n bytes. */
WEIR_INLINE void weir_fill(uint8_t *p, uint8_t c, uint32_t n) {
	uint64_t wide = 0x0101010101010101ull * c;
	if (n >= 8) { /* eight at a time, and the last eight once more rather than one by one */
		uint8_t *last = p + n - 8;
		for (; p < last; p += 8) {
			__builtin_memcpy(p, &wide, 8);
			WEIR_PLAIN_LOOP;
		}
		__builtin_memcpy(last, &wide, 8);
	} else if (n >= 4) {
		__builtin_memcpy(p, &wide, 4);
		__builtin_memcpy(p + n - 4, &wide, 4);
	} else if (n) {
		p[0] = c;
		p[n >> 1] = c;
		p[n - 1] = c;
	}
}

/* Whether a byte is among some bytes. */
WEIR_INLINE bool weir_has(weir_bytes b, uint8_t c) {
	const uint64_t ones = 0x0101010101010101ull, tops = ones << 7, all = ones * c;
	const uint8_t *p = b.p;
	uint32_t n = b.n;
	uint64_t x;
	if (n >= 8) { /* eight at a time, and the last eight once more: a difference of zero is told by its borrow */
		for (const uint8_t *last = p + n - 8; p < last; p += 8) {
			__builtin_memcpy(&x, p, 8);
			x ^= all;
			if ((x - ones) & ~x & tops) return true;
		}
		__builtin_memcpy(&x, b.p + n - 8, 8);
	} else if (n >= 4) {
		uint32_t low, high;
		__builtin_memcpy(&low, p, 4);
		__builtin_memcpy(&high, p + n - 4, 4);
		x = low | (uint64_t)high << 32;
	} else {
		return n && (p[0] == c || p[n >> 1] == c || p[n - 1] == c);
	}
	x ^= all;
	return (x - ones) & ~x & tops;
}

/* Takes what stands before the first separator off the front of *b. */
WEIR_FUNC weir_bytes weir_cut(weir_bytes *b, uint8_t separator) {
	weir_bytes head = {b->p, 0};
	while (head.n < b->n && b->p[head.n] != separator) head.n++;
	uint32_t used = head.n < b->n ? head.n + 1 : head.n;
	b->p += used;
	b->n -= used;
	return head;
}

/* ---- What the host offers ------------------------------------------------------------------------------------ */

enum { WEIR_DEBUG, WEIR_INFO, WEIR_WARN, WEIR_ERROR };

WEIR_IMPORT("log") void weir_host_log(int32_t level, const void *p, uint32_t n);
WEIR_IMPORT("emit") void weir_host_emit(const void *p, uint32_t n);
WEIR_IMPORT("metric_add") void weir_host_metric_add(uint32_t id, int64_t delta);
WEIR_IMPORT("metric_observe") void weir_host_metric_observe(uint32_t id, double x);
WEIR_IMPORT("now_ns") int64_t weir_host_now_ns(void);

/* Writes a line to the gateway's log: at most 32 lines and 8 KiB a call. It must not hold values. */
WEIR_FUNC void weir_log(int level, const char *text) { weir_host_log(level, text, weir_length(text)); }

/* Adds a finding to the record of the present event: what was found, and more about it in words; 256 bytes together,
 * the rest is cut off. It must not hold the value itself. */
WEIR_FUNC void weir_found(weir_bytes what, weir_bytes more) {
	uint8_t b[256];
	if (what.n > 128) what.n = 128;
	if (more.n > sizeof b - 1 - what.n) more.n = sizeof b - 1 - what.n;
	weir_move(b, what.p, what.n);
	b[what.n] = 0;
	weir_move(b + what.n + 1, more.p, more.n);
	weir_host_emit(b, what.n + 1 + more.n);
}

/* Adds to a counter of the plugin's own. */
WEIR_INLINE void weir_count(uint32_t id, int64_t delta) { weir_host_metric_add(id, delta); }

/* Adds an observation to a histogram of the plugin's own. */
WEIR_INLINE void weir_observe(uint32_t id, double x) { weir_host_metric_observe(id, x); }

/* The time in nanoseconds since 1970, or 0 where the plugin did not ask for the clock. */
WEIR_INLINE int64_t weir_now(void) { return weir_host_now_ns(); }

WEIR_IMPORT("kv_get") int32_t weir_host_kv_get(const void *key, uint32_t n, void *out, uint32_t room);
WEIR_IMPORT("kv_put") int32_t weir_host_kv_put(const void *key, uint32_t n, const void *value, uint32_t m, int64_t ttl_ms);
WEIR_IMPORT("kv_incr") int64_t weir_host_kv_incr(const void *key, uint32_t n, int64_t delta, int64_t ttl_ms);

/* What the instances of a plugin share, for plugins with .kv. Copies the value of a key to out if it has at most room bytes, and
 * returns its length; -1 where there is none. */
WEIR_INLINE int32_t weir_kv_get(weir_bytes key, void *out, uint32_t room) { return weir_host_kv_get(key.p, key.n, out, room); }

/* Sets a key for ttl_ms milliseconds, or for good with 0. False: there was no room. */
WEIR_INLINE bool weir_kv_put(weir_bytes key, weir_bytes value, int64_t ttl_ms) {
	return !weir_host_kv_put(key.p, key.n, value.p, value.n, ttl_ms);
}

/* Removes a key. */
WEIR_INLINE void weir_kv_remove(weir_bytes key) { weir_host_kv_put(key.p, key.n, 0, 0xffffffffu, 0); }

/* Adds to a counter, which is made at 0 and lasts ttl_ms milliseconds from then, or for good with 0; now is what it is now.
 * False: there was no room, or the value is no counter. */
WEIR_INLINE bool weir_kv_incr(weir_bytes key, int64_t delta, int64_t ttl_ms, int64_t *now) {
	*now = weir_host_kv_incr(key.p, key.n, delta, ttl_ms);
	return *now != INT64_MIN;
}

/* ---- Events -------------------------------------------------------------------------------------------------- */

/* The head of a frame, as sdk/ABI.md has it. */
typedef struct {
	uint32_t magic;
	uint16_t length, kind;
	uint32_t total, flags;
	uint64_t session, call;
	uint32_t rows;
	uint16_t columns, attributes;
	uint32_t attributes_at, cells_at, cells, data_at, data_length, out_at, out_length, reserved;
} weir_frame;
_Static_assert(sizeof(weir_frame) == 72, "the head of a frame");

typedef struct { uint32_t at, length; } weir_cell_entry;

enum { WEIR_PASSED, WEIR_MODIFIED, WEIR_PATCHED, WEIR_DENIED, WEIR_HELD, WEIR_FAILED = -1, WEIR_MORE_ROOM = -2 };

/* One event. Its fields may be read; what changes it are the functions below. */
struct weir_event {
	uint32_t kind;     /* one of WEIR_OPEN … */
	uint64_t session;  /* the same number for all events of one session */
	uint32_t rows, columns;
	uint32_t cells;    /* how many values it has */
	bool editable;     /* whether values may be changed */
	/* The rest is this header's own. */
	const weir_frame *head;
	const weir_cell_entry *table;
	uint8_t *data, *out;
	uint32_t data_length, out_length;
	uint32_t changed, used, next_patch;
	int32_t verdict;
	const char *failure;
};

/* Says that the plugin cannot judge this event: it is refused, unless the operator said on_error: pass. */
WEIR_INLINE void weir_fail(weir_event *e, const char *why) {
	if (!e->failure) e->failure = why;
}

/* A value, whose bytes may be changed in place where the event is editable: say so with weir_touch. */
WEIR_INLINE weir_bytes weir_value(weir_event *e, uint32_t cell) {
	if (cell >= e->cells) return (weir_bytes){0, 0};
	weir_cell_entry c = e->table[cell];
	if (c.length == 0xffffffffu) return (weir_bytes){0, 0};
	if ((uint64_t)c.at + c.length > e->data_length) {
		weir_fail(e, "a cell lies outside of the data");
		return (weir_bytes){0, 0};
	}
	return (weir_bytes){e->data + c.at, c.length};
}

/* Says that the bytes of a value were changed in place, or those of n values. */
WEIR_INLINE void weir_touch(weir_event *e) { e->changed++; }
WEIR_INLINE void weir_touch_all(weir_event *e, uint32_t n) { e->changed += n; }

/* The values of an event, row by row:
 *
 *	for (weir_cells c = weir_begin(e); weir_next(&c);)
 *		if (c.value.p) …
 */
typedef struct {
	weir_bytes value; /* p is a null pointer for NULL */
	uint32_t cell, row, column;
	/* The rest is this header's own. */
	weir_event *event;
	const weir_cell_entry *at, *end;
	uint8_t *data;
	uint32_t data_length, columns;
} weir_cells;

WEIR_INLINE weir_cells weir_begin(weir_event *e) {
	return (weir_cells){{0, 0}, (uint32_t)-1, 0, (uint32_t)-1, e, e->table, e->table + e->cells, e->data, e->data_length, e->columns};
}

WEIR_INLINE bool weir_next(weir_cells *c) {
	if (c->at == c->end) return false;
	uint64_t entry; /* both halves at once */
	__builtin_memcpy(&entry, c->at++, 8);
	c->cell++;
	if (++c->column >= c->columns) {
		c->column = 0;
		c->row++;
	}
	uint32_t at = (uint32_t)entry, n = (uint32_t)(entry >> 32);
	if (n == 0xffffffffu) {
		c->value = (weir_bytes){0, 0};
	} else if ((uint64_t)at + n > c->data_length) {
		weir_fail(c->event, "a cell lies outside of the data");
		c->value = (weir_bytes){0, 0};
	} else {
		c->value = (weir_bytes){c->data + at, n};
	}
	return true;
}

WEIR_FUNC bool weir_put_patch(weir_event *e, uint32_t cell, weir_bytes v, uint32_t length) {
	uint32_t padded = (v.n + 3) & ~3u;
	if (e->verdict > WEIR_PATCHED) return false; /* it is refused anyhow */
	if (!e->editable || cell >= e->cells || cell < e->next_patch) {
		weir_fail(e, !e->editable ? "values of this event cannot be changed" : "patches must be of cells that are there, in their order, one each");
		return false;
	}
	if (e->verdict == WEIR_MORE_ROOM || v.n > e->out_length || e->used + 8 + padded > e->out_length) {
		e->verdict = WEIR_MORE_ROOM;
		return false;
	}
	uint8_t *out = e->out + e->used;
	__builtin_memcpy(out, &cell, 4);
	__builtin_memcpy(out + 4, &length, 4);
	weir_move(out + 8, v.p, v.n);
	e->used += 8 + padded;
	e->next_patch = cell + 1;
	e->verdict = WEIR_PATCHED;
	return true;
}

/* Gives a value other bytes, in place where their number stays. Go from the first cell to the last. */
WEIR_FUNC void weir_set(weir_event *e, uint32_t cell, weir_bytes v) {
	weir_bytes old = weir_value(e, cell);
	if (old.p && old.n == v.n && e->editable) {
		weir_move(old.p, v.p, v.n);
		e->changed++;
		return;
	}
	weir_put_patch(e, cell, v, v.n);
}

/* Makes a value NULL; only those of rows can be. Go from the first cell to the last. */
WEIR_FUNC void weir_set_null(weir_event *e, uint32_t cell) { weir_put_patch(e, cell, (weir_bytes){0, 0}, 0xffffffffu); }

WEIR_FUNC void weir_say(weir_event *e, int32_t verdict, weir_bytes a, weir_bytes b, weir_bytes c) {
	if (e->verdict == WEIR_DENIED) return; /* the first denial stays */
	if ((uint64_t)a.n + b.n + c.n + 2 > e->out_length) {
		e->verdict = WEIR_MORE_ROOM;
		return;
	}
	uint8_t *out = e->out;
	weir_move(out, a.p, a.n);
	out[a.n] = 0;
	out += a.n + 1;
	weir_move(out, b.p, b.n);
	out[b.n] = 0;
	out += b.n + 1;
	weir_move(out, c.p, c.n);
	e->used = a.n + b.n + c.n + 2;
	e->verdict = verdict;
}

/* Refuses the event. The texts go to the client: rule is short, reason says why, hint what to do instead. None may hold
 * what has to be hidden. */
WEIR_INLINE void weir_deny(weir_event *e, const char *rule, const char *reason, const char *hint) {
	weir_say(e, WEIR_DENIED, weir_string(rule), weir_string(reason), weir_string(hint));
}

/* Asks for an approval of a command, by one of approvers: names with commas between them. */
WEIR_INLINE void weir_hold(weir_event *e, const char *rule, const char *reason, const char *approvers) {
	weir_say(e, WEIR_HELD, weir_string(rule), weir_string(reason), weir_string(approvers));
}

/* ---- What an event is about ---------------------------------------------------------------------------------- */

enum {
	WEIR_PROTOCOL = 1,
	WEIR_TARGET,
	WEIR_SUBJECT,
	WEIR_GROUP, /* one each */
	WEIR_IDENTITY_KIND,
	WEIR_DIRECTION,
	WEIR_STAGE,
	WEIR_SESSION_ID,
	WEIR_ACTION = 16,
	WEIR_FINGERPRINT,
	WEIR_EFFECT,   /* one each */
	WEIR_RESOURCE, /* one each */
	WEIR_WHERE,
	WEIR_STATUS,
	WEIR_REASON,
	WEIR_COLUMN = 32, /* one each */
	WEIR_RESULT_STATUS = 48,
	WEIR_RESULT_TAG,
	WEIR_RESULT_CODE,
	WEIR_FIELD, /* one a cell of a result or notice */
};

/* The attributes of an event of one id:
 *
 *	for (weir_attributes a = weir_attributes_of(e, WEIR_EFFECT); weir_next_attribute(&a);)
 *		… a.value …
 */
typedef struct {
	weir_bytes value;
	weir_event *event;
	uint32_t id, left, at, end;
} weir_attributes;

WEIR_INLINE weir_attributes weir_attributes_of(weir_event *e, uint32_t id) {
	return (weir_attributes){{0, 0}, e, id, e->head->attributes, e->head->attributes_at, e->head->cells_at};
}

WEIR_FUNC bool weir_next_attribute(weir_attributes *a) {
	uint8_t *frame = (uint8_t *)a->event->head;
	while (a->left) {
		uint16_t id, n;
		a->left--;
		if (a->at + 4 > a->end) goto cut;
		__builtin_memcpy(&id, frame + a->at, 2);
		__builtin_memcpy(&n, frame + a->at + 2, 2);
		if (a->at + 4 + n > a->end) goto cut;
		a->value = (weir_bytes){frame + a->at + 4, n};
		a->at += 4 + ((n + 3u) & ~3u);
		if (id == a->id) return true;
	}
	return false;
cut:
	a->left = 0;
	weir_fail(a->event, "the attributes are cut off");
	return false;
}

/* The first attribute of an id; n is 0 where there is none. */
WEIR_FUNC weir_bytes weir_attribute(weir_event *e, uint32_t id) {
	weir_attributes a = weir_attributes_of(e, id);
	return weir_next_attribute(&a) ? a.value : (weir_bytes){0, 0};
}

/* Whether a command may do this to the target. */
WEIR_FUNC bool weir_has_effect(weir_event *e, const char *effect) {
	for (weir_attributes a = weir_attributes_of(e, WEIR_EFFECT); weir_next_attribute(&a);)
		if (weir_is(a.value, effect)) return true;
	return false;
}

/* Whether the command's facts can be relied on. */
WEIR_FUNC bool weir_known(weir_event *e) { return weir_is(weir_attribute(e, WEIR_STATUS), "known"); }

/* Whether every part of a command that changes or removes rows says which. */
WEIR_FUNC bool weir_where(weir_event *e) { return weir_is(weir_attribute(e, WEIR_WHERE), "1"); }

/* Something that a command touches; uses and columns are lists: take their words with weir_cut(&list, ','). */
typedef struct { weir_bytes kind, name, uses, columns; } weir_resource;

/* Splits a value of WEIR_RESOURCE. */
WEIR_FUNC weir_resource weir_resource_of(weir_bytes b) {
	weir_resource r;
	r.kind = weir_cut(&b, 0);
	r.name = weir_cut(&b, 0);
	r.uses = weir_cut(&b, 0);
	r.columns = b;
	return r;
}

/* The classes of types. */
enum {
	WEIR_CLASS_UNKNOWN, /* an enum, a domain, a type of an extension */
	WEIR_CLASS_TEXT,
	WEIR_CLASS_JSON,
	WEIR_CLASS_NUMBER,
	WEIR_CLASS_BOOL,
	WEIR_CLASS_TIME,
	WEIR_CLASS_UUID,
	WEIR_CLASS_BYTES,
	WEIR_CLASS_ARRAY,
	WEIR_CLASS_OTHER,
};

/* A column of an answer, or of the cells of rows. */
typedef struct {
	uint8_t class; /* one of WEIR_CLASS_… */
	bool binary;   /* the cells are in the type's binary format */
	bool text;     /* the cells may hold free text */
	weir_bytes name, type, table, column;
} weir_column;

/* Splits a value of WEIR_COLUMN. */
WEIR_FUNC weir_column weir_column_of(weir_bytes b) {
	weir_column c = {0};
	if (b.n < 2) return c;
	c.class = b.p[0];
	c.binary = b.p[1] & 1;
	c.text = b.p[1] & 2;
	b.p += 2;
	b.n -= 2;
	c.name = weir_cut(&b, 0);
	c.type = weir_cut(&b, 0);
	c.table = weir_cut(&b, 0);
	c.column = b;
	return c;
}

/* ---- Memory that stays: for what configure makes --------------------------------------------------------------- */

#define WEIR_PAGE 65536u

/* Gives zeroed memory, aligned to 8, for as long as the instance lives: there is no free, so ask in configure only. A null
 * pointer when there is none left. */
WEIR_FUNC void *weir_keep(uint32_t n) {
	static uint32_t at, end;
	n = (n + 7) & ~7u;
	if (n > end - at) {
		size_t pages = ((size_t)n + WEIR_PAGE - 1) / WEIR_PAGE, old = __builtin_wasm_memory_grow(0, pages);
		if (old == (size_t)-1) return 0;
		at = old * WEIR_PAGE;
		end = (old + pages) * WEIR_PAGE;
	}
	at += n;
	return (void *)(uintptr_t)(at - n);
}

/* ---- Configuration --------------------------------------------------------------------------------------------- */

/* One value of the configuration: a piece of JSON text that was checked. It ends with configure; p is null where there is
 * nothing. */
struct weir_json {
	const uint8_t *p, *end;
};

WEIR_INLINE const uint8_t *weir_json_space(const uint8_t *p, const uint8_t *end) {
	while (p < end && (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r')) p++;
	return p;
}

WEIR_FUNC bool weir_is_hex(uint8_t c) { return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'f'); }

/* Where the value at p ends; a null pointer where there is no JSON. */
WEIR_FUNC const uint8_t *weir_json_skip(const uint8_t *p, const uint8_t *end, int depth) {
	if (depth > 32 || (p = weir_json_space(p, end)) >= end) return 0;
	uint8_t open = *p;
	if (open == '"') {
		for (p++; p < end; p++) {
			if (*p == '"') return p + 1;
			if (*p < ' ') return 0;
			if (*p != '\\') continue;
			if (++p >= end) return 0;
			if (*p == 'u') {
				if (end - p < 5 || !weir_is_hex(p[1]) || !weir_is_hex(p[2]) || !weir_is_hex(p[3]) || !weir_is_hex(p[4])) return 0;
				p += 4;
			} else if (*p != '"' && *p != '\\' && *p != '/' && *p != 'b' && *p != 'f' && *p != 'n' && *p != 'r' && *p != 't') {
				return 0;
			}
		}
		return 0;
	}
	if (open == '{' || open == '[') {
		uint8_t close = open + 2;
		p = weir_json_space(p + 1, end);
		if (p < end && *p == close) return p + 1;
		for (;;) {
			if (open == '{') {
				p = weir_json_space(p, end);
				if (p >= end || *p != '"' || !(p = weir_json_skip(p, end, depth + 1))) return 0;
				p = weir_json_space(p, end);
				if (p >= end || *p++ != ':') return 0;
			}
			if (!(p = weir_json_skip(p, end, depth + 1))) return 0;
			p = weir_json_space(p, end);
			if (p >= end) return 0;
			if (*p == close) return p + 1;
			if (*p++ != ',') return 0;
		}
	}
	const char *word = open == 't' ? "true" : open == 'f' ? "false" : open == 'n' ? "null" : 0;
	if (word) {
		for (; *word; word++, p++)
			if (p >= end || *p != (uint8_t)*word) return 0;
		return p;
	}
	const uint8_t *begin = p;
	bool digit = false;
	for (; p < end && ((*p >= '0' && *p <= '9') || *p == '-' || *p == '+' || *p == '.' || *p == 'e' || *p == 'E'); p++)
		digit = digit || (*p >= '0' && *p <= '9');
	return digit && (*begin == '-' || (*begin >= '0' && *begin <= '9')) ? p : 0;
}

WEIR_INLINE bool weir_json_is(weir_json v, uint8_t first) { return v.p && v.p < v.end && *v.p == first; }

/* The elements of an array, or the fields of an object:
 *
 *	for (weir_items i = weir_items_of(v); weir_next_item(&i);)
 *		… i.name, i.value …
 */
typedef struct {
	weir_json name, value; /* name is a string, in an object */
	const uint8_t *at, *end;
	uint8_t open;
} weir_items;

WEIR_FUNC weir_items weir_items_of(weir_json v) {
	weir_items i = {0};
	if (weir_json_is(v, '{') || weir_json_is(v, '[')) {
		i.open = *v.p;
		i.at = v.p + 1;
		i.end = v.end - 1;
	}
	return i;
}

WEIR_FUNC bool weir_next_item(weir_items *i) {
	if (!i->open || (i->at = weir_json_space(i->at, i->end)) >= i->end) return false;
	if (*i->at == ',') i->at = weir_json_space(i->at + 1, i->end);
	if (i->open == '{') {
		const uint8_t *end = weir_json_skip(i->at, i->end, 0);
		i->name = (weir_json){i->at, end};
		i->at = weir_json_space(weir_json_space(end, i->end) + 1, i->end);
	}
	const uint8_t *end = weir_json_skip(i->at, i->end, 0);
	i->value = (weir_json){i->at, end};
	i->at = end;
	return true;
}

/* A string, unescaped, in memory that stays; n is 0 and p null for anything else. */
WEIR_FUNC weir_bytes weir_json_text(weir_json v) {
	if (!weir_json_is(v, '"')) return (weir_bytes){0, 0};
	uint8_t *out = weir_keep(v.end - v.p), *o = out;
	if (!out) return (weir_bytes){0, 0};
	for (const uint8_t *p = v.p + 1; p < v.end - 1; p++) {
		if (*p != '\\') {
			*o++ = *p;
			continue;
		}
		uint32_t code[2] = {0, 0};
		switch (*++p) {
		case 'b': *o++ = '\b'; continue;
		case 'f': *o++ = '\f'; continue;
		case 'n': *o++ = '\n'; continue;
		case 'r': *o++ = '\r'; continue;
		case 't': *o++ = '\t'; continue;
		case 'u': break;
		default: *o++ = *p; continue;
		}
		for (int k = 0; k < 2; k++) { /* a second one only after the first half of a pair */
			for (int d = 1; d <= 4; d++) code[k] = code[k] << 4 | (p[d] <= '9' ? p[d] - '0' : (p[d] | 32) - 'a' + 10u);
			p += 4;
			if (k || code[0] < 0xd800 || code[0] > 0xdbff || v.end - p < 8 || p[1] != '\\' || p[2] != 'u') break;
			p += 2;
		}
		uint32_t c = code[0];
		if (code[1] >= 0xdc00 && code[1] <= 0xdfff) c = 0x10000 + ((c - 0xd800) << 10) + (code[1] - 0xdc00);
		else if (code[1]) p -= 6;
		if (c >= 0xd800 && c <= 0xdfff) c = 0xfffd;
		if (c < 0x80) {
			*o++ = c;
		} else if (c < 0x800) {
			*o++ = 0xc0 | c >> 6;
			*o++ = 0x80 | (c & 63);
		} else {
			if (c >= 0x10000) {
				*o++ = 0xf0 | c >> 18;
				*o++ = 0x80 | (c >> 12 & 63);
			} else {
				*o++ = 0xe0 | c >> 12;
			}
			*o++ = 0x80 | (c >> 6 & 63);
			*o++ = 0x80 | (c & 63);
		}
	}
	return (weir_bytes){out, o - out};
}

/* Whether a value is this string. */
WEIR_INLINE bool weir_json_equals(weir_json v, const char *s) { return weir_json_is(v, '"') && weir_is(weir_json_text(v), s); }

/* A field of an object; p is null where it is not there. */
WEIR_FUNC weir_json weir_json_get(weir_json v, const char *name) {
	weir_json found = {0, 0};
	if (weir_json_is(v, '{'))
		for (weir_items i = weir_items_of(v); weir_next_item(&i);)
			if (weir_json_equals(i.name, name)) found = i.value;
	return found;
}

/* Reads a boolean; false where it is none. */
WEIR_INLINE bool weir_json_flag(weir_json v, bool *out) {
	*out = weir_json_is(v, 't');
	return *out || weir_json_is(v, 'f');
}

/* Reads a whole number; false where it is none, or one of more than 18 digits. */
WEIR_FUNC bool weir_json_int(weir_json v, int64_t *out) {
	int64_t n = 0;
	const uint8_t *p = v.p;
	bool negative = weir_json_is(v, '-');
	if (!p || (p += negative) >= v.end || v.end - p > 18) return false;
	for (; p < v.end; p++) {
		if (*p < '0' || *p > '9') return false;
		n = n * 10 + (*p - '0');
	}
	*out = negative ? -n : n;
	return true;
}

/* ---- The exports ----------------------------------------------------------------------------------------------- */

typedef struct {
	uint8_t *p;
	uint32_t n, room;
} weir_writer;

WEIR_FUNC void weir_write(weir_writer *w, const char *s) {
	for (; *s; s++)
		if (w->n < w->room) w->p[w->n++] = *s;
}

WEIR_FUNC void weir_write_string(weir_writer *w, const char *s) {
	weir_write(w, "\"");
	for (; s && *s; s++) {
		char c[7] = {*s, 0};
		if (*s == '"' || *s == '\\') c[0] = '\\', c[1] = *s;
		if ((uint8_t)*s < ' ') {
			c[0] = '\\', c[1] = 'u', c[2] = c[3] = '0';
			c[4] = "01"[*s >> 4], c[5] = "0123456789abcdef"[*s & 15];
		}
		weir_write(w, c);
	}
	weir_write(w, "\"");
}

WEIR_FUNC void weir_write_number(weir_writer *w, uint32_t n) {
	char digits[11];
	int at = 10;
	digits[at] = 0;
	do digits[--at] = '0' + n % 10;
	while (n /= 10);
	weir_write(w, digits + at);
}

WEIR_FUNC void weir_write_list(weir_writer *w, const char *key, const char *const *list) {
	if (!list[0]) return;
	weir_write(w, key);
	for (int i = 0; i < WEIR_MAX_LIST && list[i]; i++) {
		if (i) weir_write(w, ",");
		weir_write_string(w, list[i]);
	}
	weir_write(w, "]");
}

WEIR_EXPORT("weir_abi_v1") int32_t weir_export_abi(void) { return 0; }

WEIR_EXPORT("weir_describe") uint64_t weir_export_describe(void) {
	static const char *const kinds[] = {"", "open", "command", "rows", "bytes", "", "", "columns", "result", "", "notice", "close"};
	const weir_plugin *p = &weir_registered;
	weir_writer w = {weir_keep(WEIR_PAGE), 0, WEIR_PAGE};
	if (!w.p) return 0;
	weir_write(&w, "{\"abi\":1,\"name\":");
	weir_write_string(&w, p->name);
	weir_write(&w, ",\"version\":");
	weir_write_string(&w, p->version);
	weir_write(&w, p->mutates ? ",\"mutates\":true" : ",\"mutates\":false");
	if (p->on_error) {
		weir_write(&w, ",\"on_error\":");
		weir_write_string(&w, p->on_error);
	}
	if (p->connection) weir_write(&w, ",\"state\":\"connection\"");
	if (p->clock || p->kv) {
		weir_write(&w, ",\"needs\":{");
		if (p->clock) weir_write(&w, "\"clock\":true");
		if (p->kv) weir_write(&w, p->clock ? ",\"kv\":true" : "\"kv\":true");
		weir_write(&w, "}");
	}
	if (p->deadline_ms) {
		weir_write(&w, ",\"deadline_ms\":");
		weir_write_number(&w, p->deadline_ms);
	}
	if (p->memory_pages) {
		weir_write(&w, ",\"memory_pages\":");
		weir_write_number(&w, p->memory_pages);
	}
	if (p->schema) {
		weir_write(&w, ",\"config_schema\":");
		weir_write(&w, p->schema);
	}
	weir_write(&w, ",\"subscribe\":[");
	for (int i = 0; i < WEIR_MAX_LIST && p->subscribe[i].kinds; i++) {
		const weir_subscription *s = &p->subscribe[i];
		bool more = false;
		weir_write(&w, i ? ",{\"kinds\":[" : "{\"kinds\":[");
		for (int k = 1; k <= 11; k++)
			if (s->kinds >> k & 1) {
				if (more) weir_write(&w, ",");
				weir_write_string(&w, kinds[k]);
				more = true;
			}
		weir_write(&w, "]");
		weir_write_list(&w, ",\"protocols\":[", s->protocols);
		weir_write_list(&w, ",\"columns\":[", s->columns);
		weir_write(&w, "}");
	}
	weir_write(&w, "]");
	for (int i = 0; i < 32 && p->metrics[i].name; i++) {
		weir_write(&w, i ? ",{\"id\":" : ",\"metrics\":[{\"id\":");
		weir_write_number(&w, p->metrics[i].id);
		weir_write(&w, ",\"name\":");
		weir_write_string(&w, p->metrics[i].name);
		weir_write(&w, p->metrics[i].histogram ? ",\"kind\":\"histogram\"}" : ",\"kind\":\"counter\"}");
	}
	if (p->metrics[0].name) weir_write(&w, "]");
	weir_write(&w, "}");
	return (uint64_t)(uintptr_t)w.p << 32 | w.n;
}

static uint32_t weir_region, weir_region_size;

WEIR_EXPORT("weir_buffer") uint32_t weir_export_buffer(uint32_t least) {
	if (least <= weir_region_size) return weir_region;
	uint32_t pages = (uint32_t)(((uint64_t)least + WEIR_PAGE - 1) / WEIR_PAGE), end = __builtin_wasm_memory_size(0);
	if (weir_region && weir_region + weir_region_size == end * WEIR_PAGE) { /* nothing came behind it: it grows where it is */
		if (__builtin_wasm_memory_grow(0, pages - weir_region_size / WEIR_PAGE) == (size_t)-1) return 0;
	} else {
		size_t old = __builtin_wasm_memory_grow(0, pages);
		if (old == (size_t)-1) return 0;
		weir_region = old * WEIR_PAGE;
	}
	weir_region_size = pages * WEIR_PAGE;
	return weir_region;
}

/* Whether a piece of memory lies in the region. */
WEIR_INLINE bool weir_mine(uint32_t p, uint32_t n) {
	return weir_region && p >= weir_region && (uint64_t)(p - weir_region) + n <= weir_region_size;
}

WEIR_EXPORT("weir_configure") int32_t weir_export_configure(uint32_t p, uint32_t n) {
	if (!weir_mine(p, n)) return -1;
	const uint8_t *text = (const uint8_t *)(uintptr_t)p, *end = text + n;
	text = weir_json_space(text, end);
	while (end > text && weir_json_space(end - 1, end) == end) end--;
	if (weir_json_skip(text, end, 0) != end) {
		weir_log(WEIR_ERROR, "the configuration is no JSON");
		return -1;
	}
	return !weir_registered.configure || weir_registered.configure((weir_json){text, end}) ? 0 : -1;
}

WEIR_INLINE uint64_t weir_answer(int32_t verdict, uint32_t aux) { return (uint64_t)aux << 32 | (uint32_t)verdict; }

WEIR_INLINE bool weir_inside(const weir_frame *f, uint32_t at, uint64_t n) { return at + n <= f->total; }

/* Reads a frame in place. */
WEIR_INLINE bool weir_read(uint32_t p, uint32_t n, weir_event *e) {
	const weir_frame *f = (const weir_frame *)(uintptr_t)p;
	if (!weir_mine(p, n) || n < sizeof *f || f->magic != 0x31494557 || f->length < sizeof *f || f->total != n || f->kind > 11 ||
	    !(WEIR_EVERYTHING >> f->kind & 1) || f->attributes_at > f->cells_at || f->attributes_at < f->length || !weir_inside(f, f->cells_at, 8ull * f->cells) ||
	    f->cells_at % 4 || !weir_inside(f, f->data_at, f->data_length) || !weir_inside(f, f->out_at, f->out_length) ||
	    (1u << f->kind == WEIR_ROWS && (uint64_t)f->rows * f->columns != f->cells)) {
		weir_log(WEIR_ERROR, "the frame cannot be read");
		return false;
	}
	uint8_t *b = (uint8_t *)(uintptr_t)p;
	*e = (weir_event){
		.kind = 1u << f->kind,
		.session = f->session,
		.rows = f->rows,
		.columns = f->columns,
		.cells = f->cells,
		.editable = f->flags & 1,
		.head = f,
		.table = (const weir_cell_entry *)(b + f->cells_at),
		.data = b + f->data_at,
		.data_length = f->data_length,
		.out = b + f->out_at,
		.out_length = f->out_length,
	};
	return true;
}

WEIR_EXPORT("weir_open") int32_t weir_export_open(uint32_t p, uint32_t n) {
	weir_event e;
	if (!weir_read(p, n, &e)) return -1;
	bool good = !weir_registered.begin || weir_registered.begin(&e);
	if (e.failure) weir_log(WEIR_ERROR, e.failure);
	return good && !e.failure ? 0 : -1;
}

WEIR_EXPORT("weir_close") void weir_export_close(uint64_t session) {
	if (weir_registered.end) weir_registered.end(session);
}

WEIR_EXPORT("weir_on_batch") uint64_t weir_export_on_batch(uint32_t p, uint32_t n) {
	weir_event e;
	if (!weir_read(p, n, &e)) return weir_answer(WEIR_FAILED, 0);
	const weir_plugin *plugin = &weir_registered;
	void (*handler)(weir_event *) = 0;
	switch (e.kind) {
	case WEIR_OPEN: handler = plugin->on_open; break;
	case WEIR_COMMAND: handler = plugin->on_command; break;
	case WEIR_ROWS: handler = plugin->on_rows; break;
	case WEIR_BYTES: handler = plugin->on_bytes; break;
	case WEIR_COLUMNS: handler = plugin->on_columns; break;
	case WEIR_RESULT:
	case WEIR_NOTICE: handler = plugin->on_result; break;
	case WEIR_CLOSE: handler = plugin->on_close; break;
	}
	if (handler) handler(&e);
	if (e.failure) {
		weir_log(WEIR_ERROR, e.failure);
		return weir_answer(WEIR_FAILED, 0);
	}
	if (e.verdict == WEIR_MORE_ROOM) return weir_answer(WEIR_MORE_ROOM, 0);
	if (e.verdict) return weir_answer(e.verdict, e.used);
	if (e.changed) return weir_answer(WEIR_MODIFIED, e.changed < e.cells ? e.changed : e.cells);
	return weir_answer(WEIR_PASSED, 0);
}

#endif
