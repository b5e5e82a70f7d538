#!/bin/sh
# Run the tests that need no mount: units, the queue and the engine, the two filesystems with a stand-in for the kernel, and the
# documents. Arguments go to the test programs, such as a part of a test's name.
# May assume: Rust and a C compiler. Must never: need root, /dev/fuse or the network.
set -eu
cd "$(dirname "$0")/.."
exec cargo test --locked --quiet --lib --test core --test fs --test docs -- "$@"
