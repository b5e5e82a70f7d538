#!/bin/sh
# Build the Debian package, look at what is in it, and install, upgrade, remove and purge it in a Debian of its own.
# May assume: Debian, root, and a registry of packages that can be reached. Must never: install anything of it on this machine.
set -eu
cd "$(dirname "$0")/.."

mount-scripts/install-needs.sh lintian man-db bash debootstrap shellcheck
mount-scripts/package.sh
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
for deb in "$target"/debian/crewfs_*.deb; do :; done
work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT

step() { echo "== $1"; }
fail() { echo "package.sh: $1" >&2 && exit 1; }

step "what is in it"
dpkg-deb -x "$deb" "$work/files"
dpkg-deb -e "$deb" "$work/control"
for file in usr/bin/crewfs usr/sbin/mount.crewfs usr/sbin/umount.fuse.crewfs 'usr/lib/systemd/system/crewfs@.service' \
    usr/share/man/man1/crewfs.1.gz usr/share/man/man1/crewfs-mount.1.gz usr/share/doc/crewfs/copyright \
    usr/share/bash-completion/completions/crewfs usr/share/zsh/vendor-completions/_crewfs \
    usr/share/fish/vendor_completions.d/crewfs.fish usr/share/crewfs/mount-scripts/deploy.sh \
    usr/share/crewfs/mount-scripts/connect.sh usr/share/crewfs/hooks/stop.sh usr/share/crewfs/templates/task-instruction.md; do
    [ -s "$work/files/$file" ] || fail "$file is not in the package"
done
grep -q '^Depends:.*fuse3' "$work/control/control" || fail "the package does not depend on fuse3"
shellcheck "$work"/control/postinst "$work"/control/prerm "$work"/control/postrm

step "lintian"
# Documents and scripts are the sources' own; what lintian calls an error is one.
lintian --fail-on error --tag-display-limit 0 "$deb"

step "manual pages"
for page in "$work"/files/usr/share/man/man1/*.gz; do
    said=$(LC_ALL=C.UTF-8 MANROFFSEQ='' MANWIDTH=100 man --warnings -E UTF-8 -l "$page" 2>&1 >"$work/page")
    [ -z "$said" ] || fail "$(basename "$page"): $said"
    grep -q '^NAME' "$work/page" || fail "$(basename "$page") has no name"
done

step "completions"
bash -n "$work/files/usr/share/bash-completion/completions/crewfs"

step "a Debian of its own"
# shellcheck source=/dev/null
debootstrap --variant=minbase --include=fuse3 "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$work/root" >"$work/debootstrap.log" 2>&1 ||
    { cat "$work/debootstrap.log" >&2 && fail "no Debian could be made"; }
cp "$deb" "$work/root/crewfs.deb"
inside() { chroot "$work/root" env DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
inside dpkg -i /crewfs.deb
inside crewfs --version
inside crewfs mount --help | grep -q -- '-o' || fail "the installed program does not work"
inside mkdir -p /etc/crewfs /srv/project /etc/systemd/system/multi-user.target.wants
inside sh -c 'echo "source = \"/srv/project\"" > /etc/crewfs/project.toml'
inside ln -s /usr/lib/systemd/system/crewfs@.service '/etc/systemd/system/multi-user.target.wants/crewfs@project.service'
step "an upgrade"
inside dpkg -i /crewfs.deb
step "removal, and purge: projects and what was configured stay"
inside dpkg -r crewfs
[ ! -e "$work/root/usr/bin/crewfs" ] || fail "removal leaves the program"
inside dpkg -P crewfs
for kept in srv/project etc/crewfs/project.toml; do
    [ -e "$work/root/$kept" ] || fail "purge took $kept, which is not the package's"
done
[ ! -L "$work/root/etc/systemd/system/multi-user.target.wants/crewfs@project.service" ] || fail "purge leaves an enabled unit"
left=$(inside find / -xdev -path '*crewfs*' -not -path '/etc/crewfs*' -not -name crewfs.deb -not -path '/proc/*')
[ -z "$left" ] || fail "purge leaves $left"
echo "the package is as it should be: $deb"
