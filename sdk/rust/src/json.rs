//! The configuration: JSON read in place, without memory of its own.

/// One value: a piece of text that was checked. It ends with `configure`.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a>(&'a [u8]);

/// Reads a JSON text.
pub fn parse(b: &[u8]) -> Option<Value<'_>> {
    let at = space(b, 0);
    let end = skip(b, at, 0)?;
    if space(b, end) == b.len() {
        Some(Value(&b[at..end]))
    } else {
        None
    }
}

fn space(b: &[u8], mut i: usize) -> usize {
    while i < b.len() && matches!(b[i], b' ' | b'\n' | b'\t' | b'\r') {
        i += 1;
    }
    i
}

/// Where the value at i ends.
fn skip(b: &[u8], i: usize, depth: u32) -> Option<usize> {
    let mut i = space(b, i);
    let open = *b.get(i)?;
    match open {
        _ if depth > 32 => None,
        b'"' => loop {
            i += 1;
            match *b.get(i)? {
                b'"' => return Some(i + 1),
                0..=0x1f => return None,
                b'\\' => {
                    i += 1;
                    match *b.get(i)? {
                        b'u' => {
                            if !b.get(i + 1..i + 5)?.iter().all(u8::is_ascii_hexdigit) {
                                return None;
                            }
                            i += 4;
                        }
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                        _ => return None,
                    }
                }
                _ => {}
            }
        },
        b'{' | b'[' => {
            let close = open + 2;
            i = space(b, i + 1);
            if *b.get(i)? == close {
                return Some(i + 1);
            }
            loop {
                if open == b'{' {
                    i = space(b, i);
                    if *b.get(i)? != b'"' {
                        return None;
                    }
                    i = space(b, skip(b, i, depth + 1)?);
                    if *b.get(i)? != b':' {
                        return None;
                    }
                    i += 1;
                }
                i = space(b, skip(b, i, depth + 1)?);
                match *b.get(i)? {
                    c if c == close => return Some(i + 1),
                    b',' => i += 1,
                    _ => return None,
                }
            }
        }
        b't' => word(b, i, b"true"),
        b'f' => word(b, i, b"false"),
        b'n' => word(b, i, b"null"),
        b'-' | b'0'..=b'9' => {
            let begin = i;
            while i < b.len() && matches!(b[i], b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E') {
                i += 1;
            }
            if b[begin..i].iter().any(u8::is_ascii_digit) {
                Some(i)
            } else {
                None
            }
        }
        _ => None,
    }
}

fn word(b: &[u8], i: usize, w: &[u8]) -> Option<usize> {
    if b[i..].starts_with(w) {
        Some(i + w.len())
    } else {
        None
    }
}

impl<'a> Value<'a> {
    /// Whether it is an object.
    pub fn is_object(self) -> bool {
        self.0[0] == b'{'
    }

    /// A field of an object.
    pub fn get(self, name: &str) -> Option<Value<'a>> {
        self.fields()?.filter(|(n, _)| n.equals(name)).map(|(_, v)| v).last()
    }

    /// The fields of an object: names, and values.
    pub fn fields(self) -> Option<impl Iterator<Item = (Value<'a>, Value<'a>)>> {
        let mut items = self.all(b'{')?;
        Some(core::iter::from_fn(move || Some((items.next()?, items.next()?))))
    }

    /// The elements of an array.
    pub fn items(self) -> Option<impl Iterator<Item = Value<'a>>> {
        self.all(b'[')
    }

    fn all(self, open: u8) -> Option<impl Iterator<Item = Value<'a>>> {
        if self.0[0] != open {
            return None;
        }
        let (b, mut i) = (&self.0[..self.0.len() - 1], 1);
        Some(core::iter::from_fn(move || {
            i = space(b, i);
            if i < b.len() && matches!(b[i], b',' | b':') {
                i = space(b, i + 1);
            }
            let at = i;
            i = skip(b, at, 0)?;
            Some(Value(&b[at..i]))
        }))
    }

    /// A boolean.
    pub fn flag(self) -> Option<bool> {
        match self.0 {
            b"true" => Some(true),
            b"false" => Some(false),
            _ => None,
        }
    }

    /// A whole number.
    pub fn int(self) -> Option<i64> {
        core::str::from_utf8(self.0).ok()?.parse().ok()
    }

    /// The characters of a string, unescaped. Half a surrogate pair is U+FFFD.
    pub fn chars(self) -> Option<impl Iterator<Item = char> + 'a> {
        if self.0[0] != b'"' {
            return None;
        }
        let mut rest = core::str::from_utf8(&self.0[1..self.0.len() - 1]).ok()?.chars();
        Some(core::iter::from_fn(move || {
            let c = rest.next()?;
            if c != '\\' {
                return Some(c);
            }
            Some(match rest.next()? {
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => {
                    let high = hex(&mut rest);
                    let mut code = high;
                    if (0xd800..0xdc00).contains(&high) && rest.as_str().starts_with("\\u") {
                        let mut ahead = rest.clone();
                        ahead.nth(1);
                        let low = hex(&mut ahead);
                        if (0xdc00..0xe000).contains(&low) {
                            code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                            rest = ahead;
                        }
                    }
                    char::from_u32(code).unwrap_or('\u{fffd}')
                }
                other => other,
            })
        }))
    }

    /// Whether it is this string.
    pub fn equals(self, s: &str) -> bool {
        self.chars().map_or(false, |c| c.eq(s.chars()))
    }
}

fn hex(c: &mut core::str::Chars<'_>) -> u32 {
    (0..4).fold(0, |n, _| n << 4 | c.next().and_then(|c| c.to_digit(16)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_json_and_nothing_else() {
        let v = parse(br#" {"a": [1, -2, true, null, "\ud83d\ude00\n\u00e9", {}], "b": {"c": "x"}, "\u0064": false} "#).unwrap();
        assert!(v.is_object());
        let a: Vec<_> = v.get("a").unwrap().items().unwrap().collect();
        assert_eq!((a.len(), a[0].int(), a[1].int(), a[2].flag(), a[3].flag()), (6, Some(1), Some(-2), Some(true), None));
        assert!(a[4].equals("😀\né") && !a[4].equals("😀"));
        assert!(v.get("b").unwrap().get("c").unwrap().equals("x"));
        assert_eq!(v.get("d").unwrap().flag(), Some(false));
        assert!(v.get("e").is_none() && a[0].items().is_none() && a[0].chars().is_none());
        for bad in ["", "{", "[1,]", "{\"a\"}", "{\"a\":1,}", "tru", "\"", "\"\\x\"", "\"\\u12\"", "1 2", "-", "[1 2]", "\"\n\""] {
            assert!(parse(bad.as_bytes()).is_none(), "{}", bad);
        }
        assert!(parse("[".repeat(100).as_bytes()).is_none());
    }
}
