// Events, and what a plugin may say of them.
import { isKind, Kind } from "./manifest";

const HEADER: u32 = 72;
const MAGIC = 0x31494557;
const IS_NULL: u32 = 0xffffffff;
const ONES: u64 = 0x0101010101010101;

/** @internal */
export const PASS = 0, MODIFIED = 1, PATCH = 2, DENY = 3, HOLD = 4, FAILED = -1, MORE_ROOM = -2;

/** One event. It ends with the handler. */
@final
export class Event {
  kind: Kind = Kind.Open;
  /** The same number for all events of one session. */
  session: u64 = 0;
  rows: i32 = 0;
  /** Cells in a row. */
  width: i32 = 0;
  /** How many values it has: the text and the parameters of a command, the texts of a result, the cells of rows. */
  cells: i32 = 0;
  /** Whether values may be changed. */
  editable: bool = false;
  private count: i32 = 0;
  private attributesAt: usize = 0;
  private attributesEnd: usize = 0;
  /** @internal */
  table: usize = 0;
  /** @internal */
  data: usize = 0;
  /** @internal */
  dataLength: u32 = 0;
  private out: usize = 0;
  private room: u32 = 0;
  private used: u32 = 0;
  private next: i32 = 0;
  private changed: i32 = 0;
  private verdict: i32 = PASS;
  /** @internal */
  failure: string | null = null;

  /** @internal Reads a frame in place. */
  parse(at: usize, n: u32): bool {
    if (n < HEADER || load<u32>(at) != MAGIC || load<u32>(at, 8) != n) return false;
    const header = <u32>load<u16>(at, 4), attributes = load<u32>(at, 40), table = load<u32>(at, 44), cells = load<u32>(at, 48);
    const data = load<u32>(at, 52), dataLength = load<u32>(at, 56), out = load<u32>(at, 60), room = load<u32>(at, 64);
    if (header < HEADER || attributes < header || table < attributes || !isKind(load<u16>(at, 6))) return false;
    if (<u64>table + 8 * <u64>cells > n || <u64>data + dataLength > n || <u64>out + room > n) return false;
    this.kind = load<u16>(at, 6);
    this.editable = (load<u32>(at, 12) & 1) != 0;
    this.session = load<u64>(at, 16);
    this.rows = load<u32>(at, 32);
    this.width = load<u16>(at, 36);
    this.count = load<u16>(at, 38);
    this.cells = cells;
    this.attributesAt = at + attributes;
    this.attributesEnd = at + table;
    this.table = at + table;
    this.data = at + data;
    this.dataLength = dataLength;
    this.out = at + out;
    this.room = room;
    this.used = 0;
    this.next = 0;
    this.changed = 0;
    this.verdict = PASS;
    this.failure = null;
    return this.kind != Kind.Rows || <u64>load<u32>(at, 32) * this.width == cells;
  }

  /** Says that the plugin cannot judge the event: it is refused, unless the operator said on_error: pass. */
  fail(why: string): void {
    if (this.failure === null) this.failure = why;
  }

  /** The values, row by row: for (const v = e.values(); v.next();) … */
  values(): Values {
    return new Values(this);
  }

  /** A value as a text, in UTF-8; null for NULL. */
  text(cell: i32): string | null {
    const n = this.lengthOf(cell);
    return n < 0 ? null : String.UTF8.decodeUnsafe(this.pointerTo(cell), n);
  }

  /** Gives a value other bytes, in place where their number stays. Go from the first cell to the last. */
  set(cell: i32, text: string): void {
    const b = String.UTF8.encode(text);
    this.setUnsafe(cell, changetype<usize>(b), b.byteLength);
  }

  /** The same from bytes. */
  setBytes(cell: i32, b: Uint8Array): void {
    this.setUnsafe(cell, b.dataStart, b.byteLength);
  }

  /** Makes a value NULL; only those of rows can be. Go from the first cell to the last. */
  setNull(cell: i32): void {
    this.patch(cell, 0, 0, IS_NULL);
  }

  /** Counts a value that was changed in place. */
  // @ts-ignore: decorator
  @inline
  touch(): void {
    if (this.editable) this.changed++;
    else this.fail("values of this event cannot be changed");
  }

  /** Where a value's bytes are. Ask for its length before: what lies outside of the frame has none. */
  // @ts-ignore: decorator
  @inline
  pointerTo(cell: i32): usize {
    return this.data + load<u32>(this.table + (<usize>cell << 3));
  }

  /** How many bytes a value has; -1 for NULL. */
  // @ts-ignore: decorator
  @inline
  lengthOf(cell: i32): i32 {
    if (<u32>cell >= <u32>this.cells) return -1;
    const entry = load<u64>(this.table + (<usize>cell << 3)), n = <u32>(entry >> 32);
    if (n == IS_NULL) return -1;
    if (<u64>(<u32>entry) + n <= this.dataLength) return n;
    this.failOutside();
    return -1;
  }

  /** @internal */
  failOutside(): void {
    this.fail("a cell lies outside of the data");
  }

  private setUnsafe(cell: i32, at: usize, n: u32): void {
    if (this.editable && this.lengthOf(cell) == n) {
      memory.copy(this.pointerTo(cell), at, n);
      this.changed++;
    } else this.patch(cell, at, n, n);
  }

  private patch(cell: i32, at: usize, n: u32, length: u32): void {
    if (!this.editable || <u32>cell >= <u32>this.cells || cell < this.next) {
      return this.fail("patches must be of cells that may be changed, in their order, one each");
    }
    if (this.verdict > PATCH) return; // it is refused anyhow
    const end = <u64>this.used + 8 + ((<u64>n + 3) & ~3);
    if (this.verdict == MORE_ROOM || end > this.room) {
      this.verdict = MORE_ROOM;
      return;
    }
    const to = this.out + this.used;
    store<u32>(to, cell);
    store<u32>(to, length, 4);
    memory.copy(to + 8, at, n);
    this.used = <u32>end;
    this.next = cell + 1;
    this.verdict = PATCH;
  }

  /**
   * Refuses the event. The texts go to the client: rule is short, reason says why, hint what to do instead. None may hold
   * what has to be hidden.
   */
  deny(rule: string, reason: string, hint: string): void {
    this.say(DENY, rule, reason, hint);
  }

  /** Asks for an approval of a command, by one of approvers. */
  hold(rule: string, reason: string, approvers: string[]): void {
    this.say(HOLD, rule, reason, approvers.join(","));
  }

  private say(verdict: i32, a: string, b: string, c: string): void {
    if (this.verdict == DENY) return; // the first denial stays
    const x = <u32>String.UTF8.byteLength(a), y = <u32>String.UTF8.byteLength(b), z = <u32>String.UTF8.byteLength(c);
    if (<u64>x + y + z + 2 > this.room) {
      this.verdict = MORE_ROOM;
      return;
    }
    String.UTF8.encodeUnsafe(changetype<usize>(a), a.length, this.out);
    store<u8>(this.out + x, 0);
    String.UTF8.encodeUnsafe(changetype<usize>(b), b.length, this.out + x + 1);
    store<u8>(this.out + x + 1 + y, 0);
    String.UTF8.encodeUnsafe(changetype<usize>(c), c.length, this.out + x + y + 2);
    this.used = x + y + z + 2;
    this.verdict = verdict;
  }

  /** Whether the answer had no room: the same event comes again with more, so that what was counted would count twice. */
  get comesAgain(): bool {
    return this.verdict == MORE_ROOM;
  }

  /** @internal */
  answer(): u64 {
    if (this.verdict == PASS && this.changed > 0) return pack(MODIFIED, min(this.changed, this.cells));
    return pack(this.verdict, this.verdict > MODIFIED ? this.used : 0);
  }

  // ---- what it is about

  /** Finds the next attribute of an id behind the one at a place; 0 where there is none. Its text is 4 bytes further. */
  private find(id: u32, behind: usize): usize {
    let at = this.attributesAt;
    for (let left = this.count; left > 0; left--) {
      if (at + 4 > this.attributesEnd || at + 4 + load<u16>(at, 2) > this.attributesEnd) {
        this.fail("the attributes are cut off");
        return 0;
      }
      if (at > behind && load<u16>(at) == id) return at;
      at += 4 + ((<usize>load<u16>(at, 2) + 3) & ~3);
    }
    return 0;
  }

  /** The first attribute of an id, as sdk/ABI.md has them; empty where there is none. */
  attribute(id: u32): string {
    const at = this.find(id, 0);
    return at ? String.UTF8.decodeUnsafe(at + 4, load<u16>(at, 2)) : "";
  }

  /** All attributes of an id. */
  attributes(id: u32): string[] {
    const all: string[] = [];
    for (let at = this.find(id, 0); at; at = this.find(id, at)) all.push(String.UTF8.decodeUnsafe(at + 4, load<u16>(at, 2)));
    return all;
  }

  private has(id: u32, text: string): bool {
    const n = text.length;
    for (let at = this.find(id, 0); at; at = this.find(id, at)) {
      let i = load<u16>(at, 2) == n ? 0 : -1;
      while (i >= 0 && i < n) i = load<u8>(at + 4 + i) == text.charCodeAt(i) ? i + 1 : -1;
      if (i == n) return true;
    }
    return false;
  }

  get protocol(): string { return this.attribute(1); }
  get target(): string { return this.attribute(2); }
  /** Who the session belongs to. */
  get subject(): string { return this.attribute(3); }
  get groups(): string[] { return this.attributes(4); }
  /** human, service or agent. */
  get identityKind(): string { return this.attribute(5); }
  /** client, upstream or gateway. */
  get direction(): string { return this.attribute(6); }
  /** prepare or execute. */
  get stage(): string { return this.attribute(7); }
  /** What a command does, in the protocol's word. */
  get action(): string { return this.attribute(16); }
  /** The same for commands that differ in their literals only. */
  get fingerprint(): string { return this.attribute(17); }
  /** What a command may do to the target. */
  get effects(): string[] { return this.attributes(18); }
  /** Whether every part of a command that changes or removes rows says which. */
  get where(): bool { return this.has(20, "1"); }
  /** Whether the command's facts can be relied on. */
  get known(): bool { return this.has(21, "known"); }

  /** Whether a command may do this to the target. */
  hasEffect(effect: string): bool {
    return this.has(18, effect);
  }

  /** What a command touches. */
  get resources(): Resource[] {
    const all: Resource[] = [], texts = this.attributes(19);
    for (let i = 0; i < texts.length; i++) {
      const p = texts[i].split("\0");
      all.push(new Resource(part(p, 0), part(p, 1), words(part(p, 2)), words(part(p, 3))));
    }
    return all;
  }

  /** The columns of an answer, or of the cells of rows. */
  get columns(): Column[] {
    const all: Column[] = [];
    for (let at = this.find(32, 0); at; at = this.find(32, at)) {
      const n = load<u16>(at, 2);
      if (n < 2) continue;
      const p = String.UTF8.decodeUnsafe(at + 6, n - 2).split("\0"), flags = load<u8>(at, 5);
      all.push(new Column(load<u8>(at, 4), (flags & 1) != 0, (flags & 2) != 0, part(p, 0), part(p, 1), part(p, 2), part(p, 3)));
    }
    return all;
  }
}

/** @internal */
export function pack(verdict: i32, aux: u32): u64 {
  return (<u64>aux << 32) | <u64>(<u32>verdict);
}

function part(p: string[], i: i32): string {
  return i < p.length ? p[i] : "";
}

function words(list: string): string[] {
  return list.length ? list.split(",") : [];
}

/** The values of an event, one after the other. */
@final
export class Values {
  /** In which row and column it is. */
  row: i32 = 0;
  column: i32 = -1;
  /** How many bytes it has; -1 for NULL. */
  length: i32 = -1;
  /** Where its bytes are, for loops that have to be fast; what is changed there needs a touch(). */
  pointer: usize = 0;

  private at: usize;
  private end: usize;
  private data: usize;
  private dataLength: u64;
  private width: i32;

  constructor(private e: Event) {
    this.at = e.table;
    this.end = e.table + (<usize>e.cells << 3);
    this.data = e.data;
    this.dataLength = e.dataLength;
    this.width = e.width;
  }

  /** Goes to the next value; false behind the last. */
  // @ts-ignore: decorator
  @inline
  next(): bool {
    if (this.at == this.end) return false;
    if (++this.column >= this.width) {
      this.column = 0;
      this.row++;
    }
    const entry = load<u64>(this.at);
    this.at += 8;
    const n = <u32>(entry >> 32), from = <u32>entry;
    this.pointer = this.data + from;
    this.length = n;
    if (<u64>from + n > this.dataLength) {
      if (n != IS_NULL) this.e.failOutside();
      this.length = -1;
    }
    return true;
  }

  /** Which value it is. */
  get cell(): i32 {
    return <i32>((this.at - this.e.table) >> 3) - 1;
  }

  get isNull(): bool {
    return this.length < 0;
  }

  /** The value as a text. */
  get text(): string {
    return this.length > 0 ? String.UTF8.decodeUnsafe(this.pointer, this.length) : "";
  }

  /** A byte of the value. */
  // @ts-ignore: decorator
  @operator("[]") @inline
  get(i: i32): u8 {
    if (i < 0 || i >= this.length) throw new RangeError("there is no such byte in the value");
    return load<u8>(this.pointer + i);
  }

  /** Changes a byte in place. */
  // @ts-ignore: decorator
  @operator("[]=")
  put(i: i32, c: u8): void {
    if (i < 0 || i >= this.length) throw new RangeError("there is no such byte in the value");
    if (this.touch()) store<u8>(this.pointer + i, c);
  }

  /** Whether a byte is in the value. */
  // @ts-ignore: decorator
  @inline
  has(c: u8): bool {
    return this.length > 0 && has(this.pointer, this.length, c);
  }

  /** Writes c over the bytes from begin up to end. */
  // @ts-ignore: decorator
  @inline
  fill(c: u8, begin: i32 = 0, end: i32 = this.length): void {
    if (begin < 0 || begin > end || end > this.length) throw new RangeError("there are no such bytes in the value");
    if (this.touch()) fill(this.pointer + begin, c, end - begin);
  }

  /** Gives it another text, in place where the number of bytes stays. */
  set(text: string): void {
    this.e.set(this.cell, text);
  }

  /** Makes it NULL. */
  setNull(): void {
    this.e.setNull(this.cell);
  }

  /** Says that its bytes were changed in place; whether they may be. */
  // @ts-ignore: decorator
  @inline
  touch(): bool {
    this.e.touch();
    return this.e.editable;
  }
}

/** Whether a byte is among n: eight at a time, and the last eight once more. A difference of zero is told by its borrow. */
// @ts-ignore: decorator
@inline
function has(at: usize, n: usize, c: u8): bool {
  const all = ONES * <u64>c;
  if (n < 4) return load<u8>(at) == c || load<u8>(at + (n >> 1)) == c || load<u8>(at + n - 1) == c;
  let x: u64;
  if (n < 8) x = <u64>load<u32>(at) | (<u64>load<u32>(at + n - 4) << 32);
  else {
    const last = at + n - 8;
    for (; at < last; at += 8) {
      x = load<u64>(at) ^ all;
      if ((x - ONES) & ~x & (ONES << 7)) return true;
    }
    x = load<u64>(last);
  }
  x ^= all;
  return ((x - ONES) & ~x & (ONES << 7)) != 0;
}

/** Writes c over n bytes: values are short, for which memory.fill takes longer. */
// @ts-ignore: decorator
@inline
function fill(at: usize, c: u8, n: usize): void {
  const wide = ONES * <u64>c;
  if (n >= 8) {
    const last = at + n - 8;
    for (; at < last; at += 8) store<u64>(at, wide);
    store<u64>(last, wide); // the last eight once more rather than one by one
  } else if (n >= 4) {
    store<u32>(at, <u32>wide);
    store<u32>(at + n - 4, <u32>wide);
  } else if (n) {
    store<u8>(at, c);
    store<u8>(at + (n >> 1), c);
    store<u8>(at + n - 1, c);
  }
}

/** Something that a command touches. */
export class Resource {
  constructor(public kind: string, public name: string, public uses: string[], public columns: string[]) {}
}

/** What a column's type means. */
export enum Class {
  /** An enum, a domain, a type of an extension. */
  Unknown,
  Text,
  Json,
  Number,
  Bool,
  Time,
  Uuid,
  Bytes,
  Array,
  Other,
}

/** One column; binary: its cells are in the type's binary format; text: they may hold free text. */
export class Column {
  constructor(
    public cls: Class, public binary: bool, public text: bool,
    public name: string, public type: string, public table: string, public column: string,
  ) {}
}
