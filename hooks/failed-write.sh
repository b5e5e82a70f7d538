#!/bin/sh
# The hook for a tool that failed: when the desk has just refused a change of the same file, it tells the agent who holds the
# file and what to do. The client's error alone says that it is busy. Usage: failed-write.sh CLIENT
# May assume: nothing. Must never: speak of a refusal that is old, or of another file.

# shellcheck disable=SC2317 # desk_ask calls by name
# shellcheck source-path=SCRIPTDIR source=desk.sh
command -v desk_ask >/dev/null || . "$(dirname "$0")/desk.sh"

# In seconds: between a refusal and the hook lie the client's other ways to write, each of which may wait for the lock.
fresh=10

# A time of the desk as seconds. Every month has 31 days here: at the turn of one a refusal may count as old.
seconds() {
    echo "$1" | sed 's/^\(....\)-\(..\)-\(..\)T\(..\):\(..\):\(..\).*/1\1 1\2 1\3 1\4 1\5 1\6/' | {
        read -r year month day hour minute second
        echo $((((((year * 12 + month - 100) * 31 + day - 100) * 24 + hour - 100) * 60 + minute - 100) * 60 + second - 100))
    }
}

# The sentence about a refusal that is fresh, and what its holder does.
look() {
    desk_find || return
    why=$(cat "$desk/workers/self/why")
    [ "$why" ] || return
    # Both times are those of the machine that serves the desk.
    now=$(sed -n 's/^  "last_heard": "\(.*\)",*$/\1/p' "$desk/workers/self/status")
    [ $(($(seconds "$now") - $(seconds "$why"))) -le "$fresh" ] || return
    why=${why#* }
    printf '%s\n' "$why"
    holder=${why#* is held by }
    [ "$holder" = "$why" ] ||
        sed -n 's/^  "task": "\(.*\)",$/\1/p' "$desk/workers/${holder%% *}/status"
}

read_input
# Through sshfs a refusal arrives under other names.
case $input in
*EBUSY* | *EPERM* | *EIO* | *'esource busy'* | *'not permitted'* | *'nput/output error'*) ;;
*) exit 0 ;;
esac
said=$(desk_ask look) || exit 0
why=${said%%'
'*} task=${said#"${said%%'
'*}"}

for verb in 'is held by' 'belongs to' 'was changed by' 'was removed or replaced by' 'showed for a moment'; do
    path=${why%%" $verb "*}
    [ "$path" = "$why" ] || break
done
[ "$path" != "$why" ] || exit 0
file=$(input_member file_path)$(input_member notebook_path)$(input_member filePath)
if [ "$file" ]; then
    case /$file in *"/$path") ;; *) exit 0 ;; esac
else
    # A shell command says only in its words which file it meant.
    case $input in *"${path##*/}"*) ;; *) exit 0 ;; esac
fi

case $verb in
'is held by' | 'belongs to')
    advice='Go on with another part of your task, then read the file again and make the change again. Until then every other way to write, move or replace it is refused, too.'
    ;;
*) advice='Read the file now, and make your change in what it holds today.' ;;
esac
holder=${why#*" is held by "}
text="crewfs refused this change: $why.${task:+ ${holder%% *} works on ${task#?}.} $advice"
tell_agent "$(input_member hook_event_name)" "$(printf '%s' "$text" | json_text)"
