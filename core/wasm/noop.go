package wasm

import "encoding/json"

// NoOp returns a guest that is asked what m is asked, and passes everything: what its calls cost is the host's own share.
func NoOp(m *Manifest) []byte {
	manifest, err := json.Marshal(&Manifest{Name: "no-op", Version: "1.0.0", ABI: 1, Subscribe: m.Subscribe})
	if err != nil { // words and numbers only: cannot happen
		return nil
	}
	out := append([]byte(nil), magic...)
	out = section(out, secType, []byte{
		4,
		0x60, 0, 1, 0x7f, // () -> i32
		0x60, 1, 0x7f, 1, 0x7f, // (i32) -> i32
		0x60, 2, 0x7f, 0x7f, 1, 0x7f, // (i32 i32) -> i32
		0x60, 2, 0x7f, 0x7f, 1, 0x7e, // (i32 i32) -> i64
	})
	out = section(out, secFunction, []byte{4, 0, 1, 2, 3})
	out = section(out, secMemory, []byte{1, 0, 16})
	exports := append(appendName([]byte{5}, "memory"), 2, 0)
	for i, name := range []string{"weir_abi_v1", "weir_buffer", "weir_configure", "weir_on_batch"} {
		exports = append(appendName(exports, name), 0, byte(i))
	}
	out = section(out, secExport, exports)
	out = section(out, secCode, []byte{
		4,
		4, 0, 0x41, 0, 0x0b, // 0
		6, 0, 0x41, 0x80, 0x80, 4, 0x0b, // the region is at 64 KiB
		4, 0, 0x41, 0, 0x0b,
		4, 0, 0x42, 0, 0x0b, // pass
	})
	return section(out, secCustom, append(appendName(nil, ManifestSection), manifest...))
}

func section(out []byte, id byte, body []byte) []byte {
	return append(appendU32(append(out, id), uint32(len(body))), body...)
}
