//! block refuses commands that may do what the configuration names: {"effects": ["ddl", "privilege"]}. A command whose
//! facts cannot be relied on is refused as well.
#![no_std]
use weir::{json::Value, Event, Kind, Manifest, Plugin, Subscription};

const KNOWN: [&str; 10] = ["read", "write", "ddl", "privilege", "session", "file", "process", "network", "admin", "unknown"];
const RULE: &str = "block-effect";

struct Block([bool; 10]);

impl Plugin for Block {
    const MANIFEST: Manifest = Manifest {
        name: "block",
        version: "1.0.0",
        subscribe: &[Subscription { kinds: &[Kind::Command], ..Subscription::NONE }],
        schema: r#"{"type":"object","required":["effects"],"properties":{"effects":{"type":"array","minItems":1,"items":{"type":"string"}}}}"#,
        ..Manifest::DEFAULT
    };

    fn configure(config: Value<'_>) -> Result<Self, &'static str> {
        const NONE: &str = "effects must be a list of at least one effect";
        let mut blocked = [false; 10];
        if config.fields().ok_or(NONE)?.any(|(name, _)| !name.equals("effects")) {
            return Err("the only setting is effects");
        }
        for x in config.get("effects").and_then(|v| v.items()).ok_or(NONE)? {
            let k = KNOWN.iter().position(|k| x.equals(k));
            blocked[k.ok_or("effects: known are read, write, ddl, privilege, session, file, process, network, admin, unknown")?] = true;
        }
        if blocked.contains(&true) {
            Ok(Block(blocked))
        } else {
            Err(NONE)
        }
    }

    fn on_command(&mut self, e: &mut Event<'_>) {
        if !e.known() {
            return e.deny(RULE, "what this command does is not known", "write it in a simpler way");
        }
        for effect in e.effects() {
            if KNOWN.iter().position(|k| k.as_bytes() == effect).map_or(true, |k| self.0[k]) {
                let name = core::str::from_utf8(effect).unwrap_or("?");
                return e.deny_with(RULE, &["commands with this effect are refused: ", name], "leave that part out, or ask who runs this gateway");
            }
        }
    }
}

weir::plugin!(Block);
weir::no_std!();
