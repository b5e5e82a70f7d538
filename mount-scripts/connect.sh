#!/bin/sh
# Connect this machine to a project that crewfs serves on another machine, by two sshfs mounts: the tree at DIR, with caches because it is
# large, and on its tasks directory the desk, without caches because it must be current.
# May assume: sshfs with fuse3, ssh, and a key that the server knows. docs/remote.md gives the reason for each option.
# Must never: ask a question, leave one mount without the other, or leave a mount point writable while nothing is mounted.
set -eu
export LC_ALL=C

usage() {
    cat <<'END'
usage: connect.sh [OPTION…] USER@HOST:PROJECT DIR

  PROJECT             where the project is mounted on the server
  DIR                 an empty directory on this machine; made if it is missing
  --desk-only         mount only the desk, at DIR/tasks: DIR is a clone of your own
  --identity FILE     the ssh key of this worker
  --port PORT         the port of ssh on the server
  --tasks NAME        the name of the tasks directory, if it is not "tasks"
  -o OPTION           one more option for sshfs, for both mounts; may be repeated
END
}

fail() {
    echo "connect.sh: $1" >&2
    exit "${2:-1}"
}

wrong() {
    echo "connect.sh: $1" >&2
    usage >&2
    exit 2
}

desk_only='' identity='' port='' tasks=tasks more=''
while [ $# -gt 0 ]; do
    case $1 in
        --identity | --port | --tasks | -o) [ $# -gt 1 ] || wrong "$1 needs a value" ;;
    esac
    case $1 in
        --desk-only) desk_only=yes ;;
        --identity) identity=$2 && shift ;;
        --port) port=$2 && shift ;;
        --tasks) tasks=$2 && shift ;;
        -o) more=$more,$2 && shift ;;
        -h | --help) usage && exit 0 ;;
        -*) wrong "$1 is no option" ;;
        *) break ;;
    esac
    shift
done
[ $# = 2 ] || wrong "USER@HOST:PROJECT and DIR are needed, and nothing after them"
remote=$1 dir=$2
case $remote in
    *:*) host=${remote%%:*} ;;
    *) wrong "$remote names no project: write USER@HOST:PROJECT" ;;
esac
case $remote in
    *:) desk=$remote$tasks ;;
    *) desk=${remote%/}/$tasks ;;
esac
case $(basename "$dir") in
    . | ..) wrong "name the directory, not $dir" ;;
esac
case $port in
    *[!0-9]*) wrong "$port is no port" ;;
esac
case $tasks in
    '' | */* | . | ..) wrong "\"$tasks\" is no name of a directory" ;;
esac

command -v sshfs >/dev/null || fail "sshfs is not installed; install it, on Debian: apt-get install sshfs"
[ -e /dev/fuse ] || fail "there is no /dev/fuse; load the kernel module: modprobe fuse; in a container, start it with --cap-add SYS_ADMIN --device /dev/fuse"
if [ -n "$identity" ]; then
    [ -r "$identity" ] || fail "the key $identity cannot be read; make one: ssh-keygen -t ed25519 -f $identity"
    # sshfs starts ssh for each connection, in the root directory.
    identity=$(cd "$(dirname "$identity")" && pwd)/$(basename "$identity")
fi

root=
[ "$(id -u)" != 0 ] || root=yes
if [ -z "$root$desk_only" ] && ! grep -q '^user_allow_other' /etc/fuse.conf; then
    fail "only root may mount the desk over the tree, unless /etc/fuse.conf has the line user_allow_other: fusermount3, which belongs to root, must see the tree; have root add it: echo user_allow_other >> /etc/fuse.conf; or connect with --desk-only"
fi

here=$(cd "$(dirname "$0")" && pwd)
said=$(mktemp)
made=
trap 'rm -f "$said"' EXIT

# Undo all steps, and fail with a reason.
give_up() {
    "$here/disconnect.sh" --lazy --quiet "$dir" || true
    if [ -n "$made" ]; then
        chattr -i "$made" 2>/dev/null || true
        rmdir "$made" 2>/dev/null || true
    fi
    fail "$1"
}

# Print why sshfs did not mount, from the messages of sshfs and ssh.
reason() {
    at=$host${port:+, port $port}
    case $(cat "$said") in
        *"IDENTIFICATION HAS CHANGED"*) why="the host key of $at has changed; ask the administrator of the server, then remove the old key: ssh-keygen -R HOST" ;;
        *"Host key verification failed"*) why="the host key of $at is not known here; compare it with what ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub shows on the server, then add it: ssh-keyscan ${port:+-p $port }${host#*@} >> ~/.ssh/known_hosts" ;;
        *"Permission denied ("*) why="the server refuses your key; add it there for this worker: add-worker.sh NAME KEY.pub" ;;
        *"Could not resolve"* | *"Connection refused"* | *"timed out"* | *"No route to host"* | *"Network is unreachable"*) why="$at cannot be reached; check the name and the port, and that sshd runs there" ;;
        *"No such file or directory"*) why="$1 does not exist on the server, is not mounted, or is not visible for this key; on the server: crewfs mount" ;;
        *"subsystem request failed"*) why="sshd on $at offers no SFTP; its configuration lacks the line: Subsystem sftp /usr/lib/openssh/sftp-server" ;;
        *"unknown option"*) why="sshfs does not support an option" ;;
        *) why="sshfs could not mount $1" ;;
    esac
    echo "$why"
    sed 's/^/    /' "$said"
}

# Print the source of the sshfs mount at a place; nothing without one. Reads the kernel's table, never the place itself.
mounted_at() {
    AT=$(printf '%s' "$1" | sed 's/\\/\\134/g; s/ /\\040/g') awk '
        $5 == ENVIRON["AT"] { source = ""; for (n = 6; n < NF; n++) if ($n == "-" && $(n + 1) == "fuse.sshfs") source = $(n + 2) }
        END { print source }' /proc/self/mountinfo
}

# Run a command that may hang, as every call on a mount may, for at most 20 s: sshfs needs up to 15 s to notice a dead connection.
within_limit() {
    "$@" >"$said" 2>&1 &
    child=$!
    left=200
    while kill -0 "$child" 2>/dev/null; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || return 124
        sleep 0.1
    done
    wait "$child"
}

answers() {
    within_limit cat "$dir/$tasks/queue.json" && [ -s "$said" ]
}

# Do not access the last part: a mount there may be dead.
parent=$(dirname "$dir")
[ -d "$parent" ] || mkdir -p "$parent" || fail "$parent cannot be made"
parent=$(cd "$parent" && pwd -P)
dir=${parent%/}/$(basename "$dir")

tree_there=$(mounted_at "$dir") desk_there=$(mounted_at "$dir/$tasks")
if [ ! -e "$dir" ] && [ -z "$tree_there" ]; then
    [ -z "$desk_only" ] || fail "$dir does not exist; with --desk-only it is a clone of your own"
    mkdir "$dir" || fail "$dir cannot be made"
    made=$dir
fi
for pair in "$tree_there=$remote" "$desk_there=$desk"; do
    case $pair in
        =* | "${pair#*=}=${pair#*=}") ;;
        *) fail "$dir is connected to ${pair%%=*} already; first: $here/disconnect.sh $dir" ;;
    esac
done
if [ -n "$desk_there" ] && [ -n "$desk_only$tree_there" ]; then
    code=0
    answers || code=$?
    [ "$code" != 124 ] || fail "$dir is connected, but has not answered for 20 s; wait until the network is back, or: $here/disconnect.sh --lazy $dir"
    if [ "$code" = 0 ]; then
        echo "$dir is connected to $remote already; you are $(readlink "$dir/$tasks/workers/self")."
        exit 0
    fi
fi
if [ -n "$tree_there$desk_there" ]; then
    echo "clearing the mounts of an old connection at $dir"
    "$here/disconnect.sh" --lazy --quiet "$dir"
fi

options=reconnect,BatchMode=yes,ConnectTimeout=10,ServerAliveInterval=5,ServerAliveCountMax=2,idmap=user
[ -z "$port" ] || options=$options,port=$port
# ssh splits the value at blanks, sshfs the options at commas.
[ -z "$identity" ] || options=$options,IdentitiesOnly=yes,IdentityFile=\"$(printf '%s' "$identity" | sed 's/[\\,]/\\&/g')\"
options=$options$more
desk_options=dir_cache=no,attr_timeout=0,entry_timeout=0,negative_timeout=0,direct_io
# The kernel must cache no attributes: with an old size it truncates a read of a file that has grown.
tree_options=dcache_timeout=3,attr_timeout=0,max_conns=2
# Only versions that refuse links with ".." have this option; others allow these links.
! sshfs --help 2>&1 | grep -q no_contain_symlinks || tree_options=$tree_options,no_contain_symlinks
# For fusermount3; users other than this one and root have no access.
[ -n "$root" ] || tree_options=$tree_options,allow_root

# Without -v, sshfs does not print the messages of ssh.
# Mount on a directory of this machine that never takes a write. A process with that current directory stays beneath the mount.
mount_on_own() {
    cd "$1"
    [ -z "$(ls -A)" ] || give_up "$1 is not empty, and the mount would hide its files: move them away, or name another directory"
    if [ -n "$root" ]; then
        chattr +i . 2>/dev/null || echo "connect.sh: chattr +i $1 does not work here: while nothing is mounted, root can write there" >&2
    else
        # An ordinary user may mount only on a directory that it can write to.
        chmod u+w . || give_up "$1 belongs to another user"
    fi
    code=0
    sshfs -v "$2" "$1" -o "$options,$3" 2>"$said" || code=$?
    [ -n "$root" ] || chmod a-w .
    [ "$code" = 0 ] || give_up "$(reason "$2")"
    [ -z "$(ls -A)" ] || give_up "$1 was written to while it was being mounted: $(ls -A); move that away, and connect again"
    cd "$parent"
}

if [ -n "$desk_only" ]; then
    [ -d "$dir/$tasks" ] || mkdir "$dir/$tasks"
    mount_on_own "$dir/$tasks" "$desk" "$desk_options"
else
    mount_on_own "$dir" "$remote" "$tree_options"
    # Until the desk is mounted, the tree shows the same tasks directory of the server, with caches.
    sshfs -v "$desk" "$dir/$tasks" -o "$options,$desk_options" 2>"$said" || give_up "$(reason "$desk")"
    device=$(AT=$dir awk '$5 == ENVIRON["AT"] { device = $3 } END { print device }' /proc/self/mountinfo)
    ahead=/sys/class/bdi/$device/read_ahead_kb
    # Only several requests at a time fill a connection with a long round trip.
    [ ! -w "$ahead" ] || echo 4096 >"$ahead"
fi

answers || give_up "$remote exists, but crewfs is not mounted on it: $desk has no queue.json; on the server: crewfs mount"
worker=$(readlink "$dir/$tasks/workers/self") || worker='unknown to the server'
cat <<END
$dir is connected to $remote; you are $worker.
Start your agent in it, or look for yourself:
    cd $dir
    touch $tasks/claim/next && cat $tasks/workers/self/task
To end: $here/disconnect.sh $dir
END
