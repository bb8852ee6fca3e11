package segment

import (
	"path"
	"strings"

	"github.com/weir-gateway/weir/core/ledger"
)

const keyExtension = ".key"

// ValidKey reports whether a word names a recording key.
func ValidKey(name string) bool {
	_, err := ledger.ParseKeyID(name)
	return err == nil
}

// KeyName returns the name of the file or object that holds a recording key's record.
func KeyName(name string) string { return name + keyExtension }

// Key returns the name of the recording key whose file or object has this name.
func Key(file string) (string, bool) {
	name, ok := strings.CutSuffix(path.Base(file), keyExtension)
	return name, ok && ValidKey(name)
}
