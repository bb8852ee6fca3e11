// record adds a finding to the record for each thing that a command touches, and counts the rows that come back.
import { count, Event, found, Kind, Manifest, observe, Plugin, register } from "../../assembly";
export * from "../../assembly/exports";

const RESOURCES = 1, ROWS = 2;

class Record extends Plugin {
  manifest(): Manifest {
    const m = new Manifest("record", "1.0.0").subscribe([Kind.Command, Kind.Rows]);
    return m.counter(RESOURCES, "resources").histogram(ROWS, "batch_rows");
  }

  onCommand(e: Event): void {
    const all = e.resources;
    for (let i = 0; i < all.length; i++) found(all[i].kind, all[i].name + ": " + all[i].uses.join(","));
    if (all.length) count(RESOURCES, all.length);
  }

  onRows(e: Event): void {
    observe(ROWS, e.rows);
  }
}

register(new Record());
