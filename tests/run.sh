#!/bin/sh
# Install the needs of the tests, and run all of them even if some fail. Arguments go to cargo test. The end of the output lists the
# failed tests.
# May assume: Debian or a distribution based on it, Rust, and root or sudo. Must never: leave the FUSE device with a changed mode.
set -eu
cd "$(dirname "$0")/.."
as_root=
[ "$(id -u)" = 0 ] || as_root=sudo

mount-scripts/need-rust.sh
mount-scripts/prepare-fuse.sh
mount-scripts/install-needs.sh ca-certificates gcc libc6-dev git rsync python3 util-linux e2fsprogs vim nano emacs-nox jq \
    shellcheck stress-ng libacl1-dev acl attr make patch sqlite3 ripgrep inotify-tools chromium tmux dash busybox \
    openssh-server openssh-client sshfs iproute2
# A node from another source is kept.
command -v npm >/dev/null || mount-scripts/install-needs.sh nodejs npm
# Programs for root alone are not in every user's PATH.
PATH=$PATH:/usr/sbin:/sbin

# Test suites for filesystems. They stay in cargo's target directory for the next run.
tools=${CARGO_TARGET_DIR:-target}/tools
mkdir -p "$tools"
env -u RUSTFLAGS cargo install --quiet --locked --debug --root "$tools" pjdfstest@0.2.2 fsx@0.3.2
PATH=$(cd "$tools" && pwd)/bin:$PATH
export PATH

# A small system for the tests of operators' scripts, which stays there too.
mount-scripts/install-needs.sh debootstrap systemd-container
tests/operator/machine.sh "$tools/machine"

said=$(mktemp -d)
device=/dev/fuse narrow='' running=''

# However this script ends, the device gets its old mode back, unless its mode was changed meanwhile.
give_back() {
    rm -rf "$said"
    if [ -n "$narrow" ] && [ "$(stat -c %a "$device")" = 666 ]; then
        $as_root chmod "$narrow" "$device"
        echo "$device has its mode $narrow again" || true
    fi
}

# A shell runs its traps while it waits for a background child, but not while it waits for a foreground one.
interrupted() {
    trap '' HUP INT PIPE TERM
    if [ -n "$running" ]; then
        # The running test program is a child of cargo, and would survive cargo.
        tests=$(cat "/proc/$running/task/"*/children 2>/dev/null || true)
        # The process ids are separate words on purpose.
        # shellcheck disable=SC2086
        kill "$running" $tests 2>/dev/null || true
        wait "$running" || true
    fi
    exit "$1"
}
trap give_back EXIT
trap 'interrupted 129' HUP
trap 'interrupted 130' INT
trap 'interrupted 141' PIPE
trap 'interrupted 143' TERM

# Some tests mount as ordinary users. Where udev runs, these may use the device already.
case $(stat -c %a "$device") in
    *[67]) ;;
    *)
        narrow=$(stat -c %a "$device")
        echo "giving $device the mode 666 instead of $narrow until the tests have ended"
        $as_root chmod 666 "$device"
        ;;
esac

failed=''
shellcheck -x hooks/*.sh mount-scripts/*.sh mount-scripts/*mount.crewfs mount-scripts/debian/* mount-scripts/tarball/* tests/*.sh tests/operator/*.sh \
    tests/use-cases/*.sh tests/kernels/*.sh src/cli/demo/*.sh .ci/run .githooks/* || failed='  shellcheck: what it says stands before the tests
'

# The output goes to a file, because a process that a test has left behind would hold a pipe open. The shell makes background commands
# ignore the keyboard's signals, but tests need them.
: >"$said/tests"
env --default-signal=INT,QUIT cargo test --locked --no-fail-fast "$@" >>"$said/tests" 2>&1 &
running=$!
tail -n +1 -f --pid="$running" "$said/tests" &
shown=$!
code=0
wait "$running" || code=$?
running=''
wait "$shown" || true

# The names of failed tests at the end of each test program's output, up to cargo's line that this program failed.
failed=$failed$(awk '
    /^failures:$/ { names = "" }
    /^    [^ ]+$/ { names = names "    " $1 "\n" }
    /^test result: ok/ { names = "" }
    /^error: .*to rerun pass `/ {
        split($0, parts, "`")
        printf "  %s\n%s", parts[2], names == "" ? "    ended without naming a test\n" : names
        names = ""
    }' "$said/tests")
[ "$code" = 0 ] || [ -n "$failed" ] || failed="  cargo test ended with $code before it could run a test, as it says above"
if [ -n "$failed" ]; then
    printf '\nfailed:\n%s\n' "$failed"
    exit 1
fi
printf '\nall tests passed\n'
