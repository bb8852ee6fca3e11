// block refuses commands that may do what the configuration names: {"effects": ["ddl", "privilege"]}. A command whose facts
// cannot be relied on is refused as well.
import { Event, Kind, Manifest, Plugin, register, Value } from "../../assembly";
export * from "../../assembly/exports";

const KNOWN: string[] = ["read", "write", "ddl", "privilege", "session", "file", "process", "network", "admin", "unknown"];
const NONE = "effects must be a list of at least one effect";

class Block extends Plugin {
  private blocked: string[] = [];

  manifest(): Manifest {
    const m = new Manifest("block", "1.0.0").subscribe([Kind.Command]);
    m.schema =
      '{"type":"object","required":["effects"],"properties":{"effects":{"type":"array","minItems":1,"items":{"type":"string"}}}}';
    return m;
  }

  configure(config: Value): string | null {
    const fields = config.fields(), effects = config.get("effects");
    if (fields.length > 1 || (fields.length == 1 && effects === null)) return "the only setting is effects";
    if (effects === null) return NONE;
    const list = effects.items();
    if (list === null || !list.length) return NONE;
    for (let i = 0; i < list.length; i++) {
      const name = list[i].text();
      if (name === null || !KNOWN.includes(name)) return "effects: known are " + KNOWN.join(", ");
      this.blocked.push(name);
    }
    return null;
  }

  onCommand(e: Event): void {
    if (!e.known) return e.deny("block-effect", "what this command does is not known", "write it in a simpler way");
    const effects = e.effects;
    for (let i = 0; i < effects.length; i++) {
      const effect = effects[i];
      if (this.blocked.includes(effect) || !KNOWN.includes(effect)) {
        const reason = "commands with this effect are refused: " + effect;
        return e.deny("block-effect", reason, "leave that part out, or ask who runs this gateway");
      }
    }
  }
}

register(new Block());
