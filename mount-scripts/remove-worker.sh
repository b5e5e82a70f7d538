#!/bin/sh
# Let a worker on another machine no longer into a project: remove its key, and end its connections.
# May assume: root; a project that deploy.sh has deployed. Must never: touch what another worker has.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=mount-scripts/server.sh
. "$here/server.sh"

usage() {
    cat <<'END'
usage: remove-worker.sh [PROJECT] WORKER [--dry-run]

  PROJECT     what the project is called here; needed where there are several
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
    *) wrong "which worker?" ;;
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
    echo "$worker has no way into $name any more. What it claimed becomes free when its connection is gone for as long as remote_grace says."
else
    echo "nothing to do: $worker has no key for $name"
fi
