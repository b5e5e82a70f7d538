#!/bin/sh
# Make a small Debian in the directory DIR, as a fresh machine is: systemd, and what a server or a worker would install from the
# net. It is of the release of this machine, so that what is built here runs there. One that is there already and has all of it is kept.
# May assume: debootstrap, root or sudo, and apt's mirror. Must never: leave half of one in DIR.
set -eu
mkdir -p "$(dirname "$1")"
dir=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")

as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
# shellcheck source=/dev/null
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
packages=systemd,systemd-sysv,dbus,openssh-server,fuse3,openssh-client,sshfs
made="$release $packages"
[ "$(cat "$dir/.made" 2>/dev/null)" != "$made" ] || exit 0

# The first that apt asks for this release, in either form that it takes.
# They are apt's variables, not those of the shell.
# shellcheck disable=SC2016
mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' 2>/dev/null | sed -n "s, $release main$,,p" | head -n 1)
echo "making a small system of $release in $dir"
$as_root rm -rf "$dir.new" "$dir"
$as_root debootstrap --variant=minbase --include="$packages" \
    "$release" "$dir.new" "${mirror:-http://deb.debian.org/debian}" >/dev/null
$as_root rm -rf "$dir.new/var/cache/apt/archives" "$dir.new/usr/share/doc" "$dir.new/usr/share/locale"
echo "$made" | $as_root tee "$dir.new/.made" >/dev/null
$as_root mv "$dir.new" "$dir"
