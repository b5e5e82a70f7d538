#!/bin/sh
# Install the crewfs beside this script, or uninstall it. A second run installs files that are missing or differ.
# May assume: any Linux, a POSIX shell with its usual tools (busybox is enough), and root for directories of the system.
# Must never: touch files that it did not install, a project, its state, or its settings.
set -eu
umask 022
here=$(cd "$(dirname "$0")" && pwd)

usage() {
    cat <<'END'
usage: install.sh [--prefix DIR] [--uninstall]

  --prefix DIR   install below DIR, as DIR/bin/crewfs and so on (default: /usr/local). Below another DIR, systemd and mount(8) do
                 not find their parts (crewfs@.service, mount.crewfs), so these are left out
  --uninstall    remove the files that were installed there
END
}

fail() {
    echo "install.sh: $1" >&2
    exit 1
}

# End with a message about wrong arguments.
wrong() {
    echo "install.sh: $1" >&2
    usage >&2
    exit 2
}

prefix=/usr/local uninstall=''
while [ $# -gt 0 ]; do
    case $1 in
        --prefix)
            [ $# -gt 1 ] || wrong "--prefix needs a directory"
            prefix=$2 && shift
            ;;
        --prefix=*) prefix=${1#--prefix=} ;;
        --uninstall) uninstall=yes ;;
        -h | --help) usage && exit 0 ;;
        *) wrong "$1 is no option" ;;
    esac
    shift
done
case $prefix in
    /*) ;;
    *) wrong "\"$prefix\" is no absolute path; write --prefix $(pwd)/$prefix" ;;
esac
while [ "$prefix" != "${prefix%/}" ]; do prefix=${prefix%/}; done
case $prefix in
    '' | /usr) wrong "${prefix:-/} belongs to the system's own packages; leave --prefix out, or name another directory" ;;
esac
# systemd and mount(8) look below /usr/local, too.
system=''
[ "$prefix" != /usr/local ] || system=yes
list=$prefix/share/crewfs/installed
own="$prefix/share/crewfs/install.sh --uninstall"
[ -n "$system" ] || own="$own --prefix $prefix"

if [ -n "$system" ] && [ "$(id -u)" != 0 ]; then
    fail "/usr/local belongs to the system, so this needs root: run it with sudo; or install it for yourself alone: install.sh --prefix ~/.local"
fi

# of KIND FILE: print the paths of that kind in a list.
of() {
    [ ! -e "$2" ] || sed -n "s/^$1 //p" "$2"
}

# Remove also the temporary file of a copy that was interrupted.
remove_files() {
    while read -r path; do rm -f "$path" "$path.new"; done
}

# The innermost first; a directory with other files stays.
remove_directories() {
    sort -r | while read -r path; do rmdir "$path" 2>/dev/null || true; done
}

reload() {
    if [ -n "$system" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
}

if [ -n "$uninstall" ]; then
    [ -e "$list" ] || fail "this script has installed nothing below $prefix: there is no $list; check --prefix"
    [ -w "$prefix/share/crewfs" ] || fail "$prefix cannot be written to; run this as the user who installed it"
    # Run the package's script first.
    [ -z "$system" ] || sh "$prefix/share/crewfs/prerm" remove
    files=$(of file "$list") directories=$(of directory "$list")
    echo "$files" | remove_files
    echo "$directories" | remove_directories
    reload
    echo "crewfs is removed from $prefix. Projects, their state, and /etc/crewfs stay."
    exit 0
fi

[ -x "$here/bin/crewfs" ] || fail "$here has no bin/crewfs; run install.sh in the unpacked tarball"
version=$("$here/bin/crewfs" --version 2>/dev/null) ||
    fail "$here/bin/crewfs does not start on this machine ($(uname -s) $(uname -m)); there is a tarball for each processor architecture, named in its file name"
if [ -n "$system" ] && dpkg-query -W -f '${Status}' crewfs 2>/dev/null | grep -q 'ok installed'; then
    fail "crewfs is installed here as a package already; upgrade it with a newer package, or remove it first: apt remove crewfs"
fi

# Print the destination of a file of the tarball: mount(8) looks for its helpers in /sbin alone.
place_of() {
    case $1 in
        sbin/*) echo "/$1" ;;
        *) echo "$prefix/$1" ;;
    esac
}

tarball() {
    cd "$here"
    find bin share -type f
    [ -z "$system" ] || find sbin lib -type f
}

# missing PATH: print the directories above it that do not exist.
missing() {
    above=$(dirname "$1")
    [ -d "$above" ] || { echo "directory $above" && missing "$above"; }
}

new=$(
    tarball | while read -r file; do
        path=$(place_of "$file")
        missing "$path"
        echo "file $path"
    done
    echo "file $list"
)
mkdir -p "$prefix/share/crewfs" 2>/dev/null || true
[ -w "$prefix/share/crewfs" ] ||
    fail "$prefix cannot be written to; run this with sudo, or name a directory of yours: install.sh --prefix ~/.local"
# Write the list before anything is installed, with the old entries: after any end of this script, all files can be removed.
before=$(cat "$list" 2>/dev/null || true)
printf '%s\n' "$before" "$new" | sed '/^$/d' | sort -u >"$list.new"
mv "$list.new" "$list"

replaced=''
if [ -e "$prefix/bin/crewfs" ] && ! cmp -s "$here/bin/crewfs" "$prefix/bin/crewfs"; then
    replaced=$("$prefix/bin/crewfs" --version 2>/dev/null | cut -d' ' -f2)
fi
changed=$(
    tarball | while read -r file; do
        path=$(place_of "$file")
        if cmp -s "$here/$file" "$path"; then continue; fi
        mkdir -p "$(dirname "$path")"
        # Replace a running program; never write to it.
        cp "$here/$file" "$path.new"
        chmod 755 "$path.new"
        [ -x "$here/$file" ] || chmod 644 "$path.new"
        mv "$path.new" "$path"
        echo "$path"
    done
)
# Remove the files of an older crewfs that this one does not have.
echo "$before" | sed -n 's/^file //p' | while read -r path; do
    echo "$new" | grep -qxF "file $path" || echo "$path"
done | remove_files
{
    of directory "$list" | sed 's/^/directory /'
    echo "$new" | grep '^file '
} | sort -u >"$list.new"
mv "$list.new" "$list"

if [ -n "$changed" ]; then
    echo "$version is installed below $prefix"
    reload
    [ -z "$replaced" ] || sh "$prefix/share/crewfs/postinst" configure "$replaced"
else
    echo "nothing to do: $version is installed below $prefix already"
fi
[ -n "$system" ] || echo "left out, because systemd and mount(8) look for them only in /usr/local: crewfs@.service, and the helpers for mount(8) and fstab"
[ -e /dev/fuse ] || echo "/dev/fuse is missing, which every mount needs; as root: modprobe fuse"
command -v fusermount3 >/dev/null ||
    echo "fusermount3 is missing, which users other than root need to mount; install the package fuse3 (apt install fuse3, dnf install fuse3, apk add fuse3)"
case :$PATH: in
    *:"$prefix/bin":*) ;;
    *) echo "$prefix/bin is not in PATH; add it, or start $prefix/bin/crewfs" ;;
esac
cat <<END
try it:            crewfs demo
serve a project:   $prefix/share/crewfs/mount-scripts/deploy.sh
uninstall:         $own
END
