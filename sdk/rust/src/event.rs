//! Events, and what a plugin may say of them.

use crate::Kind;

const NULL: u32 = 0xffff_ffff;
const HEADER: usize = 72;
const PATCH: i32 = 2;
const DENY: i32 = 3;
const HOLD: i32 = 4;
const MORE_ROOM: i32 = -2;

pub(crate) fn u16_at(b: &[u8], i: usize) -> u16 {
    u16::from_le_bytes([b[i], b[i + 1]])
}

pub(crate) fn u32_at(b: &[u8], i: usize) -> u32 {
    u32::from_le_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]])
}

const ONES: u64 = 0x0101_0101_0101_0101;

/// Whether a byte is among some bytes, eight at a time: values are short, and a loop over their bytes takes longer.
#[inline]
pub fn has(v: &[u8], c: u8) -> bool {
    // A difference of zero is told by its borrow.
    let zero = |x: u64| {
        let x = x ^ (ONES * u64::from(c));
        x.wrapping_sub(ONES) & !x & (ONES << 7) != 0
    };
    let word = |w: &[u8]| u64::from_le_bytes([w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]]);
    match v.len() {
        n if n >= 8 => v.chunks_exact(8).any(|w| zero(word(w))) || zero(word(&v[n - 8..])),
        n if n >= 4 => zero(u64::from(u32_at(v, 0)) | u64::from(u32_at(v, n - 4)) << 32),
        n => n > 0 && (v[0] == c || v[n / 2] == c || v[n - 1] == c),
    }
}

/// Writes a byte over some bytes, in the same way.
#[inline]
pub fn fill(v: &mut [u8], c: u8) {
    match v.len() {
        n if n >= 8 => {
            v.chunks_exact_mut(8).for_each(|w| w.copy_from_slice(&[c; 8]));
            v[n - 8..].copy_from_slice(&[c; 8]); // the last eight once more rather than one by one
        }
        n if n >= 4 => {
            v[..4].copy_from_slice(&[c; 4]);
            v[n - 4..].copy_from_slice(&[c; 4]);
        }
        0 => {}
        n => {
            v[0] = c;
            v[n / 2] = c;
            v[n - 1] = c;
        }
    }
}

/// One event. It ends with the handler.
pub struct Event<'a> {
    pub kind: Kind,
    /// The same number for all events of one session.
    pub session: u64,
    pub rows: usize,
    /// Cells in a row.
    pub width: usize,
    editable: bool,
    count: u16,
    attributes: &'a [u8],
    table: &'a [u8],
    data: &'a mut [u8],
    out: &'a mut [u8],
    changed: u32,
    used: usize,
    next: usize,
    verdict: i32,
    failure: Option<&'static str>,
}

fn part(b: &mut [u8], n: usize) -> Option<(&mut [u8], &mut [u8])> {
    if n <= b.len() {
        Some(b.split_at_mut(n))
    } else {
        None
    }
}

impl<'a> Event<'a> {
    /// Reads a frame in place. Its parts stand in the order of the contract: attributes, cells, data, out.
    pub fn parse(b: &'a mut [u8]) -> Option<Event<'a>> {
        if b.len() < HEADER || u32_at(b, 0) != 0x3149_4557 || u32_at(b, 8) as usize != b.len() {
            return None;
        }
        let at = |i| u32_at(b, i) as usize;
        let header = u16_at(b, 4) as usize;
        let (attributes, cells, n) = (at(40), at(44), at(48));
        let (data, data_n, out, out_n) = (at(52), at(56), at(60), at(64));
        let table_end = cells.checked_add(n.checked_mul(8)?)?;
        if header < HEADER || attributes < header || cells < attributes || data < table_end || out < data.checked_add(data_n)? {
            return None;
        }
        let (rows, width) = (at(32), u16_at(b, 36) as usize);
        let kind = Kind::from(u16_at(b, 6))?;
        if kind == Kind::Rows && rows as u64 * width as u64 != n as u64 {
            return None;
        }
        let session = u64::from(u32_at(b, 20)) << 32 | u64::from(u32_at(b, 16));
        let (editable, count) = (b[12] & 1 != 0, u16_at(b, 38));
        let (head, rest) = part(b, data)?;
        let (mid, tail) = part(rest, out - data)?;
        let (out, _) = part(tail, out_n)?;
        let head: &'a [u8] = head;
        Some(Event {
            kind,
            session,
            rows,
            width,
            editable,
            count,
            attributes: &head[attributes..cells],
            table: &head[cells..table_end],
            data: &mut mid[..data_n],
            out,
            changed: 0,
            used: 0,
            next: 0,
            verdict: 0,
            failure: None,
        })
    }

    /// How many values it has: the text and the parameters of a command, the texts of a result, the cells of rows.
    pub fn cells(&self) -> usize {
        self.table.len() / 8
    }

    /// Whether values may be changed.
    pub fn editable(&self) -> bool {
        self.editable
    }

    #[inline]
    fn range(&mut self, cell: usize) -> Option<(usize, usize)> {
        let c = self.table.get(8 * cell..8 * cell + 8)?;
        let (at, n) = (u32_at(c, 0), u32_at(c, 4));
        if n == NULL {
            return None;
        }
        if u64::from(at) + u64::from(n) > self.data.len() as u64 {
            self.fail("a cell lies outside of the data");
            return None;
        }
        Some((at as usize, (at + n) as usize))
    }

    /// A value; None for NULL.
    #[inline]
    pub fn value(&mut self, cell: usize) -> Option<&[u8]> {
        let (at, end) = self.range(cell)?;
        Some(&self.data[at..end])
    }

    /// A value to be changed in place; None for NULL. It counts as changed.
    #[inline]
    pub fn edit(&mut self, cell: usize) -> Option<&mut [u8]> {
        let (at, end) = self.range(cell)?;
        if !self.editable {
            self.fail("values of this event cannot be changed");
            return None;
        }
        self.changed += 1;
        Some(&mut self.data[at..end])
    }

    /// Shows each value that is not NULL, with its column, to be changed in place: `change` says whether it did so. It is the
    /// fastest way through a batch of rows.
    pub fn edit_each(&mut self, mut change: impl FnMut(usize, &mut [u8]) -> bool) {
        if !self.editable {
            return self.fail("values of this event cannot be changed");
        }
        let (table, data, width) = (self.table, &mut *self.data, self.width);
        let (mut column, mut changed, mut inside) = (0, 0, true);
        for c in table.chunks_exact(8) {
            let (at, n) = (u32_at(c, 0), u32_at(c, 4));
            if n != NULL {
                match data.get_mut(at as usize..(at as usize).wrapping_add(n as usize)) {
                    Some(v) => changed += u32::from(change(column, v)),
                    None => inside = false,
                }
            }
            column += 1;
            if column == width {
                column = 0;
            }
        }
        self.changed += changed;
        if !inside {
            self.fail("a cell lies outside of the data");
        }
    }

    /// Gives a value other bytes, in place where their number stays. Go from the first cell to the last.
    pub fn set(&mut self, cell: usize, value: &[u8]) {
        match self.range(cell) {
            Some((at, end)) if end - at == value.len() && self.editable => {
                self.changed += 1;
                self.data[at..end].copy_from_slice(value);
            }
            _ => self.patch(cell, Some(value)),
        }
    }

    /// Makes a value NULL; only those of rows can be. Go from the first cell to the last.
    pub fn set_null(&mut self, cell: usize) {
        self.patch(cell, None);
    }

    fn patch(&mut self, cell: usize, value: Option<&[u8]>) {
        if !self.editable || cell >= self.cells() || cell < self.next {
            return self.fail("patches must be of cells that may be changed, in their order, one each");
        }
        let v = value.unwrap_or(&[]);
        let end = self.used + 8 + ((v.len() + 3) & !3);
        if self.verdict > PATCH {
            return;
        }
        if self.verdict == MORE_ROOM || end > self.out.len() {
            self.verdict = MORE_ROOM;
            return;
        }
        let out = &mut self.out[self.used..end];
        out[..4].copy_from_slice(&(cell as u32).to_le_bytes());
        out[4..8].copy_from_slice(&value.map_or(NULL, |v| v.len() as u32).to_le_bytes());
        out[8..8 + v.len()].copy_from_slice(v);
        self.used = end;
        self.next = cell + 1;
        self.verdict = PATCH;
    }

    /// Says that the plugin cannot judge the event: it is refused, unless the operator said `on_error: pass`.
    pub fn fail(&mut self, why: &'static str) {
        self.failure.get_or_insert(why);
    }

    /// Refuses the event. The texts go to the client: `rule` is short, `reason` says why, `hint` what to do instead. None
    /// may hold what has to be hidden.
    pub fn deny(&mut self, rule: &str, reason: &str, hint: &str) {
        self.say(DENY, rule, &[reason], hint);
    }

    /// Refuses the event for a reason in pieces, which are put together.
    pub fn deny_with(&mut self, rule: &str, reason: &[&str], hint: &str) {
        self.say(DENY, rule, reason, hint);
    }

    /// Asks for an approval of a command, by one of `approvers`: names with commas between them.
    pub fn hold(&mut self, rule: &str, reason: &str, approvers: &str) {
        self.say(HOLD, rule, &[reason], approvers);
    }

    fn say(&mut self, verdict: i32, a: &str, b: &[&str], c: &str) {
        if self.verdict == DENY {
            return; // the first denial stays
        }
        let (out, mut n) = (&mut *self.out, 0);
        let pieces = [a, "\0"].into_iter().chain(b.iter().copied()).chain(["\0", c]);
        for p in pieces {
            match out.get_mut(n..n + p.len()) {
                Some(to) => to.copy_from_slice(p.as_bytes()),
                None => {
                    self.verdict = MORE_ROOM;
                    return;
                }
            }
            n += p.len();
        }
        self.used = n;
        self.verdict = verdict;
    }

    /// Whether the answer had no room: the same event comes again with more, so that what was counted would count twice.
    pub fn comes_again(&self) -> bool {
        self.verdict == MORE_ROOM
    }

    pub(crate) fn answer(&self) -> Result<(i32, u32), &'static str> {
        match (self.failure, self.verdict) {
            (Some(why), _) => Err(why),
            (_, MORE_ROOM) => Ok((MORE_ROOM, 0)),
            (_, 0) if self.changed > 0 => Ok((1, self.changed.min(self.cells() as u32))),
            (_, 0) => Ok((0, 0)),
            (_, v) => Ok((v, self.used as u32)),
        }
    }

    /// The attributes of one id. `Attributes::cut` of it tells that the frame is broken; the named ones below see to that.
    pub fn attributes(&self, id: u16) -> Attributes<'a> {
        Attributes { id, left: self.count, b: self.attributes, cut: false }
    }

    fn first(&mut self, id: u16) -> &'a [u8] {
        let mut a = self.attributes(id);
        let v = a.next().unwrap_or(&[]);
        if a.cut {
            self.fail("the attributes are cut off");
        }
        v
    }

    fn every(&mut self, id: u16) -> Attributes<'a> {
        let mut all = self.attributes(id);
        while all.next().is_some() {}
        if all.cut {
            self.fail("the attributes are cut off");
        }
        self.attributes(id)
    }

    /// The session's protocol.
    pub fn protocol(&mut self) -> &'a [u8] {
        self.first(1)
    }

    /// The target's name.
    pub fn target(&mut self) -> &'a [u8] {
        self.first(2)
    }

    /// Who the session belongs to.
    pub fn subject(&mut self) -> &'a [u8] {
        self.first(3)
    }

    /// The groups of whom the session belongs to.
    pub fn groups(&mut self) -> Attributes<'a> {
        self.every(4)
    }

    /// What a command does, in the protocol's word.
    pub fn action(&mut self) -> &'a [u8] {
        self.first(16)
    }

    /// What a command may do to the target.
    pub fn effects(&mut self) -> Attributes<'a> {
        self.every(18)
    }

    /// Whether the command's facts can be relied on.
    pub fn known(&mut self) -> bool {
        self.first(21) == b"known"
    }

    /// Whether every part of a command that changes or removes rows says which.
    pub fn says_which(&mut self) -> bool {
        self.first(20) == b"1"
    }

    /// What a command touches.
    pub fn resources(&mut self) -> impl Iterator<Item = Resource<'a>> {
        self.every(19).map(|v| {
            let mut p = v.splitn(4, |&c| c == 0);
            let mut next = || p.next().unwrap_or(&[]);
            Resource { kind: next(), name: next(), uses: next(), columns: next() }
        })
    }

    /// The columns of an answer, or of the cells of rows.
    pub fn columns(&mut self) -> impl Iterator<Item = Column<'a>> {
        self.every(32).filter(|v| v.len() >= 2).map(|v| {
            let mut p = v[2..].splitn(4, |&c| c == 0);
            let mut next = || p.next().unwrap_or(&[]);
            Column {
                class: Class::from(v[0]),
                binary: v[1] & 1 != 0,
                text: v[1] & 2 != 0,
                name: next(),
                type_name: next(),
                table: next(),
                column: next(),
            }
        })
    }
}

/// Attributes of one id, in their order.
pub struct Attributes<'a> {
    id: u16,
    left: u16,
    b: &'a [u8],
    cut: bool,
}

impl<'a> Iterator for Attributes<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while self.left > 0 {
            self.left -= 1;
            let n = if self.b.len() < 4 { usize::MAX } else { 4 + u16_at(self.b, 2) as usize };
            if n > self.b.len() {
                self.cut = true;
                self.left = 0;
                return None;
            }
            let (id, v) = (u16_at(self.b, 0), &self.b[4..n]);
            self.b = &self.b[((n + 3) & !3).min(self.b.len())..];
            if id == self.id {
                return Some(v);
            }
        }
        None
    }
}

/// Something that a command touches; `uses` and `columns` are words with commas between them.
pub struct Resource<'a> {
    pub kind: &'a [u8],
    pub name: &'a [u8],
    pub uses: &'a [u8],
    pub columns: &'a [u8],
}

/// What a column's type means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// An enum, a domain, a type of an extension.
    Unknown,
    Text,
    Json,
    Number,
    Bool,
    Time,
    Uuid,
    Bytes,
    Array,
    Other,
}

impl Class {
    fn from(n: u8) -> Class {
        use Class::*;
        *[Unknown, Text, Json, Number, Bool, Time, Uuid, Bytes, Array, Other].get(n as usize).unwrap_or(&Unknown)
    }
}

/// One column.
pub struct Column<'a> {
    pub class: Class,
    /// The cells are in the type's binary format.
    pub binary: bool,
    /// The cells may hold free text.
    pub text: bool,
    pub name: &'a [u8],
    pub type_name: &'a [u8],
    pub table: &'a [u8],
    pub column: &'a [u8],
}
