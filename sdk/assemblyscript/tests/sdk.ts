import { Event, Kind, kvGet, kvIncr, kvPut, kvRemove, Manifest, parse, Value } from "../assembly";

function read(text: string): Value | null {
  const b = String.UTF8.encode(text);
  return parse(changetype<usize>(b), b.byteLength);
}

export function test_reads_what_is_JSON(): void {
  const v = read(' {"a": [1, -2, true, null, "\\ud83d\\ude00\\n\\u00e9", {}, 2.5e3], "b": {"c": "x"}, "\\u0064": false, "a\\"": 1} ')!;
  assert(v.isObject() && v.fields().join() == 'a,b,d,a"');
  const a = v.get("a")!.items()!;
  assert(a.length == 7 && a[0].int() == 1 && a[1].int() == -2 && a[2].isTrue() && a[3].isNull() && a[4].equals("😀\né"));
  assert(a[5].isObject() && !a[6].isInt() && a[6].int() == 0 && a[0].text() === null && a[4].text()! == "😀\né");
  assert(v.get("b")!.get("c")!.equals("x") && v.get("d")!.isFlag() && !v.get("d")!.isTrue() && v.get("e") === null);
  assert(read('{"a":1,"a":2}')!.get("a")!.int() == 2 && read("[1]")!.get("a") === null);
}

export function test_reads_nothing_else(): void {
  const bad = ["", "{", "[1,]", '{"a"}', '{"a":1,}', "tru", '"', '"\\x"', '"\\u12"', "1 2", "-", "[1 2]", '"\n"', "{1:2}", '{"a" 1}', "[".repeat(100)];
  for (let i = 0; i < bad.length; i++) assert(read(bad[i]) === null, bad[i]);
}

export function test_writes_a_manifest(): void {
  const m = new Manifest('a"\n', "1").subscribe([Kind.Rows, Kind.Notice], ["type:text"], ["postgres"]).counter(1, "x").histogram(2, "y");
  m.mutates = true;
  m.clock = true;
  m.kv = true;
  m.connection = true;
  m.deadlineMs = 7;
  m.memoryPages = 9;
  m.schema = "{}";
  const want =
    '{"abi":1,"name":"a\\"\\u000a","version":"1","mutates":true,"on_error":"deny","state":"connection","needs":{"clock":true,"kv":true},"deadline_ms":7,"memory_pages":9,' +
    '"config_schema":{},"subscribe":[{"kinds":["rows","notice"],"columns":["type:text"],"protocols":["postgres"]}],' +
    '"metrics":[{"id":1,"name":"x","kind":"counter"},{"id":2,"name":"y","kind":"histogram"}]}';
  assert(m.json() == want, m.json());
}

// A frame of one row, with room bytes for the answer.
function frame(cells: string[], room: i32): StaticArray<u8> {
  let n = 0;
  for (let i = 0; i < cells.length; i++) n += String.UTF8.byteLength(cells[i]);
  const data = 72 + 8 * cells.length, out = data + n;
  const b = new StaticArray<u8>(out + room), at = changetype<usize>(b);
  store<u32>(at, 0x31494557);
  store<u16>(at, 72, 4);
  store<u16>(at, 3, 6);
  store<u32>(at, b.length, 8);
  store<u32>(at, 1, 12);
  store<u32>(at, 1, 32);
  store<u16>(at, cells.length, 36);
  store<u32>(at, 72, 40);
  store<u32>(at, 72, 44);
  store<u32>(at, cells.length, 48);
  store<u32>(at, data, 52);
  store<u32>(at, n, 56);
  store<u32>(at, out, 60);
  store<u32>(at, room, 64);
  for (let i = 0, k = 0; i < cells.length; i++) {
    const m = <i32>String.UTF8.byteLength(cells[i]);
    store<u32>(at + 72 + 8 * i, k);
    store<u32>(at + 76 + 8 * i, m);
    String.UTF8.encodeUnsafe(changetype<usize>(cells[i]), cells[i].length, at + data + k);
    k += m;
  }
  return b;
}

export function test_changes_values(): void {
  const b = frame(["abc", "defghijklmno", "x"], 64), e = new Event();
  assert(e.parse(changetype<usize>(b), b.length));
  e.set(0, "ABC");
  assert(e.answer() == (1 << 32 | 1) && e.text(0)! == "ABC");
  for (const v = e.values(); v.next();)
    if (v.column == 1) {
      v.fill(0x2a, 2);
      v[0] = v[1];
      assert(v.text == "ee**********" && v.row == 0 && v.cell == 1);
    }
  e.set(1, "longer than before");
  e.setNull(2);
  assert(e.answer() == (36 as u64) << 32 | 2);
  e.deny("r", "é", "h");
  e.deny("other", "", "");
  assert(e.answer() == (6 as u64) << 32 | 3);
  assert(e.text(7) === null && e.text(-1) === null);
}

export function test_shares_keys(): void {
  const v = new Uint8Array(300);
  v[299] = 7;
  assert(kvGet("a") === null && kvPut("a", v));
  assert(kvGet("a")!.length == 300 && kvGet("a")![299] == 7);
  assert(kvIncr("a", 1) == i64.MIN_VALUE);
  kvRemove("a");
  assert(kvGet("a") === null && kvIncr("a", 5) == 5 && kvIncr("a", -7, 1000) == -2);
}

export function test_asks_for_more_room(): void {
  const b = frame(["abc"], 8), e = new Event();
  assert(e.parse(changetype<usize>(b), b.length));
  e.set(0, "four");
  assert(e.comesAgain && <i32>e.answer() == -2);
  assert(e.parse(changetype<usize>(b), b.length) && !e.comesAgain);
  e.hold("rule", "reason", ["a", "b"]);
  assert(e.comesAgain && e.failure === null);
}

export function test_patches_go_from_first_to_last(): void {
  const b = frame(["abc", "d"], 64), e = new Event();
  assert(e.parse(changetype<usize>(b), b.length));
  e.setNull(1);
  e.setNull(0);
  assert(e.failure !== null);
}
