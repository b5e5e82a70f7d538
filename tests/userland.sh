#!/bin/sh
# Install crewfs from the package or the tarball in the system where this script runs, use it, install it again, and remove it.
# package.sh runs this as root in a system that is discarded afterwards: userland.sh package|tarball|small
# May assume: a minimal Debian with fuse3, or for "small" only busybox; the build results in /opt/given, and /dev/fuse.
set -eu
export DEBIAN_FRONTEND=noninteractive PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
fail() { echo "userland.sh: $1" >&2 && exit 1; }

# says TEXT COMMAND…: assert that the output of a command contains this text, with any exit code.
says() {
    text=$1 && shift
    said=$("$@" 2>&1) || true
    case $said in
        *"$text"*) ;;
        *) fail "$* does not say \"$text\", but: $said" ;;
    esac
}

# All files of the system, except backups by dpkg and useradd.
listing() {
    find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /srv -o -path /var/lib/dpkg \
        -o -path /var/log -o -path /var/cache -o -path '/etc/*-' -o -path '/etc/sub?id' -o -path /etc/.pwd.lock \) -prune -o \
        -exec stat -c '%N %f %u %g' {} + | LC_ALL=C sort
}

works() {
    crewfs --version
    mkdir -p /srv/project/tasks
    crewfs mount /srv/project
    task one /srv/project
    crewfs umount /srv/project
    crewfs demo >/tmp/demo 2>&1 || { cat /tmp/demo && fail "the demo does not work"; }
    ! grep fuse.crewfs /proc/self/mountinfo || fail "a mount is left"
}

# mount(8) and umount(8) find the helpers.
is_mounted_by_its_type() {
    mkdir /srv/place
    mount -t crewfs /srv/project /srv/place
    task two /srv/place
    umount -c /srv/place
    ! grep fuse.crewfs /proc/self/mountinfo || fail "umount leaves a mount"
    rmdir /srv/place
}

# task ID PLACE: publish, claim and complete a task.
task() {
    echo "# Task: The task $1" >"$2/tasks/$1.md"
    # The worker's name comes from the environment with which its program, here a shell, was started.
    # shellcheck disable=SC2016
    (cd "$2" && CREWFS_WORKER=worker-1 sh -euc '
        touch tasks/claim/next
        grep -q "The task $1" tasks/workers/self/task
        echo "done by hand" >"tasks/completed/$1"' sh "$1")
    grep -q 'done by hand' "$2/tasks/completed/$1" || fail "$1 is not finished in $2"
}

by_package() {
    dpkg -i /opt/given/crewfs.deb
    works
    is_mounted_by_its_type
    mkdir -p /etc/crewfs /etc/systemd/system/multi-user.target.wants
    echo 'source = "/srv/project"' >/etc/crewfs/project.toml
    ln -s /usr/lib/systemd/system/crewfs@.service /etc/systemd/system/multi-user.target.wants/crewfs@project.service
    # An upgrade, and then an attempt to install the tarball over it.
    dpkg -i /opt/given/crewfs.deb
    says 'installed here as a package already' /opt/crewfs/install.sh
    # Removal and purge keep the configuration.
    dpkg -r crewfs
    [ ! -e /usr/bin/crewfs ] || fail "removal leaves the program"
    dpkg -P crewfs
    [ -e /etc/crewfs/project.toml ] || fail "purge took the settings, which are not the package's"
    [ ! -L /etc/systemd/system/multi-user.target.wants/crewfs@project.service ] || fail "purge leaves an enabled unit"
    rm -r /etc/crewfs
    rmdir -p --ignore-fail-on-non-empty /etc/systemd/system/multi-user.target.wants
}

by_tarball() {
    useradd -m agent
    chmod 755 /home/agent
    listing >/tmp/with_agent
    says 'run it with sudo' runuser -u agent -- /opt/crewfs/install.sh
    says 'cannot be written to' runuser -u agent -- /opt/crewfs/install.sh --prefix /opt/elsewhere
    says 'is no absolute path' /opt/crewfs/install.sh --prefix here
    says "belongs to the system's own packages" /opt/crewfs/install.sh --prefix /usr
    says 'is no option' /opt/crewfs/install.sh --yes
    says 'this script has installed nothing below /usr/local' /opt/crewfs/install.sh --uninstall
    # An installation for one user.
    says 'left out' runuser -u agent -- /opt/crewfs/install.sh --prefix /home/agent/.local
    says 'crewfs ' runuser -u agent -- /home/agent/.local/bin/crewfs --version
    says 'cannot be written to' runuser -u daemon -- /home/agent/.local/share/crewfs/install.sh --uninstall --prefix /home/agent/.local
    runuser -u agent -- /home/agent/.local/share/crewfs/install.sh --uninstall --prefix /home/agent/.local
    unchanged /tmp/with_agent
    # The script names a missing package, and installs anyway.
    mv /usr/bin/fusermount3 /tmp
    says 'install the package fuse3' /opt/crewfs/install.sh
    mv /tmp/fusermount3 /usr/bin
    says 'nothing to do' /opt/crewfs/install.sh
    says 'has no bin/crewfs' /usr/local/share/crewfs/install.sh
    works
    is_mounted_by_its_type
    says 'is installed in /usr/local already' dpkg -i /opt/given/crewfs.deb
    # Install over an older version, which had one file more, and after an interrupted installation.
    echo 'file /usr/local/share/crewfs/older' >>/usr/local/share/crewfs/installed
    touch /usr/local/share/crewfs/older /usr/local/bin/crewfs.new
    rm /usr/local/share/man/man1/crewfs.1.gz
    says 'is installed below /usr/local' /opt/crewfs/install.sh
    [ ! -e /usr/local/share/crewfs/older ] || fail "what the newer crewfs has not is still there"
    [ -e /usr/local/share/man/man1/crewfs.1.gz ] || fail "what was missing is not there"
    touch /usr/local/share/crewfs/own
    /usr/local/share/crewfs/install.sh --uninstall
    rm /usr/local/share/crewfs/own || fail "uninstalling takes what is not its own"
    rmdir /usr/local/share/crewfs
    unchanged /tmp/with_agent
    userdel -r agent 2>/dev/null
}

by_small() {
    says 'fusermount3 is missing' /opt/crewfs/install.sh
    says 'nothing to do' /opt/crewfs/install.sh
    works
    /usr/local/share/crewfs/install.sh --uninstall
}

# unchanged LISTING: assert that the system is as it was then.
unchanged() {
    listing >/tmp/now
    diff "$1" /tmp/now || fail "the system is not as it was before: taking crewfs away leaves something, or takes too much"
}

mkdir /opt/crewfs
tar -C /opt/crewfs --strip-components=1 -xzf /opt/given/crewfs.tar.gz
listing >/tmp/before
"by_$1"
unchanged /tmp/before
echo "all of it works, and nothing is left"
