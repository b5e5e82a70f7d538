#!/bin/sh
# What the hooks share: questions to the desk that end in time, the client's JSON, the place for what is kept between calls.
# May assume: Linux with /proc; it is read into a hook whose first argument names the client.
# Must never: touch the project other than below desk_ask, because a process that waits for a hung mount cannot be killed; take text
# for a name, a number or a time, or pass it on, before it was compared with the form that crewfs writes.

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

# What names are made of (docs/filesystem.md), and how a time is written; for sed.
# shellcheck disable=SC2034
task_id='[A-Za-z0-9][A-Za-z0-9._-]\{0,127\}' worker_name='[A-Za-z0-9][A-Za-z0-9._-]\{0,63\}'
# shellcheck disable=SC2034
moment='[0-9]\{4\}-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9]\.[0-9]\{3\}Z'

# Sets mounts from the kernel's table: for each mount a line with its type, for sshfs the uid that mounted, and the place, in
# which the kernel has written white space and backslashes as octal digits. The table tells it without touching a mount.
read_mounts() {
    mounts=$(sed -e 's/\\043/#/g' \
        -e 's/^\([^ ]* \)\{4\}\([^ ]*\) .* - fuse\.sshfs [^ ]* [^ ]*,user_id=\([0-9]*\),[^ ]*$/fuse.sshfs \3 \2/;t' \
        -e 's/^\([^ ]* \)\{4\}\([^ ]*\) .* - \([^ ]*\) [^ ]* [^ ]*$/\3 \2/' /proc/self/mountinfo)
    newline='
'
    mounts=$newline$mounts$newline
}

# Sets kind: the type of the youngest mount at exactly this place, and the uid; nothing where none is.
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

# Whether an sshfs mount is root's or our own. Another user's may show anything in a directory that all may write to.
is_ours() {
    case $1 in
    'fuse.sshfs 0') ;;
    'fuse.sshfs '*) [ "${1#* }" = "$(id -u)" ] ;;
    *) return 1 ;;
    esac
}

# Go to the desk that is mounted at the name $2 in the directory $1. A directory that only looks like a desk is none: what it holds may
# be the text of any user. It counts on a tree of crewfs, where it is a mount of its own, and over sshfs as a mount of its own
# or in the root of one. No link is followed below $1, and after this none can be: we stand in the desk.
# Below desk_ask only. Sets desk.
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

# Find the desk: CREWFS_TASKS, looked for from the current directory upwards, then from the client's project directory.
# Below desk_ask only. Goes to it, and sets tasks: how to name it to an agent that works in the current directory.
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
        # A relative one leads nowhere.
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

# Of a worker's status who it is and what it holds, a fact a line. What is no name is left out.
desk_status() {
    sed -n "
        s/^  \"worker\": \"\($worker_name\)\",\$/worker \1/p
        s/^  \"task\": \"\($task_id\)\",\$/holds \1/p
        /^  \"claims\": \[\$/,/^  \]/s/^    \"\($task_id\)\",\{0,1\}\$/claim \1/p"
}

# Whether this is the id of a task.
is_task_id() {
    case $1 in '' | [!A-Za-z0-9]* | *[!A-Za-z0-9._-]*) return 1 ;; esac
    [ "${#1}" -le 128 ]
}

# The facts of one sort among the lines of $2. Without a program, because each costs as much as all else here.
facts_of() {
    printf '%s\n' "$2" | while IFS= read -r line; do
        case $line in "$1 "*) printf '%s\n' "${line#"$1 "}" ;; esac
    done
}

# Give back all that a worker of these facts holds. The desk is the current directory.
give_back() {
    # Ids hold no slash, and nothing that a shell reads in another way.
    for claim in $(facts_of claim "$1"); do
        rm -f "claim/$claim"
    done
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
