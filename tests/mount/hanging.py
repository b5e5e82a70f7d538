"""Processes that cannot be looked at.

  hanging.py serve PLACE            mounts a filesystem at PLACE whose one file is opened and never read or closed, until its input ends;
                                    it says when the kernel has asked for the content
  hanging.py lock FILE UID SCRIPT   its parent keeps the lock of its memory, for a page of that file is being read
  hanging.py exec FILE UID SCRIPT   its parent stays in execve(2), which closes that file
  hanging.py huge FILE UID SCRIPT   its environment is larger than any program can be given

SCRIPT is Python; it runs as the user UID.
"""

import ctypes
import mmap
import os
import signal
import struct
import sys
import threading
import time

libc = ctypes.CDLL(None, use_errno=True)
LOOKUP, FORGET, GETATTR, OPEN, READ, RELEASE, FLUSH, INIT = 1, 2, 3, 14, 15, 18, 25, 26
SIZE, ENOSYS = 1 << 20, 38
PR_SET_MM, PR_SET_MM_MAP = 35, 14


def called(result):
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def attr(node):
    mode, size = (0o40755, 0) if node == 1 else (0o100666, SIZE)
    return struct.pack("<6Q10I", node, size, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def serve(place):
    fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0,allow_other"
    called(libc.mount(b"hanging", place.encode(), b"fuse", 6, options.encode()))

    def end():
        sys.stdin.read()
        libc.umount2(place.encode(), 2)
        os._exit(0)

    threading.Thread(target=end, daemon=True).start()
    while True:
        request = os.read(fuse, 1 << 20)
        _, operation, unique, node = struct.unpack_from("<IIQQ", request)
        if operation == READ:
            print("reading", flush=True)
        if operation in (FORGET, READ, FLUSH):
            continue
        answer = {
            INIT: lambda: struct.pack("<4I2H2I2H8I", 7, 31, 0, 0, 12, 9, 65536, 1, 0, 0, *[0] * 8),
            LOOKUP: lambda: struct.pack("<4Q2I", 2, 0, 1000, 1000, 0, 0) + attr(2),
            GETATTR: lambda: struct.pack("<Q2I", 1000, 0, 0) + attr(node),
            OPEN: lambda: struct.pack("<QIi", 1, 0, 0),
            RELEASE: lambda: b"",
        }.get(operation)
        body = answer() if answer else b""
        os.write(fuse, struct.pack("<IiQ", 16 + len(body), 0 if answer else -ENOSYS, unique) + body)


def environment(memory, length):
    begin = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    stat = open("/proc/self/stat").read().rsplit(")", 1)[1].split()
    # Field numbers as in proc_pid_stat(5). The split removes the first two fields.
    code, end_code, stack, data, end_data, heap, arguments, end_arguments = (
        int(stat[n - 3]) for n in (26, 27, 28, 45, 46, 47, 48, 49)
    )
    libc.sbrk.restype = ctypes.c_void_p
    places = code, end_code, data, end_data, heap, libc.sbrk(0), stack, arguments, end_arguments, begin, begin + length
    layout = struct.pack("<11QQIi", *places, 0, 0, -1)
    called(libc.prctl(PR_SET_MM, PR_SET_MM_MAP, ctypes.c_char_p(layout), ctypes.c_ulong(len(layout)), ctypes.c_ulong(0)))


def keep_lock(file):
    # One thread reads the page and shares the memory lock; another waits to have the lock alone, and later requests wait behind that one.
    opened = os.open(file, os.O_RDWR)
    page = mmap.mmap(opened, 1 << 16)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(page))
    memory = os.open("/proc/self/mem", os.O_RDONLY)
    threading.Thread(target=lambda: os.pread(memory, 8, begin), daemon=True).start()
    threading.Timer(0.2, lambda: mmap.mmap(-1, 1 << 20)).start()
    threading.Event().wait()


def wait_until_hanging(process):
    # A look at a hanging process does not end, so another process looks. When the test ends, `process` ends, and so does this one.
    while os.getppid() == process:
        looking = os.fork()
        if not looking:
            try:
                open(f"/proc/{process}/environ", "rb").read()
            finally:
                os._exit(0)
        time.sleep(0.5 * int(os.environ.get("CREWFS_TEST_SLOWNESS", "1")))
        if os.waitpid(looking, os.WNOHANG) == (0, 0):
            os.kill(looking, signal.SIGKILL)
            os.waitpid(looking, 0)
            return
    os._exit(0)


def run(kind, file, uid, script):
    first = os.getpid()
    if kind == "huge":
        # The memory stays mapped until the process ends.
        memory = mmap.mmap(-1, 1 << 28, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        environment(memory, 1 << 28)
    elif os.fork():
        if kind == "lock":
            keep_lock(file)
        os.open(file, os.O_RDWR | os.O_CLOEXEC)
        os.execv("/bin/sleep", ["sleep", "0"])
    if kind != "huge":
        wait_until_hanging(first)
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    exec(script, {"os": os, "time": time})
    sys.stdout.flush()
    os._exit(0)


if sys.argv[1] == "serve":
    serve(sys.argv[2])
else:
    run(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
