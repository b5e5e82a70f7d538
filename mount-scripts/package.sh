#!/bin/sh
# Build the two installable files, into target/package: a Debian package, and a tarball with an installer. Both contain the files that are
# listed here once, and their program runs on any Linux. For another machine, name it as rustup does:
# package.sh aarch64-unknown-linux-gnu. The last two lines of output are the paths of the two files.
# May assume: Debian or its like, Rust, and root or sudo for missing packages.
# Must never: write outside of the directory that cargo builds in.
set -eu
cd "$(dirname "$0")/.."

# The completions and manual pages are the same for each machine, and only this machine's program runs here.
crewfs=$(mount-scripts/build.sh)
mount-scripts/install-needs.sh binutils dpkg >&2
version=$("$crewfs" --version | cut -d' ' -f2)
results=$(dirname "$(dirname "$crewfs")")/package
made=$results/made
rm -rf "$made"
"$crewfs" man "$made/man"
gzip -9n "$made"/man/*
for shell in bash zsh fish; do "$crewfs" completions "$shell" >"$made/crewfs.$shell"; done

program=$crewfs strip=strip machine=$(uname -m)
if [ -n "${1:-}" ]; then
    program=$(mount-scripts/build.sh "$1")
    machine=${1%%-*}
    [ "$machine" = "$(uname -m)" ] || strip=$machine-linux-gnu-strip
fi
case $machine in
    x86_64) architecture=amd64 ;;
    aarch64) architecture=arm64 ;;
    *) architecture=$machine ;;
esac

# The files, as a package puts them below /usr. All users may read each; executable files stay executable.
tree=$made/debian/usr
# to PLACE FILE…: copy files or directories below a place.
to() {
    place=$tree/$1 && shift
    mkdir -p "$place"
    cp -R "$@" "$place"
}
# as NAME FILE: copy a file under another name.
as() {
    mkdir -p "$(dirname "$tree/$1")"
    cp "$2" "$tree/$1"
}
to bin "$program"
"$strip" "$tree/bin/crewfs"
to sbin mount-scripts/mount.crewfs
as sbin/umount.fuse.crewfs mount-scripts/umount.crewfs
to lib/systemd/system mount-scripts/crewfs@.service
to share/man/man1 "$made"/man/*
as share/bash-completion/completions/crewfs "$made/crewfs.bash"
as share/zsh/vendor-completions/_crewfs "$made/crewfs.zsh"
as share/fish/vendor_completions.d/crewfs.fish "$made/crewfs.fish"
to share/crewfs hooks templates
to share/crewfs/mount-scripts mount-scripts/*.sh mount-scripts/apparmor-crewfs
# Scripts that build stay with the sources.
for script in build demo need-rust package; do rm "$tree/share/crewfs/mount-scripts/$script.sh"; done
to share/doc/crewfs README.md
to share/doc/crewfs/docs docs/*.md

# The tarball: these files, the license, and the installer with the package's scripts.
name=crewfs-$version-$machine-linux
date=${SOURCE_DATE_EPOCH:-$(date +%s)}
cp -R "$tree" "$made/$name"
mkdir "$made/$name/share/zsh/site-functions"
mv "$made/$name/share/zsh/vendor-completions/_crewfs" "$made/$name/share/zsh/site-functions"
rmdir "$made/$name/share/zsh/vendor-completions"
cp LICENSE "$made/$name/share/doc/crewfs"
cp mount-scripts/tarball/install.sh mount-scripts/debian/postinst mount-scripts/debian/prerm "$made/$name/share/crewfs"
ln -s share/crewfs/install.sh "$made/$name"
chmod -R u=rwX,go=rX "$made/$name"
tar -C "$made" --sort=name --mtime="@$date" --owner=0 --group=0 --numeric-owner -c "$name" | gzip -9n >"$results/$name.tar.gz"

# The package: these files, and Debian's control files.
{
    # Every Debian has the text of one of the two licenses.
    sed '/^The Apache License/,$d' LICENSE | sed '$d'
    echo 'The text of the Apache License, version 2.0, is in /usr/share/common-licenses/Apache-2.0.'
    echo
    echo "The program contains parts of the GNU C Library $(dpkg-query -W -f '${source:Version}' libc6-dev), whose license, the LGPL, is in"
    echo '/usr/share/common-licenses/LGPL-2.1. With another one, it is built from its sources by mount-scripts/build.sh.'
} >"$tree/share/doc/crewfs/copyright"
gzip -9nc >"$tree/share/doc/crewfs/changelog.Debian.gz" <<END
crewfs ($version-1) unstable; urgency=medium

  * Version $version.

 -- The crewfs developers <crewfs@localhost>  $(date -R -u -d "@$date")
END
mkdir -p "$tree/share/lintian/overrides"
cat >"$tree/share/lintian/overrides/crewfs" <<END
# The publisher of a package writes an address here.
crewfs: bogus-mail-host *
crewfs: bogus-mail-host-in-debian-changelog *
# The program is linked statically, so that it runs with older libraries than those of the build machine.
crewfs: shared-library-lacks-prerequisites [usr/bin/crewfs]
crewfs: statically-linked-binary [usr/bin/crewfs]
crewfs: embedded-library zlib [usr/bin/crewfs]
END
chmod -R u=rwX,go=rX "$made/debian"
mkdir "$made/debian/DEBIAN"
cp mount-scripts/debian/* "$made/debian/DEBIAN"
(cd "$made/debian" && find usr -type f | LC_ALL=C sort | xargs -d '\n' md5sum) >"$made/debian/DEBIAN/md5sums"
cat >"$made/debian/DEBIAN/control" <<END
Package: crewfs
Version: $version-1
Architecture: $architecture
Maintainer: The crewfs developers <crewfs@localhost>
Installed-Size: $(du -sk --apparent-size "$tree" | cut -f1)
Depends: fuse3
Recommends: openssh-server
Suggests: sshfs
Section: admin
Priority: optional
Description: $(sed -n 's/^description = "\(.*\)"$/\1/p' Cargo.toml)
 Mounted with crewfs, a project's directory is a place where many coding agents
 work together: the directory tasks/ is a queue, creating a file in it claims a
 task for exactly one worker, and no worker overwrites what it has not read.
END
chmod 755 "$made"/debian/DEBIAN/p*
SOURCE_DATE_EPOCH=$date dpkg-deb --root-owner-group -Zxz --build "$made/debian" "$results" >&2
rm -r "$made"
printf '%s\n' "$results/crewfs_$version-1_$architecture.deb" "$results/$name.tar.gz"
