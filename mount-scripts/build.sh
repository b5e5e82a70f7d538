#!/bin/sh
# Build crewfs from these sources, as one program for any Linux: it is linked statically, so that it needs only the system's
# kernel. The last line of output is the path of the program. For another machine, name it as rustup does:
# build.sh aarch64-unknown-linux-gnu
# May assume: Debian or its like, and root or sudo for missing packages. Must never: install or change Rust, which is up to the user.
set -eu
cd "$(dirname "$0")/.."

fail() {
    echo "build.sh: $1" >&2
    exit 1
}

[ -e Cargo.toml ] || fail "the sources are not here; an installed crewfs needs no build: crewfs demo shows it at work"
machine=${1:-}

mount-scripts/need-rust.sh
host=$(rustc -vV | sed -n 's/^host: //p')
[ "$machine" != "$host" ] || machine=''
case ${machine:-$host} in
    *-linux-gnu) ;;
    # A build with musl is static too, but no test runs it, and its allocator is slow.
    *) fail "${machine:-$host} is not supported; supported is Linux with Rust's library for gnu, such as aarch64-unknown-linux-gnu" ;;
esac
if [ -z "$machine" ]; then
    mount-scripts/install-needs.sh gcc libc6-dev >&2
else
    [ -n "$(find "$(rustc --print target-libdir --target "$machine")" -name 'libstd-*.rlib' 2>/dev/null)" ] ||
        fail "Rust's standard library for $machine is missing; get it: rustup target add $machine"
    processor=${machine%%-*}
    case $processor in
        aarch64) mount-scripts/install-needs.sh gcc-aarch64-linux-gnu libc6-dev-arm64-cross >&2 ;;
        x86_64) mount-scripts/install-needs.sh gcc-x86-64-linux-gnu libc6-dev-amd64-cross >&2 ;;
    esac
    # Cargo takes the linker of a machine from a variable with the machine's name.
    linker=CARGO_TARGET_$(echo "$machine" | tr 'a-z-' 'A-Z_')_LINKER
    export "$linker=$processor-linux-gnu-gcc"
fi

# For the program alone: macros run during the build, and cannot be static.
cargo rustc --locked --release --bin crewfs ${machine:+--target "$machine"} -- -C target-feature=+crt-static >&2
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
echo "$target/${machine:+$machine/}release/crewfs"
