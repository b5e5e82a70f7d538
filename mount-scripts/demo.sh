#!/bin/sh
# Install missing packages, build crewfs, and run its demo. Needs Debian or its like, Rust, and root or sudo.
set -eu
cd "$(dirname "$0")/.."

crewfs=$(mount-scripts/build.sh)
mount-scripts/prepare-fuse.sh
"$crewfs" demo "$@"
echo "The program is $crewfs; it runs on any Linux on this processor architecture. To put it into your path: sudo install $crewfs /usr/local/bin"
