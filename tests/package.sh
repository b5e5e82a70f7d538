#!/bin/sh
# Build the Debian package and the tarball, and check their contents. In a Debian 11, 12 and 13 of their own, install each, use it, and
# remove it again (userland.sh). A second run uses the systems of the first.
# May assume: Debian or a distribution based on it, root or sudo, Rust, and Debian's mirror. Must never: install any of it on this
# machine.
set -eu
cd "$(dirname "$0")/.."
as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
# Programs for root alone are not in each user's PATH.
PATH=$PATH:/usr/sbin:/sbin

mount-scripts/need-rust.sh
mount-scripts/install-needs.sh lintian man-db bash debootstrap debian-archive-keyring systemd-container shellcheck binutils
built=$(mount-scripts/package.sh)
echo "$built"
deb=$(echo "$built" | sed -n '/\.deb$/p') tarball=$(echo "$built" | sed -n '/\.tar\.gz$/p')
tools=$(dirname "$(dirname "$deb")")/tools
work=$(mktemp -d)
trap '$as_root rm -rf --one-file-system "$work"' EXIT

step() { echo "== $1"; }
fail() { echo "package.sh: $1" >&2 && exit 1; }

step "what is in them"
dpkg-deb -x "$deb" "$work/files"
dpkg-deb -e "$deb" "$work/control"
mkdir "$work/unpacked"
tar -C "$work/unpacked" --strip-components=1 -xf "$tarball"
for file in usr/bin/crewfs usr/sbin/mount.crewfs usr/sbin/umount.fuse.crewfs 'usr/lib/systemd/system/crewfs@.service' \
    usr/share/man/man1/crewfs.1.gz usr/share/man/man1/crewfs-mount.1.gz usr/share/doc/crewfs/copyright \
    usr/share/bash-completion/completions/crewfs usr/share/zsh/vendor-completions/_crewfs \
    usr/share/fish/vendor_completions.d/crewfs.fish usr/share/crewfs/mount-scripts/deploy.sh \
    usr/share/crewfs/mount-scripts/connect.sh usr/share/crewfs/hooks/stop.sh usr/share/crewfs/templates/task-instruction.md; do
    [ -s "$work/files/$file" ] || fail "$file is not in the package"
done
grep -q '^Depends: fuse3$' "$work/control/control" || fail "the package depends on something else than fuse3"
shellcheck "$work"/control/p*
# The two differ only in files that one of them needs, and in the directory in which zsh looks.
for only in doc/crewfs/copyright doc/crewfs/changelog.Debian.gz lintian/overrides/crewfs; do rm "$work/files/usr/share/$only"; done
for only in doc/crewfs/LICENSE crewfs/install.sh crewfs/postinst crewfs/prerm; do [ -s "$work/unpacked/share/$only" ] || fail "share/$only is not in the tarball"; done
in_one=$(cd "$work/files/usr" && find . -type f -exec sha256sum {} + | sed 's/vendor-completions/site-functions/' | sort)
in_other=$(cd "$work/unpacked" && find . -type f ! -name LICENSE ! -name install.sh ! -name postinst ! -name prerm -exec sha256sum {} + | sort)
[ "$in_one" = "$in_other" ] || fail "the tarball has other files than the package"

step "the program asks for nothing of the system"
crewfs=$work/unpacked/bin/crewfs
readelf -lW "$crewfs" >"$work/headers"
readelf -dW "$crewfs" >>"$work/headers"
objdump -T "$crewfs" >"$work/symbols" 2>&1
! grep -E 'INTERP|NEEDED' "$work/headers" || fail "the program needs libraries: it is not linked statically"
! grep GLIBC "$work/symbols" || fail "the program needs a C library of at least this version"
mkdir "$work/empty"
cp "$crewfs" "$work/empty"
$as_root chroot "$work/empty" /crewfs --version

step "lintian"
# Fails on lintian's errors only: documents and scripts are the same as in the sources.
lintian --fail-on error --tag-display-limit 0 "$deb"

step "manual pages"
for page in "$work"/files/usr/share/man/man1/*.gz; do
    said=$(LC_ALL=C.UTF-8 MANROFFSEQ='' MANWIDTH=100 man --warnings -E UTF-8 -l "$page" 2>&1 >"$work/page")
    [ -z "$said" ] || fail "$(basename "$page"): $said"
    grep -q '^NAME' "$work/page" || fail "$(basename "$page") has no name"
done

step "completions"
bash -n "$work/files/usr/share/bash-completion/completions/crewfs"

step "a Debian 11, 12 and 13"
making=''
for release in bullseye bookworm trixie; do
    tests/operator/machine.sh "$tools/debian-$release" "$release" fuse3 &
    making="$making $!"
done
for one in $making; do wait "$one" || fail "a system to install in is missing, for the reason above"; done
mkdir "$work/given"
cp "$deb" "$work/given/crewfs.deb"
cp "$tarball" "$work/given/crewfs.tar.gz"
cp tests/userland.sh "$work/given"
# The systems run side by side, because they wait most of the time. Their writes go to memory and are lost with the system.
in_debian() {
    $as_root env SYSTEMD_SECCOMP=0 timeout 120 systemd-nspawn --quiet --register=no --keep-unit --private-network --volatile=overlay \
        --bind=/dev/fuse --resolv-conf=off --timezone=off --link-journal=no --as-pid2 --machine="crewfs-$2-$1-$$" \
        --bind-ro="$work/given:/opt/given" --directory="$tools/debian-$1" sh /opt/given/userland.sh "$2" </dev/null >"$work/$1.$2" 2>&1
}
running=''
for release in bullseye bookworm trixie; do
    for what in package tarball; do
        in_debian "$release" "$what" &
        running="$running $!:$release:$what"
    done
done
failed=''
for one in $running; do
    release=$(echo "$one" | cut -d: -f2) what=$(echo "$one" | cut -d: -f3)
    if wait "${one%%:*}"; then
        echo "$release: the $what is installed, works, and goes"
    else
        cat "$work/$release.$what"
        failed="$failed $release:$what"
    fi
done
[ -z "$failed" ] || fail "these do not do what they should, as it says above:$failed"

step "a small system, without any library"
(cd "$work" && apt-get download busybox-static >/dev/null 2>&1) ||
    { $as_root apt-get update >/dev/null && cd "$work" && apt-get download busybox-static >/dev/null; }
small=$work/small
dpkg-deb -x "$work"/busybox-static_*.deb "$small"
mkdir -p "$small/proc" "$small/dev" "$small/tmp" "$small/srv" "$small/opt/given" "$small/etc" "$small/usr/bin" "$small/usr/sbin" "$small/sbin"
touch "$small/dev/null" "$small/dev/fuse"
cp "$work"/given/* "$small/opt/given"
# In mount and process namespaces of its own, so that its mounts end with it.
# shellcheck disable=SC2016
$as_root timeout 120 unshare --mount --pid --fork sh -eu -c '
    mount -t proc proc "$1/proc"
    for device in null fuse; do mount --bind "/dev/$device" "$1/dev/$device"; done
    chroot "$1" /bin/busybox --install -s
    exec chroot "$1" /bin/sh /opt/given/userland.sh small' small "$small" </dev/null || fail "crewfs does not run without libraries"
echo "the package and the tarball are as they should be:"
echo "$built"
