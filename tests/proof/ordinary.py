"""Makes one call a line, and answers each with one line: what came of it.

A line is a JSON list: the name of a function below and its arguments. Descriptors and mappings are kept in numbered slots
until they are closed. Runs in the directory that all paths are relative to.
"""

import ctypes, errno, fcntl, json, os, resource, stat, sys, zlib

libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
MS_SYNC = 4
PAGE = 4096
# The length of a mapping, whatever the length of the file.
MAPPED = 16 * PAGE
# A time that no clock shows. A file has it until its content changes.
LONG_AGO = 10**18
# Slots from here on are for directories.
DIRECTORIES_FROM = 5

files, mappings = {}, {}


def pattern(tag, length):
    piece = f"{tag}:".encode()
    return (piece * (length // len(piece) + 1))[:length]


def shown(data):
    return [len(data), data.decode("latin1") if len(data) <= 24 else zlib.crc32(data)]


def attributes(status, name=""):
    if stat.S_ISDIR(status.st_mode):
        return ["directory", oct(status.st_mode), status.st_nlink]
    aged = "old" if status.st_mtime_ns == LONG_AGO else "changed"
    return ["file", oct(status.st_mode), status.st_nlink, status.st_size, aged]


def flags_of(words):
    flags = 0
    for word in words.split("|"):
        flags |= getattr(os, "O_" + word)
    return flags


def keep(slot, fd):
    if slot in files:
        os.close(files[slot])
    files[slot] = fd


def open_(slot, path, words):
    keep(slot, os.open(path, flags_of(words), 0o644))


def openat(slot, directory, name, words):
    keep(slot, os.open(name, flags_of(words), 0o644, dir_fd=files[directory]))


def close(slot):
    os.close(files.pop(slot))


def read(slot, length):
    return shown(os.read(files[slot], length))


def pread(slot, length, offset):
    return shown(os.pread(files[slot], length, offset))


def write(slot, tag, length):
    fd = files[slot]
    written = os.write(fd, pattern(tag, length))
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND:
        # Known and documented: the kernel seeks from the end that it knew before a change beneath the mount.
        os.lseek(fd, 0, os.SEEK_END)
    return written


def pwrite(slot, tag, length, offset):
    return os.pwrite(files[slot], pattern(tag, length), offset)


def lseek(slot, offset, whence):
    return os.lseek(files[slot], offset, getattr(os, "SEEK_" + whence))


def ftruncate(slot, size):
    os.ftruncate(files[slot], size)


def fsync(slot):
    os.fsync(files[slot])


def fchmod(slot, mode):
    os.fchmod(files[slot], mode)


def fstat(slot):
    return attributes(os.fstat(files[slot]))


def fage(slot):
    os.utime(files[slot], ns=(LONG_AGO, LONG_AGO))


def flist(slot):
    return sorted(os.listdir(files[slot]))


def truncate(path, size):
    os.truncate(path, size)


def chmod(path, mode):
    os.chmod(path, mode)


def status(path):
    return attributes(os.stat(path))


def age(path):
    os.utime(path, ns=(LONG_AGO, LONG_AGO))


def listing(path):
    with os.scandir(path) as entries:
        return sorted([entry.name, entry.is_dir()] for entry in entries)


def content(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        return shown(whole(fd))
    finally:
        os.close(fd)


def whole(fd):
    data, piece = b"", b"x"
    while piece:
        piece = os.pread(fd, 1 << 20, len(data))
        data += piece
    return data


def put(path, words, tag, length):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | flags_of(words), 0o644)
    try:
        return os.write(fd, pattern(tag, length))
    finally:
        os.close(fd)


def replace(path, tag, length):
    put(path + ".new", "TRUNC", tag, length)
    os.rename(path + ".new", path)


def look_up(path):
    """Known and documented: the kernel cannot take a directory from an old name to a new one in the midst of a rename."""
    try:
        os.lstat(path)
    except OSError:
        pass


def rename(path, to):
    look_up(path)
    look_up(to)
    os.rename(path, to)


def link(path, to):
    os.link(path, to)


def unlink(path):
    os.unlink(path)


def mkdir(path):
    os.mkdir(path, 0o755)


def rmdir(path):
    os.rmdir(path)


def map_(slot, file, writable):
    if slot in mappings:
        unmap(slot)
    fd = os.dup(files[file])
    at = libc.mmap(None, MAPPED, 3 if writable else 1, 1, fd, 0)
    if at == ctypes.c_void_p(-1).value:
        os.close(fd)
        raise OSError(ctypes.get_errno(), "")
    mappings[slot] = (fd, at)


def unmap(slot):
    fd, at = mappings.pop(slot)
    libc.munmap(at, MAPPED)
    os.close(fd)


def mapped(at, length, data=None):
    """Read mapped memory, or write to it."""
    try:
        return through_a_pipe(at, length, data)
    except OSError as error:
        raise RuntimeError("SIGBUS") if error.errno == errno.EFAULT else error


def map_read(slot, page):
    """What a page of the mapping shows, as far as the file goes; one beyond its end cannot be read at all."""
    fd, at = mappings[slot]
    left = os.fstat(fd).st_size - page * PAGE
    return shown(mapped(at + page * PAGE, min(left, PAGE) if left > 0 else PAGE))


def map_write(slot, tag, offset, length):
    """Write to the mapping as far as the file goes, and have it put on the disk."""
    fd, at = mappings[slot]
    length = min(length, PAGE - offset % PAGE, os.fstat(fd).st_size - offset)
    if length <= 0:
        return "beyond the end"
    mapped(at + offset, length, pattern(tag, length))
    if libc.msync(at, MAPPED, MS_SYNC) < 0:
        raise OSError(ctypes.get_errno(), "")
    return length


def touch(directory, count):
    """Change many other files, so that what the daemon keeps ready is kept for these."""
    for n in range(count):
        path = f"{directory}/{n}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.fchmod(fd, 0o600 if n % 2 else 0o640)
        os.pwrite(fd, b"x", 0)
        os.close(fd)


def everything():
    found = []
    for directory, directories, names in os.walk("."):
        directories.sort()
        for name in sorted(directories + names):
            path = os.path.join(directory, name)
            found.append([path, attributes(os.lstat(path)), content(path) if name in names else None])
    return sorted(found)


def kept():
    """What can be read through all that is still open."""
    found = []
    for slot, fd in sorted(files.items()):
        directory = slot >= DIRECTORIES_FROM
        there = attempt(flist, slot) if directory else attempt(lambda: shown(whole(fd)))
        found.append([slot, there, attempt(fstat, slot)])
    for slot in sorted(mappings):
        found.append([slot, [attempt(map_read, slot, page) for page in range(MAPPED // PAGE)]])
    return found


def attempt(function, *arguments):
    try:
        return function(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    except RuntimeError as error:
        return str(error)
    except KeyError:
        return "nothing in that slot"


names = {"open": open_, "map": map_}
os.umask(0o022)
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
for line in sys.stdin:
    what, *arguments = json.loads(line)
    print(json.dumps(attempt(names.get(what) or globals()[what], *arguments)), flush=True)
