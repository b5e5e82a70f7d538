#!/bin/sh
# Make a small Debian in the directory DIR, like a fresh machine: systemd, and the packages that a server or a worker would install from
# the network. Its release is that of this machine, so that programs built here run there; or the named one, with other packages:
# machine.sh DIR [RELEASE PACKAGE,…]. A system that is there already and has all packages is kept.
# May assume: debootstrap, root or sudo, and apt's mirror. Must never: leave an incomplete system in DIR.
set -eu
mkdir -p "$(dirname "$1")"
dir=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")

as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
# shellcheck source=/dev/null
own=$(. /etc/os-release && echo "$VERSION_CODENAME")
release=${2:-$own}
packages=${3:-systemd,systemd-sysv,dbus,openssh-server,fuse3,openssh-client,sshfs}
made="$release $packages"
[ "$(cat "$dir/.made" 2>/dev/null)" != "$made" ] || exit 0

# The first mirror that apt asks for the release of this machine, in either form of apt's configuration. Debian moves old releases to an
# archive. The variables are apt's, not the shell's.
# shellcheck disable=SC2016
mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' 2>/dev/null | sed -n "s, $own main$,,p" | head -n 1)
mirror=${mirror:-http://deb.debian.org/debian}
mirrors=$mirror
[ "$release" = "$own" ] || mirrors="$mirror http://deb.debian.org/debian http://archive.debian.org/debian"
echo "making a small system of $release in $dir"
said=$(mktemp)
trap 'rm -f "$said"' EXIT
done=''
for mirror in $mirrors; do
    $as_root rm -rf "$dir.new" "$dir"
    if $as_root debootstrap --variant=minbase --include="$packages" "$release" "$dir.new" "$mirror" >"$said" 2>&1; then
        done=yes
        break
    fi
done
[ -n "$done" ] || { cat "$said" && echo "machine.sh: no system of $release could be made from $mirrors" && exit 1; } >&2
$as_root rm -rf "$dir.new/var/cache/apt/archives" "$dir.new/usr/share/doc" "$dir.new/usr/share/locale"
echo "$made" | $as_root tee "$dir.new/.made" >/dev/null
$as_root mv "$dir.new" "$dir"
