#!/bin/sh
# Undo connect.sh: unmount the desk, then the tree. The directory stays, and takes no writes.
# May assume: fuse3. Must never: unmount anything but sshfs mounts, or access one, because it may hang.
set -eu
export LC_ALL=C

usage='usage: disconnect.sh [--lazy] DIR
  --lazy    at once, also while programs use it: open files stay open until their programs close them'

lazy='' quiet=''
while [ $# -gt 1 ]; do
    case $1 in
        --lazy) lazy=z ;;
        # For connect.sh, which prints its own messages.
        --quiet) quiet=yes ;;
        *) break ;;
    esac
    shift
done
case ${1:-} in
    -h | --help) echo "$usage" && exit 0 ;;
    -*) set -- ;;
esac
if [ $# != 1 ]; then
    echo "$usage" >&2
    exit 2
fi
parent=$(cd "$(dirname "$1")" && pwd -P)
dir=${parent%/}/$(basename "$1")

# The sshfs mounts at the directory and just below it, the last one first. A lazy unmount of the first also takes away the others, which
# may be out of reach.
mounts=$(LAZY=$lazy AT=$(printf '%s' "$dir" | sed 's/\\/\\134/g; s/ /\\040/g') awk '
    $5 == ENVIRON["AT"] || (index($5, ENVIRON["AT"] "/") == 1 && substr($5, length(ENVIRON["AT"]) + 2) !~ /\//) {
        for (n = 6; n < NF; n++) if ($n == "-" && $(n + 1) == "fuse.sshfs" && !(ENVIRON["LAZY"] && list)) list = $5 "\n" list
    }
    END { printf "%s", list }' /proc/self/mountinfo)
if [ -z "$mounts" ]; then
    [ -n "$quiet" ] || echo "$dir is not connected."
    exit 0
fi
printf '%s\n' "$mounts" | while IFS= read -r mount; do
    mount=$(printf '%b' "$(printf '%s' "$mount" | sed 's/\\\([0-7]\)/\\0\1/g')")
    fusermount3 -u"$lazy" -- "$mount" || {
        echo "disconnect.sh: $mount is in use or dead; end the programs that use it (fuser -vm $mount), or: disconnect.sh --lazy $dir" >&2
        exit 1
    }
done
[ -n "$quiet" ] || echo "$dir is disconnected. It takes no writes until it is connected again."
