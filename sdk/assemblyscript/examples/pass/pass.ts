// pass sees everything and does nothing: what is left is the price of a call.
import { Kind, Manifest, Plugin, register } from "../../assembly";
export * from "../../assembly/exports";

class Pass extends Plugin {
  manifest(): Manifest {
    const all = [Kind.Open, Kind.Command, Kind.Columns, Kind.Rows, Kind.Bytes, Kind.Result, Kind.Notice, Kind.Close];
    return new Manifest("pass", "1.0.0").subscribe(all, ["*"]);
  }
}

register(new Pass());
