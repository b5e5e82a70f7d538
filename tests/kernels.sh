#!/usr/bin/env bash
# Boot Debian's kernels one after another, run tests in each, and print a table of the results.
#
#   tests/kernels.sh [--dir DIR] [--kernels 5.10,6.1,6.12] [--minutes N] [--each N] [--slowness N] [CHECK…]
#
# A check is `demo`, or a test program with beginnings of names: `mount`, `proof:race::,deaths::`. The default is the list `checks` below.
# Each kernel may take --minutes in all, and each check --each minutes: a check that hangs is ended, and the next one runs.
# DIR (target/kernels) keeps the images for the next run, each kernel's console, and all output of its tests.
# May assume: Debian, root or sudo, what `cargo test` builds. Must never: change apt's state on this machine, leave a guest running, or
# wait for a guest past its time limit. A guest sees a copy of the sources and the programs at the same paths. Its disks are discarded.
set -euo pipefail
cd "$(dirname "$0")/.."

kernels=5.10,6.1,6.12 dir=${CARGO_TARGET_DIR:-target}/kernels minutes=240 each=40 slowness=8
checks=(demo 'proof:race::,kill::,deaths::' core)
# The mount tests run module by module.
mapfile -t -O ${#checks[@]} checks < <(grep -rl '^#\[test\]' tests/mount | sed 's,tests/mount/\([a-z_]*\).*,mount:\1::,' | sort -u)
# The packages in the image besides a minimal Debian: the needs of the tests.
needs=fuse3,git,ca-certificates,rsync,python3,procps,psmisc,kmod,attr,acl,libacl1-dev,ripgrep,sqlite3,jq,make,patch,gcc,libc6-dev
needs=$needs,inotify-tools,tmux,busybox,openssh-server,openssh-client,sshfs,iproute2,e2fsprogs,vim,nano,emacs-nox,xz-utils
# The image has the release of this machine, so that programs built here run there.
# shellcheck source=/dev/null
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
# The releases in which the script looks for kernels.
suites='bullseye bookworm trixie'

fail() { echo "kernels.sh: $*" >&2 && exit 1; }
step() { echo "== $*"; }

while [ $# -gt 0 ]; do
    case $1 in
        --dir) dir=$2 && shift ;;
        --kernels) kernels=$2 && shift ;;
        --minutes) minutes=$2 && shift ;;
        --each) each=$2 && shift ;;
        --slowness) slowness=$2 && shift ;;
        -*) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
        *) break ;;
    esac
    shift
done
[ $# = 0 ] || checks=("$@")

mount-scripts/install-needs.sh qemu-system-x86 debootstrap debian-archive-keyring e2fsprogs kmod cpio binutils xz-utils
PATH=$PATH:/usr/sbin:/sbin
as_root=''
[ "$(id -u)" = 0 ] || as_root=sudo
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)

exec 9>"$dir/lock"
flock -n 9 || fail "another one runs in $dir"
guest=''
# Called by the traps.
# shellcheck disable=SC2317
ended() {
    [ -z "$guest" ] || kill "$guest" 2>/dev/null || true
    rm -rf "$dir/scratch"
}
trap ended EXIT
trap 'exit 130' HUP INT TERM
rm -rf "$dir/scratch" && mkdir "$dir/scratch"

# The first mirror that apt asks for this release, in either form of apt's configuration. The variables are apt's, not the shell's.
# shellcheck disable=SC2016
mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' 2>/dev/null | sed -n "s, $release main$,,p" | head -n 1)
mirror=${mirror:-http://deb.debian.org/debian}
mirror=${mirror%/}

# apt with separate lists, for releases that this machine does not use.
apt() {
    local program=$1
    shift
    "$program" -q -o Dir::State="$dir/apt" -o Dir::State::status="$dir/apt/status" -o Dir::Cache="$dir/apt/cache" \
        -o Dir::Etc::sourcelist="$dir/apt/sources" -o Dir::Etc::sourceparts=- -o Acquire::Languages=none -o APT::Sandbox::User= "$@"
}

# Make the folder of the newest kernel of this series. A folder that exists is kept, so that the script needs no network then.
prepare() {
    local series=$1 folder=$dir/kernel-$1 package version part modules
    [ ! -e "$folder/made" ] || return 0
    step "the kernel $series"
    if [ ! -e "$dir/scratch/lists" ]; then
        mkdir -p "$dir/apt/lists/partial" "$dir/apt/cache/archives/partial"
        : >"$dir/apt/status"
        for part in $suites; do
            echo "deb $mirror $part main"
            echo "deb ${mirror%/*}/debian-security $part-security main"
        done >"$dir/apt/sources"
        apt apt-get update >"$dir/scratch/apt" 2>&1 || { cat "$dir/scratch/apt" >&2 && fail "Debian's lists cannot be had"; }
        touch "$dir/scratch/lists"
    fi
    package=$(apt apt-cache show linux-image-amd64 | sed -n "s/^Depends: \(linux-image-$series\.[^ ]*\) .*/\1/p" | head -n 1)
    [ -n "$package" ] || fail "Debian's $suites have no kernel $series"
    version=${package#linux-image-}
    rm -rf "$folder" "$dir/scratch/kernel"
    mkdir -p "$folder" "$dir/scratch/kernel"
    (cd "$dir/scratch/kernel" && apt apt-get download "$package" busybox-static >"$dir/scratch/apt" 2>&1) ||
        { cat "$dir/scratch/apt" >&2 && fail "$package cannot be had"; }
    for part in "$dir"/scratch/kernel/*.deb; do dpkg-deb -x "$part" "$dir/scratch/kernel/files" && rm "$part"; done
    cp "$dir/scratch/kernel/files/boot/vmlinuz-$version" "$folder/vmlinuz"
    modules=$(find "$dir/scratch/kernel/files" -path '*/lib/modules' -type d)
    # Drivers for devices that no guest has.
    for part in sound drivers/gpu drivers/net drivers/media drivers/infiniband drivers/staging drivers/iio drivers/scsi; do
        rm -rf "$modules/$version/kernel/$part"
    done
    depmod -b "${modules%/lib/modules}" "$version"

    # The initial system loads the modules for the disks, and continues on the disk.
    local start=$dir/scratch/kernel/start
    mkdir -p "$start"/{dev,proc,root,modules}
    cp "$(find "$dir/scratch/kernel/files" -path '*bin/busybox')" "$start/busybox"
    for part in virtio_pci virtio_blk ext4; do
        modprobe -d "${modules%/lib/modules}" -S "$version" --show-depends "$part"
    done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' | while read -r part; do
        local name
        name=$(basename "$part" .xz)
        case $part in
            *.xz) xz -dc "$part" >"$start/modules/$name" ;;
            *) cp "$part" "$start/modules/$name" ;;
        esac
        echo "/busybox insmod /modules/$name"
    done >"$dir/scratch/kernel/load"
    {
        printf '#!/busybox sh\n/busybox mount -t devtmpfs dev /dev\n'
        cat "$dir/scratch/kernel/load"
        printf '/busybox mount -t ext4 /dev/vda /root\n'
        printf '/busybox mount -t ext4 /dev/vdb /root/mnt\n/busybox mount -t ext4 -o ro /dev/vdc /root/lib/modules\n'
        printf 'exec /busybox switch_root /root /mnt/guest.sh\n'
    } >"$start/init"
    chmod +x "$start/init"
    (cd "$start" && find . | cpio --quiet -o -H newc --owner=0:0) >"$folder/initrd"
    image "$modules" "$folder/modules.img" 64
    echo "$version" >"$folder/made"
}

# Make an image with the files of a directory, and with this many MiB more.
image() {
    local size
    size=$($as_root du -sm "$1" | cut -f 1)
    rm -f "$2.new"
    # Inodes of 256 bytes have a birth time. Without one, crewfs lets the kernel cache little.
    $as_root mke2fs -q -t ext4 -I 256 -N $((size * 64 + 65536)) -d "$1" "$2.new" "$((size + size / 4 + $3))M" >/dev/null
    $as_root chown "$(id -u):$(id -g)" "$2.new"
    mv "$2.new" "$2"
}

if [ "$(cat "$dir/made" 2>/dev/null)" != "$release $needs" ]; then
    step "a small Debian ($release) with what the tests need"
    $as_root rm -rf "$dir/root"
    $as_root debootstrap --variant=minbase --include="$needs" "$release" "$dir/root" "$mirror" >"$dir/debootstrap.log" 2>&1 ||
        { tail "$dir/debootstrap.log" >&2 && fail "no Debian could be made: $dir/debootstrap.log"; }
    $as_root rm -rf "$dir/root/var/cache/apt/archives" "$dir/root/usr/share/doc" "$dir/root/usr/share/locale"
    $as_root mkdir -p "$dir/root/lib/modules"
    echo user_allow_other | $as_root tee -a "$dir/root/etc/fuse.conf" >/dev/null
    image "$dir/root" "$dir/root.img" 2048
    $as_root rm -rf "$dir/root"
    echo "$release $needs" >"$dir/made"
fi
for kernel in ${kernels//,/ }; do prepare "$kernel"; done

step "the tests"
# Each test program comes with the program crewfs, which it tests.
programs=(--test mount)
for check in "${checks[@]}"; do [ "$check" = demo ] || programs+=(--test "${check%%:*}"); done
cargo test --locked --no-run "${programs[@]}" >"$dir/scratch/built" 2>&1 || { cat "$dir/scratch/built" >&2 && fail "the tests cannot be built"; }
target=$(cd "${CARGO_TARGET_DIR:-target}" && pwd) files=$dir/scratch/files
mkdir -p "$files/sources" "$files/target/debug/deps"
git ls-files -z | xargs -0 cp --parents -dt "$files/sources"
objcopy --strip-debug target/debug/crewfs "$files/target/debug/crewfs"
for check in "${checks[@]}"; do
    program=${check%%:*}
    if [ "$program" != demo ] && [ ! -L "$files/$program" ]; then
        built=$(sed -n "s|^ *Executable tests/$program/main.rs (\(.*\))$|\1|p" "$dir/scratch/built")
        [ -n "$built" ] || fail "there is no program of tests named $program"
        objcopy --strip-debug "$built" "$files/target/debug/deps/$program"
        ln -s "$target/debug/deps/$program" "$files/$program"
    fi
    echo "$check"
done >"$files/checks"
printf "sources='%s'\ntarget='%s'\nslowness=%s\nminutes=%s\neach=%s\n" "$PWD" "$target" "$slowness" "$minutes" \
    "$each" >"$files/settings"
cp tests/kernels/guest.sh "$files/guest.sh"
image "$files" "$dir/scratch/files.img" 512

# Boot the kernel of a folder with this accelerator. Its output goes to the folder.
boot() {
    local folder=$1 accel=$2 seconds=$3 code=0
    shift 3
    rm -f "$folder/said" "$folder/console"
    # The copy is the guest's own for as long as it runs.
    timeout --foreground -k 10 "$seconds" qemu-system-x86_64 -accel "$accel" -cpu max -smp 2 -m 3072 \
        -nodefaults -no-user-config -display none -monitor none -no-reboot -device virtio-rng-pci \
        -serial "file:$folder/console" -serial "file:$folder/said" -kernel "$folder/vmlinuz" -initrd "$folder/initrd" \
        -append "console=ttyS0 panic=-1 oops=panic tsc=unstable sysrq_always_enabled" "$@" &
    guest=$!
    wait "$guest" || code=$?
    guest=''
    return "$code"
}

# The presence of /dev/kvm proves little. So boot without disks: where KVM works, the kernel panics within seconds.
accel=tcg,thread=multi
first=$dir/kernel-${kernels%%,*}
if [ -w /dev/kvm ] && boot "$first" kvm 20 >/dev/null 2>&1 && grep -q 'Kernel panic' "$first/console"; then accel=kvm; fi
step "booting ${kernels//,/, } ($accel)"

for kernel in ${kernels//,/ }; do
    folder=$dir/kernel-$kernel
    begin=$SECONDS
    disks=()
    for disk in "$dir/root.img" "$dir/scratch/files.img" "$folder/modules.img"; do
        disks+=(-drive "file=$disk,format=raw,if=virtio,snapshot=on,cache=unsafe")
    done
    boot "$folder" "$accel" $((minutes * 60 + 60)) "${disks[@]}" || true
    tr -d '\r' <"$folder/said" | tee "$folder/out" | sed -n 's/^@check //p' >"$folder/table"
    grep -q '^@end' "$folder/out" || echo "$kernel: the guest did not come to its end after $((SECONDS - begin)) s: $folder/console" |
        tee -a "$folder/lost"
done
printf '\n'

# Each cell shows passed/failed and seconds. Failed tests follow below.
code=0
{
    printf 'check'
    for kernel in ${kernels//,/ }; do printf '\t%s' "$(cat "$dir/kernel-$kernel/made")"; done
    printf '\n'
    for check in "${checks[@]}"; do
        printf '%s' "$check"
        for kernel in ${kernels//,/ }; do
            awk -v check="$check" '$1 == check { printf "\t%s/%s %s s%s", $2, $3, $4, ($5 == 0 ? "" : " !"); found = 1 }
                END { if (!found) printf "\t-" }' "$dir/kernel-$kernel/table"
        done
        printf '\n'
    done
} | column -t -s "$(printf '\t')"
echo "(passed/failed, time; ! where a program did not end well, - where none ran)"
for kernel in ${kernels//,/ }; do
    folder=$dir/kernel-$kernel
    sed -n "s/^@failed /$kernel: /p" "$folder/out"
    awk '$3 != 0 || $5 != 0 { bad = 1 } END { exit bad || !NR }' "$folder/table" && grep -q '^@end' "$folder/out" || code=1
    [ "$(wc -l <"$folder/table")" = ${#checks[@]} ] || code=1
done
exit $code
