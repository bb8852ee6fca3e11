// Package plugins holds the shipped guests: a folder each, built by `make plugins` to NAME/NAME.wasm. builtin:NAME in
// the configuration reads from it.
package plugins

import "embed"

// FS holds what is in the plugins' folders. A guest is there if it was built before this program was; the sources
// are there in any case, so that the pattern always matches.
//
//go:embed */*
var FS embed.FS
