# A process of a worker. It runs the code that it receives, line by line, and keeps open what the code opened.
#
# Each line of standard input is Python code as a JSON string; each line of standard output is its outcome:
# {"ok": value}, {"errno": name} or {"broken": traceback}.
import ctypes, errno, json, mmap, os, sys, threading, traceback

libc = ctypes.CDLL(None, use_errno=True)
if "AGENT_IS_CALLED" in os.environ:
    libc.prctl(15, os.environ["AGENT_IS_CALLED"].encode(), 0, 0, 0)
os.chdir(os.environ["AGENT_PLACE"])


def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result


class opened:
    """A descriptor for the time of a block."""

    def __init__(self, path, flags):
        self.path, self.flags = path, flags

    def __enter__(self):
        self.fd = os.open(self.path, self.flags, 0o644)
        return self.fd

    def __exit__(self, *_):
        os.close(self.fd)


def put(path, text, flags=0, at=None):
    with opened(path, os.O_WRONLY | flags) as fd:
        os.write(fd, text.encode()) if at is None else os.pwrite(fd, text.encode(), at)


def new(path, text):
    put(path, text, os.O_CREAT | os.O_TRUNC)


def get(path):
    with opened(path, os.O_RDONLY) as fd:
        return os.read(fd, 1 << 20).decode()


def ftruncate(path, size):
    with opened(path, os.O_RDWR) as fd:
        os.ftruncate(fd, size)


def fallocate(path, mode, offset, length):
    with opened(path, os.O_RDWR) as fd:
        checked(libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)))


def copied_over(path, source):
    with opened(source, os.O_RDONLY) as read, opened(path, os.O_WRONLY) as fd:
        return os.copy_file_range(read, fd, 1 << 16)


def sent_into(path, source):
    with opened(source, os.O_RDONLY) as read, opened(path, os.O_WRONLY) as fd:
        return os.sendfile(fd, read, 0, 1 << 16)


def rename(source, target, flags=0):
    checked(libc.renameat2(-100, source.encode(), -100, target.encode(), flags))


def replace(path, text):
    """A new file beside it takes its place; nothing is left if it may not."""
    temporary = f"{path}.{os.getpid()}.new"
    new(temporary, text)
    try:
        os.rename(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


def again(path, text):
    """Remove it, and make it anew."""
    os.unlink(path)
    put(path, text, os.O_CREAT | os.O_EXCL)


def mapped(path, text, at=0):
    """Store through a mapping, and have it written."""
    with opened(path, os.O_RDWR) as fd:
        pages = mmap.mmap(fd, 0)
        try:
            pages[at : at + len(text)] = text.encode()
            pages.flush()
        finally:
            pages.close()


def read_mapped(path):
    with opened(path, os.O_RDONLY) as fd:
        pages = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        text = pages[:].decode()
        pages.close()
        return text


def read_sent(path):
    """Read by sendfile into a pipe, without a look at the file's attributes."""
    out, into = os.pipe()
    try:
        with opened(path, os.O_RDONLY) as fd:
            os.sendfile(into, fd, 0, 1 << 14)
        return os.read(out, 1 << 16).decode()
    finally:
        os.close(out)
        os.close(into)


def opened_for(path, flags):
    """Keep it open; what is answered is the descriptor."""
    return os.open(path, flags, 0o644)


def forked(work):
    """Another process of this worker does it; what it printed comes back, and its error."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = {"ok": work()}
        except OSError as error:
            answer = {"errno": error.errno}
        os.write(into, json.dumps(answer).encode())
        os._exit(0)
    os.close(into)
    with os.fdopen(out) as said:
        answer = json.loads(said.read())
    os.waitpid(child, 0)
    if "errno" in answer:
        raise OSError(answer["errno"], "refused")
    return answer["ok"]


# Every way to change a file that another worker may hold. Each leaves nothing behind when it is refused. The second table
# destroys no content, and unread content does not make the guard refuse its routes.
OVERWRITING = {
    "write": lambda f: put(f, "X"),
    "pwrite": lambda f: put(f, "X", at=3),
    "truncate": lambda f: os.truncate(f, 1),
    "truncate to nothing": lambda f: os.truncate(f, 0),
    "extend": lambda f: os.truncate(f, 100),
    "ftruncate": lambda f: ftruncate(f, 1),
    "O_TRUNC": lambda f: put(f, "X", os.O_TRUNC),
    "O_CREAT|O_TRUNC": lambda f: new(f, "X"),
    "fallocate": lambda f: fallocate(f, 0, 0, 100),
    "punch": lambda f: fallocate(f, 3, 0, 2),
    "copy_file_range": lambda f: copied_over(f, "other"),
    "sendfile": lambda f: sent_into(f, "other"),
    "rename over": lambda f: replace(f, "X"),
    "exchange": lambda f: rename("other", f, 2),
    "unlink": lambda f: os.unlink(f),
    "unlink and make": lambda f: again(f, "X"),
}
MARKING = {
    "append": lambda f: put(f, "X", os.O_APPEND),
    "rename away": lambda f: os.rename(f, f + ".away"),
    "link": lambda f: os.link(f, f + ".link"),
    "chmod": lambda f: os.chmod(f, 0o600),
    "chown": lambda f: os.chown(f, -1, 54321) if os.getuid() == 0 else os.chmod(f, 0o601),
    "utimens": lambda f: os.utime(f, (1, 1)),
    "touch": lambda f: os.utime(f),
    "setxattr": lambda f: os.setxattr(f, "user.x", b"X"),
    "removexattr": lambda f: os.removexattr(f, "user.kept"),
}


def names(error):
    return errno.errorcode.get(error.errno, str(error.errno))


def come_to(routes, path):
    """What each of them comes to, when all are tried."""
    came = {}
    for name, route in routes.items():
        try:
            route(path)
            came[name] = "ok"
        except OSError as error:
            came[name] = names(error)
    return came


space = globals()
for line in sys.stdin:
    try:
        source = json.loads(line)
        try:
            code = compile(source, "told", "eval")
        except SyntaxError:
            code = compile(source, "told", "exec")
        answer = {"ok": eval(code, space)}
    except OSError as error:
        answer = {"errno": names(error)}
    except Exception:
        answer = {"broken": traceback.format_exc()}
    print(json.dumps(answer), flush=True)
