// What the host offers.

// @ts-ignore: decorator
@external("weir_v1", "log")
declare function hostLog(level: i32, at: usize, n: i32): void;
// @ts-ignore: decorator
@external("weir_v1", "emit")
declare function hostEmit(at: usize, n: i32): void;
// @ts-ignore: decorator
@external("weir_v1", "metric_add")
declare function hostMetricAdd(id: i32, delta: i64): void;
// @ts-ignore: decorator
@external("weir_v1", "metric_observe")
declare function hostMetricObserve(id: i32, x: f64): void;
// @ts-ignore: decorator
@external("weir_v1", "now_ns")
declare function hostNow(): i64;

// @ts-ignore: decorator
@external("weir_v1", "kv_get")
declare function hostKvGet(key: usize, n: i32, out: usize, room: i32): i32;
// @ts-ignore: decorator
@external("weir_v1", "kv_put")
declare function hostKvPut(key: usize, n: i32, value: usize, m: i32, ttlMs: i64): i32;
// @ts-ignore: decorator
@external("weir_v1", "kv_incr")
declare function hostKvIncr(key: usize, n: i32, delta: i64, ttlMs: i64): i64;

/** How much a line of the log matters. */
export enum Level {
  Debug,
  Info,
  Warn,
  Error,
}

/** Writes a line to the gateway's log: at most 32 lines and 8 KiB a call. It must not hold values. */
export function log(level: Level, text: string): void {
  const b = String.UTF8.encode(text);
  hostLog(level, changetype<usize>(b), b.byteLength);
}

/** The bytes of one finding; the host reads no more. */
const FINDING = 256;

/**
 * Adds a finding to the record of the present event: what was found, and more about it in words. What is over 256 bytes is
 * cut off. It must not hold the value itself.
 */
export function found(what: string, more: string): void {
  const a = String.UTF8.encode(what), b = String.UTF8.encode(more);
  const text = new StaticArray<u8>(FINDING), at = changetype<usize>(text);
  const n = min(a.byteLength, FINDING / 2), m = min(b.byteLength, FINDING - 1 - n);
  memory.copy(at, changetype<usize>(a), n);
  memory.copy(at + n + 1, changetype<usize>(b), m);
  hostEmit(at, n + 1 + m);
}

/** Adds to a counter of the plugin's own. */
export function count(id: i32, delta: i64): void {
  hostMetricAdd(id, delta);
}

/** Adds an observation to a histogram of the plugin's own. */
export function observe(id: i32, x: f64): void {
  hostMetricObserve(id, x);
}

/** The time in nanoseconds since 1970, or 0 where the plugin did not ask for the clock. */
export function now(): i64 {
  return hostNow();
}

/** The value of a key that the plugin's instances share; null where there is none. For plugins whose manifest says kv. */
export function kvGet(key: string): Uint8Array | null {
  const k = String.UTF8.encode(key);
  let out = new Uint8Array(256), n = hostKvGet(changetype<usize>(k), k.byteLength, out.dataStart, out.length);
  while (n > out.length) {
    out = new Uint8Array(n);
    n = hostKvGet(changetype<usize>(k), k.byteLength, out.dataStart, out.length);
  }
  return n < 0 ? null : out.subarray(0, n);
}

/** Sets a key for ttlMs milliseconds, or for good with 0. False: there was no room. */
export function kvPut(key: string, value: Uint8Array, ttlMs: i64 = 0): bool {
  const k = String.UTF8.encode(key);
  return hostKvPut(changetype<usize>(k), k.byteLength, value.dataStart, value.length, ttlMs) == 0;
}

/** Removes a key. */
export function kvRemove(key: string): void {
  const k = String.UTF8.encode(key);
  hostKvPut(changetype<usize>(k), k.byteLength, 0, -1, 0);
}

/**
 * Adds to a counter, which is made at 0 and lasts ttlMs milliseconds from then, or for good with 0, and returns what it is now;
 * i64.MIN_VALUE: there was no room, or the value is no counter.
 */
export function kvIncr(key: string, delta: i64, ttlMs: i64 = 0): i64 {
  const k = String.UTF8.encode(key);
  return hostKvIncr(changetype<usize>(k), k.byteLength, delta, ttlMs);
}

/** @internal What an exception or a failed assertion does: it says where, and traps, so that the host refuses the event. */
export function weirAbort(message: string | null, file: string | null, line: u32, column: u32): void {
  const what = message === null ? "abort" : message, where = file === null ? "?" : file;
  log(Level.Error, what + " at " + where + ":" + line.toString() + ":" + column.toString());
  unreachable();
}
