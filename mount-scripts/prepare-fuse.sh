#!/bin/sh
# Make sure that this user can mount crewfs: the package, the device, and for users other than root the line in /etc/fuse.conf.
# May assume: apt, and root or sudo. Must never: change /etc/fuse.conf for root, which does not need it.
set -eu
cd "$(dirname "$0")"

./install-needs.sh fuse3
as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
if [ ! -e /dev/fuse ]; then
    in_container='start the container with --cap-add SYS_ADMIN --device /dev/fuse'
    if grep -qw fuse /proc/filesystems; then
        echo "the kernel has FUSE, but there is no /dev/fuse here; $in_container" >&2
        exit 1
    fi
    $as_root modprobe fuse || {
        echo "the kernel has no FUSE; load its module: modprobe fuse; for a container do that on its host, and $in_container" >&2
        exit 1
    }
fi
if [ -n "$as_root" ] && ! grep -q '^user_allow_other' /etc/fuse.conf; then
    echo "adding user_allow_other to /etc/fuse.conf, so that you can mount crewfs"
    echo user_allow_other | sudo tee -a /etc/fuse.conf >/dev/null
fi
