// Package sdk holds the libraries for writing plugins, and the projects that weir plugin new begins with.
package sdk

import "embed"

// FS has a folder for each language, and project, whose files end in .tmpl.
//
//go:embed go/*.go c/weir.h rust/Cargo.toml rust/src assemblyscript/assembly assemblyscript/package-lock.json project
var FS embed.FS
