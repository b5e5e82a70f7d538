#!/bin/sh
# The stop hook: prints workers/self/should-stop. No output means that the agent may stop. While no task is ready the hook
# waits for one, which costs no tokens. Usage: stop.sh CLIENT SECONDS, the longest wait, below the client's limit.
# May assume: nothing. Must never: keep an agent from stopping because the mount is gone, dead or hangs, or without end.

# Exit code 2 would keep the agent working, and some shells exit with 2 after an error in a script.
trap 'exit 0' EXIT

# The registered command reads desk.sh first. Where this file is run directly, read desk.sh from its directory.
# shellcheck source-path=SCRIPTDIR source=desk.sh
command -v desk_ask >/dev/null || . "$(dirname "$0")/desk.sh"

longest=${2:-3500}

# Whether $1 is one of the sentences of should-stop (docs/filesystem.md, C60), word by word: the agent does what it says.
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

# Print the state of the desk, one fact a line. A should-stop that is no known sentence gives no fact.
look() {
    desk_find || return
    answer=$(cat workers/self/should-stop)
    ! is_known "$answer" || printf 'answer %s\n' "$answer"
    status=$(cat workers/self/status)
    printf '%s\n' "$status" | desk_status
    # The status without the time of the last sign of life: it changes when the worker makes progress.
    after=${status#*'"last_heard"'}
    printf 'state %s\n' "$(printf '%s\n' "${status%%'"last_heard"'*}${after#*"$newline"}" | cksum)"
    [ -e next ] && [ ! -e paused ] && echo 'ready yes'
}

fact() {
    facts_of "$1" "$facts"
}

# Let the agent stop although there is work, and tell its user why.
let_stop() {
    held=$(fact holds)
    text="crewfs lets this agent stop: $1${held:+. It still holds $held; the claim ends with the session or the lease}"
    echo "$text" >&2
    [ "$client" = cursor ] || printf '{"systemMessage":"%s"}\n' "$(printf '%s' "$text" | json_text)"
    exit 0
}

read_input
# Cursor says how the turn ended: a user who interrupts an agent wants it to stop.
[ "$client" != cursor ] || [ "$(input_member status)" = completed ] || exit 0

began=$(date +%s)
while facts=$(desk_ask look) || exit 0; do
    answer=$(fact answer)
    [ "$answer" ] || exit 0
    # The answer was read before the other facts: a task may have become ready in between.
    case $answer in
    *'"No task is ready yet.'*) ;;
    *) [ -z "$(fact holds)$(fact ready)" ] || break ;;
    esac
    [ $(($(date +%s) - began)) -lt "$longest" ] || break
    # The client has ended.
    [ -d "/proc/$PPID" ] || exit 0
    # A kill of the hook does not end this sleep. So its directory is outside of every mount, and it holds no pipe of the client.
    (cd / && exec </dev/null >/dev/null 2>&1 && exec sleep 1)
done

# Count the answers in a row without progress.
kept=$(kept_in)
[ "$kept" ] || let_stop 'it has no private directory for its count; set XDG_RUNTIME_DIR'
count=$kept/$(session_key "$(fact worker)")
limit=${CREWFS_BLOCKS:-10}
case $limit in *[!0-9]*) limit=10 ;; esac
state=$(fact state) answers=0 before=
[ ! -f "$count" ] || read -r answers before <"$count"
[ "$before" = "$state" ] || answers=0
if [ "$answers" -ge "$limit" ]; then
    # A restarted agent starts with the whole number again.
    rm -f "$count"
    let_stop "it was told $limit times to continue, and it claimed, finished and noted nothing"
fi
echo "$((answers + 1)) $state" >"$count"

case $client in
cursor) answer="{\"followup_message\":${answer#'{"decision":"block","reason":'}" ;;
esac
printf '%s\n' "$answer"
