#!/bin/sh
# End the access of a worker on another machine: remove its key, and end its connections.
# May assume: root; a project that deploy.sh has deployed. Must never: change another worker's key or connections.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=mount-scripts/server.sh
. "$here/server.sh"

usage() {
    cat <<'END'
usage: remove-worker.sh [PROJECT] WORKER [--dry-run]

  PROJECT     the project's name on this machine; needed if there are several
  WORKER      the worker's name in the project
  --dry-run   print each step and change nothing
END
}

words=0
for argument in "$@"; do
    shift
    case $argument in
        --dry-run) dry=yes ;;
        -h | --help) usage && exit 0 ;;
        --*) wrong "$argument is no option" ;;
        *) words=$((words + 1)) && set -- "$@" "$argument" ;;
    esac
done
case $words in
    1) set -- '' "$@" ;;
    2) ;;
    *) wrong "name the worker" ;;
esac
need_root
choose_project "$1"
worker=$2
check_worker "$worker"

keys=$configs/$name.keys
mine="command=\"crewfs sftp-server --worker $worker "
lock_keys
if grep -qsF "$mine" "$keys"; then
    put "$keys" 640 "$(grep -vF "$mine" "$keys" || true)" "$(id -gn "$user")"
fi
if [ -n "$(connections "$user" "$worker")" ]; then
    change "end the connections of $worker" end_connections "$user" "$worker"
fi
if [ -n "$dry" ]; then
    echo "nothing was changed: this was a dry run"
elif [ -n "$changed" ]; then
    echo "$worker has no access to $name any more. Its claims end when its connection has been gone for remote_grace."
else
    echo "nothing to do: $worker has no key for $name"
fi
