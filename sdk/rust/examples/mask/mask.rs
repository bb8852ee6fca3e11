//! mask puts stars over the values of text columns, in place. The first character stays, and the domain of an e-mail
//! address. What cannot be read with stars in it (JSON, an array, a binary form of something else) becomes NULL. Which
//! columns, the operator says in the gateway's configuration.
#![no_std]
use weir::{json::Value, Class, Event, Kind, Manifest, Metric, Plugin, Subscription};

const MASKED: u32 = 1;
const MOST_COLUMNS: usize = 4096;

struct Mask {
    nulled: [bool; MOST_COLUMNS],
}

impl Plugin for Mask {
    const MANIFEST: Manifest = Manifest {
        name: "mask",
        version: "1.0.0",
        mutates: true,
        subscribe: &[Subscription { kinds: &[Kind::Rows], columns: &["type:text"], ..Subscription::NONE }],
        metrics: &[Metric::Counter(MASKED, "masked")],
        ..Manifest::DEFAULT
    };

    fn configure(config: Value<'_>) -> Result<Self, &'static str> {
        match config.fields().map(|f| f.count()) {
            Some(0) => Ok(Mask { nulled: [false; MOST_COLUMNS] }),
            _ => Err("mask takes no configuration: name the columns in the gateway's"),
        }
    }

    fn on_rows(&mut self, e: &mut Event<'_>) {
        let mut n = 0;
        for c in e.columns() {
            if let Some(x) = self.nulled.get_mut(n) {
                *x = matches!(c.class, Class::Json | Class::Array) || c.binary && c.class != Class::Text;
            }
            n += 1;
        }
        let nulled = match self.nulled.get(..n) {
            Some(x) if n == e.width => x,
            _ => return e.fail("the columns are not described, or too many"),
        };
        let (mut cell, mut masked) = (0, 0);
        for _ in 0..e.rows {
            for &null in nulled {
                match e.value(cell).map(|v| v.len()) {
                    None | Some(0) if !null => {}
                    None => {}
                    Some(_) => {
                        if null {
                            e.set_null(cell);
                        } else if let Some(v) = e.edit(cell) {
                            mask(v);
                        }
                        masked += 1;
                    }
                }
                cell += 1;
            }
        }
        if masked > 0 && !e.comes_again() {
            weir::count(MASKED, masked);
        }
    }
}

fn mask(v: &mut [u8]) {
    let end = at_sign(v).unwrap_or(v.len());
    let mut keep = 1;
    if v[0] >= 0xc0 {
        // the first character is of several bytes
        keep += v[1..end].iter().take_while(|&&c| c & 0xc0 == 0x80).count();
    }
    if keep >= end {
        keep = 0; // there is no more than it: it would tell all
    }
    for c in &mut v[keep..end] {
        *c = b'*';
    }
}

/// Where the '@' of an e-mail address is: no space anywhere, a domain with a point after it.
fn at_sign(v: &[u8]) -> Option<usize> {
    let (mut at, mut point) = (0, 0);
    for (i, &c) in v.iter().enumerate() {
        if c == b'@' {
            if at > 0 || i == 0 {
                return None;
            }
            at = i;
        } else if c <= b' ' {
            return None;
        } else if at > 0 {
            if c == b'.' {
                point = i;
            } else if !c.is_ascii_alphanumeric() && c != b'-' {
                return None;
            }
        }
    }
    if point > at + 1 && point + 1 < v.len() && at > 0 {
        Some(at)
    } else {
        None
    }
}

weir::plugin!(Mask);
weir::no_std!();
