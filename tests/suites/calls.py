"""System calls that the suites do not make, each with what came of it.

Runs after `probes.py`. The same on every filesystem, but for what differs between filesystems.
"""

@probe
def open_tmpfile():
    os.close(os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600))


@probe
def open_direct():
    fd = os.open("direct", os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o644)
    page = mmap.mmap(-1, 8192)
    page[:] = b"d" * 8192
    return os.pwrite(fd, page, 0), os.preadv(fd, [page], 4096)


@probe
def open_directory_for_writing():
    os.mkdir("directory")
    os.open("directory", os.O_RDWR)


@probe
def open_path():
    new("path")
    fd = os.open("path", os.O_PATH)
    return oct(os.fstat(fd).st_mode), os.stat(f"/proc/self/fd/{fd}").st_size


@probe
def open_truncates():
    os.close(new("truncated"))
    os.close(os.open("truncated", os.O_RDONLY | os.O_TRUNC))
    return os.stat("truncated").st_size


@probe
def open_sync():
    fd = os.open("sync", os.O_RDWR | os.O_CREAT | os.O_SYNC, 0o644)
    return os.write(fd, b"x")


@each("fallocate", {"plain": 0, "keep": 1, "punch": 3, "collapse": 8, "zero": 16, "zero_keep": 17, "insert": 32,
                    "unshare": 64, "nonsense": 1024})
def fallocate(mode):
    fd = new("room", b"x" * 65536)
    call(libc.fallocate, fd, mode, ctypes.c_long(8192), ctypes.c_long(4096))
    content = os.pread(fd, 100000, 0)
    return len(content), content.count(b"\0"), os.fstat(fd).st_size


@each("rename", {"noreplace": 1, "exchange": 2, "whiteout": 4, "both": 3, "nonsense": 64})
def rename(flags):
    os.close(new("from", b"from"))
    os.close(new("to", b"to"))
    target = b"to" if flags & 2 else b"fresh"
    call(libc.renameat2, -100, b"from", -100, target, flags)
    return sorted(name for name in os.listdir() if name in ("from", "to", "fresh")), open(target, "rb").read()


@probe
def rename_noreplace_onto_a_file():
    os.close(new("one"))
    os.close(new("two"))
    call(libc.renameat2, -100, b"one", -100, b"two", 1)


@probe
def rename_exchanges_directory_and_file():
    os.mkdir("exchanged")
    os.close(new("exchanged-file"))
    call(libc.renameat2, -100, b"exchanged", -100, b"exchanged-file", 2)
    return os.path.isdir("exchanged-file"), os.path.isfile("exchanged")


@probe
def link_of_a_descriptor():
    fd = new("linked")
    os.link(f"/proc/self/fd/{fd}", "linked-too", follow_symlinks=True)
    return os.stat("linked-too").st_nlink


@probe
def link_of_a_deleted_file():
    fd = new("deleted")
    os.unlink("deleted")
    os.link(f"/proc/self/fd/{fd}", "again", follow_symlinks=True)


@probe
def link_of_a_symbolic_link():
    os.symlink("nowhere", "dangling")
    os.link("dangling", "dangling-too", follow_symlinks=False)
    return os.readlink("dangling-too"), os.lstat("dangling-too").st_nlink


@probe
def deleted_file_stays():
    fd = new("unlinked")
    os.unlink("unlinked")
    os.write(fd, b"more")
    os.ftruncate(fd, 20000)
    os.fchmod(fd, 0o600)
    s = os.fstat(fd)
    return s.st_nlink, s.st_size, oct(s.st_mode), len(os.pread(fd, 30000, 0))


@probe
def a_thousand_deleted_files_stay():
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    kept = []
    try:
        for n in range(1000):
            kept.append(os.open("one", os.O_RDWR | os.O_CREAT | os.O_EXCL))
            os.write(kept[-1], str(n).encode())
            os.unlink("one")
        return all(os.pread(fd, 10, 0) == str(n).encode() for n, fd in enumerate(kept))
    finally:
        for fd in kept:
            os.close(fd)


@probe
def replaced_file_stays():
    fd = new("replaced", b"old")
    os.close(new("replacement", b"new"))
    os.rename("replacement", "replaced")
    return os.pread(fd, 10, 0), os.fstat(fd).st_nlink, open("replaced").read()


@probe
def removed_directory_stays():
    os.mkdir("left")
    fd = os.open("left", os.O_RDONLY)
    os.rmdir("left")
    return os.listdir(fd), os.fstat(fd).st_nlink


@probe
def make_in_a_removed_directory():
    os.mkdir("gone")
    fd = os.open("gone", os.O_RDONLY)
    os.rmdir("gone")
    os.open("file", os.O_CREAT | os.O_RDWR, dir_fd=fd)


@probe
def directory_links():
    os.makedirs("parent/a")
    os.makedirs("parent/b")
    return os.stat("parent").st_nlink, os.stat("parent").st_size > 0


@probe
def directory_grows_while_it_is_read():
    os.mkdir("growing")
    for n in range(2000):
        os.close(os.open(f"growing/{n}", os.O_CREAT | os.O_RDWR))
    seen = []
    with os.scandir("growing") as entries:
        for n, entry in enumerate(entries):
            seen.append(entry.name)
            if n % 3 == 0:
                os.unlink(f"growing/{entry.name}")
    return len(seen), len(set(seen)), len(os.listdir("growing"))


@probe
def listing_tells_the_kind_and_the_number():
    os.mkdir("kinds")
    os.close(new("kinds/file"))
    os.mkdir("kinds/directory")
    os.symlink("x", "kinds/link")
    os.mkfifo("kinds/pipe")
    found = sorted(os.scandir("kinds"), key=lambda entry: entry.name)
    return [(e.is_dir(follow_symlinks=False), e.is_file(follow_symlinks=False), e.is_symlink(),
             e.inode() == os.lstat(e.path).st_ino) for e in found]


@probe
def longest_name():
    os.close(new("n" * 255))
    return len(max(os.listdir(), key=len))


@probe
def too_long_a_name():
    new("n" * 256)


@probe
def any_byte_in_a_name():
    name = bytes(b for b in range(1, 256) if b != ord("/"))[:250]
    os.close(os.open(name, os.O_CREAT | os.O_RDWR))
    return name in os.listdir(b".")


@probe
def longest_symbolic_link():
    os.symlink("t" * 4095, "far")
    return len(os.readlink("far")), os.lstat("far").st_size


@each("times", {"now": 1_700_000_000_123_456_789, "start": 0, "before": -1_500_000_000, "long_before": -10**18,
                "after_2038": 3_000_000_000_000_000_001, "after_2106": 5_000_000_000_000_000_001})
def times(moment):
    os.close(new("dated"))
    os.utime("dated", ns=(moment + 1, moment))
    s = os.stat("dated")
    return s.st_atime_ns, s.st_mtime_ns


@probe
def times_of_a_symbolic_link():
    os.symlink("nowhere", "old")
    os.utime("old", ns=(5, 10**9 + 7), follow_symlinks=False)
    return os.lstat("old").st_mtime_ns


@probe
def times_move_when_they_should():
    def moved(work, path):
        before = os.stat(path)
        time.sleep(0.02)
        work()
        after = os.stat(path)
        return after.st_mtime_ns > before.st_mtime_ns, after.st_ctime_ns > before.st_ctime_ns

    os.mkdir("clock")
    fd = new("clock/file")
    return {
        "write": moved(lambda: os.write(fd, b"x"), "clock/file"),
        "truncate": moved(lambda: os.ftruncate(fd, 5), "clock/file"),
        "truncate to the same": moved(lambda: os.truncate("clock/file", 5), "clock/file"),
        "chmod": moved(lambda: os.chmod("clock/file", 0o600), "clock/file"),
        "link": moved(lambda: os.link("clock/file", "clock/two"), "clock/file"),
        "unlink": moved(lambda: os.unlink("clock/two"), "clock/file"),
        "rename": moved(lambda: os.rename("clock/file", "clock/new"), "clock"),
        "read": moved(lambda: os.pread(fd, 5, 0), "clock/new"),
        "setxattr": moved(lambda: os.setxattr(fd, "user.a", b"b"), "clock/new"),
        "mapping": moved(lambda: map_and_write(fd), "clock/new"),
    }


def map_and_write(fd):
    with mmap.mmap(fd, 5) as m:
        m[0:1] = b"m"
        m.flush()


@each("mapped", {"shared": mmap.MAP_SHARED, "private": mmap.MAP_PRIVATE})
def mapped(flags):
    fd = new("map", b"a" * 8192)
    with mmap.mmap(fd, 8192, flags=flags) as m:
        os.pwrite(fd, b"written", 0)
        seen = m[:7]
        m[4096:4099] = b"map"
        m.flush()
        return seen, os.pread(fd, 3, 4096)


@probe
def mapped_beyond_the_end():
    fd = new("short", b"a" * 100)
    with mmap.mmap(fd, 100) as m:
        os.ftruncate(fd, 4096)
        return os.pread(fd, 4096, 100).count(b"\0"), m[99:100]


@probe
def mapped_file_cut_short_is_a_bus_error():
    fd = new("cut", b"a" * 8192)
    pid = os.fork()
    if pid == 0:
        m = mmap.mmap(fd, 8192)
        os.ftruncate(fd, 0)
        os._exit(m[5000])
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGBUS


@probe
def holes():
    fd = os.open("holes", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 1 << 20)
    os.pwrite(fd, b"x" * 4096, 1 << 19)
    s = os.fstat(fd)
    return (os.lseek(fd, 0, os.SEEK_DATA), os.lseek(fd, 0, os.SEEK_HOLE), os.lseek(fd, 1 << 19, os.SEEK_HOLE),
            os.lseek(fd, -10, os.SEEK_END), s.st_blocks, s.st_blksize)


@probe
def no_data_behind_a_hole():
    fd = os.open("hole", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 65536)
    os.lseek(fd, 100, os.SEEK_DATA)


@probe
def large_offsets():
    fd = os.open("large", os.O_RDWR | os.O_CREAT)
    written = os.pwrite(fd, b"end", 1 << 42)
    return written, os.fstat(fd).st_size, os.pread(fd, 10, (1 << 42) + 1)


@probe
def too_large_an_offset():
    fd = os.open("larger", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b"end", 1 << 62)


@probe
def append_together():
    fds = [os.open("appended", os.O_WRONLY | os.O_CREAT | os.O_APPEND) for _ in range(4)]

    def work(fd):
        for _ in range(100):
            os.write(fd, b"0123456789\n")

    threads = [threading.Thread(target=work, args=(fd,)) for fd in fds]
    [t.start() for t in threads]
    [t.join() for t in threads]
    return set(open("appended").read().splitlines()), os.stat("appended").st_size


@probe
def append_ignores_the_offset():
    fd = os.open("appending", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    os.write(fd, b"first")
    os.pwrite(fd, b"second", 0)
    return os.pread(fd, 100, 0)


@each("preadv2", {"plain": 0, "nowait": 8, "hipri": 1})
def preadv2(flags):
    fd = new("vector")
    buffer = bytearray(100)
    os.preadv(fd, [buffer], 0)
    return os.preadv(fd, [buffer], 0, flags)


@each("pwritev2", {"dsync": 2, "sync": 4, "append": 16})
def pwritev2(flags):
    fd = new("vector", b"abc")
    return os.pwritev(fd, [b"xyz"], 0, flags), os.fstat(fd).st_size


@probe
def copy_file_range():
    a, b = new("source", b"s" * 100000), new("copy", b"")
    return os.copy_file_range(a, b, 100000, 0, 10), os.fstat(b).st_size


@probe
def copy_file_range_onto_itself():
    fd = new("self", b"s" * 100)
    os.copy_file_range(fd, fd, 60, 0, 30)


@probe
def copy_file_range_beyond_the_end():
    a, b = new("source", b"s" * 100), new("copy", b"")
    return os.copy_file_range(a, b, 100, 200, 0)


@probe
def sendfile_and_splice():
    a, b = new("source", b"s" * 50000), new("copy", b"")
    sent = os.sendfile(b, a, 0, 50000)
    r, w = os.pipe()
    return sent, os.splice(a, w, 4096, offset_src=0), os.splice(r, b, 4096, offset_dst=0)


@each("ioctl", {"fiemap": 0xC020660B, "get_flags": 0x80086601, "get_version": 0x80087601, "get_xattr": 0x801C581F,
                "clone": 0x40049409, "terminal": 0x5401})
def ioctl(request):
    fd, other = new("ioctl"), new("ioctl-too")
    buffer = array.array("B", bytes(64))
    if request == 0x40049409:
        fcntl.ioctl(fd, request, other)
    else:
        if request == 0xC020660B:
            struct.pack_into("=QQIIII", buffer, 0, 0, 1 << 40, 0, 0, 0, 0)
        fcntl.ioctl(fd, request, buffer)


@probe
def bytes_waiting():
    fd = new("waiting", b"x" * 100)
    os.lseek(fd, 40, os.SEEK_SET)
    buffer = array.array("i", [0])
    fcntl.ioctl(fd, 0x541B, buffer)
    return buffer[0]


@probe
def poll_of_a_file():
    fd = new("polled")
    poll = select.poll()
    poll.register(fd)
    return [events for _, events in poll.poll(0)]


@each("lease", {"read": fcntl.F_RDLCK, "write": fcntl.F_WRLCK})
def lease(kind):
    os.close(new("leased"))
    fd = os.open("leased", os.O_RDONLY)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, kind)
    return fcntl.fcntl(fd, fcntl.F_GETLEASE)


@probe
def locks_meet():
    fd = new("locked")
    fcntl.lockf(fd, fcntl.LOCK_EX, 10, 0)
    fcntl.flock(fd, fcntl.LOCK_EX)

    def other(work):
        def run():
            fd = os.open("locked", os.O_RDWR)
            work(fd)
        return in_a_child(run)

    now = fcntl.LOCK_EX | fcntl.LOCK_NB
    return (other(lambda fd: fcntl.lockf(fd, now, 10, 5)), other(lambda fd: fcntl.lockf(fd, now, 10, 10)),
            other(lambda fd: fcntl.flock(fd, now)))


@probe
def extended_attributes():
    os.close(new("attributes"))
    os.setxattr("attributes", "user.a", b"1")
    os.setxattr("attributes", "user.b", b"\0" * 1000)
    os.setxattr("attributes", "user.a", b"", os.XATTR_REPLACE)
    os.removexattr("attributes", "user.b")
    return os.listxattr("attributes"), os.getxattr("attributes", "user.a")


@each("setxattr", {"there": ("user.there", os.XATTR_CREATE), "absent": ("user.absent", os.XATTR_REPLACE),
                   "no_namespace": ("nonsense", 0), "unknown": ("nonsense.a", 0), "security": ("security.a", 0),
                   "trusted": ("trusted.a", 0), "long": ("user." + "n" * 251, 0), "system": ("system.a", 0)})
def setxattr(which):
    name, flags = which
    os.close(new("attribute"))
    os.setxattr("attribute", "user.there", b"1")
    os.setxattr("attribute", name, b"1", flags)
    return os.getxattr("attribute", name)


@probe
def large_attribute():
    os.close(new("large-attribute"))
    os.setxattr("large-attribute", "user.a", b"x" * 70000)


@probe
def attribute_of_a_symbolic_link():
    os.symlink("nowhere", "attributed")
    os.setxattr("attributed", "user.a", b"1", follow_symlinks=False)


@probe
def attribute_of_a_directory():
    os.mkdir("attributed-directory")
    os.setxattr("attributed-directory", "user.a", b"1")
    return os.listxattr("attributed-directory")


@probe
def file_capability():
    os.close(new("capable"))
    os.setxattr("capable", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    before = os.listxattr("capable")
    with open("capable", "ab") as file:
        file.write(b"written")
    return before, os.listxattr("capable")


@probe
def acl_refuses_a_group_what_the_mode_seems_to_give():
    os.close(new("acl", mode=0o600))
    os.chown("acl", 0, 65534)
    entries = [(1, 6, -1), (2, 4, 7), (4, 0, -1), (16, 4, -1), (32, 0, -1)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    os.setxattr("acl", "system.posix_acl_access", acl)
    return oct(os.stat("acl").st_mode), as_nobody(lambda: os.open("acl", os.O_RDONLY))


@probe
def acl_follows_the_mode():
    os.close(new("acl", mode=0o600))
    entries = [(1, 6, -1), (2, 4, 65534), (4, 0, -1), (16, 4, -1), (32, 0, -1)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    os.setxattr("acl", "system.posix_acl_access", acl)
    may = lambda: as_nobody(lambda: os.open("acl", os.O_RDONLY))
    seen = [may()]
    os.chmod("acl", 0o600)
    seen.append(may())
    os.chmod("acl", 0o640)
    seen.append(may())
    os.removexattr("acl", "system.posix_acl_access")
    return seen, may(), oct(os.stat("acl").st_mode), os.listxattr("acl")


@probe
def acl_gives_a_user_what_the_mode_does_not():
    os.close(new("acl", mode=0o600))
    entries = [(1, 6, -1), (2, 4, 65534), (4, 0, -1), (16, 4, -1), (32, 0, -1)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    os.setxattr("acl", "system.posix_acl_access", acl)
    kept = os.getxattr("acl", "system.posix_acl_access") == acl
    return kept, oct(os.stat("acl").st_mode), as_nobody(lambda: os.open("acl", os.O_RDONLY))


@probe
def default_acl_is_inherited():
    os.mkdir("acl-directory", 0o755)
    entries = [(1, 7, -1), (2, 7, 65534), (4, 5, -1), (16, 7, -1), (32, 5, -1)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    os.setxattr("acl-directory", "system.posix_acl_default", acl)
    os.close(os.open("acl-directory/file", os.O_CREAT | os.O_RDWR, 0o666))
    return sorted(os.listxattr("acl-directory/file")), oct(os.stat("acl-directory/file").st_mode)


@probe
def group_of_a_set_gid_directory():
    os.mkdir("group", 0o777)
    os.chown("group", -1, 1234)
    os.chmod("group", 0o2777)
    os.mkdir("group/directory")
    os.close(os.open("group/file", os.O_CREAT | os.O_RDWR))
    return [(os.stat(p).st_gid, oct(os.stat(p).st_mode)) for p in ("group/directory", "group/file")]


@probe
def writing_clears_set_id():
    os.close(new("set-id", mode=0o777))
    os.chmod("set-id", 0o6777)
    written = as_nobody(lambda: os.write(os.open("set-id", os.O_WRONLY), b"x"))
    after_write = oct(os.stat("set-id").st_mode)
    os.chmod("set-id", 0o6777)
    as_nobody(lambda: os.truncate("set-id", 3))
    after_truncate = oct(os.stat("set-id").st_mode)
    os.chmod("set-id", 0o6777)
    os.chown("set-id", 1, 1)
    return written, after_write, after_truncate, oct(os.stat("set-id").st_mode)


@probe
def set_id_program_runs_as_its_owner():
    with open("/usr/bin/id", "rb") as program:
        os.close(new("id", program.read(), 0o755))
    os.chmod("id", 0o4755)
    r, w = os.pipe()

    def run():
        os.dup2(w, 1)
        os.execv("./id", ["id", "-u"])

    as_nobody(run)
    os.close(w)
    return os.read(r, 100)


@probe
def device_opens():
    os.mknod("null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    s = os.stat("null")
    return stat.S_ISCHR(s.st_mode), os.major(s.st_rdev), os.minor(s.st_rdev), os.close(os.open("null", os.O_RDWR))


@probe
def socket_and_pipe():
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("socket")
    listener.listen()
    client = socket.socket(socket.AF_UNIX)
    client.connect("socket")
    client.send(b"hello")
    os.mkfifo("pipe")
    fd = os.open("pipe", os.O_RDWR)
    os.write(fd, b"pipe")
    return listener.accept()[0].recv(10), os.read(fd, 10)


@probe
def running_program_cannot_be_written():
    with open("/bin/sleep", "rb") as program:
        os.close(new("running", program.read(), 0o755))
    pid = os.fork()
    if pid == 0:
        os.execv("./running", ["running", "20"])
    while os.readlink(f"/proc/{pid}/exe") == os.readlink("/proc/self/exe"):
        time.sleep(0.001)
    try:
        os.open("running", os.O_WRONLY)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@probe
def program_that_is_written_cannot_run():
    with open("/bin/true", "rb") as program:
        fd = new("written", program.read(), 0o755)
    result = in_a_child(lambda: os.execv("./written", ["written"]))
    os.close(fd)
    return result, in_a_child(lambda: os.execv("./written", ["written"]))


@each("limit", {"links": "PC_LINK_MAX", "name": "PC_NAME_MAX", "path": "PC_PATH_MAX", "file_bits": "PC_FILESIZEBITS",
                "symlink": "PC_SYMLINK_MAX", "chown": "PC_CHOWN_RESTRICTED", "truncates": "PC_NO_TRUNC"})
def limit(which):
    return os.pathconf(".", which)


@probe
def totals():
    s = os.statvfs(".")
    return s.f_blocks > 0, s.f_bavail > 0, s.f_files > 0, s.f_bsize, s.f_frsize, s.f_namemax


@probe
def mount_flags():
    flags = os.statvfs(".").f_flag
    return [name for name in ("ST_NOSUID", "ST_NODEV", "ST_NOEXEC", "ST_RDONLY") if flags & getattr(os, name)]


@probe
def time_of_birth():
    os.close(new("born"))
    buffer = ctypes.create_string_buffer(256)
    call(libc.statx, -100, b"born", 0, 0xFFF, buffer)
    return bool(struct.unpack_from("I", buffer, 0)[0] & 0x800)


@probe
def sync_of_everything():
    fd = new("synced")
    os.fsync(fd)
    os.fdatasync(fd)
    directory = os.open(".", os.O_RDONLY)
    os.fsync(directory)
    call(libc.syncfs, fd)
    return call(libc.sync_file_range, fd, ctypes.c_long(0), ctypes.c_long(100), 7)


@probe
def file_handle():
    os.close(new("handle"))
    handle = struct.pack("Ii", 120, 0) + bytes(128)
    buffer = ctypes.create_string_buffer(handle)
    mount = ctypes.c_int()
    return call(libc.name_to_handle_at, -100, b"handle", buffer, ctypes.byref(mount), 0)


@probe
def watch():
    fd = call(libc.inotify_init1, os.O_NONBLOCK)
    call(libc.inotify_add_watch, fd, HERE.encode(), 0xFC6)
    os.close(new("watched"))
    os.rename("watched", "watched-too")
    os.chmod("watched-too", 0o600)
    os.unlink("watched-too")
    data, events = os.read(fd, 100000), []
    while data:
        _, mask, _, length = struct.unpack_from("iIII", data)
        events.append((hex(mask), data[16:16 + length].rstrip(b"\0").decode()))
        data = data[16 + length:]
    return events


@probe
def same_number_for_links():
    os.close(new("number"))
    os.link("number", "number-too")
    a, b = os.stat("number"), os.stat("number-too")
    os.rename("number", "renamed")
    return a.st_ino == b.st_ino == os.stat("renamed").st_ino, a.st_dev == os.stat(".").st_dev


@probe
def deep_directories():
    here = os.open(".", os.O_RDONLY)
    try:
        for _ in range(300):
            os.mkdir("d" * 50)
            os.chdir("d" * 50)
        os.close(new("bottom"))
        return os.path.exists("bottom"), len(os.listdir())
    finally:
        os.fchdir(here)
