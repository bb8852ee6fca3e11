// Compiles each tests/*.ts, and calls what it exports: a function that throws has failed.
import asc from "assemblyscript/asc";
import assert from "node:assert";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";

const dir = new URL(".", import.meta.url).pathname;
for (const name of fs.readdirSync(dir).filter((f) => f.endsWith(".ts"))) {
  const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), "weir-")), "t.wasm");
  const { error, stderr } = await asc.main([`tests/${name}`, "-o", file]);
  assert.ok(!error, String(stderr));
  const lines = [];
  const host = { emit() {}, metric_add() {}, metric_observe() {}, now_ns: () => 0n };
  let memory;
  // What instances share, for the tests.
  const keys = new Map();
  const text = (at, n) => Buffer.from(memory.buffer, at, n).toString();
  host.kv_get = (at, n, out, room) => {
    const v = keys.get(text(at, n));
    if (v && v.length <= room) v.copy(Buffer.from(memory.buffer, out, room));
    return v ? v.length : -1;
  };
  host.kv_put = (at, n, value, m) => {
    if (m < 0) keys.delete(text(at, n));
    else keys.set(text(at, n), Buffer.from(Buffer.from(memory.buffer, value, m)));
    return 0;
  };
  host.kv_incr = (at, n, delta) => {
    const v = keys.get(text(at, n)) ?? Buffer.alloc(8);
    if (v.length !== 8) return -(2n ** 63n);
    v.writeBigInt64LE(v.readBigInt64LE() + delta);
    keys.set(text(at, n), v);
    return v.readBigInt64LE();
  };
  host.log = (_, at, n) => lines.push(Buffer.from(memory.buffer, at, n).toString());
  const module = fs.readFileSync(file);
  fs.rmSync(path.dirname(file), { recursive: true });
  const { instance } = await WebAssembly.instantiate(module, { weir_v1: host });
  memory = instance.exports.memory;
  instance.exports._initialize();
  for (const [what, f] of Object.entries(instance.exports).filter(([k]) => k.startsWith("test_"))) {
    test(`${name}: ${what.slice(5).replaceAll("_", " ")}`, () => {
      try {
        f();
      } catch (e) {
        assert.fail(`${lines.join("; ")} (${e})`);
      }
    });
  }
}
