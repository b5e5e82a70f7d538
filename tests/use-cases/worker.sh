#!/bin/sh
# A worker: claims the best task, does it, says what came of it; stops when should-stop is empty.
# usage, in a mounted project: CREWFS_WORKER=NAME [CAPABILITIES=WORDS] worker.sh SCRIPT
# SCRIPT defines `work ID`, which does one task. What it prints is the result; where it fails, the reason.
# May assume: that nobody else works under this name.
set -u
# shellcheck source=/dev/null
. "$1"

# Tasks that require what it cannot do are not offered to it.
[ -z "${CAPABILITIES-}" ] || echo "$CAPABILITIES" > tasks/workers/self/capabilities

while read -r _ < tasks/workers/self/should-stop; do
    # One step, one winner. Fails while nothing is ready for this worker.
    if ! touch tasks/claim/next 2>/dev/null; then
        sleep 0.1
        continue
    fi
    id=
    while IFS='"' read -r _ key _ value _; do
        [ "$key" = task ] && id=$value && break
    done < tasks/claim/next
    if said=$(work "$id"); then
        echo "$said" > "tasks/completed/$id"
    else
        echo "$said" > "tasks/failed/$id"
    fi
done
