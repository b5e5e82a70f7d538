#!/bin/sh
# Functions of all coordinators: publish a task, start workers, and wait for them.
# Sourced by the use cases, in a mounted project.
# May assume: $here is the directory of these scripts.
: "${here:?}"

# publish ID LINE…: write an instruction file.
publish() {
    publish_as=$1
    shift
    printf '%s\n' "$@" > "tasks/$publish_as.md"
}

# hire NAME SCRIPT [WORDS]: start a worker that does its tasks with SCRIPT and has the capabilities WORDS.
hire() {
    CREWFS_WORKER=$1 CAPABILITIES=${3-} sh "$here/worker.sh" "$here/$2" &
}

# Wait until no task is ready or claimed, and until the workers have stopped by themselves.
finish() {
    while grep -Eq '"status":"(ready|claimed)"' tasks/queue.json; do
        sleep 0.1
    done
    wait
}

# count STATE: the number of tasks in this state.
count() {
    grep -c "\"status\":\"$1\"" tasks/queue.json || true
}
