// The exports of the contract. A plugin's file says: export * from "./weir/exports";
import { Event, FAILED, pack } from "./event";
import { Level, log } from "./host";
import { parse } from "./json";
import { Kind } from "./manifest";
import { present } from "./plugin";

const PAGE = 65536;

let described: ArrayBuffer = new ArrayBuffer(0);
let region: usize = 0;
let size: u32 = 0;
let calls: u32 = 0;
let pages: i32 = 0;
const event = new Event();

export function weir_abi_v1(): i32 {
  return 0;
}

export function weir_describe(): u64 {
  const p = present();
  if (p === null) return 0; // no manifest: the host says so
  described = String.UTF8.encode(p.manifest().json());
  return (<u64>changetype<usize>(described) << 32) | described.byteLength;
}

// The region lies beside the heap, in pages of its own: what the host writes into it is no object.
export function weir_buffer(least: u32): usize {
  if (least <= size) return region;
  const want = <i32>((<u64>least + PAGE - 1) / PAGE), end = memory.size();
  const grows = size > 0 && region + size == <usize>end * PAGE; // nothing came behind it
  if (memory.grow(grows ? want - <i32>(size / PAGE) : want) < 0) return 0;
  if (!grows) region = <usize>end * PAGE;
  size = want * PAGE;
  return region;
}

function mine(at: usize, n: u32): bool {
  return size > 0 && at >= region && <u64>(at - region) + n <= size;
}

function refuse(why: string): i32 {
  log(Level.Error, why);
  return -1;
}

export function weir_configure(at: usize, n: u32): i32 {
  const p = present(), v = mine(at, n) ? parse(at, n) : null;
  if (p === null) return refuse("the module registers no plugin");
  if (v === null) return refuse("the configuration is no JSON");
  const why = p.configure(v);
  return why === null ? 0 : refuse(why);
}

export function weir_open(at: usize, n: u32): i32 {
  const p = present();
  if (p === null || !mine(at, n) || !event.parse(at, n)) return refuse("the frame cannot be read");
  const why = p.begin(event), failure = event.failure;
  if (why !== null) return refuse(why);
  return failure === null ? 0 : refuse(failure);
}

export function weir_close(session: u64): void {
  const p = present();
  if (p !== null) p.end(session);
}

export function weir_on_batch(at: usize, n: u32): u64 {
  const p = present(), e = event;
  if (p === null || !mine(at, n) || !e.parse(at, n)) {
    log(Level.Error, "the frame cannot be read");
    return pack(FAILED, 0);
  }
  switch (e.kind) {
    case Kind.Open: p.onOpen(e); break;
    case Kind.Command: p.onCommand(e); break;
    case Kind.Rows: p.onRows(e); break;
    case Kind.Bytes: p.onBytes(e); break;
    case Kind.Columns: p.onColumns(e); break;
    case Kind.Result:
    case Kind.Notice: p.onResult(e); break;
    case Kind.Close: p.onClose(e); break;
  }
  const failure = e.failure;
  if (failure !== null) log(Level.Error, failure);
  const answer = failure === null ? e.answer() : pack(FAILED, 0);
  if (++calls % 16 == 0 || memory.size() > pages) { // the minimal runtime collects when it is told to: nothing but globals is in use here
    __collect();
    pages = memory.size();
  }
  return answer;
}
