#!/bin/sh
# Real agent programs work in a real mount, against a scripted stand-in for their models. Arguments: parts of the names of scenarios.
# CREWFS_KEEP=1 keeps the files that they write. A run takes some minutes, and 1.3 GB below target/tools: too much for CI.
# May assume: Debian or a distribution based on it, Rust, npm's registry, root or sudo. Must never: let a client reach a network.
set -eu
cd "$(dirname "$0")/.."

mount-scripts/need-rust.sh
mount-scripts/prepare-fuse.sh
mount-scripts/install-needs.sh gcc libc6-dev git iproute2 util-linux
command -v npm >/dev/null || mount-scripts/install-needs.sh nodejs npm

target=${CARGO_TARGET_DIR:-target}
tools=$target/tools/clients
mkdir -p "$tools"
cp tests/clients/package.json "$tools/"
npm install --prefix "$tools" --no-audit --no-fund --loglevel=error
cargo build --locked

CREWFS_CLIENTS=$(cd "$tools" && pwd)
CREWFS=$(cd "$target/debug" && pwd)/crewfs
node=$(command -v node)
as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
# A network namespace of their own that has only loopback.
$as_root env CREWFS="$CREWFS" CREWFS_CLIENTS="$CREWFS_CLIENTS" CREWFS_KEEP="${CREWFS_KEEP:-}" \
    unshare --net -- sh -c 'ip link set lo up && exec timeout --kill-after=60 1500 "$@"' sh \
    "$node" tests/clients/main.mjs "$@"
