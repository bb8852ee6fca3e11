//! What a plugin says of itself.

/// The kinds of event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum Kind {
    Open = 1,
    Command = 2,
    Rows = 3,
    Bytes = 4,
    Columns = 7,
    Result = 8,
    Notice = 10,
    Close = 11,
}

impl Kind {
    /// All of them.
    pub const ALL: &'static [Kind] =
        &[Kind::Open, Kind::Command, Kind::Rows, Kind::Bytes, Kind::Columns, Kind::Result, Kind::Notice, Kind::Close];

    pub(crate) fn from(n: u16) -> Option<Kind> {
        Kind::ALL.iter().copied().find(|k| *k as u16 == n)
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Open => "open",
            Kind::Command => "command",
            Kind::Rows => "rows",
            Kind::Bytes => "bytes",
            Kind::Columns => "columns",
            Kind::Result => "result",
            Kind::Notice => "notice",
            Kind::Close => "close",
        }
    }
}

/// Which events a plugin wants.
pub struct Subscription {
    pub kinds: &'static [Kind],
    /// None: all.
    pub protocols: &'static [&'static str],
    /// Whose cells it sees in rows: globs of names, `type:text`, `*`. None: no cells.
    pub columns: &'static [&'static str],
}

impl Subscription {
    /// The rest of a subscription.
    pub const NONE: Subscription = Subscription { kinds: &[], protocols: &[], columns: &[] };
}

/// A number of the plugin's own, shown among the gateway's metrics. Names are lower-case words joined with `_`.
pub enum Metric {
    Counter(u32, &'static str),
    Histogram(u32, &'static str),
}

/// What a failure of the plugin means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    Deny,
    Pass,
}

/// What the gateway reads before anything else.
pub struct Manifest {
    pub name: &'static str,
    pub version: &'static str,
    /// Values may be changed; without it a change is an error.
    pub mutates: bool,
    pub on_error: OnError,
    /// `now` tells the real time.
    pub clock: bool,
    /// An instance of its own for each session: what `Self` keeps belongs to it.
    pub connection: bool,
    /// `kv_get`, `kv_put` and `kv_incr` work; the operator grants it.
    pub kv: bool,
    /// The longest that one batch of rows may take, in milliseconds; 0: the gateway's default.
    pub deadline_ms: u32,
    /// The most memory of an instance, in pages of 64 KiB; 0: the gateway's default.
    pub memory_pages: u32,
    pub subscribe: &'static [Subscription],
    pub metrics: &'static [Metric],
    /// A JSON Schema of the configuration, for people; `configure` is what checks it.
    pub schema: &'static str,
}

impl Manifest {
    /// The rest of a manifest.
    pub const DEFAULT: Manifest = Manifest {
        name: "",
        version: "",
        mutates: false,
        on_error: OnError::Deny,
        clock: false,
        connection: false,
        kv: false,
        deadline_ms: 0,
        memory_pages: 0,
        subscribe: &[],
        metrics: &[],
        schema: "",
    };

    /// Writes the JSON text, and returns its length; None when it does not fit.
    pub fn write(&self, to: &mut [u8]) -> Option<usize> {
        let mut w = Writer { to, n: 0, full: false };
        w.raw("{\"abi\":1,\"name\":");
        w.string(self.name);
        w.raw(",\"version\":");
        w.string(self.version);
        w.raw(if self.mutates { ",\"mutates\":true" } else { ",\"mutates\":false" });
        if self.on_error == OnError::Pass {
            w.raw(",\"on_error\":\"pass\"");
        }
        if self.connection {
            w.raw(",\"state\":\"connection\"");
        }
        match (self.clock, self.kv) {
            (false, false) => {}
            (true, false) => w.raw(",\"needs\":{\"clock\":true}"),
            (false, true) => w.raw(",\"needs\":{\"kv\":true}"),
            (true, true) => w.raw(",\"needs\":{\"clock\":true,\"kv\":true}"),
        }
        for (key, n) in [(",\"deadline_ms\":", self.deadline_ms), (",\"memory_pages\":", self.memory_pages)] {
            if n > 0 {
                w.raw(key);
                w.number(n);
            }
        }
        if !self.schema.is_empty() {
            w.raw(",\"config_schema\":");
            w.raw(self.schema);
        }
        w.raw(",\"subscribe\":[");
        for (i, s) in self.subscribe.iter().enumerate() {
            w.raw(if i > 0 { ",{\"kinds\":" } else { "{\"kinds\":" });
            w.list(s.kinds.iter().map(|k| k.name()));
            if !s.protocols.is_empty() {
                w.raw(",\"protocols\":");
                w.list(s.protocols.iter().copied());
            }
            if !s.columns.is_empty() {
                w.raw(",\"columns\":");
                w.list(s.columns.iter().copied());
            }
            w.raw("}");
        }
        w.raw("],\"metrics\":[");
        for (i, m) in self.metrics.iter().enumerate() {
            let (id, name, kind) = match *m {
                Metric::Counter(id, name) => (id, name, "counter"),
                Metric::Histogram(id, name) => (id, name, "histogram"),
            };
            w.raw(if i > 0 { ",{\"id\":" } else { "{\"id\":" });
            w.number(id);
            w.raw(",\"name\":");
            w.string(name);
            w.raw(",\"kind\":");
            w.string(kind);
            w.raw("}");
        }
        w.raw("]}");
        if w.full {
            None
        } else {
            Some(w.n)
        }
    }
}

struct Writer<'a> {
    to: &'a mut [u8],
    n: usize,
    full: bool,
}

impl Writer<'_> {
    fn byte(&mut self, c: u8) {
        match self.to.get_mut(self.n) {
            Some(b) => {
                *b = c;
                self.n += 1;
            }
            None => self.full = true,
        }
    }

    fn raw(&mut self, s: &str) {
        s.bytes().for_each(|c| self.byte(c));
    }

    fn string(&mut self, s: &str) {
        self.byte(b'"');
        for c in s.bytes() {
            if c == b'"' || c == b'\\' {
                self.byte(b'\\');
            }
            if c < b' ' {
                self.raw("\\u00");
                self.byte(b"01"[(c >> 4) as usize]);
                self.byte(b"0123456789abcdef"[(c & 15) as usize]);
            } else {
                self.byte(c);
            }
        }
        self.byte(b'"');
    }

    fn list(&mut self, items: impl Iterator<Item = &'static str>) {
        self.byte(b'[');
        for (i, s) in items.enumerate() {
            if i > 0 {
                self.byte(b',');
            }
            self.string(s);
        }
        self.byte(b']');
    }

    fn number(&mut self, n: u32) {
        if n >= 10 {
            self.number(n / 10);
        }
        self.byte(b'0' + (n % 10) as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_was_said_and_nothing_else() {
        let mut b = [0; 1024];
        let n = Manifest { name: "a\"\n", version: "1", ..Manifest::DEFAULT }.write(&mut b).unwrap();
        assert_eq!(std::str::from_utf8(&b[..n]).unwrap(), r#"{"abi":1,"name":"a\"\u000a","version":"1","mutates":false,"subscribe":[],"metrics":[]}"#);
        let m = Manifest {
            mutates: true,
            on_error: OnError::Pass,
            clock: true,
            kv: true,
            connection: true,
            deadline_ms: 70,
            memory_pages: 300,
            schema: "{}",
            subscribe: &[Subscription { kinds: &[Kind::Rows, Kind::Notice], columns: &["type:text"], protocols: &["postgres"] }],
            metrics: &[Metric::Counter(1, "x"), Metric::Histogram(2, "y")],
            ..Manifest::DEFAULT
        };
        let n = m.write(&mut b).unwrap();
        assert_eq!(
            std::str::from_utf8(&b[..n]).unwrap(),
            concat!(
                r#"{"abi":1,"name":"","version":"","mutates":true,"on_error":"pass","state":"connection","needs":{"clock":true,"kv":true},"deadline_ms":70,"memory_pages":300,"#,
                r#""config_schema":{},"subscribe":[{"kinds":["rows","notice"],"protocols":["postgres"],"columns":["type:text"]}],"#,
                r#""metrics":[{"id":1,"name":"x","kind":"counter"},{"id":2,"name":"y","kind":"histogram"}]}"#
            )
        );
        assert_eq!(m.write(&mut [0; 20]), None);
    }
}
