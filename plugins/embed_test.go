package plugins

import (
	"bytes"
	"io/fs"
	"path"
	"testing"
)

// TestFS: each guest that was built is there, whole, under the name of its folder; those that were not, are not.
func TestFS(t *testing.T) {
	built := 0
	dirs, err := fs.Glob(FS, "*/main.go")
	if err != nil || len(dirs) < 6 {
		t.Fatal(dirs, err)
	}
	for _, main := range dirs {
		name := path.Dir(main)
		b, err := fs.ReadFile(FS, name+"/"+name+".wasm")
		if err != nil {
			t.Logf("%s was not built: make plugins", name)
			continue
		}
		built++
		info, err := fs.Stat(FS, name+"/"+name+".wasm")
		if err != nil || info.Size() != int64(len(b)) || info.Name() != name+".wasm" || info.IsDir() {
			t.Errorf("%s: %v %v", name, info, err)
		}
		if !bytes.HasPrefix(b, []byte("\x00asm\x01\x00\x00\x00")) {
			t.Errorf("%s is no module", name)
		}
		if _, err := fs.Stat(FS, name+"/README.md"); err != nil {
			t.Errorf("%s has no README.md", name)
		}
	}
	t.Logf("%d of %d are in this build", built, len(dirs))
	for _, none := range []string{"none/none.wasm", "pii/none.wasm", "../pii/pii.wasm", ".wasm"} {
		if _, err := fs.ReadFile(FS, none); err == nil {
			t.Errorf("%s is there", none)
		}
		if _, err := FS.Open(none); err == nil {
			t.Errorf("%s can be opened", none)
		}
	}
}
