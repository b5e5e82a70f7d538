#!/bin/sh
# A worker: claims the best task, does it, and writes the result; stops when should-stop is empty.
# usage, in a mounted project: CREWFS_WORKER=NAME [CAPABILITIES=WORDS] worker.sh SCRIPT
# SCRIPT defines `work ID`, which does one task. Its output is the result, or the reason if it fails.
# May assume: no other process works under this name.
set -u
# shellcheck source=/dev/null
. "$1"

# The queue does not offer tasks that need other capabilities to this worker.
[ -z "${CAPABILITIES-}" ] || echo "$CAPABILITIES" > tasks/workers/self/capabilities

while read -r _ < tasks/workers/self/should-stop; do
    # An atomic step with one winner. Fails while no task is ready for this worker.
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
