#!/bin/bash
# The first program of a guest of tests/kernels.sh: it runs the checks and says how each ended, on the second serial port.
# May assume: an image with the tests' needs, and at /mnt the files of this run. Must never: run longer than it may, or return.
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

# As on a machine that systemd has started.
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
# The sources, and what was built of them, are where the programs look for them.
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
end=$((minutes * 60))

# Threads that wait where nothing can wake them, with what they wait for: as the kernel says it by itself, since a look at such a one
# may wait for the same.
stuck() {
    dmesg -C
    echo w >/proc/sysrq-trigger
    dmesg --color=never
}

# Run a program, no longer than the guest has, and say which tests have ended meanwhile, and why one failed; what then still runs says
# where it hangs.
run() {
    local code=0 child shown
    : >/tmp/said
    tail -n +1 -f /tmp/said | grep --line-buffered -a -A 4 '^test \|^thread .* panicked at ' &
    shown=$!
    # A shell without job control has what it runs in the background ignore these, and all that descends from it.
    env --default-signal=INT,QUIT "$@" >>/tmp/said 2>&1 &
    child=$!
    while kill -0 "$child" 2>/dev/null && [ "$SECONDS" -lt "$end" ]; do
        read -r -t 1 <>/tmp/clock
    done
    kill "$shown"
    if kill -0 "$child" 2>/dev/null; then
        echo "@failed $check: not at its end when the guest's time was over"
        stuck
        return 124
    fi
    wait "$child" || code=$?
    return "$code"
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
        program=${check%%:*} filters=()
        [ "$program" = "$check" ] || IFS=, read -ra filters <<<"${check#*:}"
        # A program that is stopped tells nothing of what it has kept until its end.
        run "/mnt/$program" --test-threads 6 --nocapture "${filters[@]}" || code=$?
        passed=$(grep -ac '^test .* \.\.\. ok$' /tmp/said)
        failed=$(grep -ac '^test .* \.\.\. FAILED$' /tmp/said)
        sed -n "s/^test \(.*\) \.\.\. FAILED$/@failed $program \1/p" /tmp/said
        # Its failures account for its code.
        [ "$failed" = 0 ] || [ "$code" = 124 ] || code=0
    fi
    grep -q '^skipped' /tmp/said && grep '^skipped' /tmp/said
    [ "$failed$code" = 00 ] || cat /tmp/said
    echo "@check $check $passed $failed $((SECONDS - begin)) $code"
done </mnt/checks
echo "@end"
# At once: what hangs keeps nothing.
echo o >/proc/sysrq-trigger
sleep 60
