#!/bin/sh
# Give a worker on another machine access to a project: tie its key to its name, and to one command that can do nothing else.
# May assume: root; a project that deploy.sh has deployed.
# Must never: use anything of the given key but its type and its number, because a key can carry options.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=mount-scripts/server.sh
. "$here/server.sh"

usage() {
    cat <<'END'
usage: add-worker.sh [PROJECT] WORKER KEY [--replace] [--dry-run]

  PROJECT     the project's name on this machine; needed if there are several
  WORKER      the worker's name in the project
  KEY         its public key: the text itself, a file that contains it, or - for standard input
  --replace   replace the worker's key by this one, and end its connections
  --dry-run   print each step and change nothing
END
}

replace='' words=0
for argument in "$@"; do
    shift
    case $argument in
        --replace) replace=yes ;;
        --dry-run) dry=yes ;;
        -h | --help) usage && exit 0 ;;
        --*) wrong "$argument is no option" ;;
        *) words=$((words + 1)) && set -- "$@" "$argument" ;;
    esac
done
case $words in
    2) set -- '' "$@" ;;
    3) ;;
    *) wrong "a worker and its key are needed" ;;
esac
need_root
choose_project "$1"
worker=$2
check_worker "$worker"

given=$3
case $given in
    -) key=$(cat) ;;
    *' '*) key=$given ;;
    *)
        [ -f "$given" ] || fail "there is no file $given; give the public key itself in quotes, or the file that contains it, such as ~/.ssh/id_ed25519.pub"
        key=$(cat "$given")
        ;;
esac
case $key in
    *"PRIVATE KEY"*) fail "this is a private key, which must never leave the worker's machine; give the public key, in the file that ends with .pub" ;;
    '') fail "the key is empty; make one on the worker's machine: ssh-keygen -t ed25519" ;;
    *"
"*) fail "the key has more than one line; a worker has one key: give one line of the file that ends with .pub" ;;
esac
# The rest of the line is a comment.
read -r type number _ <<END
$key
END
case $type in
    ssh-ed25519 | ssh-rsa | ecdsa-sha2-nistp256 | ecdsa-sha2-nistp384 | ecdsa-sha2-nistp521 | sk-ssh-ed25519@openssh.com | sk-ecdsa-sha2-nistp256@openssh.com) ;;
    *) fail "\"$type\" is no accepted type of key; a key begins with its type, such as ssh-ed25519, and has no options" ;;
esac
case $number in
    '' | *[!A-Za-z0-9+/=]*) fail "the key is damaged: after $type comes its number, one word of letters, digits, + and /" ;;
esac
shown=$(echo "$type $number $worker" | ssh-keygen -l -f - 2>/dev/null) || fail "the key is damaged: ssh-keygen does not understand it; copy the line from the .pub file again"

keys=$configs/$name.keys
place=$(place_of "$name")
line="restrict,command=\"crewfs sftp-server --worker $worker --root '$place'\" $type $number $worker"

lock_keys
there=$(cat "$keys" 2>/dev/null || true)
# Names contain no special character of a fixed string.
mine="command=\"crewfs sftp-server --worker $worker "
if holder=$(echo "$there" | grep -F " $number " | grep -vF "$mine"); then
    fail "this key belongs to ${holder##* } already; each worker needs its own key, which identifies it: ssh-keygen -t ed25519"
fi
old=$(echo "$there" | grep -F "$mine" || true)
if [ "$old" = "$line" ]; then
    echo "nothing to do: $worker has this key"
else
    [ -z "$old" ] || [ -n "$replace" ] || [ "${old#*" $number "}" != "$old" ] || fail "$worker has another key already; to replace it by this one: $0 $name $worker KEY --replace"
    group=$(id -gn "$user")
    [ -z "$there" ] || there=$(echo "$there" | grep -vF "$mine" || true)
    put "$keys" 640 "$there
$line" "$group"
    [ -z "$old" ] || change "end the connections of $worker" end_connections "$user" "$worker"
    [ -n "$dry" ] || echo "$worker works on $name with the key $shown"
fi
if [ -n "$dry" ]; then
    echo "nothing was changed: this was a dry run"
    exit 0
fi
host=$(hostname -f 2>/dev/null || hostname)
echo "On its machine:"
# The user who copied the worker's key here can copy this one back; connect.sh asks no user to confirm it.
if host_key=$(cut -d ' ' -f 1,2 /etc/ssh/ssh_host_ed25519_key.pub 2>/dev/null); then
    echo "    echo '$host $host_key' >> ~/.ssh/known_hosts"
fi
echo "    mount-scripts/connect.sh --identity KEY $user@$host:$place DIR"
