// The configuration.

/** One JSON value of the configuration. */
export class Value {
  private kind: i32 = NULL;
  private string: string = "";
  private elements: Value[] = [];
  private names: string[] = [];

  isObject(): bool {
    return this.kind == OBJECT;
  }

  isNull(): bool {
    return this.kind == NULL;
  }

  /** The names of an object's fields. */
  fields(): string[] {
    return this.names;
  }

  /** A field of an object; null where it is not there. */
  get(name: string): Value | null {
    const at = this.names.lastIndexOf(name);
    return at < 0 ? null : this.elements[at];
  }

  /** The elements of an array; null for anything else. */
  items(): Value[] | null {
    return this.kind == ARRAY ? this.elements : null;
  }

  /** A string; null for anything else. */
  text(): string | null {
    return this.kind == STRING ? this.string : null;
  }

  /** Whether it is this string. */
  equals(text: string): bool {
    return this.kind == STRING && this.string == text;
  }

  /** Whether it is true; anything else is not. */
  isTrue(): bool {
    return this.kind == TRUE;
  }

  /** Whether it is true or false. */
  isFlag(): bool {
    return this.kind == TRUE || this.kind == FALSE;
  }

  /** Whether it is a whole number, of at most 18 digits. */
  isInt(): bool {
    const n = this.string.length, begin = n && this.string.charCodeAt(0) == 0x2d ? 1 : 0;
    if (this.kind != NUMBER || n == begin || n - begin > 18) return false;
    for (let i = begin; i < n; i++) if (!digit(this.string.charCodeAt(i))) return false;
    return true;
  }

  /** A whole number; 0 for anything else. */
  int(): i64 {
    return this.isInt() ? I64.parseInt(this.string) : 0;
  }

  /** @internal Makes a value of a kind. */
  static of(kind: i32, text: string = ""): Value {
    const v = new Value();
    v.kind = kind;
    v.string = text;
    return v;
  }

  /** @internal Adds an element, or a field. */
  add(v: Value, name: string | null = null): void {
    this.elements.push(v);
    if (name !== null) this.names.push(name);
  }
}

const NULL = 0, FALSE = 1, TRUE = 2, NUMBER = 3, STRING = 4, ARRAY = 5, OBJECT = 6;
const DEPTH = 64;

function digit(c: i32): bool {
  return <u32>(c - 0x30) < 10;
}

/** Reads a JSON text in UTF-8; null where it is none. */
export function parse(at: usize, n: i32): Value | null {
  const p = new Parser(at, at + n);
  const v = p.value(0);
  return v !== null && p.peek() < 0 && !p.bad ? v : null;
}

class Parser {
  bad: bool = false;

  constructor(private at: usize, private end: usize) {}

  /** The next byte that is no space; -1 at the end. */
  peek(): i32 {
    for (; this.at < this.end; this.at++) {
      const c = load<u8>(this.at);
      if (c != 0x20 && c != 0x0a && c != 0x09 && c != 0x0d) return c;
    }
    return -1;
  }

  private take(c: i32): bool {
    if (this.peek() != c) return false;
    this.at++;
    return true;
  }

  private word(text: string, kind: i32): Value | null {
    for (let i = 0; i < text.length; i++, this.at++)
      if (this.at >= this.end || load<u8>(this.at) != text.charCodeAt(i)) return null;
    return Value.of(kind);
  }

  value(depth: i32): Value | null {
    const c = this.peek();
    if (depth > DEPTH) return null;
    if (c == 0x6e) return this.word("null", NULL);
    if (c == 0x74) return this.word("true", TRUE);
    if (c == 0x66) return this.word("false", FALSE);
    if (c == 0x2d || digit(c)) return this.number();
    if (c == 0x22) {
      const s = this.string();
      return s === null ? null : Value.of(STRING, s);
    }
    if (c != 0x5b && c != 0x7b) return null;
    this.at++;
    const v = Value.of(c == 0x5b ? ARRAY : OBJECT), close = c + 2;
    if (this.take(close)) return v;
    do {
      let name: string | null = null;
      if (c == 0x7b) {
        if (this.peek() != 0x22) return null;
        name = this.string();
        if (name === null || !this.take(0x3a)) return null;
      }
      const x = this.value(depth + 1);
      if (x === null) return null;
      v.add(x, name);
    } while (this.take(0x2c));
    return this.take(close) ? v : null;
  }

  private number(): Value | null {
    const begin = this.at;
    let digits = false;
    for (; this.at < this.end; this.at++) {
      const c = load<u8>(this.at);
      if (digit(c)) digits = true;
      else if (c != 0x2d && c != 0x2b && c != 0x2e && (c | 0x20) != 0x65) break;
    }
    return digits ? Value.of(NUMBER, String.UTF8.decodeUnsafe(begin, this.at - begin)) : null;
  }

  private string(): string | null {
    let out = "", begin = ++this.at;
    for (; this.at < this.end; this.at++) {
      const c = load<u8>(this.at);
      if (c < 0x20) return null;
      if (c != 0x22 && c != 0x5c) continue;
      out += String.UTF8.decodeUnsafe(begin, this.at - begin);
      this.at++;
      if (c == 0x22) return out;
      if (this.at >= this.end) return null;
      const e = load<u8>(this.at);
      const k = '"\\/bfnrt'.indexOf(String.fromCharCode(e));
      if (k >= 0) out += '"\\/\b\f\n\r\t'.charAt(k);
      else if (e == 0x75 && this.end - this.at > 4) {
        let code = 0;
        for (let i = 1; i <= 4; i++) {
          const h = load<u8>(this.at + i), x = h | 0x20;
          if (digit(h)) code = (code << 4) | (h - 0x30);
          else if (x >= 0x61 && x <= 0x66) code = (code << 4) | (x - 0x57);
          else return null;
        }
        out += String.fromCharCode(code); // the halves of a pair come one after the other, as they do in a string
        this.at += 4;
      } else return null;
      begin = this.at + 1;
    }
    return null;
  }
}
