# shellcheck shell=sh
# Shared by deploy.sh, remove.sh, add-worker.sh and remove-worker.sh: paths on a server, valid names, and
# changes that can be undone.
# May assume: it is sourced, by a script that has a function "usage"; Debian or its like.
# Must never: change anything while $dry is set.

# The scripts that source this file use these.
# shellcheck disable=SC2034
configs=/etc/crewfs records=/var/lib/crewfs dropins=/etc/ssh/sshd_config.d
dry='' changed=''
# Names are ASCII in every locale, and programs print their messages in English.
export LC_ALL=C
# PATH of root after "su" may lack these directories.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

fail() {
    echo "${0##*/}: $1" >&2
    exit 1
}

# End with a message about wrong arguments.
wrong() {
    echo "${0##*/}: $1" >&2
    usage >&2
    exit 2
}

need_root() {
    [ "$(id -u)" = 0 ] || fail "this changes the server, so it needs root: run it with sudo"
}

# ask QUESTION: whether the answer is yes. Without a terminal it is no.
ask() {
    [ -t 0 ] || return 1
    printf '%s [y/N] ' "$1"
    read -r answer || return 1
    case $answer in
        y | Y | yes) ;;
        *) return 1 ;;
    esac
}

# change SENTENCE COMMAND…: print the step, and do it.
change() {
    changed=yes
    echo "$1"
    shift
    [ -n "$dry" ] || "$@"
}

# put PATH MODE TEXT [GROUP]: replace the file's content. A concurrent reader sees the old or the new content.
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

# check_name NAME: check the name of a project, which becomes part of the names of files, a user, and a unit.
check_name() {
    case $1 in
        '' | [!a-z0-9]* | *[!a-z0-9_-]*) wrong "\"$1\" cannot name a project: use a-z, 0-9, _ and -, and begin with a letter or digit" ;;
    esac
    [ ${#1} -le 27 ] || wrong "\"$1\" cannot name a project: it has more than 27 characters, and crew-NAME must be a user's name"
}

# check_worker NAME: the filesystem's rule for names of workers.
check_worker() {
    case $1 in
        '' | [!A-Za-z0-9]* | *[!A-Za-z0-9._-]* | self)
            wrong "\"$1\" is no worker name: use letters, digits, '.', '_' and '-', begin with a letter or digit; not self"
            ;;
    esac
    [ ${#1} -le 64 ] || wrong "\"$1\" is no worker name: it has more than 64 characters"
}

# Print the projects that are configured here.
projects() {
    for config in "$configs"/*.toml; do
        [ ! -e "$config" ] || basename "$config" .toml
    done
}

# setting KEY NAME: print the value of a key in a project's configuration.
setting() {
    sed -n "s/^[[:space:]]*$1[[:space:]]*=[[:space:]]*[\"']\([^\"']*\)[\"'].*/\1/p" "$configs/$2.toml"
}

# Print the mount point of a project.
place_of() {
    place=$(setting mountpoint "$1")
    [ -n "$place" ] || place=$(setting source "$1")
    echo "$place"
}

# Print the user as which the remote workers of a project log in.
user_of() {
    [ ! -e "$dropins/crewfs-$1.conf" ] || sed -n 's/^Match User //p' "$dropins/crewfs-$1.conf"
}

# choose_project [NAME]: set $name to NAME, or to the only project.
choose_project() {
    name=${1:-$(projects)}
    case $name in
        '') fail "no project is deployed here: there is no $configs/NAME.toml; deploy one: deploy.sh" ;;
        *"
"*) wrong "there are several projects; name one: $(projects | tr '\n' ' ')" ;;
    esac
    check_name "$name"
    [ -e "$configs/$name.toml" ] || fail "there is no project $name here: $configs/$name.toml is missing; deployed are: $(projects | tr '\n' ' ')"
    user=$(user_of "$name")
    [ -n "$user" ] || fail "$name accepts no remote workers: $dropins/crewfs-$name.conf names no user; deploy it again: deploy.sh --name $name --project '$(setting source "$name")'"
}

# Concurrent changes of the keys must not undo each other.
lock_keys() {
    exec 9>/run/crewfs-keys.lock
    flock 9
}

# sshd checks its configuration only if its directory in /run exists, which the service makes when it starts.
sshd_accepts() {
    mkdir -p /run/sshd
    sshd -t
}

reload_sshd() {
    if [ -d /run/systemd/system ]; then
        # With socket activation, sshd reads its configuration at each connection.
        ! systemctl --quiet is-active ssh.service || systemctl reload ssh.service
    elif [ -r /run/sshd.pid ]; then
        kill -HUP "$(cat /run/sshd.pid)"
    else
        echo "no sshd runs here: start it, so that workers can connect"
    fi
}

# processes_of USER: print the user's processes, one a line, each with its parent and its program.
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

# connection_of PID TABLE: print the process, and its ancestors that belong to the same user.
connection_of() {
    pid=$1
    while [ -n "$pid" ]; do
        echo "$pid"
        parent=$(echo "$2" | awk -v pid="$pid" '$1 == pid { print $2 }')
        pid=$(echo "$2" | awk -v pid="$parent" '$1 == pid { print $1 }')
    done
}

# connections USER [WORKER]: print the processes that serve this worker. Also connections that serve no worker at the moment: each was
# opened with some key, has that key's command, and can run it at any time. Without WORKER, all processes of the user.
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

# end_connections USER [WORKER]: end these processes, until none is left.
end_connections() {
    rounds=0 signal=TERM
    while pids=$(connections "$@") && [ -n "$pids" ]; do
        rounds=$((rounds + 1))
        [ "$rounds" -le 10 ] || signal=KILL
        [ "$rounds" -le 50 ] || fail "these processes of $1 do not end:$(echo "$pids" | tr '\n' ' '); inspect them: ps -fu $1"
        # The numbers are separate words on purpose. A process may have ended meanwhile.
        # shellcheck disable=SC2086
        kill -s "$signal" $pids 2>/dev/null || true
        sleep 0.1
    done
}
