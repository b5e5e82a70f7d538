#!/bin/sh
# Make this machine serve a project to workers, from now on and after each boot. Existing files are kept, so it can be
# run again, also to upgrade. It records what it makes below /var/lib/crewfs; remove.sh undoes that.
# May assume: Debian or Ubuntu, root. Must never: change files in a project's directory.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=mount-scripts/server.sh
. "$here/server.sh"

usage() {
    cat <<'END'
usage: deploy.sh [--project DIR] [--name NAME] [--user USER] [--binary PATH] [--yes] [--dry-run] [--no-start]

  --project DIR   the project's directory; made if it is missing
  --name NAME     the project's name on this machine (default: the last part of DIR)
  --user USER     the user as which remote workers log in (default: crew-NAME)
  --binary PATH   the program crewfs (default: the one that is built here, or is in PATH, or else it is built)
  --yes           do not ask
  --dry-run       print each step and change nothing
  --no-start      install, but do not start

On a terminal, the script asks for values that are not given.
END
}

project='' name='' user='' binary='' yes='' start=yes
while [ $# -gt 0 ]; do
    case $1 in
        --project | --name | --user | --binary) [ $# -gt 1 ] || wrong "$1 needs a value" ;;
    esac
    case $1 in
        --project) project=$2 && shift ;;
        --name) name=$2 && shift ;;
        --user) user=$2 && shift ;;
        --binary) binary=$2 && shift ;;
        --yes) yes=yes ;;
        --dry-run) dry=yes ;;
        --no-start) start='' ;;
        -h | --help) usage && exit 0 ;;
        *) wrong "$1 is no option" ;;
    esac
    shift
done
need_root

# answer QUESTION DEFAULT: print the user's answer, or the default.
answer() {
    typed=''
    if [ -t 0 ] && [ -z "$yes" ]; then
        printf '%s%s: ' "$1" "${2:+ [$2]}" >&2
        read -r typed || typed=''
    fi
    echo "${typed:-$2}"
}

[ -n "$project" ] || project=$(answer "The project's directory" '')
[ -n "$project" ] || wrong "the project's directory is missing; give it with --project DIR"
case $project in
    /*) ;;
    *) wrong "$project is no absolute path; write --project $(pwd)/$project" ;;
esac
case $project in
    *[\"\'\\]* | *[[:cntrl:]]*) wrong "$project has a quote, backslash or control character in it, which an ssh key's command cannot carry; choose another directory" ;;
esac
project=$(realpath -m -- "$project")
case $project in
    / | /bin | /boot | /dev | /etc | /home | /lib | /lib64 | /media | /mnt | /opt | /proc | /root | /run | /sbin | /srv | /sys | /tmp | /usr | /var) wrong "$project belongs to the system; choose a directory below it, such as /srv/project" ;;
    /dev/* | /proc/* | /sys/* | /run/*) wrong "$project does not outlive a boot; choose a directory on a disk, such as /srv/project" ;;
esac
[ -d "$project" ] || [ ! -e "$project" ] || wrong "$project is not a directory"

if [ -z "$name" ]; then
    name=$(basename "$project" | tr '[:upper:] .' '[:lower:]--' | tr -cd 'a-z0-9_-')
    name=$(answer "The project's name on this machine" "$name")
fi
check_name "$name"
if [ -e "$configs/$name.toml" ]; then
    other=$(setting source "$name")
    [ "$other" = "$project" ] || fail "$name is the project in $other already; choose another --name, or, if the project moved, change $configs/$name.toml"
fi
for other in $(projects); do
    served=$(setting source "$other")
    if [ "$other" = "$name" ] || [ -z "$served" ]; then continue; fi
    case $project/ in "$served"/*) fail "$project is served as $other already; choose another directory, or remove that one: remove.sh $other" ;; esac
    case $served/ in "$project"/*) fail "$project contains $served, which is served as $other; choose another directory" ;; esac
done

known=$(user_of "$name")
[ -n "$user" ] || user=${known:-$(answer 'The user as which remote workers log in' "crew-$name")}
case $user in
    '' | [!a-z_]* | *[!a-z0-9_-]*) wrong "\"$user\" cannot name a user: use a-z, 0-9, _ and -, and begin with a letter" ;;
    root) wrong "remote workers must not be root; name another --user, or none" ;;
esac
[ -z "$known" ] || [ "$known" = "$user" ] || fail "the workers of $name log in as $known; to change that, remove it first: remove.sh $name"
if entry=$(getent passwd "$user"); then
    shell=${entry##*:}
    case $shell in
        */nologin | */false) fail "$user has the shell $shell, with which sshd runs no command; choose another --user, or change it: usermod -s /bin/sh $user" ;;
    esac
    group=$(id -gn "$user")
else
    group=$user
fi

# Find the program. An installed one stays where it is.
if [ -z "$binary" ]; then
    root=$(dirname "$here")
    binary=$root/target/release/crewfs
    if [ -x "$binary" ]; then :
    elif found=$(command -v crewfs); then binary=$found
    elif [ ! -e "$root/Cargo.toml" ] || ! command -v cargo >/dev/null; then
        fail "there is no crewfs to install; install its package or its tarball, or build it as yourself: mount-scripts/build.sh; then run this again, or name it: --binary PATH"
    fi
fi
case $binary in
    /*) ;;
    *) binary=$(pwd)/$binary ;;
esac

# record KIND NAME [PROJECT]: record that this script made it, so that remove.sh removes it with the project, or with the last project.
record() {
    mkdir -p "$records"
    touch "$records/${3:-$name}.made"
    grep -qxF "$1 $2" "$records/${3:-$name}.made" || echo "$1 $2" >>"$records/${3:-$name}.made"
}

# own PATH MODE TEXT [GROUP]: a file of this project.
own() {
    put "$@"
    [ -n "$dry" ] || record path "$1"
}

# shared PATH MODE FILE: a file for all projects.
shared() {
    if cmp -s "$3" "$1"; then return; fi
    change "install $1" shared_now "$@"
}

shared_now() {
    install -D -m "$2" "$3" "$1.new"
    mv "$1.new" "$1"
    record path "$1" .shared
}

packages() {
    missing=''
    for package in fuse3 openssh-server; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    # The packages are separate words on purpose.
    # shellcheck disable=SC2086
    [ -z "$missing" ] || change "install the packages$missing" "$here/install-needs.sh" $missing
}

program() {
    if [ ! -x "$binary" ]; then
        if [ "$binary" != "$(dirname "$here")/target/release/crewfs" ]; then fail "$binary is no program; name crewfs itself: --binary PATH"; fi
        change "build crewfs" "$here/build.sh"
        [ -x "$binary" ] || return 0
    fi
    "$binary" --version 2>/dev/null | grep -q '^crewfs ' || fail "$binary does not run, or is not crewfs: \"$binary --version\" does not say so; name another one: --binary PATH"
    case $binary in
        /usr/bin/crewfs) return ;;
    esac
    if [ -e /usr/local/bin/crewfs ] && ! cmp -s "$binary" /usr/local/bin/crewfs; then upgraded=yes; fi
    shared /usr/local/bin/crewfs 755 "$binary"
}

account() {
    if ! getent group "$group" >/dev/null; then
        change "make the group $group" groupadd --system "$group"
        [ -n "$dry" ] || record group "$group"
    fi
    if ! getent passwd "$user" >/dev/null; then
        # "*" is a password that no input matches. Without one, sshd without PAM takes the account as locked.
        change "make the user $user, without a password and without the right to write in its home" \
            useradd --system --gid "$group" --home-dir "$records/$name" --no-create-home --shell /bin/sh \
            --password '*' --comment "remote workers of $name" "$user"
        [ -n "$dry" ] || record user "$user"
    fi
    if [ ! -d "$records/$name" ]; then
        change "make $records/$name" install -d -m 755 "$records/$name"
        [ -n "$dry" ] || record directory "$records/$name"
    fi
}

directory() {
    if [ ! -d "$project" ]; then
        change "make $project, for $user and the group $group" project_now
    elif [ "$(stat -c %G "$project")" != "$group" ] || [ $(($(stat -c 0%a "$project") & 02070)) != $((02070)) ]; then
        echo "$project existed before and is not changed. Workers of the group $group can write everywhere in it after you run:"
        # State in the project is for root alone: crewfs refuses one that a group may write. And one member must not change
        # what the agents of all members run.
        echo "    (cd '$project' && chgrp $group . && chmod g+rwxs . && find . -mindepth 1 -maxdepth 1 ! -name .crewfs ! -type l -exec chgrp -R $group {} + -exec chmod -R g+rwX {} + && find . -path ./.crewfs -prune -o -type d -exec chmod g+s {} + && find . -maxdepth 1 -type d \\( -name .crew -o -name .claude -o -name .codex -o -name .gemini -o -name .opencode -o -name .cursor \\) -exec chmod -R go-w {} +)"
    fi
}

# The directory above may belong to a user, who can put a link there at any moment: neither command follows one.
project_now() {
    mkdir -p "$(dirname "$project")"
    mkdir -m 2770 "$project"
    chown -h "$user:$group" "$project"
}

configuration() {
    # An existing file may have been edited.
    [ ! -e "$configs/$name.toml" ] || return 0
    # An existing queue stays where it is.
    state="state = \"$records/$name/state\""
    [ ! -e "$project/.crewfs/log.db" ] || state="#state = \"$records/$name/state\""
    own "$configs/$name.toml" 644 "# The project $name: what crewfs@$name.service mounts. Each line that is commented out is a mount option with its default;
# \"Mount options\" in docs/filesystem.md says what they do. After a change: systemctl restart crewfs@$name
source = \"$project\"

# The mount point. Default: the project itself.
#mountpoint = \"$project\"

# The directory for the state of the queue. Default: .crewfs in the project, where \"git clean\" can remove it.
$state

#tasks = \"tasks\"
#lease = \"30m\"
#lease_max = \"24h\"
#ageing = \"1h\"
#claims_per_worker = 1
#workers = \"alice:bob\"
#log_bytes = \"1M\"
#log_events = \"50\"
#idle_timeout = \"10m\"
#file_grace = \"3s\"
#remote_grace = \"60s\"
#allow_other = true
#lock_wait = \"2s\"
#stale_window = \"1h\"
#stale_writes = \"refuse\"
#unguarded = \"$configs/$name.rules\"
#history = \"on\"
#history_age = \"30d\"
#history_size = \"2G\"
#history_file = \"16M\"

# Worker names that are reserved for these keys: no other user of this machine can take one.
keys = \"$user:$configs/$name.keys\"

# The users that may pause the queue and end claims. Default: root and the user who mounts.
#operators = \"root\"
#threads = $(nproc)"
}

ssh_access() {
    keys=$configs/$name.keys dropin=$dropins/crewfs-$name.conf
    [ -e "$keys" ] || own "$keys" 640 "# The keys of the workers of $name, one a line. Change them with add-worker.sh and remove-worker.sh." "$group"
    text="# Remote workers of $name. A key is tied to one name and one command; nothing that a worker can write decides who it is.
Match User $user
    AuthorizedKeysFile $keys
    AuthorizedKeysCommand none
    TrustedUserCAKeys none
    AuthenticationMethods publickey
    PasswordAuthentication no
    KbdInteractiveAuthentication no
    DisableForwarding yes
    PermitTunnel no
    PermitTTY no
    PermitUserRC no
    # Who is gone is noticed, so that its write locks and claims become free.
    ClientAliveInterval 5
    ClientAliveCountMax 2"
    if [ -e "$dropin" ] && [ "$(cat "$dropin")" = "$text" ]; then return; fi
    if [ -n "$dry" ]; then
        change "write $dropin, and have sshd read it"
        return
    fi
    said=$(sshd_accepts 2>&1) || fail "sshd does not accept its present configuration, so nothing is added: $said; correct that first: sshd -t"
    before=''
    [ ! -e "$dropin" ] || before=$(cat "$dropin")
    own "$dropin" 644 "$text"
    if ! said=$(sshd_accepts 2>&1); then
        undo_dropin
        fail "sshd does not accept $dropin, which is now as it was before: $said; OpenSSH must be 8.2 or newer: sshd -V"
    fi
    in_force=$(sshd -T -C "user=$user,host=localhost,addr=127.0.0.1" | sed -n 's/^authorizedkeysfile //p')
    if [ "$in_force" != "$keys" ]; then
        undo_dropin
        fail "sshd does not read $dropins for $user: it would take keys from $in_force; begin /etc/ssh/sshd_config with the line: Include $dropins/*.conf"
    fi
    echo "have sshd read it"
    reload_sshd
}

undo_dropin() {
    if [ -n "$before" ]; then put_now "$dropin" 644 "$before"; else rm -f "$dropin"; fi
}

apparmor() {
    # Ubuntu since 23.10: only programs with a profile that allows it may make the namespace that confines a worker.
    [ "$(cat /proc/sys/kernel/apparmor_restrict_unprivileged_userns 2>/dev/null)" = 1 ] || return 0
    shared /etc/apparmor.d/crewfs 644 "$here/apparmor-crewfs"
    if command -v apparmor_parser >/dev/null; then
        change "load the AppArmor profile" apparmor_parser -r /etc/apparmor.d/crewfs
    else
        echo "the AppArmor profile takes effect when apparmor is installed, or at the next boot"
    fi
}

system_files() {
    shared /sbin/mount.crewfs 755 "$here/mount.crewfs"
    shared /sbin/umount.fuse.crewfs 755 "$here/umount.crewfs"
    apparmor
    for packaged in /lib/systemd/system /usr/lib/systemd/system /usr/local/lib/systemd/system; do
        [ ! -e "$packaged/crewfs@.service" ] || return 0
    done
    shared /etc/systemd/system/crewfs@.service 644 "$here/crewfs@.service"
}

serve() {
    unit=crewfs@$name.service
    if [ -z "$start" ]; then
        echo "not started, because of --no-start; to start: systemctl enable --now $unit"
    elif [ ! -d /run/systemd/system ]; then
        echo "no systemd runs here, so start crewfs yourself after each boot: crewfs mount --config $configs/$name.toml"
    elif [ -n "$dry" ]; then
        change "start $unit, now and at each boot"
    else
        systemctl daemon-reload
        if ! systemctl --quiet is-enabled "$unit" || ! systemctl --quiet is-active "$unit"; then
            change "start $unit, now and at each boot" systemctl enable --quiet "$unit"
            record unit "$unit"
            if ! systemctl start "$unit"; then
                journalctl -n 20 --no-pager -o cat -u "$unit" >&2
                fail "$unit does not start; the reason is above. Correct it, then: systemctl restart $unit"
            fi
        fi
        echo "$unit is active"
        [ -z "$upgraded" ] || echo "crewfs was replaced, and the old one still runs; to use the new one: systemctl restart $unit"
    fi
}

next_steps() {
    host=$(hostname -f 2>/dev/null || hostname)
    place=$(place_of "$name")
    cat <<END

Next:
  let a worker in       $here/add-worker.sh $name WORKER KEY.pub
  on its machine        connect.sh $user@$host:$place DIR
  let a user of this machine work there
                        usermod -a -G $group USER
  look at the crew      crewfs top $place
  undo all of this      $here/remove.sh $name
END
}

upgraded=''
everything() {
    packages
    program
    account
    directory
    configuration
    ssh_access
    system_files
    serve
}

if [ -t 0 ] && [ -z "$yes$dry" ]; then
    dry=yes
    everything
    ask "Do this?" || fail "nothing was changed"
    dry='' changed=''
fi
everything
if [ -n "$dry" ]; then
    echo "nothing was changed: this was a dry run"
else
    [ -n "$changed" ] || echo "nothing to do: everything is installed"
    next_steps
fi
