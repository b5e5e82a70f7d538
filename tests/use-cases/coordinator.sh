#!/bin/sh
# What coordinators share: how a task is published, how workers are started, and how one waits for them.
# Sourced by the use cases, in a mounted project.
# May assume: that $here is the directory of these scripts.
: "${here:?}"

# publish ID LINE…: write an instruction file.
publish() {
    publish_as=$1
    shift
    printf '%s\n' "$@" > "tasks/$publish_as.md"
}

# hire NAME SCRIPT [WORDS]: start a worker who does its tasks as SCRIPT says, and can do what WORDS say.
hire() {
    CREWFS_WORKER=$1 CAPABILITIES=${3-} sh "$here/worker.sh" "$here/$2" &
}

# Wait until no task is left that could still be done, and until the workers have stopped by themselves.
finish() {
    while grep -Eq '"status":"(ready|claimed)"' tasks/queue.json; do
        sleep 0.1
    done
    wait
}

# count STATE: how many tasks are in it.
count() {
    grep -c "\"status\":\"$1\"" tasks/queue.json || true
}
