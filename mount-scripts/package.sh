#!/bin/sh
# Build the Debian package into target/debian.
# May assume: Debian or Ubuntu, Rust, and root or sudo for what is missing.
# Must never: write outside of the directory that cargo builds in.
set -eu
cd "$(dirname "$0")/.."

mount-scripts/install-needs.sh gcc libc6-dev dpkg-dev
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
PATH=$target/tools/bin:$PATH
command -v cargo-deb >/dev/null || cargo install --quiet --locked --root "$target/tools" cargo-deb@3.8.0
cargo build --locked --release
crewfs=$target/release/crewfs

# What the program says of itself, where Cargo.toml looks for it.
made=$target/package
rm -rf "$made"
"$crewfs" man "$made/man"
for shell in bash zsh fish; do "$crewfs" completions "$shell" > "$made/crewfs.$shell"; done
version=$("$crewfs" --version | cut -d' ' -f2)
date=$(date -R -u ${SOURCE_DATE_EPOCH:+-d "@$SOURCE_DATE_EPOCH"})
cat > "$made/changelog" <<END
crewfs ($version-1) unstable; urgency=medium

  * Version $version.

 -- The crewfs developers <crewfs@localhost>  $date
END
# One of the two licenses is on every Debian.
sed '/^The Apache License/,$d' LICENSE | sed '$d' > "$made/license"
echo 'The text of the Apache License, version 2.0, is in /usr/share/common-licenses/Apache-2.0.' >> "$made/license"
cat > "$made/lintian" <<END
# Whoever publishes a package of it puts an address of theirs here.
crewfs: bogus-mail-host *
crewfs: bogus-mail-host-in-debian-changelog *
END
cargo deb --no-build --strip --no-dbgsym
