#!/bin/sh
# More work than expected: workers are added while it goes on, as long as too much of it waits.
# usage, in a mounted project: growing.sh [TASKS [WORKERS]]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR
. "$here/coordinator.sh"
tasks=${1:-100} most=${2:-6}

n=0
while [ $n -lt "$tasks" ]; do
    n=$((n + 1))
    publish "job-$n" "# Job $n" "It takes a moment."
done

hired=1
hire worker-1 growing-work.sh
# How much is too much shows when the first one is at work.
while [ "$(count claimed)" -eq 0 ]; do sleep 0.1; done
while ready=$(count ready) && [ "$ready" -gt 0 ]; do
    # A new one finds its work by itself; nobody tells it, and nobody else has to know.
    if [ $hired -lt "$most" ] && [ "$ready" -gt $((5 * hired)) ]; then
        hired=$((hired + 1))
        hire "worker-$hired" growing-work.sh
    fi
    sleep 0.2
done
finish
echo "$hired workers did $(count completed) jobs"
