#!/usr/bin/env bash
# Builds the examples of the SDKs to sdk/LANG/examples/NAME/NAME.wasm.
#
#	sdk/build.sh [-install] [LANG …]
#
# A language whose tools are missing is skipped, with the names of the packages. -install fetches them instead: as root,
# with apt-get (one at a time on this machine) and npm; and then a language that cannot be built is an error.
set -euo pipefail
cd "$(dirname "$0")"
install=false
[ "${1:-}" = -install ] && { install=true; shift; }
languages=("$@")
[ ${#languages[@]} -eq 0 ] && languages=(go c rust assemblyscript)
examples=(pass mask block record)

# first prints the first command that is there.
first() { for c in "$@"; do command -v "$c" && return; done; return 1; }

# need LANG PACKAGE…: the packages are fetched, or the language is skipped.
need() {
	local language=$1; shift
	if ! $install; then
		echo "sdk: skipped $language: as root, apt-get install $* (or sdk/build.sh -install $language)" >&2
		return 1
	fi
	if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
		echo "sdk: $language needs the packages $*: as root, apt-get install $*" >&2
		exit 1
	fi
	echo "sdk: installing $*"
	(
		flock 9
		export DEBIAN_FRONTEND=noninteractive
		for try in "update -q" "install -q -y --no-install-recommends -o DPkg::Lock::Timeout=120 $*"; do
			# shellcheck disable=SC2086 # words of an own string
			if ! out=$(apt-get $try 2>&1); then
				echo "sdk: apt-get ${try%% *} failed:" >&2
				tail -5 <<<"$out" >&2
				exit 1
			fi
		done
	) 9>"${TMPDIR:-/tmp}/weir-apt-get.lock"
}

# The lock is the one that the tests take when they install a database.
build_c() {
	local clang linker
	find_c() {
		for v in -19 -18 -17 -16 -15 -14 ""; do
			if command -v "clang$v" >/dev/null && linker=$(first "wasm-ld$v"); then
				clang=clang$v
				return 0
			fi
		done
		return 1
	}
	find_c || { need c clang-19 lld-19 || return 0; find_c; } || { echo "sdk: there is still no clang with a wasm-ld of its version" >&2; exit 1; }
	for e in "${examples[@]}"; do
		"$clang" --target=wasm32 -nostdlib -ffreestanding -fno-builtin -O3 -Wall -Wextra -Werror -Wno-missing-field-initializers \
			-fuse-ld="$(command -v "$linker")" -Wl,--no-entry,--strip-all,-z,stack-size=32768 -o "c/examples/$e/$e.wasm" "c/examples/$e/$e.c"
	done
	echo "sdk: built c with $clang"
}

# A rustc that knows the target: one of rustup's, or Debian's, whose libraries want the linker of their time.
build_rust() {
	local rustc="" flags=() work
	find_rust() {
		for r in rustc /usr/bin/rustc; do
			command -v "$r" >/dev/null || continue
			[ -e "$("$r" --print sysroot)/lib/rustlib/wasm32-unknown-unknown/lib" ] || continue
			rustc=$r flags=()
			[ -e "$("$r" --print sysroot)/lib/rustlib/$("$r" -vV | sed -n 's/^host: //p')/bin/rust-lld" ] && return 0
			flags=(-C "linker=$(first wasm-ld-14 wasm-ld)") && [ "${flags[1]}" != linker= ] && return 0
		done
		return 1
	}
	find_rust || { need rust rustc libstd-rust-dev-wasm32 lld-14 || return 0; find_rust; } || { echo "sdk: there is still no rustc for wasm32-unknown-unknown" >&2; exit 1; }
	work=$(mktemp -d)
	flags+=(--edition 2021 --target wasm32-unknown-unknown -C opt-level=3 -C panic=abort -C strip=symbols -D warnings)
	"$rustc" "${flags[@]}" --crate-type rlib --crate-name weir -o "$work/libweir.rlib" rust/src/lib.rs
	for e in "${examples[@]}"; do
		"$rustc" "${flags[@]}" -C lto=fat -C link-arg=-zstack-size=65536 --crate-type cdylib --extern "weir=$work/libweir.rlib" -o "rust/examples/$e/$e.wasm" "rust/examples/$e/$e.rs"
	done
	rm -r "$work"
	echo "sdk: built rust with $("$rustc" --version)"
}

# The compiler is an npm package of the version in package-lock.json.
build_assemblyscript() {
	local here=assemblyscript/node_modules/assemblyscript/package.json
	wanted() { [ -e "$here" ] && [ "$(node -p "require('./$here').version")" = "$(node -p "require('./assemblyscript/package.json').devDependencies.assemblyscript")" ]; }
	if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
		need assemblyscript nodejs npm || return 0
	fi
	if [ "$(node -p 'process.versions.node.split(".")[0]')" -lt 20 ]; then
		echo "sdk: skipped assemblyscript: its compiler needs Node.js 20 or newer, and this is $(node --version)" >&2
		$install && exit 1 || return 0
	fi
	if ! wanted; then
		if ! $install; then
			echo "sdk: skipped assemblyscript: in sdk/assemblyscript, npm ci (or sdk/build.sh -install assemblyscript)" >&2
			return 0
		fi
		echo "sdk: installing the AssemblyScript compiler"
		(
			flock 9
			cd assemblyscript
			if ! out=$(npm ci --no-audit --no-fund 2>&1); then
				echo "sdk: npm ci failed:" >&2
				tail -5 <<<"$out" >&2
				exit 1
			fi
		) 9>"${TMPDIR:-/tmp}/weir-npm.lock"
	fi
	for e in "${examples[@]}"; do
		(cd assemblyscript && node_modules/.bin/asc "examples/$e/$e.ts" -o "examples/$e/$e.wasm")
	done
	echo "sdk: built assemblyscript with asc $(node -p "require('./$here').version")"
}

build_go() {
	for e in "${examples[@]}"; do
		GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -ldflags='-s -w' -o "go/examples/$e/$e.wasm" "./go/examples/$e"
	done
	echo "sdk: built go"
}

for language in "${languages[@]}"; do
	case $language in
	c | go | rust | assemblyscript) "build_$language" ;;
	*) echo "sdk: no language $language: known are assemblyscript, c, go, rust" >&2; exit 2 ;;
	esac
done
