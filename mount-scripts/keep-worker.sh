#!/bin/sh
# Keeps one worker running, for start-workers.sh: waits for a task, starts the agent, and restarts it when it
# has ended and tasks remain. Waiting starts no agent, so it costs nothing.
# usage: keep-worker.sh NAME RUN DIR LOG RESTARTS COMMAND…
#   RUN       directory of the launcher: messages, process numbers, and whether to end
#   DIR       the mounted project, in which the agent runs
#   LOG       file for the agent's output; "-" for the terminal
#   RESTARTS  limit of starts in a row without a finished task
# May assume: nothing about the mount, which may go away or hang at any moment.
# Must never: have CREWFS_WORKER itself, because the agent's end must end its claims; access the project without a time limit.
set -u
here=$(cd "$(dirname "$0")" && pwd)
name=$1 run=$2 dir=$3 log=$4 restarts=$5
shift 5
# shellcheck source-path=SCRIPTDIR source=../hooks/desk.sh
. "$here/../hooks/desk.sh"
tasks=${CREWFS_TASKS:-tasks}
desk=$dir/$tasks
cd /

say() {
    echo "$(date +%H:%M:%S) $name: $1" >>"$run/said"
}

# end CODE WHY: end this keeper.
end() {
    say "$2"
    rm -f "$run/$name.agent"
    echo "$1" >"$run/$name.ended"
    exit "$1"
}

# Run a script as the worker.
as_worker() {
    desk_ask env CREWFS_WORKER="$name" sh -c "$1" as-worker "$here/../hooks/desk.sh" "$dir" "$tasks"
}

# Runs as the worker: print what to do, and the number of finished tasks.
# shellcheck disable=SC2016 # the inner shell is to expand it
look='
    . "$1"
    read_mounts
    desk_at "$2" "$3" || exit
    stop=$(cat workers/self/should-stop) || exit
    holds=$(cat claim/next 2>/dev/null)
    sed -n "s/^  \"\(completed\|failed\)\": \([0-9]\{1,18\}\),\{0,1\}\$/finished \2/p" workers/self/status || exit
    if [ "$holds" ]; then echo "do work"
    elif [ -e workers/self/drain ]; then echo "do drained"
    elif [ -z "$stop" ]; then echo "do stop"
    elif [ -e next ] && [ ! -e paused ]; then echo "do work"
    else echo "do wait"
    fi'

# Sets todo and finished. Fails when the mount does not answer to several tries; it may be in the middle of a remount.
ask() {
    tries=5
    while ! facts=$(as_worker "$look") || [ -z "$facts" ]; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] && [ ! -e "$run/end" ] || return 1
        sleep 1
    done
    todo=$(printf '%s\n' "$facts" | sed -n 's/^do //p')
    finished=0
    for number in $(printf '%s\n' "$facts" | sed -n 's/^finished //p'); do
        finished=$((finished + number))
    done
}

# Runs as the worker: give back its claims, so that other workers can take the tasks.
# shellcheck disable=SC2016 # the inner shell is to expand it
leave='
    . "$1"
    read_mounts
    desk_at "$2" "$3" || exit
    give_back "$(desk_status <workers/self/status)"'

# Run the agent to its end, as the leader of a process group of its own. Write its number to a file, for the launcher to end it.
# shellcheck disable=SC2016 # the inner shell is to expand it
agent='echo $$ >"$1"; cd "$2" || exit 126; name=$3; shift 3; exec env CREWFS_WORKER="$name" "$@"'
start() {
    if [ "$log" = - ]; then
        set -m
        sh -c "$agent" agent "$run/$name.agent" "$dir" "$name" "$@"
    else
        setsid sh -c "$agent" agent "$run/$name.agent" "$dir" "$name" "$@" </dev/null >>"$log" 2>&1 &
        wait $!
    fi
}

tried=0 pause=1 waits=
while :; do
    [ ! -e "$run/end" ] || end 1 'ended, as requested'
    kill -0 "$(cat "$run/launcher")" 2>/dev/null || end 1 'the launcher is gone: no agent is started any more'
    ask || end 3 "no crewfs answers at $desk: mount the project, then start the workers again"
    case $todo in
    drained)
        [ ! -s "$run/$name.drained" ] || end 0 'drained, as requested'
        end 0 "drained: it claims nothing more; to let it work again: rm $desk/workers/$name/drain"
        ;;
    stop) end 0 'no task is left' ;;
    wait)
        [ "$waits" ] || say 'waits for a task'
        waits=yes
        sleep 1
        continue
        ;;
    esac
    waits=
    before=$finished
    say 'starts'
    start "$@"
    code=$?
    rm -f "$run/$name.agent"
    [ ! -e "$run/end" ] || continue
    ask || continue
    if [ "$finished" -gt "$before" ]; then
        say "ended with exit code $code, finished tasks: $((finished - before))"
        tried=0 pause=1
        [ "$code" != 0 ] || continue
    else
        tried=$((tried + 1))
        case $todo in stop | drained) continue ;; esac
        if [ "$tried" -ge "$restarts" ]; then
            [ "${CREWFS_KEEP_CLAIMS:-}" ] || as_worker "$leave"
            end 1 "gave up: $tried times in a row the agent ended without a finished task, the last time with exit code $code; see $log"
        fi
        say "ended with exit code $code and finished no task: starts again in ${pause}s"
    fi
    slept=0
    while [ "$slept" -lt "$pause" ] && [ ! -e "$run/end" ]; do
        sleep 1
        slept=$((slept + 1))
    done
    pause=$((pause * 2))
    [ "$pause" -le 60 ] || pause=60
done
