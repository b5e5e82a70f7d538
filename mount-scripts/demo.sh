#!/bin/sh
# Install what is missing, build crewfs, and let it show itself. Needs Debian or its like, Rust, and root or sudo.
set -eu
cd "$(dirname "$0")/.."

crewfs=$(mount-scripts/build.sh)
mount-scripts/prepare-fuse.sh
"$crewfs" demo "$@"
echo "The program is $crewfs; it runs on any Linux of this kind of machine. To have it in your path: sudo install $crewfs /usr/local/bin"
