// A plugin: what it says of itself, its configuration, and one handler for each kind of event.
import { Event } from "./event";
import { Value } from "./json";
import { Manifest } from "./manifest";

export abstract class Plugin {
  abstract manifest(): Manifest;

  /** Takes the configuration, once in each instance. A text refuses to start, and says why; null accepts. */
  configure(config: Value): string | null {
    return null;
  }

  /** Of a plugin whose manifest says connection: a session begins, before its first event. A text refuses it, and says why. */
  begin(e: Event): string | null {
    return null;
  }
  /** The session of this instance is over. */
  end(session: u64): void {}
  /** A client asks for a session. */
  onOpen(e: Event): void {}
  /** A client wants something done. */
  onCommand(e: Event): void {}
  /** The shape of an answer. */
  onColumns(e: Event): void {}
  /** A batch of rows. */
  onRows(e: Event): void {}
  /** A piece of a stream. */
  onBytes(e: Event): void {}
  /** How a command ended, or a notice. */
  onResult(e: Event): void {}
  /** The session is over. */
  onClose(e: Event): void {}
}

let registered: Plugin | null = null;

/** Makes p the plugin of this module. Call it once, where the module begins. */
export function register(p: Plugin): void {
  registered = p;
}

/** @internal */
export function present(): Plugin | null {
  return registered;
}
