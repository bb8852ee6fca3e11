// Package policies holds the Rego that is shipped with the binary: a folder a profile. builtin:NAME in the
// configuration reads the folder NAME.
package policies

import "embed"

// FS holds the profiles, a folder each, with their tests.
//
//go:embed */*
var FS embed.FS
