#!/bin/sh
# Check that Rust is installed, and new enough to build crewfs; else print how to get it.
# Must never: install or change Rust, which is up to the user.
set -eu
cd "$(dirname "$0")/.."

needed=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
rustup="curl -sSf https://sh.rustup.rs | sh; then open a new shell (what a distribution packages is often too old)"
found=$(rustc --version 2>/dev/null | cut -d' ' -f2)
if [ -z "$found" ] || ! command -v cargo >/dev/null; then
    echo "Rust is missing, and building crewfs takes $needed or newer; get it: $rustup" >&2
    exit 1
fi
if [ "$(printf '%s\n' "$needed" "${found%%-*}" | sort -V | head -n 1)" != "$needed" ]; then
    echo "Rust $found is too old: building crewfs takes $needed or newer; with rustup: rustup update stable; without it: $rustup" >&2
    exit 1
fi
