#!/bin/sh
# What the hooks share: questions to the desk that end in time, the client's JSON, the place for what is kept between calls.
# May assume: Linux with /proc; it is read into a hook whose first argument names the client.
# Must never: touch the project other than below desk_ask. Whoever waits for a hung mount cannot be killed.

# Tools come from the system, not from a directory of the project that stands in PATH.
PATH=/usr/bin:/bin:$PATH
client=${1:-claude}

# Run "$@" and print what it prints, if it ends in time. Else it fails, and what hangs is left behind: it holds neither our
# output nor our errors, so the client does not wait for it. Its parent lives as long as it is waited for, because the
# desk finds the worker's name by going up from it. After an answer nothing is left behind, so that the mount can be taken away.
desk_ask() {
    (
        # By exec, because a shell that redirects a group keeps the old ends for after it, also in what it forks.
        exec </dev/null 2>/dev/null
        read -r asker _ </proc/self/stat
        # The last one started is the timer, or who has just answered. A shell that is about to become sleep may still have the
        # trap of its parent, in which every signal but this one is lost.
        trap 'kill -9 "$!"; wait; exit 0' TERM
        # Who says the word after nobody listens any more gets no further: the number may be another process's by then.
        { "$@"; echo '#answered' && kill "$asker"; } &
        # A process that waits for the clock only keeps no mount in use.
        cd /
        sleep "${CREWFS_PATIENCE:-0.8}" &
        wait "$!" || { sleep 1 & wait "$!"; }
        echo '#late'
    ) | while IFS= read -r line; do
        case $line in
        '#answered') exit 0 ;;
        '#late') exit 1 ;;
        *) printf '%s\n' "$line" ;;
        esac
    done
}

# Find the desk: CREWFS_TASKS, looked for from the current directory upwards, then from the client's project directory.
# Below desk_ask only. Sets desk, and tasks: how to name it to somebody who works in the current directory.
# shellcheck disable=SC2034
desk_find() {
    name=${CREWFS_TASKS:-tasks}
    for place in "$PWD" "${CLAUDE_PROJECT_DIR:-}" "${CURSOR_PROJECT_DIR:-}"; do
        # A relative one leads nowhere.
        case $place in /*) ;; *) continue ;; esac
        while [ "$place" ]; do
            case $name in
            /*) desk=$name place= ;;
            *) desk=$place/$name ;;
            esac
            tasks=$desk
            [ "$place" != "$PWD" ] || tasks=$name
            # An ordinary directory of that name has no such file.
            [ ! -e "$desk/workers/self/status" ] || return 0
            place=${place%/*}
        done
    done
    return 1
}

# What the client has to say. It is read to its end also where nothing of it is needed: some clients take a closed pipe ill.
read_input() {
    input=
    [ -t 0 ] || input=$(cat)
}

# The first member of this name in the client's input, if it is a string; as it is written in JSON. Within a text a quote
# has a backslash before it, so what a text holds is not taken for a member. (The shell's own patterns take minutes for a
# long text.)
input_member() {
    printf '%s\n' "$input" | grep -oE "\"$1\""': ?"([^"\\]|\\.)*"' | sed 's/^[^:]*: *"//; s/"$//; q'
}

# A text as what stands between the quotes of a JSON string.
json_text() {
    tr -d '\000-\010\013-\037\177' | sed 's/\\/\\\\/g; s/"/\\"/g; s/	/\\t/g; s/$/\\n/' | tr -d '\n' | sed 's/\\n$//'
}

# Tell the agent a text, as the client takes it from its event $1. What is not told is no line at all.
tell_agent() {
    case $client in
    cursor) printf '{"additional_context":"%s"}\n' "$2" ;;
    *) printf '{"hookSpecificOutput":{"hookEventName":"%s","additionalContext":"%s"}}\n' "$1" "$2" ;;
    esac
}

# The directory for what is kept between calls, outside of every mount; nothing if it is not ours alone.
kept_in() {
    mine=$(id -u)
    kept=${XDG_RUNTIME_DIR:-${TMPDIR:-/tmp}}/crewfs-hooks-$mine
    mkdir -m 700 "$kept" 2>/dev/null
    [ -z "$(find "$kept" -prune -type d -user "$mine" -perm 700 2>/dev/null)" ] || printf '%s' "$kept"
}

# The name under which a session's count is kept.
session_key() {
    session=$(input_member session_id)
    [ "$session" ] || session=$(input_member conversation_id)
    case $session in *[!A-Za-z0-9._-]*) session= ;; esac
    printf '%s' "$1.$session"
}
