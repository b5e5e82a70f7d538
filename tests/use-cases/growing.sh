#!/bin/sh
# More work than expected: workers are added while the work goes on, as long as too many tasks wait.
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
# Compare the number of waiting tasks only after the first worker has begun.
while [ "$(count claimed)" -eq 0 ]; do sleep 0.1; done
while ready=$(count ready) && [ "$ready" -gt 0 ]; do
    # A new worker finds its tasks by itself; the other workers need not know of it.
    if [ $hired -lt "$most" ] && [ "$ready" -gt $((5 * hired)) ]; then
        hired=$((hired + 1))
        hire "worker-$hired" growing-work.sh
    fi
    sleep 0.2
done
finish
echo "$hired workers did $(count completed) jobs"
