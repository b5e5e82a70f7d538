#!/bin/sh
# The hook for the start of a session: tells the agent its name, how to claim and finish, what it holds, and the state of the
# queue. Reading the desk also lists the worker there. Usage: session-start.sh CLIENT
# May assume: nothing. Must never: delay a session because the mount is gone, dead or hangs; use < > $( ) or backticks in
# its text, which Gemini changes or refuses.

# shellcheck disable=SC2317 # desk_ask calls by name
# shellcheck source-path=SCRIPTDIR source=desk.sh
command -v desk_ask >/dev/null || . "$(dirname "$0")/desk.sh"

look() {
    desk_find || return
    facts=$(desk_status <workers/self/status)
    worker=$(facts_of worker "$facts")
    task=$(facts_of holds "$facts")
    [ "$worker" ] || return
    queue=$(sed -n 's/^  "tasks": {\(\("[a-z]*":[0-9]*,\{0,1\}\)*\)},\{0,1\}$/\1/p' summary.json | sed 's/"//g; s/:/ /g; s/,/, /g')
    cat <<TEXT
You are the worker $worker of a crew that shares this project. Its queue of tasks is the directory $tasks.
To claim the best task: touch $tasks/claim/next; then read $tasks/workers/self/task and do what it says.
To note progress, write a line into $tasks/workers/self/note. To finish, write what you did into $tasks/completed/ID; if the task cannot be done, write the reason into $tasks/failed/ID. To give the task back: rm $tasks/claim/ID.
A change that fails with EBUSY (resource busy) was refused because another worker has that file: $tasks/workers/self/why names that worker, and says what to do.
TEXT
    if [ "$task" ]; then
        echo "You hold $task: continue with it."
    else
        echo 'You hold nothing now.'
    fi
    if [ -e paused ]; then
        echo "The queue is paused: no task can be claimed now. It holds: $queue."
    else
        echo "The queue holds: $queue."
    fi
}

read_input
text=$(desk_ask look) || exit 0
[ -z "$text" ] || tell_agent SessionStart "$(printf '%s' "$text" | json_text)"
exit 0
