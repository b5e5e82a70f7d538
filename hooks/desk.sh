#!/bin/sh
# Shared by the hooks: questions to the desk with a time limit, the client's JSON, the directory for state between calls.
# May assume: Linux with /proc; it is read into a hook whose first argument names the client.
# Must never: access the project outside of desk_ask, because a process that waits for a mount that hangs cannot be killed; use a text as
# a name, a number or a time, or pass it on, before it was compared with the form that crewfs writes.

# Take tools from the system, even if PATH begins with a directory of the project.
PATH=/usr/bin:/bin:$PATH
client=${1:-claude}

# Run "$@" and print its output, if it ends in time. Else fail, and leave the child that hangs behind: it holds neither our
# output nor our errors, so the client does not wait for it. The child's parent lives as long as we wait for the child, because the
# daemon finds the worker's name among the child's ancestors. After an answer no child is left, so that the mount can be taken away.
desk_ask() {
    (
        # Use exec: a shell that redirects a group keeps the old descriptors open, in itself and in its children.
        exec </dev/null 2>/dev/null
        read -r asker _ </proc/self/stat
        # $! is the timer, or the child that has just answered. A shell that is about to become sleep may still have its parent's
        # trap, which swallows every signal but KILL.
        trap 'kill -9 "$!"; wait; exit 0' TERM
        # A late answer fails at echo, so kill is not reached: the pid may belong to another process by then.
        { "$@"; echo '#answered' && kill "$asker"; } &
        # The timer must not keep the mount in use.
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

# The forms of names (docs/filesystem.md) and of times, for sed.
# shellcheck disable=SC2034
task_id='[A-Za-z0-9][A-Za-z0-9._-]\{0,127\}' worker_name='[A-Za-z0-9][A-Za-z0-9._-]\{0,63\}'
# shellcheck disable=SC2034
moment='[0-9]\{4\}-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9]\.[0-9]\{3\}Z'

# Sets mounts from the kernel's table: for each mount a line with its type, for sshfs the uid that mounted it, and its mount point.
# The kernel writes white space and backslashes in it as octal digits. Reading the table accesses no mount.
read_mounts() {
    mounts=$(sed -e 's/\\043/#/g' \
        -e 's/^\([^ ]* \)\{4\}\([^ ]*\) .* - fuse\.sshfs [^ ]* [^ ]*,user_id=\([0-9]*\),[^ ]*$/fuse.sshfs \3 \2/;t' \
        -e 's/^\([^ ]* \)\{4\}\([^ ]*\) .* - \([^ ]*\) [^ ]* [^ ]*$/\3 \2/' /proc/self/mountinfo)
    newline='
'
    mounts=$newline$mounts$newline
}

# Sets kind: the type and the uid of the youngest mount at exactly this place; empty without a mount.
mounted_at() {
    rest=$1 written=
    case $rest in
    *\\* | *' '* | *'	'* | *"$newline"*)
        while [ "$rest" ]; do
            char=${rest%"${rest#?}"} rest=${rest#?}
            case $char in
            \\) char='\134' ;;
            ' ') char='\040' ;;
            '	') char='\011' ;;
            "$newline") char='\012' ;;
            esac
            written=$written$char
        done
        ;;
    *) written=$rest ;;
    esac
    kind=${mounts%" $written$newline"*}
    if [ "$kind" = "$mounts" ]; then kind=; else kind=${kind##*"$newline"}; fi
}

# Whether an sshfs mount belongs to root or to our user. Another user's mount may show anything in a directory that all may write to.
is_ours() {
    case $1 in
    'fuse.sshfs 0') ;;
    'fuse.sshfs '*) [ "${1#* }" = "$(id -u)" ] ;;
    *) return 1 ;;
    esac
}

# Go to the desk that is mounted at the name $2 in the directory $1. A directory that only looks like a desk does not count: any user may
# have written its files. A desk of crewfs is a mount of its own on a tree of crewfs; over sshfs it is a mount of its own
# or lies in the root of one. No link is followed below $1. Later opens follow none either, because the desk is then the current directory.
# Call only in desk_ask. Sets desk.
desk_at() {
    cd -P -- "$1" 2>/dev/null || return
    desk=${PWD%/}/$2
    mounted_at "$desk" && at_desk=$kind
    mounted_at "${desk%/*}" && above=$kind
    case $at_desk in
    fuse.crewfs) [ "$above" = fuse.crewfs ] || return ;;
    '') is_ours "$above" || return ;;
    *) is_ours "$at_desk" || return ;;
    esac
    cd -P -- "$desk" 2>/dev/null && [ "$PWD" = "$desk" ]
}

# Find the desk: search CREWFS_TASKS from the current directory upwards, then from the client's project directory.
# Call only in desk_ask. Goes to the desk, and sets tasks: its path for an agent that works in the current directory.
# shellcheck disable=SC2034
desk_find() {
    read_mounts
    case $mounts in *"${newline}fuse.crewfs "* | *"${newline}fuse.sshfs "*) ;; *) return 1 ;; esac
    name=${CREWFS_TASKS:-tasks} from=$PWD
    while [ "${name%/}" != "$name" ]; do name=${name%/}; done
    case $name in
    /*)
        tasks=$name
        desk_at "${name%/*}/" "${name##*/}" && [ -e workers/self/status ]
        return
        ;;
    esac
    for place in "$from" "${CLAUDE_PROJECT_DIR:-}" "${CURSOR_PROJECT_DIR:-}"; do
        # Skip relative paths.
        case $place in /*) ;; *) continue ;; esac
        while [ "$place" ]; do
            tasks=$place/$name
            [ "$place" != "$from" ] || tasks=$name
            ! desk_at "$place" "$name" || [ ! -e workers/self/status ] || return 0
            place=${place%/*}
        done
    done
    return 1
}

# Print a worker's name and claims from its status, one fact a line. Omit text that is no valid name.
desk_status() {
    sed -n "
        s/^  \"worker\": \"\($worker_name\)\",\$/worker \1/p
        s/^  \"task\": \"\($task_id\)\",\$/holds \1/p
        /^  \"claims\": \[\$/,/^  \]/s/^    \"\($task_id\)\",\{0,1\}\$/claim \1/p"
}

# Whether $1 is the id of a task.
is_task_id() {
    case $1 in '' | [!A-Za-z0-9]* | *[!A-Za-z0-9._-]*) return 1 ;; esac
    [ "${#1}" -le 128 ]
}

# Print the facts of one kind among the lines of $2. In the shell alone, because starting a program costs as much as all the rest.
facts_of() {
    printf '%s\n' "$2" | while IFS= read -r line; do
        case $line in "$1 "*) printf '%s\n' "${line#"$1 "}" ;; esac
    done
}

# Give back all claims among these facts. The desk is the current directory.
give_back() {
    # Ids contain no slash and no special character of the shell.
    for claim in $(facts_of claim "$1"); do
        rm -f "claim/$claim"
    done
}

# Read the client's input to its end, even if it is not needed: some clients report a closed pipe as an error.
read_input() {
    input=
    [ -t 0 ] || input=$(cat)
}

# Print the first member of this name in the client's input, if it is a string, as it is written in JSON. Quotes within a string
# have a backslash, so the content of a string is never taken for a member. (The shell's own patterns take minutes for a
# long text.)
input_member() {
    printf '%s\n' "$input" | grep -oE "\"$1\""': ?"([^"\\]|\\.)*"' | sed 's/^[^:]*: *"//; s/"$//; q'
}

# Escape a text for a JSON string.
json_text() {
    tr -d '\000-\010\013-\037\177' | sed 's/\\/\\\\/g; s/"/\\"/g; s/	/\\t/g; s/$/\\n/' | tr -d '\n' | sed 's/\\n$//'
}

# Print the text $2 for the agent, in the client's form for its event $1. Without a text, a hook prints no line at all.
tell_agent() {
    case $client in
    cursor) printf '{"additional_context":"%s"}\n' "$2" ;;
    *) printf '{"hookSpecificOutput":{"hookEventName":"%s","additionalContext":"%s"}}\n' "$1" "$2" ;;
    esac
}

# Print the directory for state between calls, outside of every mount; nothing unless it belongs to our user with mode 0700.
kept_in() {
    mine=$(id -u)
    kept=${XDG_RUNTIME_DIR:-${TMPDIR:-/tmp}}/crewfs-hooks-$mine
    mkdir -m 700 "$kept" 2>/dev/null
    [ -z "$(find "$kept" -prune -type d -user "$mine" -perm 700 2>/dev/null)" ] || printf '%s' "$kept"
}

# Print the file name for a session's count.
session_key() {
    session=$(input_member session_id)
    [ "$session" ] || session=$(input_member conversation_id)
    case $session in *[!A-Za-z0-9._-]*) session= ;; esac
    printf '%s' "$1.$session"
}
