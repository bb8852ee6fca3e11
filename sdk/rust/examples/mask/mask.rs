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
        let mut masked = 0;
        e.edit_each(|column, v| {
            let change = !nulled[column] && !v.is_empty();
            if change {
                mask(v);
                masked += 1;
            }
            change
        });
        for cell in 0..if nulled.contains(&true) { e.cells() } else { 0 } {
            if nulled[cell % n] && e.value(cell).is_some() {
                e.set_null(cell);
                masked += 1;
            }
        }
        if masked > 0 && !e.comes_again() {
            weir::count(MASKED, masked);
        }
    }
}

fn mask(v: &mut [u8]) {
    let end = if weir::has(v, b'@') { at_sign(v).unwrap_or(v.len()) } else { v.len() };
    let mut keep = 1;
    if v[0] >= 0xc0 {
        // the first character is of several bytes
        keep += v[1..end].iter().take_while(|&&c| c & 0xc0 == 0x80).count();
    }
    if keep >= end {
        keep = 0; // there is no more than it: it would tell all
    }
    weir::fill(&mut v[keep..end], b'*');
}

/// Where the '@' of an e-mail address is: no space anywhere, a domain with a point after it.
fn at_sign(v: &[u8]) -> Option<usize> {
    let at = v.iter().position(|&c| c == b'@' || c <= b' ')?;
    if at == 0 || v[at] != b'@' {
        return None;
    }
    let mut point = 0;
    for i in at + 1..v.len() {
        let c = v[i];
        if (c | 32).wrapping_sub(b'a') < 26 {
            continue; // most are letters
        }
        if c == b'.' {
            point = i;
        } else if c.wrapping_sub(b'0') >= 10 && c != b'-' {
            return None;
        }
    }
    if point > at + 1 && point + 1 < v.len() {
        Some(at)
    } else {
        None
    }
}

weir::plugin!(Mask);
weir::no_std!();
