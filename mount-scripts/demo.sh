#!/bin/sh
# Install what is missing, build crewfs, and let it show itself. Needs Debian or its like, Rust, and root or sudo.
set -eu
cd "$(dirname "$0")/.."

mount-scripts/install-needs.sh gcc libc6-dev
mount-scripts/prepare-fuse.sh
cargo build --release --locked
target/release/crewfs demo "$@"
echo "The program is $(pwd)/target/release/crewfs; to have it in your path: cargo install --path ."
