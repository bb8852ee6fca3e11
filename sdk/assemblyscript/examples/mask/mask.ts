// mask puts stars over the values of text columns, in place. The first character stays, and the domain of an e-mail
// address. What cannot be read with stars in it (JSON, an array, a binary form of something else) becomes NULL. Which
// columns, the operator says in the gateway's configuration.
import { Class, count, Event, Kind, Manifest, Plugin, register, Value, Values } from "../../assembly";
export * from "../../assembly/exports";

const MASKED = 1;
const STAR: u8 = 0x2a, AT: u8 = 0x40;

class Mask extends Plugin {
  manifest(): Manifest {
    const m = new Manifest("mask", "1.0.0").subscribe([Kind.Rows], ["type:text"]).counter(MASKED, "masked");
    m.mutates = true;
    return m;
  }

  configure(config: Value): string | null {
    return config.isObject() && !config.fields().length ? null : "mask takes no configuration: name the columns in the gateway's";
  }

  onRows(e: Event): void {
    const columns = e.columns, nulled = new StaticArray<bool>(columns.length);
    for (let i = 0; i < columns.length; i++) {
      const c = columns[i];
      nulled[i] = c.cls == Class.Json || c.cls == Class.Array || (c.binary && c.cls != Class.Text);
    }
    if (columns.length != e.width) return e.fail("the columns are not described");
    let masked = 0;
    for (const v = e.values(); v.next();) {
      if (v.isNull) continue;
      if (nulled[v.column]) v.setNull();
      else if (v.length) mask(v);
      else continue;
      masked++;
    }
    if (masked && !e.comesAgain) count(MASKED, masked);
  }
}

// @ts-ignore: decorator
@inline
function mask(v: Values): void {
  const end = v.has(AT) ? atSign(v.pointer, v.length) || v.length : v.length;
  let keep = 1;
  if (v[0] >= 0xc0) while (keep < end && (v[keep] & 0xc0) == 0x80) keep++; // the first character is of several bytes
  v.fill(STAR, keep < end ? keep : 0, end); // where there is no more than it, it would tell all
}

/** Where the '@' of an e-mail address is, or 0: no space anywhere, a domain with a point after it. */
function atSign(p: usize, n: i32): i32 {
  let at = 0, point = 0;
  for (let c: u32; (c = load<u8>(p + at)) != AT; at++) if (c <= 0x20) return 0; // there is one
  for (let i = at + 1; i < n; i++) {
    const c: u32 = load<u8>(p + i);
    if ((c | 0x20) - 0x61 < 26) continue; // most are letters
    if (c == 0x2e) point = i;
    else if (c - 0x30 >= 10 && c != 0x2d) return 0;
  }
  return point > at + 1 && point + 1 < n ? at : 0;
}

register(new Mask());
