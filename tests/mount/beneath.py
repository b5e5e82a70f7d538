"""What open files go through when names change beneath the mount, each step with what came of it: `name: result`.

Arguments: the directory as programs see it; the same directory beneath; the daemon's process, or nothing; what to do. On a
disk both directories are the same one.
"""

import errno, fcntl, os, stat, subprocess, sys, time, zlib

SEEN, BENEATH, DAEMON, WHAT = sys.argv[1:5]
PAGE = 4096
# An offset so far into a file that no read-ahead reaches it.
FAR = 640 * PAGE
SIZE = FAR + 100_000


def attempt(function, *arguments):
    try:
        return function(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]


def show(name, *results):
    print(f"{name}: {' '.join(map(str, results))}", flush=True)


def put(path, data, flags=os.O_TRUNC):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o644)
    try:
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)


def content(path):
    with open(path, "rb") as file:
        data = file.read()
    return (len(data), data if len(data) < 100 else zlib.crc32(data))


def until(done, limit):
    start = time.monotonic()
    while not done():
        if time.monotonic() - start > limit:
            return False
        time.sleep(0.001)
    return True


marked = 0


def barrier():
    """Wait until all that happened beneath is known: see `Pair::barrier` in tests/proof/ordinary.rs."""
    global marked
    for _ in range(2):
        marked += 1
        name = f"marker{marked}"
        assert not os.path.exists(f"{SEEN}/{name}")
        put(f"{BENEATH}/{name}", b"")
        assert until(lambda: os.path.exists(f"{SEEN}/{name}"), 20), "a change beneath is not seen"


def kept(inodes):
    """Whether the daemon has a descriptor for the content of one of these files."""
    for number in os.listdir(f"/proc/{DAEMON}/fd"):
        try:
            with open(f"/proc/{DAEMON}/fdinfo/{number}") as info:
                flags = int(next(line.split()[1] for line in info if line.startswith("flags:")), 8)
            if not flags & os.O_PATH and os.stat(f"/proc/{DAEMON}/fd/{number}").st_ino in inodes:
                return True
        except FileNotFoundError:
            pass
    return False


def drop(inodes, others, limit):
    """Have the daemon close what it keeps open of these files, if it may. By using others, or by waiting for it."""
    if others:
        os.makedirs(f"{SEEN}/others", exist_ok=True)
        for n in range(others):
            fd = os.open(f"{SEEN}/others/{n}", os.O_RDWR | os.O_CREAT, 0o644)
            os.fchmod(fd, 0o600)
            os.pwrite(fd, b"x", 0)
            os.close(fd)
    if DAEMON:
        until(lambda: not kept(inodes), limit)


# The operations on a file that was opened before, by name. Each has a file and a directory of its own.


def fstat(fd):
    found = os.fstat(fd)
    return oct(found.st_mode), found.st_nlink, found.st_size


def names_and_mode(fd):
    return fstat(fd)[:2]


def do_pread(fd):
    return os.pread(fd, 5, FAR)


def do_write(fd):
    return os.pwrite(fd, b"tail", FAR), fstat(fd), os.pread(fd, 8, FAR)


def do_append(fd):
    return os.write(fd, b"tail"), fstat(fd)


def do_fstat(fd):
    return fstat(fd)


def do_fsync(fd):
    os.pwrite(fd, b"synced", 0)
    return os.fsync(fd), os.fdatasync(fd)


def do_ftruncate(fd):
    return os.ftruncate(fd, 1000), fstat(fd)


def do_map_read(fd, at):
    return through_a_pipe(at + FAR, 5)


def do_map_write(fd, at):
    through_a_pipe(at + FAR, 6, b"mapped")
    return libc.msync(at, SIZE // PAGE * PAGE, 4), os.pread(fd, 8, FAR)


def do_fchmod(fd):
    return os.fchmod(fd, 0o600), fstat(fd)


def do_utime(fd):
    os.utime(fd, ns=(10**18, 10**18))
    return os.fstat(fd).st_mtime_ns


def do_xattrs(fd):
    os.setxattr(fd, "user.later", b"l")
    return sorted(os.listxattr(fd)), os.getxattr(fd, "user.early"), os.removexattr(fd, "user.early")


def do_seek(fd):
    return os.lseek(fd, 0, os.SEEK_END), os.lseek(fd, 0, os.SEEK_HOLE)


def do_allocate(fd):
    return os.posix_fallocate(fd, SIZE, 1000), fstat(fd)


def do_copy(fd):
    copy = os.open(f"{SEEN}/copied", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
    return os.copy_file_range(fd, copy, 1000, FAR, 0), os.pread(copy, 5, 0), os.close(copy)


def do_reopen(fd):
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    return os.pread(again, 5, FAR), os.pwrite(again, b"again", 0), os.close(again)


def do_lock(fd):
    return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB), fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def do_program(fd, program):
    told, _ = program.communicate("again\n")
    return program.returncode, told.split()


def do_listing(directory):
    return sorted(os.listdir(directory))


def do_directory(directory):
    found = os.fstat(directory)
    return oct(found.st_mode), found.st_nlink


def do_openat(directory):
    fd = os.open("f", os.O_RDWR, dir_fd=directory)
    return os.pread(fd, 5, FAR), fstat(fd), os.close(fd)


def do_make(directory):
    fd = os.open("made", os.O_RDWR | os.O_CREAT, 0o644, dir_fd=directory)
    return os.write(fd, b"made"), fstat(fd), os.close(fd), sorted(os.listdir(directory))


FILE = [do_pread, do_write, do_append, do_fstat, do_fsync, do_ftruncate, do_map_read, do_map_write, do_fchmod, do_utime]
FILE += [do_xattrs, do_seek, do_allocate, do_copy, do_reopen, do_lock, do_program]
DIRECTORY = [do_listing, do_directory, do_openat, do_make]
# A program that goes on to run pages of itself that have not been read yet.
PROGRAM = "read line; printf '%s\n' $line $((2 ** 10)) ${line/a/b}; [[ $line =~ a(g) ]] && echo ${BASH_REMATCH[1]}; type cd"


# The changes beneath the mount to the file `f` in a directory.


def replace(place):
    put(f"{place}/n", b"new")
    os.rename(f"{place}/n", f"{place}/f")


def rotate(place):
    os.rename(f"{place}/f", f"{place}/f.1")
    put(f"{place}/f", b"new")


def rename(place):
    os.rename(f"{place}/f", f"{place}/f.1")


def elsewhere(place):
    """To a directory that has never been looked at."""
    os.mkdir(f"{place}-unseen")
    os.rename(f"{place}/f", f"{place}-unseen/g")


def unlink(place):
    os.unlink(f"{place}/f")


def directory_renamed(place):
    os.rename(place, f"{place}-renamed")


def directory_moved(place):
    os.makedirs(f"{place}-unseen/deep")
    os.rename(place, f"{place}-unseen/deep/moved")


def tree_removed(place):
    for name in os.listdir(place):
        os.unlink(f"{place}/{name}")
    os.rmdir(place)


def name_removed(place):
    """Of two names, that by which it was opened."""
    os.unlink(f"{place}/f")


def other_name_removed(place):
    os.unlink(f"{place}/second")


def nothing(place):
    """Only the descriptors go."""


def names(change, others, limit):
    """All that can be done with an open file, after this change of its name."""
    ready, inodes = [], set()
    for do in FILE + DIRECTORY:
        place = f"{SEEN}/{do.__name__[3:]}"
        os.mkdir(place)
        fd = os.open(f"{place}/f", os.O_RDWR | os.O_CREAT, 0o644)
        if do is do_program:
            with open("/bin/bash", "rb") as program:
                os.write(fd, program.read())
            os.fchmod(fd, 0o755)
            os.close(fd)
            fd = os.open(f"{place}/f", os.O_RDONLY)
        else:
            os.pwrite(fd, b"begin", 0)
            os.pwrite(fd, b"f" * 100_000, FAR)
            os.setxattr(fd, "user.early", b"e")
        if change in (name_removed, other_name_removed):
            os.link(f"{place}/f", f"{place}/second")
        if do is do_append:
            os.close(fd)
            fd = os.open(f"{place}/f", os.O_RDWR | os.O_APPEND)
        inodes.add(os.fstat(fd).st_ino)
        arguments = [fd]
        if do in (do_map_read, do_map_write):
            at = libc.mmap(None, SIZE, 3, 1, fd, 0)
            through_a_pipe(at, 5)
            arguments.append(at)
        if do is do_program:
            # A file that any process has open for writing cannot be executed.
            drop(inodes, others, 20)
            pipe = subprocess.PIPE
            program = subprocess.Popen([f"{place}/f", "-c", PROGRAM], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
            until(lambda: os.readlink(f"/proc/{program.pid}/exe").endswith("/program/f"), 20)
            arguments.append(program)
        if do in DIRECTORY:
            os.close(fd)
            arguments = [os.open(place, os.O_RDONLY | os.O_DIRECTORY)]
        ready.append((do, arguments))
    barrier()
    # The kernel drops its cached content, so every read reaches the daemon.
    for do, arguments in ready:
        if do in FILE:
            os.posix_fadvise(arguments[0], 0, 0, os.POSIX_FADV_DONTNEED)
    for do, _ in ready:
        change(f"{BENEATH}/{do.__name__[3:]}")
    barrier()
    drop(inodes, others, limit)
    if change in (name_removed, other_name_removed):
        # The kernel caches the link count of a file with several names for a second.
        for do, arguments in ready:
            until(lambda: do not in FILE or attempt(names_and_mode, arguments[0])[1] != 2, 3)
    for do, arguments in ready:
        show(do.__name__[3:], attempt(do, *arguments))
    barrier()
    for do, arguments in ready:
        show(f"{do.__name__[3:]} afterwards", attempt(os.fsync, arguments[0]), attempt(names_and_mode, arguments[0]))
    for root, directories, files in os.walk(BENEATH):
        directories.sort()
        for name in sorted(files):
            if "marker" not in name and "others" not in root:
                path = f"{root}/{name}"
                found = os.stat(path)
                show(f"on the disk {path[len(BENEATH):]}", oct(found.st_mode), found.st_nlink, content(path))


# Appends through the mount to a file that was appended to beneath it.


def same_descriptor(seen, beneath, wait):
    fd = os.open(seen, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for n in range(20):
        os.write(fd, b"seen %d\n" % n)
        put(beneath, b"beneath %d\n" % n, os.O_APPEND)
        wait()
    os.close(fd)


def another_process(seen, beneath, wait):
    end, start = os.pipe()
    put(seen, b"before\n")
    child = os.fork()
    if child == 0:
        os.close(start)
        fd = os.open(seen, os.O_WRONLY | os.O_APPEND)
        os.write(fd, b"child\n")
        while os.read(end, 1):
            os.write(fd, b"child again\n")
        os._exit(0)
    assert until(lambda: os.stat(beneath).st_size > 7, 20)
    for _ in range(5):
        length = os.stat(beneath).st_size
        put(beneath, b"beneath\n", os.O_APPEND)
        wait()
        os.write(start, b"x")
        assert until(lambda: os.stat(beneath).st_size > length + 8, 3), "the child's line is not there"
    os.close(start)
    os.waitpid(child, 0)


def after_a_stat(seen, beneath, wait):
    fd = os.open(seen, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for _ in range(5):
        os.write(fd, b"seen\n")
        put(beneath, b"beneath\n", os.O_APPEND)
        wait()
        os.stat(seen)
    os.write(fd, b"last\n")
    os.close(fd)


def opened_anew(seen, beneath, wait):
    for n in range(20):
        put(seen, b"seen %d\n" % n, os.O_APPEND)
        put(beneath, b"beneath %d\n" % n, os.O_APPEND)
        wait()


def shell(seen, beneath, wait):
    for n in range(3):
        subprocess.run(["sh", "-c", 'echo "seen $1" >> "$0"', seen, str(n)], check=True)
        subprocess.run(["sh", "-c", 'echo "beneath $1" >> "$0"', beneath, str(n)], check=True)
        wait()


def one_shell(seen, beneath, wait):
    pipe = subprocess.PIPE
    put(seen, b"")
    script = 'exec >> "$0"; while read line; do echo "$line"; done'
    writer = subprocess.Popen(["sh", "-c", script, seen], stdin=pipe, text=True)
    for n in range(3):
        writer.stdin.write(f"seen {n}\n")
        writer.stdin.flush()
        assert until(lambda: f"seen {n}\n" in open(beneath).read(), 3), "the shell's line is not there"
        put(beneath, b"beneath\n", os.O_APPEND)
        wait()
    writer.stdin.close()
    writer.wait()


def emptied(seen, beneath, wait):
    """As logrotate's copytruncate does."""
    fd = os.open(seen, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for n in range(3):
        os.write(fd, b"seen\n" * 3_000)
        os.truncate(beneath, 0)
        wait()
        os.write(fd, b"first line %d\n" % n)
        show(f"emptied {n} times", content(beneath))
    os.close(fd)


def emptied_and_opened_anew(seen, beneath, wait):
    for n in range(3):
        put(seen, b"seen\n" * 3_000, os.O_APPEND)
        os.truncate(beneath, 0)
        wait()
        put(seen, b"first line %d\n" % n, os.O_APPEND)
        show(f"emptied {n} times and opened anew", content(beneath))


def large(seen, beneath, wait):
    fd = os.open(seen, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for n in range(3):
        wrote = os.write(fd, b"%d" % n * (5 << 20))
        show(f"large {n}", wrote)
        put(beneath, b"beneath" * 400_000, os.O_APPEND)
        wait()
    os.write(fd, b"x" * (3 << 20))
    os.close(fd)


def vectors(seen, beneath, wait):
    fd = os.open(seen, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    for _ in range(3):
        os.writev(fd, [b"one ", b"two ", b"x" * 10_000, b"\n"])
        put(beneath, b"beneath\n", os.O_APPEND)
        wait()
        os.pwrite(fd, b"elsewhere\n", 3)
    os.close(fd)


def by_a_second_name(seen, beneath, wait):
    put(seen, b"begin\n")
    os.link(seen, seen + ".second")
    fd = os.open(seen, os.O_WRONLY | os.O_APPEND)
    for _ in range(3):
        put(beneath + ".second", b"beneath\n", os.O_APPEND)
        wait()
        os.write(fd, b"seen\n")
    os.close(fd)


def after_a_rename(seen, beneath, wait):
    fd = os.open(seen, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(fd, b"seen\n")
    os.rename(beneath, beneath + ".1")
    put(beneath + ".1", b"beneath\n", os.O_APPEND)
    wait()
    os.write(fd, b"seen\n")
    show("after a rename, on the disk", content(beneath + ".1"))
    os.rename(beneath + ".1", beneath)
    os.close(fd)


APPENDS = [same_descriptor, another_process, after_a_stat, opened_anew, shell, one_shell, emptied]
APPENDS += [emptied_and_opened_anew, large, vectors, by_a_second_name, after_a_rename]


def appends(wait):
    for case in APPENDS:
        name = case.__name__
        result = attempt(case, f"{SEEN}/{name}", f"{BENEATH}/{name}", wait)
        show(name, result, content(f"{BENEATH}/{name}"))
        barrier()
        show(f"{name}, seen", content(f"{SEEN}/{name}"))


os.umask(0o022)
kind, _, change = WHAT.partition(" ")
if kind == "appends":
    appends(barrier if change else lambda: None)
elif kind == "others":
    names(globals()[change], 40, 1)
elif kind == "idle":
    names(globals()[change], 0, 4)
