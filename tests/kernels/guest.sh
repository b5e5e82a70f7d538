#!/bin/bash
# The first program of a guest of tests/kernels.sh. It runs the checks, and reports the outcome of each on the second serial port.
# May assume: an image with the needs of the tests, and the files of this run at /mnt. Must never: run past its time limit, or return.
set -u
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TMPDIR=/tmp CI=true RUST_BACKTRACE=0

mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/pts /dev/shm
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t tmpfs -o mode=755 run /run
[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd
stty -F /dev/ttyS1 raw 2>/dev/null
exec </dev/null >/dev/ttyS1 2>&1

# The limit of a machine that systemd has started.
ulimit -Hn 524288
ulimit -Sn 20000
hostname guest
ip link set lo up
modprobe fuse
mount -t fusectl fusectl /sys/fs/fuse/connections
chmod 666 /dev/fuse
chmod 1777 /tmp

# shellcheck source=/dev/null
. /mnt/settings
# Mount the sources and the built programs at the paths where the programs look for them.
# shellcheck disable=SC2154
mkdir -p "$sources"
mount --bind /mnt/sources "$sources"
# shellcheck disable=SC2154
mkdir -p "$target"
mount --bind /mnt/target "$target"
cd "$sources" || exit
# shellcheck disable=SC2154
export CREWFS_TEST_SLOWNESS=$slowness
# shellcheck disable=SC2154
end=$((minutes * 60)) each=$((each * 60))

# The threads that no signal can wake, and what each waits for. The kernel prints the list itself, because reading about such a thread
# from /proc may block on the same thing.
stuck() {
    dmesg -C
    echo w >/proc/sysrq-trigger
    dmesg --color=never
}

# Run a program until the time of the check or of the guest is over at most. Print which tests have ended meanwhile, and why one failed;
# if the program still runs at the end, print where it hangs, and end it with its mounts, so that the next check can run.
run() {
    local code=0 child shown connection
    : >/tmp/said
    tail -n +1 -f /tmp/said | grep --line-buffered -a -A 4 '^test \|^thread .* panicked at ' &
    shown=$!
    # A shell without job control makes background commands and their children ignore these signals; undo that.
    env --default-signal=INT,QUIT "$@" >>/tmp/said 2>&1 &
    child=$!
    while kill -0 "$child" 2>/dev/null && [ "$SECONDS" -lt "$end" ] && [ $((SECONDS - begin)) -lt "$each" ]; do
        read -r -t 1 <>/tmp/clock
    done
    kill "$shown"
    if kill -0 "$child" 2>/dev/null; then
        echo "@failed $check: not at its end when its time was over"
        stuck
        kill -9 "$child"
        umount -a -l -t fuse.crewfs
        for connection in /sys/fs/fuse/connections/*/abort; do echo 1 >"$connection"; done
        return 124
    fi
    wait "$child" || code=$?
    return "$code"
}

# The names of the tests of a program that begin with one of the other arguments; all without these.
tests_of() {
    local program=$1 IFS='|'
    shift
    "$program" --list 2>/dev/null | sed -n 's/: test$//p' | grep -E "^($*)"
}

mkfifo /tmp/clock
echo "$(uname -r), $(nproc) processors"
while read -r check; do
    [ "$SECONDS" -lt "$end" ] || break
    begin=$SECONDS code=0
    if [ "$check" = demo ]; then
        run "$target/debug/crewfs" demo || code=$?
        passed=$((code == 0)) failed=$((code != 0))
        [ "$code" = 0 ] || echo "@failed demo: it ended with $code"
    else
        program=${check%%:*} beginnings=()
        [ "$program" = "$check" ] || IFS=, read -ra beginnings <<<"${check#*:}"
        mapfile -t tests < <(tests_of "/mnt/$program" "${beginnings[@]}")
        # Without a name the program would run all. A program that is killed loses the output that it still buffers. More tests at a time
        # would make an emulated guest too slow for the time limits of crewfs itself.
        run "/mnt/$program" --test-threads 3 --nocapture --exact "${tests[@]:-none}" || code=$?
        passed=$(grep -ac '^test .* \.\.\. ok$' /tmp/said)
        failed=$(grep -ac '^test .* \.\.\. FAILED$' /tmp/said)
        sed -n "s/^test \(.*\) \.\.\. FAILED$/@failed $program \1/p" /tmp/said
        [ ${#tests[@]} != 0 ] || { echo "@failed $check: there is no such test" && failed=1; }
        # Its failed tests explain its exit code.
        [ "$failed" = 0 ] || [ "$code" = 124 ] || code=0
    fi
    grep -q '^skipped' /tmp/said && grep '^skipped' /tmp/said
    [ "$failed$code" = 00 ] || cat /tmp/said
    echo "@check $check $passed $failed $((SECONDS - begin)) $code"
done </mnt/checks
echo "@end"
# Power off at once: a hanging process must not delay it.
echo o >/proc/sysrq-trigger
sleep 60
