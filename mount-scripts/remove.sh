#!/bin/sh
# Undo deploy.sh for a project: stop it, and remove what deploy.sh made. Files that all projects share go with the last project.
# May assume: root. Must never: touch the project's directory, or the state of its queue in any place.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=mount-scripts/server.sh
. "$here/server.sh"

usage() {
    cat <<'END'
usage: remove.sh NAME [--yes] [--dry-run]

  --yes       remove the user and the group too, without asking
  --dry-run   print each step and change nothing
END
}

name='' yes=''
for argument in "$@"; do
    case $argument in
        --yes) yes=yes ;;
        --dry-run) dry=yes ;;
        -h | --help) usage && exit 0 ;;
        -*) wrong "$argument is no option" ;;
        *) [ -z "$name" ] || wrong "one project at a time: $name or $argument" && name=$argument ;;
    esac
done
[ -n "$name" ] || wrong "name the project; deployed here: $(projects | tr '\n' ' ')"
check_name "$name"
need_root

made=$records/$name.made
if [ ! -e "$made" ]; then
    echo "nothing to do: deploy.sh has made nothing for $name that is still there"
    exit 0
fi
project='' place='' state='' user=$(user_of "$name")
if [ -e "$configs/$name.toml" ]; then
    project=$(setting source "$name")
    place=$(place_of "$name")
    state=$(setting state "$name")
    [ -n "$state" ] || state=$project/.crewfs
fi

# what_was_made KIND [NAME]
what_was_made() {
    sed -n "s/^$1 //p" "$records/${2:-$name}.made" 2>/dev/null || true
}

# forget KIND: delete the records of a kind that is undone.
forget() {
    sed -i "/^$1 /d" "$made"
}

stop() {
    unit=$(what_was_made unit)
    if [ -n "$unit" ] && [ -d /run/systemd/system ]; then
        change "stop $unit" systemctl --quiet disable --now "$unit"
        [ -n "$dry" ] || forget unit
    fi
    if [ -n "$place" ] && findmnt -n -t fuse.crewfs --mountpoint "$place" >/dev/null; then
        [ -z "$dry" ] || [ -z "$unit" ] || return 0
        change "unmount $place" crewfs umount "$place"
    fi
}

# Refuse new connections, and end the existing ones.
close_ssh() {
    [ -e "$dropins/crewfs-$name.conf" ] || return 0
    change "end the access of remote workers" rm -f "$dropins/crewfs-$name.conf"
    [ -n "$dry" ] || ! command -v sshd >/dev/null || reload_sshd
    if [ -n "$(what_was_made user)" ]; then
        change "end the connections of $user" end_connections "$user"
    fi
}

files() {
    what_was_made path | while read -r path; do
        [ ! -e "$path" ] || change "remove $path" rm -f "$path"
    done
    what_was_made directory | while read -r path; do
        # The directory stays if the state of the queue is in it.
        if [ -d "$path" ] && [ ! -e "$path/state" ]; then change "remove $path" rmdir "$path"; fi
    done
    [ -n "$dry" ] || { forget path && forget directory; }
}

accounts() {
    user=$(what_was_made user)
    group=$(what_was_made group)
    [ -n "$user$group" ] || return 0
    if [ -z "$yes$dry" ] && ! ask "Remove the user and the group ${user:-$group}? Their files then show a number."; then
        echo "the user and the group ${user:-$group} stay; to remove them too: $0 $name --yes"
        return
    fi
    if [ -n "$user" ] && getent passwd "$user" >/dev/null; then change "remove the user $user" userdel "$user"; fi
    # userdel also removes a group without other members.
    if [ -n "$group" ] && getent group "$group" >/dev/null; then change "remove the group $group" remove_group "$group"; fi
    [ -n "$dry" ] || { forget user && forget group; }
}

remove_group() {
    ! getent group "$1" >/dev/null || groupdel "$1"
}

shared_files() {
    for other in "$records"/*.made; do
        case $other in
            "$made" | "$records/*.made") ;;
            *) echo "the program and the unit stay: $(basename "$other" .made) needs them" && return ;;
        esac
    done
    profile=$(what_was_made path .shared | grep '^/etc/apparmor.d/' || true)
    if [ -n "$profile" ] && command -v apparmor_parser >/dev/null; then
        change "unload the AppArmor profile" apparmor_parser -R "$profile"
    fi
    what_was_made path .shared | while read -r path; do
        [ ! -e "$path" ] || change "remove $path" rm -f "$path"
    done
    if [ -n "$dry" ]; then return; fi
    rm -f "$records/.shared.made"
    [ ! -d /run/systemd/system ] || systemctl daemon-reload
}

close_ssh
stop
files
accounts
if [ -z "$dry" ] && [ -s "$made" ]; then exit 0; fi
shared_files
if [ -n "$dry" ]; then
    echo "nothing was changed: this was a dry run"
    exit 0
fi
rm -f "$made"
rmdir "$records" "$configs" 2>/dev/null || true
echo "$name is removed. These stay: the packages fuse3 and openssh-server,"
[ -z "$project" ] || echo "$project with its files, and the state of its queue in $state"
