#!/bin/sh
# The hook for a tool that failed. If crewfs has just refused a change of the same file, it tells the agent which worker holds the
# file and what to do; the client's error says only that the file is busy. Usage: failed-write.sh CLIENT
# May assume: nothing. Must never: report an old refusal, or one of another file.

# shellcheck disable=SC2317 # desk_ask calls by name
# shellcheck source-path=SCRIPTDIR source=desk.sh
command -v desk_ask >/dev/null || . "$(dirname "$0")/desk.sh"

# In seconds. Between the refusal and the hook the client tries other ways to write, and each may wait for the lock.
fresh=10

# Convert a time of the desk to seconds. Every month has 31 days here, so at the end of a month a refusal may count as old.
seconds() {
    echo "$1" | sed 's/^\(....\)-\(..\)-\(..\)T\(..\):\(..\):\(..\).*/1\1 1\2 1\3 1\4 1\5 1\6/' | {
        read -r year month day hour minute second
        echo $((((((year * 12 + month - 100) * 31 + day - 100) * 24 + hour - 100) * 60 + minute - 100) * 60 + second - 100))
    }
}

# Print a line of `why` as facts: the time, the file, and the sentence. A line of any other form has no facts.
# shellcheck disable=SC2154 # desk.sh sets the parts of the forms
known() {
    by="$worker_name since $moment" at="$worker_name at $moment"
    for form in \
        "is held by $by; try again when it is done" \
        "is held by $by, and changed by $at; wait until it is done, then read it again" \
        "belongs to $task_id, which $worker_name works on since $moment; wait until that is finished" \
        "was changed by $at; read it again before you change it" \
        "was removed or replaced by $at; open it again before you change it" \
        'showed for a moment what another worker was not allowed to write; read it again before you change it'; do
        set -- "$@" -e "s/^\($moment\) \(..*\) \($form\)\$/when \1\npath \2\nsaid \3/;t"
    done
    sed "$@" -e d
}

# Print the facts of a fresh refusal, and of the worker that holds the file.
look() {
    desk_find || return
    why=$(cat workers/self/why)
    case $why in '' | *'
'*) return ;; esac
    why=$(printf '%s\n' "$why" | known)
    when=$(facts_of when "$why")
    # Both times come from the machine that serves the desk.
    now=$(sed -n "s/^  \"last_heard\": \"\($moment\)\",\{0,1\}\$/\1/p" workers/self/status)
    [ "$when" ] && [ "$now" ] && [ $(($(seconds "$now") - $(seconds "$when"))) -le "$fresh" ] || return
    printf '%s\n' "$why"
    holder=$(printf '%s\n' "$why" | sed -n "s/^said is held by \($worker_name\) since .*/\1/p")
    [ -z "$holder" ] || desk_status <"workers/$holder/status"
}

read_input
# Through sshfs a refusal has another errno.
case $input in
*EBUSY* | *EPERM* | *EIO* | *'esource busy'* | *'not permitted'* | *'nput/output error'*) ;;
*) exit 0 ;;
esac
facts=$(desk_ask look) || exit 0
path=$(facts_of path "$facts") said=$(facts_of said "$facts")
[ "$path" ] || exit 0
file=$(input_member file_path)$(input_member notebook_path)$(input_member filePath)
if [ "$file" ]; then
    case /$file in *"/$path") ;; *) exit 0 ;; esac
else
    # A shell command names the file only in its text. Do not repeat a part of the path that the command does not contain.
    while case $input in *"$path"*) false ;; esac do
        [ "${path#*/}" != "$path" ] || exit 0
        path=${path#*/}
    done
    [ "$path" ] || exit 0
fi

case $said in
'is held by '* | 'belongs to '*)
    advice='Go on with another part of your task, then read the file again and make the change again. Until then every other way to write, move or replace it is refused, too.'
    ;;
*) advice='Read the file now, and make your change in what it holds today.' ;;
esac
holder=${said#'is held by '}
task=$(facts_of holds "$facts")
text="crewfs refused this change: $path $said.${task:+ ${holder%% *} works on $task.} $advice"
tell_agent "$(input_member hook_event_name)" "$(printf '%s' "$text" | json_text)"
