# shellcheck shell=sh
# What deploy.sh, remove.sh, add-worker.sh and remove-worker.sh share: where things are on a server, which names are names, and
# how something is changed so that it can be undone.
# May assume: it is sourced, by a script that has a function "usage"; Debian or its like.
# Must never: change anything while $dry is set.

# Who sources this uses them.
# shellcheck disable=SC2034
configs=/etc/crewfs records=/var/lib/crewfs dropins=/etc/ssh/sshd_config.d
dry='' changed=''
# Names are ASCII whatever the locale says of [a-z], and messages of programs are passed on as they are documented.
export LC_ALL=C
# root's PATH after "su" may lack these.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

fail() {
    echo "${0##*/}: $1" >&2
    exit 1
}

# What was typed is wrong.
wrong() {
    echo "${0##*/}: $1" >&2
    usage >&2
    exit 2
}

need_root() {
    [ "$(id -u)" = 0 ] || fail "this changes the server, so it takes root: run it with sudo"
}

# ask QUESTION: whether the answer is yes. Nobody to ask is no.
ask() {
    [ -t 0 ] || return 1
    printf '%s [y/N] ' "$1"
    read -r answer || return 1
    case $answer in
        y | Y | yes) ;;
        *) return 1 ;;
    esac
}

# change SENTENCE COMMAND…: say what is done, and do it.
change() {
    changed=yes
    echo "$1"
    shift
    [ -n "$dry" ] || "$@"
}

# put PATH MODE TEXT [GROUP]: have the file hold this text. Whoever reads it meanwhile sees the old one or the new one.
put() {
    if [ -e "$1" ] && [ "$(cat "$1")" = "$3" ]; then return; fi
    change "write $1" put_now "$@"
}

put_now() {
    mkdir -p "$(dirname "$1")"
    printf '%s\n' "$3" >"$1.new"
    chmod "$2" "$1.new"
    chown "root:${4:-root}" "$1.new"
    mv "$1.new" "$1"
}

# check_name NAME: a project's name becomes part of the names of files, a user, and a unit.
check_name() {
    case $1 in
        '' | [!a-z0-9]* | *[!a-z0-9_-]*) wrong "\"$1\" cannot name a project: use a-z, 0-9, _ and -, and begin with a letter or digit" ;;
    esac
    [ ${#1} -le 27 ] || wrong "\"$1\" cannot name a project: it has more than 27 characters, and crew-NAME must be a user's name"
}

# check_worker NAME: as the filesystem has it.
check_worker() {
    case $1 in
        '' | [!A-Za-z0-9]* | *[!A-Za-z0-9._-]* | self)
            wrong "\"$1\" is no worker name: use letters, digits, '.', '_' and '-', begin with a letter or digit; not self"
            ;;
    esac
    [ ${#1} -le 64 ] || wrong "\"$1\" is no worker name: it has more than 64 characters"
}

# The projects that are configured here.
projects() {
    for config in "$configs"/*.toml; do
        [ ! -e "$config" ] || basename "$config" .toml
    done
}

# setting KEY NAME: the text that the configuration of a project gives for a key.
setting() {
    sed -n "s/^[[:space:]]*$1[[:space:]]*=[[:space:]]*[\"']\([^\"']*\)[\"'].*/\1/p" "$configs/$2.toml"
}

# Where a project is mounted.
place_of() {
    place=$(setting mountpoint "$1")
    [ -n "$place" ] || place=$(setting source "$1")
    echo "$place"
}

# As whom the remote workers of a project log in.
user_of() {
    [ ! -e "$dropins/crewfs-$1.conf" ] || sed -n 's/^Match User //p' "$dropins/crewfs-$1.conf"
}

# choose_project [NAME]: set $name to it, or to the only project that there is.
choose_project() {
    name=${1:-$(projects)}
    case $name in
        '') fail "no project is deployed here: there is no $configs/NAME.toml; deploy one: deploy.sh" ;;
        *"
"*) wrong "there are several projects, so one must be named: $(projects | tr '\n' ' ')" ;;
    esac
    check_name "$name"
    [ -e "$configs/$name.toml" ] || fail "there is no project $name here: $configs/$name.toml is missing; deployed are: $(projects | tr '\n' ' ')"
    user=$(user_of "$name")
    [ -n "$user" ] || fail "$name takes no remote workers: $dropins/crewfs-$name.conf names no user; deploy it again: deploy.sh --name $name --project '$(setting source "$name")'"
}

# One that adds a key and one that removes another must not undo each other.
lock_keys() {
    exec 9>/run/crewfs-keys.lock
    flock 9
}

# Without its own directory in /run, sshd checks nothing; it is made by whatever starts sshd.
sshd_accepts() {
    mkdir -p /run/sshd
    sshd -t
}

reload_sshd() {
    if [ -d /run/systemd/system ]; then
        # Where a socket starts sshd, it reads its configuration when somebody comes.
        ! systemctl --quiet is-active ssh.service || systemctl reload ssh.service
    elif [ -r /run/sshd.pid ]; then
        kill -HUP "$(cat /run/sshd.pid)"
    else
        echo "no sshd runs here: start it, so that workers can connect"
    fi
}

# processes_of USER: the processes, each with its parent and its program, one a line.
processes_of() {
    grep -s '^\(Name\|PPid\|Uid\):' /proc/[0-9]*/status | awk -v uid="$(id -u "$1")" '
        { split($1, path, "/") }
        $1 ~ /:Name:$/ { program = $2 }
        $1 ~ /:PPid:$/ { parent = $2 }
        $1 ~ /:Uid:$/ && $3 == uid { print path[3], parent, program }'
}

# carries PID WORKER: whether the process has this worker's name in its environment.
carries() {
    { tr '\0' '\n' <"/proc/$1/environ" | grep -qxF "CREWFS_WORKER=$2"; } 2>/dev/null
}

# connection_of PID TABLE: the process, and those above it that belong to the same user.
connection_of() {
    pid=$1
    while [ -n "$pid" ]; do
        echo "$pid"
        parent=$(echo "$2" | awk -v pid="$pid" '$1 == pid { print $2 }')
        pid=$(echo "$2" | awk -v pid="$parent" '$1 == pid { print $1 }')
    done
}

# connections USER [WORKER]: the processes that serve this worker. Also connections that serve nobody at the moment: they were let
# in by some key, remember its command, and could run it at any time. Without WORKER, all processes of the user.
connections() {
    table=$(processes_of "$1")
    echo "$table" | while read -r pid parent program; do
        if [ -z "${2:-}" ]; then
            echo "$pid"
        elif carries "$pid" "$2"; then
            connection_of "$pid" "$table"
        elif [ "${program#sshd}" != "$program" ] && ! echo "$table" | grep -q "^[0-9]* $pid "; then
            echo "$pid"
        fi
    done
}

# end_connections USER [WORKER]: until none is left.
end_connections() {
    rounds=0 signal=TERM
    while pids=$(connections "$@") && [ -n "$pids" ]; do
        rounds=$((rounds + 1))
        [ "$rounds" -le 10 ] || signal=KILL
        [ "$rounds" -le 50 ] || fail "these processes of $1 do not end:$(echo "$pids" | tr '\n' ' '); look at them: ps -fu $1"
        # Separate words on purpose. One may have ended meanwhile.
        # shellcheck disable=SC2086
        kill -s "$signal" $pids 2>/dev/null || true
        sleep 0.1
    done
}
