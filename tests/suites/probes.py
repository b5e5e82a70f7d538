"""What the probes are written with, and what runs them: one line a probe, `name: result`.

May assume: an empty directory, and root where a probe becomes another user. Must never: know a filesystem.
"""

import array, ctypes, errno, fcntl, mmap, os, resource, select, signal, socket, stat, struct, sys, threading, time

libc = ctypes.CDLL(None, use_errno=True)
HERE = os.getcwd()
ROOT = os.geteuid() == 0


def call(function, *args):
    """A call of the C library that Python does not know."""
    result = function(*args)
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def new(name, content=b"x" * 10000, mode=0o644):
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)
    os.write(fd, content)
    return fd


CALLS = []


def probe(function):
    CALLS.append(function)
    return function


def each(name, values):
    """A probe for each of some named values."""

    def make(function):
        for label, value in values.items():
            run = lambda value=value: function(value)
            run.__name__ = f"{name}_{label}"
            CALLS.append(run)
        return function

    return make


def in_a_child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except OSError as error:
            os._exit(error.errno)
        finally:
            os._exit(255)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return errno.errorcode.get(code, code)


def as_user(work, uid=65534, gid=65534, groups=(), drop=0):
    """What a child comes to that has become this user; `drop` is a capability that it gives up."""

    def run():
        os.setgroups(list(groups))
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        if drop:
            give_up(drop)
        work()

    return in_a_child(run)


def give_up(capability):
    """Take a capability out of the effective ones of this process (capset(2))."""
    header = struct.pack("Ii", 0x20080522, 0)
    data = ctypes.create_string_buffer(24)
    call(libc.capget, header, data)
    words = list(struct.unpack("6I", data.raw))
    words[0] &= ~(1 << capability)
    call(libc.capset, header, struct.pack("6I", *words))


def as_nobody(work):
    return as_user(work)


def run_all():
    """Each probe in a directory of its own."""
    global HERE
    for function in CALLS:
        name = function.__name__
        inside = os.path.join(HERE, name)
        os.mkdir(inside)
        os.chdir(inside)
        HERE_BEFORE, HERE = HERE, inside
        try:
            result = function()
        except OSError as error:
            result = errno.errorcode.get(error.errno, error.errno)
        except Exception as error:
            result = f"{type(error).__name__} {error}"
        HERE = HERE_BEFORE
        os.chdir(HERE)
        print(f"{name}: {result}", flush=True)
