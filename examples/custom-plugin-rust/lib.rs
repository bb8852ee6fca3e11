//! Guard leaves the last characters of each value that it sees, and refuses statements that change every row of a table.
//!
//! ```yaml
//! config: {keep: 4} # how many characters stay
//! ```
#![no_std]
use weir::{json::Value, Class, Event, Kind, Manifest, Metric, Plugin, Subscription};

const MASKED: u32 = 1; // the metric

struct Guard {
    keep: usize,
}

impl Plugin for Guard {
    const MANIFEST: Manifest = Manifest {
        name: "guard",
        version: "1.0.0",
        mutates: true,
        subscribe: &[
            Subscription { kinds: &[Kind::Command], ..Subscription::NONE },
            Subscription { kinds: &[Kind::Rows], columns: &["type:text"], ..Subscription::NONE },
        ],
        metrics: &[Metric::Counter(MASKED, "masked")],
        schema: r#"{"type":"object","additionalProperties":false,"properties":{"keep":{"type":"integer","minimum":0,"maximum":64}}}"#,
        ..Manifest::DEFAULT
    };

    fn configure(config: Value<'_>) -> Result<Self, &'static str> {
        const ONLY: &str = "the only setting is keep";
        if config.fields().ok_or(ONLY)?.any(|(name, _)| !name.equals("keep")) {
            return Err(ONLY);
        }
        match config.get("keep").map(|v| v.int()) {
            None => Ok(Guard { keep: 4 }),
            Some(Some(n)) if (0..=64).contains(&n) => Ok(Guard { keep: n as usize }),
            _ => Err("keep is a number from 0 to 64"),
        }
    }

    fn on_command(&mut self, e: &mut Event<'_>) {
        if !e.says_which() && e.effects().any(|effect| effect == b"write") {
            e.deny("guard-every-row", "this changes every row of a table", "add a WHERE that names the rows");
        }
    }

    fn on_rows(&mut self, e: &mut Event<'_>) {
        let (mut text, mut columns, mut masked) = ([false; 1024], 0, 0);
        for c in e.columns() {
            if let Some(x) = text.get_mut(columns) {
                *x = c.class == Class::Text;
            }
            columns += 1;
        }
        if columns != e.width || columns > text.len() {
            return e.fail("the columns are not described, or too many");
        }
        for cell in 0..e.cells() {
            if e.value(cell).map_or(true, |v| v.is_empty()) {
                continue;
            }
            if !text[cell % columns] {
                e.set_null(cell); // JSON, an array: with stars in it nobody could read it
            } else if let Some(v) = e.edit(cell) {
                stars(v, self.keep);
            }
            masked += 1;
        }
        if masked > 0 && !e.comes_again() {
            weir::count(MASKED, masked);
        }
    }
}

/// Puts stars over all of v but the last characters, and over all of it where there are no more.
fn stars(v: &mut [u8], keep: usize) {
    let (mut at, mut left) = (v.len(), keep);
    while at > 0 && left > 0 {
        at -= 1;
        if v[at] & 0xc0 != 0x80 {
            left -= 1; // not within a character of UTF-8
        }
    }
    let end = if at == 0 { v.len() } else { at };
    v[..end].iter_mut().for_each(|c| *c = b'*');
}

weir::plugin!(Guard);
weir::no_std!();
