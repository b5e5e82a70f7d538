#!/bin/sh
# Install what the tests need, and run all of them. Arguments go to cargo test.
set -eu
cd "$(dirname "$0")/.."

mount-scripts/prepare-fuse.sh
mount-scripts/install-needs.sh gcc libc6-dev git rsync python3 util-linux e2fsprogs vim shellcheck \
    stress-ng libacl1-dev acl attr make patch sqlite3 ripgrep inotify-tools chromium tmux dash busybox \
    openssh-server openssh-client sshfs iproute2
# Whoever has node from elsewhere keeps it.
command -v npm >/dev/null || mount-scripts/install-needs.sh nodejs npm

# Suites for filesystems, kept where cargo builds: they are there the next time.
tools=${CARGO_TARGET_DIR:-target}/tools
mkdir -p "$tools"
env -u RUSTFLAGS cargo install --quiet --locked --debug --root "$tools" pjdfstest@0.2.2 fsx@0.3.2
PATH=$(cd "$tools" && pwd)/bin:$PATH
export PATH

# A small system for what an operator runs, kept there too.
mount-scripts/install-needs.sh debootstrap systemd-container
tests/operator/machine.sh "$tools/machine"

shellcheck -x hooks/*.sh mount-scripts/*.sh mount-scripts/*mount.crewfs mount-scripts/debian/* tests/*.sh tests/operator/*.sh \
    tests/use-cases/*.sh src/cli/demo/*.sh .ci/run
cargo test --locked "$@"
