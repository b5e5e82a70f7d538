#!/bin/sh
# Starts N workers in a mounted project and keeps them running: each has a name and a log, and is restarted while tasks
# remain. A worker ends when should-stop lets it. After one interrupt the workers finish what they hold and end; a second ends them at once.
# May assume: nothing about the mount, which may go away or hang at any moment.
# Must never: start an agent without a task; leave a process behind.
set -u
here=$(cd "$(dirname "$0")" && pwd)

usage() {
    cat <<'TEXT'
usage: start-workers.sh N [options] -- COMMAND…
Runs COMMAND as N workers. In COMMAND, {worker} stands for the worker's name and {n} for its number.
  --name PREFIX       names are PREFIX-1, PREFIX-2, … (default: worker)
  --dir DIR           the mounted project (default: the current directory)
  --logs DIR          the directory for logs (default: a new temporary directory)
  --max-restarts M    how many times in a row an agent may end without a finished task (default: 5)
  --tmux, --plain     in windows of tmux, or as plain processes (default: tmux if it is installed, from a terminal)
Exit codes: 0 all ended well, 1 some did not, 2 wrong usage, 3 no crewfs answers.
TEXT
}

wrong() {
    echo "start-workers.sh: $1" >&2
    usage >&2
    exit 2
}

case ${1-} in
-h | --help) usage && exit 0 ;;
'' | *[!0-9]* | 0*) wrong "N is ${1:-missing}, but must be a number from 1" ;;
esac
count=$1 prefix=worker dir=. logs='' restarts=5 tmux=''
shift
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    case $1 in
    --tmux) tmux=yes ;;
    --plain) tmux=no ;;
    --name | --dir | --logs | --max-restarts)
        [ $# -gt 1 ] || wrong "$1 needs a value"
        case $1 in
        --name) prefix=$2 ;;
        --dir) dir=$2 ;;
        --logs) logs=$2 ;;
        --max-restarts) restarts=$2 ;;
        esac
        shift
        ;;
    *) wrong "$1 is no option; the command begins after --" ;;
    esac
    shift
done
if [ "${1-}" != -- ] || [ $# = 1 ]; then wrong 'there is no command; it begins after --'; fi
shift
case $prefix in *[!A-Za-z0-9._-]* | [!A-Za-z0-9]* | '') wrong "--name is $prefix, but must be letters, digits, '.', '_' and '-'" ;; esac
case $restarts in '' | *[!0-9]* | 0*) wrong "--max-restarts is $restarts, but must be a number from 1" ;; esac
if [ -z "$tmux" ]; then
    tmux=no
    [ -t 0 ] && [ -t 1 ] && command -v tmux >/dev/null && tmux=yes
fi
[ "$tmux" = no ] || command -v tmux >/dev/null || wrong 'tmux is not installed; use --plain'

# Agents would inherit a worker name of this script.
unset CREWFS_WORKER
# shellcheck source-path=SCRIPTDIR source=../hooks/desk.sh
. "$here/../hooks/desk.sh"
tasks=${CREWFS_TASKS:-tasks}
case $dir in
/*) ;;
*) dir=$(pwd)/$dir ;;
esac
read_mounts
# shellcheck disable=SC2317 # desk_ask calls by name
answers() {
    desk_at "$dir" "$tasks" && ls queue.json
}
if [ -z "$(desk_ask answers)" ]; then
    echo "start-workers.sh: no crewfs answers at $dir/$tasks; mount the project first: crewfs mount $dir" >&2
    exit 3
fi

run=$(mktemp -d) || exit 1
if [ -z "$logs" ]; then
    logs=$(mktemp -d "${TMPDIR:-/tmp}/crewfs-workers.XXXXXX") || exit 1
else
    mkdir -p "$logs" && logs=$(cd "$logs" && pwd) || exit 1
fi
cd /
echo $$ >"$run/launcher"
: >"$run/said"
names=
n=1
while [ "$n" -le "$count" ]; do
    names="$names $prefix-$n"
    n=$((n + 1))
done

# put TEXT MARK VALUE: sets text, with VALUE for each MARK.
put() {
    rest=$1 text=
    while case $rest in *"$2"*) ;; *) false ;; esac do
        text=$text${rest%%"$2"*}$3
        rest=${rest#*"$2"}
    done
    text=$text$rest
}

# launch NAME NUMBER COMMAND…: start a keeper without this terminal, so that an interrupt reaches this script alone.
launch() {
    name=$1 number=$2
    shift 2
    for word in "$@"; do
        shift
        put "$word" '{worker}' "$name"
        put "$text" '{n}' "$number"
        set -- "$@" "$text"
    done
    if [ "$tmux" = no ]; then
        # shellcheck disable=SC2094 # both append
        setsid sh "$here/keep-worker.sh" "$name" "$run" "$dir" "$logs/$name.log" "$restarts" "$@" </dev/null >>"$logs/$name.log" 2>&1 &
        echo $! >"$run/$name.keeper"
        return
    fi
    # Use a new tmux server: a running one would pass on its environment instead of ours.
    verb=new-window
    [ "$number" -gt 1 ] || verb='new-session -d -s crew -x 200 -y 50'
    # shellcheck disable=SC2086 # words on purpose
    tmux -L "$socket" -f /dev/null $verb -n "$name" -P -F '#{pane_pid} #{pane_id}' \
        sh "$here/keep-worker.sh" "$name" "$run" "$dir" - "$restarts" "$@" >"$run/$name.pane" || return
    read -r keeper pane <"$run/$name.pane"
    echo "$keeper" >"$run/$name.keeper"
    put "$logs/$name.log" "'" "'\\''"
    tmux -L "$socket" pipe-pane -t "$pane" "exec cat >>'$text'"
}

# Drain all workers. A worker that drains already stays as it is.
# shellcheck disable=SC2317 # called by a trap
drain() {
    for name in $names; do
        # shellcheck disable=SC2016 # the inner shell is to expand it
        desk_ask env CREWFS_WORKER="$name" sh -c '. "$1" && read_mounts && desk_at "$2" "$3" && cd workers/self &&
            [ ! -e drain ] && touch drain && echo yes' drain "$here/../hooks/desk.sh" "$dir" "$tasks" >"$run/$name.drained"
    done
}

# End all agents with their child processes.
end() {
    : >"$run/end"
    for signal in TERM KILL; do
        for agent in "$run"/*.agent; do
            [ ! -e "$agent" ] || kill -s "$signal" -- "-$(cat "$agent")" 2>/dev/null
        done
        left=5
        while [ "$left" -gt 0 ] && ! all_ended; do
            sleep 1
            left=$((left - 1))
        done
    done
}

all_ended() {
    for name in $names; do
        [ -e "$run/$name.ended" ] || ! kill -0 "$(cat "$run/$name.keeper")" 2>/dev/null || return 1
    done
}

interrupts=0
# shellcheck disable=SC2317 # called by a trap
interrupted() {
    interrupts=$((interrupts + 1))
    case $interrupts in
    1)
        echo 'the workers finish what they hold, and end; interrupt again to end them now'
        drain
        ;;
    2) end ;;
    esac
}
trap interrupted INT TERM HUP

told=0
tell() {
    tail -n +$((told + 1)) "$run/said" >"$run/news"
    told=$((told + $(wc -l <"$run/news")))
    cat "$run/news"
}

socket=crewfs-$prefix-$$
echo "workers: $count; their logs: $logs"
n=1
for name in $names; do
    launch "$name" "$n" "$@" || {
        echo "start-workers.sh: $name could not be started; the other workers are ended" >&2
        end
        break
    }
    n=$((n + 1))
done
[ "$tmux" = no ] || echo "to see them: tmux -L $socket attach"

until all_ended; do
    tell
    sleep 1 &
    wait $!
done
tell
code=0
for name in $names; do
    read -r ended 2>/dev/null <"$run/$name.ended" || ended=1
    [ "$ended" -le "$code" ] || code=$ended
    # Remove the drain that this script made.
    if [ -s "$run/$name.drained" ]; then
        # shellcheck disable=SC2016 # the inner shell is to expand it
        desk_ask env CREWFS_WORKER="$name" sh -c '. "$1" && read_mounts && desk_at "$2" "$3" && rm -f workers/self/drain' \
            drain "$here/../hooks/desk.sh" "$dir" "$tasks"
    fi
done
rm -rf "$run"
exit "$code"
