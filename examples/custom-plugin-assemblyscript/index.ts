// Guard leaves the last characters of each value that it sees, and refuses statements that change every row of a table.
//
//	config: {keep: 4}   # how many characters stay
import { Class, count, Event, Kind, Manifest, Plugin, register, Value, Values } from "./weir";
export * from "./weir/exports";

const MASKED = 1; // the metric
const STAR: u8 = 0x2a;

class Guard extends Plugin {
  private keep: i32 = 4;

  manifest(): Manifest {
    const m = new Manifest("guard", "1.0.0").counter(MASKED, "masked");
    m.mutates = true;
    m.schema =
      '{"type":"object","additionalProperties":false,"properties":{"keep":{"type":"integer","minimum":0,"maximum":64}}}';
    m.subscribe([Kind.Command]);
    return m.subscribe([Kind.Rows], ["type:text"]);
  }

  configure(config: Value): string | null {
    const fields = config.fields(), keep = config.get("keep");
    if (!config.isObject() || fields.length > (keep === null ? 0 : 1)) return "the only setting is keep";
    if (keep === null) return null;
    if (!keep.isInt() || keep.int() < 0 || keep.int() > 64) return "keep is a number from 0 to 64";
    this.keep = <i32>keep.int();
    return null;
  }

  onCommand(e: Event): void {
    if (e.hasEffect("write") && !e.where) {
      e.deny("guard-every-row", "this changes every row of a table", "add a WHERE that names the rows");
    }
  }

  onRows(e: Event): void {
    const columns = e.columns;
    if (columns.length != e.width) return e.fail("the columns are not described");
    let masked = 0;
    for (const v = e.values(); v.next();) {
      if (v.length <= 0) continue; // NULL, or nothing
      if (columns[v.column].cls == Class.Text) stars(v, this.keep);
      else v.setNull(); // JSON, an array: with stars in it nobody could read it
      masked++;
    }
    if (masked && !e.comesAgain) count(MASKED, masked);
  }
}

/** Puts stars over all of v but the last characters, and over all of it where there are no more. */
function stars(v: Values, keep: i32): void {
  let at = v.length, left = keep;
  while (at && left) if ((v[--at] & 0xc0) != 0x80) left--; // not within a character of UTF-8
  v.fill(STAR, 0, at ? at : v.length);
}

register(new Guard());
