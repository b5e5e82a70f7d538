#!/bin/sh
# The stop hook: says what workers/self/should-stop says. Nothing means that the agent may stop. While no task is ready it
# waits here for one, which costs no tokens. Usage: stop.sh CLIENT SECONDS, the longest wait, below the client's limit.
# May assume: nothing. Must never: keep an agent from stopping because the mount is gone, dead or hung, or without end.

# Exit code 2 would keep the agent, and that is what some shells answer to a mistake.
trap 'exit 0' EXIT

# A registration has read desk.sh before this; who runs the file as it is gets it from beside it.
# shellcheck source-path=SCRIPTDIR source=desk.sh
command -v desk_ask >/dev/null || . "$(dirname "$0")/desk.sh"

longest=${2:-3500}

# Whether should-stop says one of its sentences (docs/filesystem.md, C60), word by word: the agent does what it says.
is_known() {
    reason=${1#'{"decision":"block","reason":"'}
    reason=${reason%'"}'}
    [ "$1" = "{\"decision\":\"block\",\"reason\":\"$reason\"}" ] || return
    case $reason in
    'You hold '*', but its instructions were withdrawn: '*) id=${reason#You hold } id=${id%%', but '*} ;;
    'You hold '*'. Read '*) id=${reason#You hold } id=${id%%'. Read '*} ;;
    *' is ready. '*) id=${reason%%' is ready. '*} ;;
    *) id=none ;;
    esac
    is_task_id "$id" || return
    here=${desk##*/}
    case $reason in
    "You hold $id, but its instructions were withdrawn: $here/$id.md is gone. Finish it if you know what it asked for: echo 'what you did' > $here/completed/$id. Else give it back: rm $here/claim/$id") ;;
    "You hold $id. Read $here/workers/self/task, do what it says, then finish with: echo 'what you did' > $here/completed/$id") ;;
    "$id is ready. Claim it with: touch $here/claim/next and then read $here/workers/self/task") ;;
    "No task is ready yet. Wait a little, then look again: sleep 15; ls $here/ready") ;;
    *) return 1 ;;
    esac
}

# What the desk says, a fact a line. A should-stop that is anything else than one known sentence is none.
look() {
    desk_find || return
    answer=$(cat workers/self/should-stop)
    ! is_known "$answer" || printf 'answer %s\n' "$answer"
    status=$(cat workers/self/status)
    printf '%s\n' "$status" | desk_status
    # What changes when something was done: everything but the time of the last sign of life.
    after=${status#*'"last_heard"'}
    printf 'state %s\n' "$(printf '%s\n' "${status%%'"last_heard"'*}${after#*"$newline"}" | cksum)"
    [ -e next ] && [ ! -e paused ] && echo 'ready yes'
}

fact() {
    facts_of "$1" "$facts"
}

# Why the agent may stop although there is work: to whoever runs it.
let_stop() {
    held=$(fact holds)
    text="crewfs lets this agent stop: $1${held:+. It still holds $held, which goes back when the session or its lease ends}"
    echo "$text" >&2
    [ "$client" = cursor ] || printf '{"systemMessage":"%s"}\n' "$(printf '%s' "$text" | json_text)"
    exit 0
}

read_input
# Cursor says how the turn ended: who interrupts an agent means it.
[ "$client" != cursor ] || [ "$(input_member status)" = completed ] || exit 0

began=$(date +%s)
while facts=$(desk_ask look) || exit 0; do
    answer=$(fact answer)
    [ "$answer" ] || exit 0
    # The answer is older than what was seen after it: a task may have come in between.
    case $answer in
    *'"No task is ready yet.'*) ;;
    *) [ -z "$(fact holds)$(fact ready)" ] || break ;;
    esac
    [ $(($(date +%s) - began)) -lt "$longest" ] || break
    # A client that is gone waits for no answer.
    [ -d "/proc/$PPID" ] || exit 0
    # To kill the hook does not end this: it stands outside of every mount and holds nothing that a process waits for.
    (cd / && exec </dev/null >/dev/null 2>&1 && exec sleep 1)
done

# Answers in a row after which nothing was done.
kept=$(kept_in)
[ "$kept" ] || let_stop 'there is no place of its own to count in; set XDG_RUNTIME_DIR'
count=$kept/$(session_key "$(fact worker)")
limit=${CREWFS_BLOCKS:-10}
case $limit in *[!0-9]*) limit=10 ;; esac
state=$(fact state) answers=0 before=
[ ! -f "$count" ] || read -r answers before <"$count"
[ "$before" = "$state" ] || answers=0
if [ "$answers" -ge "$limit" ]; then
    # Who is started again gets the whole number again.
    rm -f "$count"
    let_stop "it was told $limit times to go on, and nothing was claimed, finished or noted"
fi
echo "$((answers + 1)) $state" >"$count"

case $client in
cursor) answer="{\"followup_message\":${answer#'{"decision":"block","reason":'}" ;;
esac
printf '%s\n' "$answer"
