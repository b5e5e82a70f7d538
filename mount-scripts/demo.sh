#!/bin/sh
# Install what is missing, build crewfs, and let it show itself. Needs Debian or its like, Rust, and root or sudo for packages.
set -eu
cd "$(dirname "$0")/.."

mount-scripts/install-needs.sh fuse3 gcc libc6-dev
if [ ! -e /dev/fuse ]; then
    modprobe fuse || { echo "crewfs needs /dev/fuse: load the kernel module fuse" >&2; exit 1; }
fi
cargo build --release --locked
target/release/crewfs demo "$@"
echo "The program is $(pwd)/target/release/crewfs; to have it in your path: cargo install --path ."
