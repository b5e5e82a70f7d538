#!/bin/sh
# Install what the tests need, and run all of them. Arguments go to cargo test.
set -eu
cd "$(dirname "$0")/.."

mount-scripts/prepare-fuse.sh
mount-scripts/install-needs.sh gcc libc6-dev git rsync python3 util-linux e2fsprogs vim shellcheck
shellcheck hooks/*.sh mount-scripts/*.sh tests/*.sh src/cli/demo/*.sh .ci/run
cargo test --locked "$@"
