package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) pluginBuild() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "build [DIR]",
		Short: "Build a plugin's project to WebAssembly",
		Long: "Build the plugin in DIR (default: the present folder) with the tools of its language, to NAME.wasm in it, where NAME is the\n" +
			"folder's. The language is told by the files: go.mod, Cargo.toml, asconfig.json, or plugin.c. Where a tool is missing, the\n" +
			"error says how to install it.",
		Example: "  weir plugin build\n  weir plugin build ticket-guard --out /etc/weir/ticket-guard.wasm",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			dir := "."
			if len(args) > 0 {
				dir = args[0]
			}
			b := &builder{app: a, ctx: c.Context()}
			file, err := b.build(dir, out)
			if err != nil {
				return use(fmt.Errorf("plugin build: %w", err))
			}
			info, err := os.Stat(file)
			if err != nil {
				return use(fmt.Errorf("plugin build: %w", err))
			}
			fmt.Fprintf(a.out, "%s: %d KiB\n", relative(file), (info.Size()+1023)/1024)
			return nil
		},
	}
	c.Flags().StringVar(&out, "out", "", "`file` to write (default NAME.wasm in the folder)")
	_ = c.MarkFlagFilename("out", "wasm")
	return c
}

func relative(file string) string {
	if here, err := os.Getwd(); err == nil {
		if r, err := filepath.Rel(here, file); err == nil && !strings.HasPrefix(r, "..") {
			return r
		}
	}
	return file
}

// builder builds one project.
type builder struct {
	*app
	ctx       context.Context
	dir, file string
}

// absent says that a tool is not there, and how it is installed.
func absent(what, install string) error {
	return fmt.Errorf("%s is not installed here: %s", what, install)
}

func (b *builder) build(dir, out string) (string, error) {
	var err error
	if b.dir, err = filepath.Abs(dir); err != nil {
		return "", err
	}
	if out == "" {
		out = filepath.Join(b.dir, filepath.Base(b.dir)+".wasm")
	}
	if b.file, err = filepath.Abs(out); err != nil {
		return "", err
	}
	for _, l := range []struct {
		sign  string
		build func() error
	}{{"go.mod", b.golang}, {"Cargo.toml", b.rust}, {"asconfig.json", b.assemblyscript}, {"plugin.c", b.c}} {
		if b.has(l.sign) {
			return b.file, l.build()
		}
	}
	return "", fmt.Errorf("%s is no plugin's project: it has no go.mod, Cargo.toml, asconfig.json or plugin.c (weir plugin new begins one)", dir)
}

func (b *builder) has(name string) bool {
	_, err := os.Stat(filepath.Join(b.dir, name))
	return err == nil
}

// run runs a tool in the project's folder. What it says is shown when it fails.
func (b *builder) run(env []string, name string, args ...string) error {
	cmd := exec.CommandContext(b.ctx, name, args...)
	cmd.Dir, cmd.Env = b.dir, append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		if _, werr := b.err.Write(out); werr != nil {
			return werr
		}
		return fmt.Errorf("%s failed: %w", filepath.Base(name), err)
	}
	return nil
}

// says returns what a tool prints; empty when it fails.
func says(ctx context.Context, name string, args ...string) string {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// first returns the first command that is there.
func first(names ...string) string {
	for _, n := range names {
		if p, err := exec.LookPath(n); err == nil {
			return p
		}
	}
	return ""
}

func (b *builder) golang() error {
	if first("go") == "" {
		return absent("Go", "apt-get install golang-go, or see https://go.dev/dl (1.24 or newer)")
	}
	return b.run([]string{"GOOS=wasip1", "GOARCH=wasm", "GOWORK=off"}, "go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", b.file, ".")
}

// c needs a clang with the linker of its version.
func (b *builder) c() error {
	clang, linker := "", ""
	for _, version := range []string{"-22", "-21", "-20", "-19", "-18", "-17", "-16", "-15", "-14", ""} {
		if clang, linker = first("clang"+version), first("wasm-ld"+version); clang != "" && linker != "" {
			break
		}
	}
	if clang == "" || linker == "" {
		return absent("clang with wasm-ld", "apt-get install clang-19 lld-19")
	}
	return b.run(nil, clang, "--target=wasm32", "-nostdlib", "-ffreestanding", "-fno-builtin", "-O3", "-Wall", "-Wextra",
		"-Wno-missing-field-initializers", "-fuse-ld="+linker, "-Wl,--no-entry,--strip-all,-z,stack-size=32768", "-o", b.file, "plugin.c")
}

// rust needs a compiler that knows the target: one of rustup's, or Debian's, whose libraries want the linker of their time. What
// needs nothing but the library is built with it alone; what has other dependencies, with cargo.
func (b *builder) rust() error {
	const target = "wasm32-unknown-unknown"
	text, err := os.ReadFile(filepath.Join(b.dir, "Cargo.toml"))
	if err != nil {
		return err
	}
	if dependencies := tomlTable(text, "dependencies"); len(dependencies) != 1 || dependencies[0] != "weir" {
		if first("cargo") == "" {
			return absent("cargo", "see https://rustup.rs")
		}
		if err := b.run(nil, "cargo", "build", "--release", "--target", target); err != nil {
			return fmt.Errorf("%w (rustup target add %s, if that is missing)", err, target)
		}
		built, err := filepath.Glob(filepath.Join(b.dir, "target", target, "release", "*.wasm"))
		if err != nil || len(built) != 1 {
			return fmt.Errorf("cargo made %d modules: one is needed", len(built))
		}
		module, err := os.ReadFile(built[0])
		if err != nil {
			return err
		}
		return os.WriteFile(b.file, module, 0o644)
	}
	rustc, linker := "", ""
	for _, r := range []string{first("rustc"), "/usr/bin/rustc"} {
		sysroot := says(b.ctx, r, "--print", "sysroot")
		if sysroot == "" || !exists(filepath.Join(sysroot, "lib/rustlib", target, "lib")) {
			continue
		}
		host := ""
		for line := range strings.Lines(says(b.ctx, r, "-vV")) {
			if h, ok := strings.CutPrefix(line, "host: "); ok {
				host = strings.TrimSpace(h)
			}
		}
		if rustc = r; !exists(filepath.Join(sysroot, "lib/rustlib", host, "bin/rust-lld")) {
			if linker = first("wasm-ld-14", "wasm-ld"); linker == "" {
				return absent("the linker of this Rust", "apt-get install lld-14")
			}
		}
		break
	}
	if rustc == "" {
		return absent("Rust for "+target, "rustup target add "+target+", or apt-get install rustc libstd-rust-dev-wasm32 lld-14")
	}
	work, err := os.MkdirTemp("", "weir-build-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	flags := []string{"--edition", "2021", "--target", target, "-C", "opt-level=3", "-C", "panic=abort", "-C", "strip=symbols"}
	if linker != "" {
		flags = append(flags, "-C", "linker="+linker)
	}
	library := filepath.Join(work, "libweir.rlib")
	if err := b.run(nil, rustc, append(flags, "--crate-type", "rlib", "--crate-name", "weir", "-o", library, "weir/src/lib.rs")...); err != nil {
		return err
	}
	return b.run(nil, rustc, append(flags, "-C", "lto=fat", "-C", "link-arg=-zstack-size=65536", "--crate-type", "cdylib",
		"--crate-name", "plugin", "--extern", "weir="+library, "-o", b.file, "src/lib.rs")...)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// tomlTable returns the keys of one table of a TOML file, as far as they stand one a line.
func tomlTable(text []byte, name string) (keys []string) {
	inside := false
	for line := range bytes.Lines(text) {
		s := strings.TrimSpace(string(line))
		if strings.HasPrefix(s, "[") {
			inside = s == "["+name+"]"
			if rest, ok := strings.CutPrefix(s, "["+name+"."); ok {
				keys = append(keys, strings.TrimSuffix(rest, "]"))
			}
			continue
		}
		if key, _, ok := strings.Cut(s, "="); inside && ok && !strings.HasPrefix(s, "#") {
			keys = append(keys, strings.TrimSpace(key))
		}
	}
	return keys
}

// nodeLeast is the oldest Node.js that the compiler runs on.
const nodeLeast = 20

func (b *builder) assemblyscript() error {
	const install = "apt-get install nodejs npm, or see https://nodejs.org (20 or newer)"
	if first("node") == "" || first("npm") == "" {
		return absent("Node.js with npm", install)
	}
	version := strings.TrimPrefix(says(b.ctx, "node", "--version"), "v")
	major, _, _ := strings.Cut(version, ".")
	if n, err := strconv.Atoi(major); err != nil || n < nodeLeast {
		return absent(fmt.Sprintf("Node.js %d", nodeLeast), "this is "+version+"; "+install)
	}
	asc := filepath.Join(b.dir, "node_modules", "assemblyscript", "bin", "asc.js")
	if !exists(asc) {
		fmt.Fprintln(b.err, "weir: fetching the AssemblyScript compiler (npm ci)")
		if err := b.run(nil, "npm", "ci", "--no-audit", "--no-fund"); err != nil {
			return errors.Join(err, errors.New("npm ci needs the npm registry, or a cache of it"))
		}
	}
	return b.run(nil, "node", asc, "assembly/index.ts", "-o", b.file)
}
