// What a plugin says of itself.

/** The kinds of event. */
export enum Kind {
  Open = 1,
  Command = 2,
  Rows = 3,
  Bytes = 4,
  Columns = 7,
  Result = 8,
  Notice = 10,
  Close = 11,
}

const KINDS: StaticArray<string> = ["", "open", "command", "rows", "bytes", "", "", "columns", "result", "", "notice", "close"];

/** Whether a number is a kind of event. */
export function isKind(n: i32): bool {
  return n > 0 && n < KINDS.length && KINDS[n].length > 0;
}

/** What the gateway reads before anything else. */
export class Manifest {
  /** Values may be changed; without it a change is an error. */
  mutates: bool = false;
  /** What a failure of the plugin means: "deny" or "pass". */
  onError: string = "deny";
  /** now() tells the real time. */
  clock: bool = false;
  /** An instance of its own for each session: what the plugin keeps belongs to it. */
  connection: bool = false;
  /** kvGet, kvPut and kvIncr work; the operator grants it. */
  kv: bool = false;
  /** The longest that one batch of rows may take; 0: the gateway's default. */
  deadlineMs: i32 = 0;
  /** The most memory of an instance, in pages of 64 KiB; 0: the gateway's default. */
  memoryPages: i32 = 0;
  /** A JSON Schema of the configuration, for people; configure is what checks it. */
  schema: string = "";
  private subscriptions: string[] = [];
  private metrics: string[] = [];

  constructor(private name: string, private version: string) {}

  /**
   * Asks for events of these kinds. columns are whose cells the plugin sees in rows: globs of names, "type:text", "*";
   * none: no cells. protocols: none for all. Several subscriptions add up.
   */
  subscribe(kinds: Kind[], columns: string[] = [], protocols: string[] = []): this {
    const names: string[] = [];
    for (let i = 0; i < kinds.length; i++) names.push(KINDS[kinds[i]]);
    let s = '{"kinds":' + list(names);
    if (columns.length) s += ',"columns":' + list(columns);
    if (protocols.length) s += ',"protocols":' + list(protocols);
    this.subscriptions.push(s + "}");
    return this;
  }

  /** Declares a counter, shown among the gateway's metrics. Names are lower-case words joined with _. */
  counter(id: i32, name: string): this {
    return this.metric(id, name, "counter");
  }

  /** Declares a histogram. */
  histogram(id: i32, name: string): this {
    return this.metric(id, name, "histogram");
  }

  private metric(id: i32, name: string, kind: string): this {
    this.metrics.push('{"id":' + id.toString() + ',"name":' + quote(name) + ',"kind":' + quote(kind) + "}");
    return this;
  }

  /** The JSON text. */
  json(): string {
    let s = '{"abi":1,"name":' + quote(this.name) + ',"version":' + quote(this.version);
    s += ',"mutates":' + this.mutates.toString() + ',"on_error":' + quote(this.onError);
    if (this.connection) s += ',"state":"connection"';
    if (this.clock || this.kv) {
      s += ',"needs":{' + (this.clock ? '"clock":true' : "") + (this.clock && this.kv ? "," : "") + (this.kv ? '"kv":true' : "") + "}";
    }
    if (this.deadlineMs) s += ',"deadline_ms":' + this.deadlineMs.toString();
    if (this.memoryPages) s += ',"memory_pages":' + this.memoryPages.toString();
    if (this.schema.length) s += ',"config_schema":' + this.schema;
    s += ',"subscribe":[' + this.subscriptions.join(",") + "]";
    return s + ',"metrics":[' + this.metrics.join(",") + "]}";
  }
}

function list(items: string[]): string {
  let s = "[";
  for (let i = 0; i < items.length; i++) s += (i ? "," : "") + quote(items[i]);
  return s + "]";
}

function quote(text: string): string {
  let s = '"';
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c == 0x22 || c == 0x5c) s += "\\";
    s += c < 0x20 ? "\\u00" + (c < 0x10 ? "0" : "1") + (c & 15).toString(16) : text.charAt(i);
  }
  return s + '"';
}
