#!/bin/sh
# See that this user can mount crewfs: the package, the device, and for others than root the line in /etc/fuse.conf.
# May assume: apt, and root or sudo. Must never: change anything for root, who needs no leave.
set -eu
cd "$(dirname "$0")"

./install-needs.sh fuse3
as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
if [ ! -e /dev/fuse ]; then
    $as_root modprobe fuse || { echo "crewfs needs /dev/fuse: load the kernel module fuse" >&2; exit 1; }
fi
if [ -n "$as_root" ] && ! grep -q '^user_allow_other' /etc/fuse.conf; then
    echo "adding user_allow_other to /etc/fuse.conf, so that you can mount crewfs"
    echo user_allow_other | sudo tee -a /etc/fuse.conf >/dev/null
fi
