# One worker makes every operation that the contract names, and prints the outcomes: [[operation, "ok" or the name of an errno]].
#
# The same steps are made on the server's machine and over sshfs. The caller has created the tasks, and a rival that holds some.
import ctypes, errno, fcntl, json, os, sys

libc = ctypes.CDLL(None, use_errno=True)
done = {}


def does(operation, work):
    try:
        work()
        done[operation] = "ok"
    except OSError as error:
        done[operation] = errno.errorcode[error.errno]


def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")


def put(path, text, flags=0):
    """What a shell's > does; an error of close(2) counts."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o666)
    left = text.encode()
    try:
        while left:
            left = left[os.write(fd, left) :]
    finally:
        os.close(fd)


def touch(path):
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK, 0o666))
    os.utime(path)


def new(path):
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))


def no_replace(source, target):
    checked(libc.renameat2(-100, source.encode(), -100, target.encode(), 1))


def expect(path, text):
    with open(path) as file:
        if text not in file.read():
            raise OSError(errno.ENOMSG, "reads otherwise")


def in_place(path, text):
    """Write without truncating, and have it written."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
        os.fsync(fd)
    finally:
        os.close(fd)


def locked(path, lock):
    with open(path, "r+") as file:
        lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def size_is_true(path):
    size = os.stat(path).st_size
    with open(path) as file:
        if len(file.read().encode()) != size:
            raise OSError(errno.ENOMSG, "another size")


def main():
    does("`touch claim/<id>`", lambda: touch("tasks/claim/touched"))
    does("again, by the holder", lambda: touch("tasks/claim/touched"))
    does("`touch claim/<id>`, held by another", lambda: touch("tasks/claim/held"))
    does("`> claim/<id>`", lambda: os.close(os.open("tasks/claim/opened", os.O_WRONLY | os.O_CREAT)))
    does("`> claim/<id>`, held by another", lambda: put("tasks/claim/held", "", os.O_TRUNC))
    does("`set -C; > claim/<id>`", lambda: new("tasks/claim/exclusive"))
    does("`set -C; > claim/<id>`, held by another", lambda: new("tasks/claim/held"))
    does("`mkdir claim/<id>`", lambda: os.mkdir("tasks/claim/made"))
    does("`mkdir claim/<id>`, held by another", lambda: os.mkdir("tasks/claim/held"))
    does("`mkdir claim/<id>`, unknown", lambda: os.mkdir("tasks/claim/unknown"))
    does("rename `ready/<id>` to `claim/`", lambda: os.rename("tasks/ready/moved", "tasks/claim/moved"))
    does("rename, held by another", lambda: os.rename("tasks/ready/held", "tasks/claim/held"))
    does("rename with RENAME_NOREPLACE", lambda: no_replace("tasks/ready/kept", "tasks/claim/kept"))
    does("`ln ready/<id> claim/<id>`", lambda: os.link("tasks/ready/linked", "tasks/claim/linked"))
    does("claim a blocked task", lambda: touch("tasks/claim/waits"))
    does("claim an unknown task", lambda: touch("tasks/claim/unknown"))
    does("claim a completed task", lambda: touch("tasks/claim/finished"))
    does("claim a rejected task", lambda: touch("tasks/claim/wrong"))
    does("claim a task without the required capability", lambda: touch("tasks/claim/special"))
    does("a progress note", lambda: put("tasks/claim/touched", "half done"))
    does("it shows in the status", lambda: expect("tasks/status/touched", "half done"))
    does("a note: `> workers/self/note`", lambda: put("tasks/workers/self/note", "two thirds", os.O_TRUNC))
    does("a note to another's claim", lambda: put("tasks/claim/held", "mine"))
    does("a note of more than 4 KiB", lambda: put("tasks/claim/made", "x" * 5000))
    does("give back: `rm claim/<id>`", lambda: os.unlink("tasks/claim/opened"))
    does("`rm` of another's claim", lambda: os.unlink("tasks/claim/held"))
    does("`rmdir claim/<id>`", lambda: os.rmdir("tasks/claim/made"))
    does("give back: rename to `ready/`", lambda: os.rename("tasks/claim/exclusive", "tasks/ready/exclusive"))
    does("finish: `> completed/<id>`", lambda: put("tasks/completed/touched", "all done\n", os.O_TRUNC))
    does("the result can be read", lambda: expect("tasks/completed/touched", "all done"))
    does("finish another's task", lambda: put("tasks/completed/held", "mine"))
    does("finish: rename to `completed/`", lambda: os.rename("tasks/claim/made", "tasks/completed/made"))
    does("finish by a temporary file", lambda: (put("tasks/completed/.moved.tmp.1", "well"), os.chmod("tasks/completed/.moved.tmp.1", 0o644), os.rename("tasks/completed/.moved.tmp.1", "tasks/completed/moved")))
    does("fail: `> failed/<id>`", lambda: (touch("tasks/claim/opened"), put("tasks/failed/opened", "no network")))
    does("a result of more than 1 MiB", lambda: put("tasks/completed/touched", "x" * (1 << 21)))
    does("`rm completed/<id>`", lambda: os.unlink("tasks/completed/touched"))
    does("retry: rename to `ready/`", lambda: os.rename("tasks/failed/opened", "tasks/ready/opened"))
    does("`touch claim/next`", lambda: touch("tasks/claim/next"))
    does("read `workers/self/task`", lambda: expect("tasks/workers/self/task", "# "))
    does("read `next`", lambda: expect("tasks/next", "# "))
    does("`rm claim/next`", lambda: os.unlink("tasks/claim/next"))
    does("publish: write and close", lambda: (put("tasks/written.md", "# New\n"), expect("tasks/ready/written", "# New")))
    does("publish: rename", lambda: (put("tasks/.renamed.tmp", "# New\n"), os.rename("tasks/.renamed.tmp", "tasks/renamed.md"), expect("tasks/ready/renamed", "# New")))
    does("withdraw: `rm <id>.md`", lambda: os.unlink("tasks/written.md"))
    does("withdraw a task that another worker holds", lambda: os.unlink("tasks/held.md"))
    does("make a file in `ready/`", lambda: new("tasks/ready/mine"))
    does("a directory in `ready/`", lambda: os.mkdir("tasks/ready/mine"))
    does("a symbolic link in `claim/`", lambda: os.symlink("x", "tasks/claim/written"))
    does("write to `queue.json`", lambda: put("tasks/queue.json", "{}"))
    does("`rm queue.json`", lambda: os.unlink("tasks/queue.json"))
    does("the size of `queue.json` is true", lambda: size_is_true("tasks/queue.json"))
    does("the size of `events.jsonl` is true", lambda: size_is_true("tasks/events.jsonl"))
    does("`touch paused`", lambda: touch("tasks/paused"))
    does("declare capabilities", lambda: put("tasks/workers/self/capabilities", "rust gpu", os.O_TRUNC))
    does("declare another worker's capabilities", lambda: put("tasks/workers/rival/capabilities", "rust", os.O_TRUNC))
    does("`touch workers/self/drain`", lambda: touch("tasks/workers/self/drain"))
    does("claim while draining", lambda: touch("tasks/claim/next"))
    does("`rm workers/self/drain`", lambda: os.unlink("tasks/workers/self/drain"))
    does("drain another", lambda: touch("tasks/workers/rival/drain"))
    does("move from the tree to `tasks/`", lambda: os.rename("free", "tasks/free.md"))
    does("change a file that is free", lambda: put("free", "new text", os.O_TRUNC))
    does("truncate a file that another holds", lambda: os.truncate("busy", 0))
    does("open it with O_TRUNC", lambda: put("busy", "mine", os.O_TRUNC))
    does("write to it in place, and `fsync`", lambda: in_place("busy", "mine"))
    does("rename over it", lambda: (new("other"), os.rename("other", "busy")))
    does("remove it", lambda: os.unlink("busy"))
    does("`chmod` it", lambda: os.chmod("busy", 0o600))
    does("change a file that was not read since another worker changed it", lambda: put("stale", "mine", os.O_TRUNC))
    does("the same after reading it", lambda: (expect("stale", "theirs"), put("stale", "mine", os.O_TRUNC)))
    does("make `.crewfs` in the root", lambda: new(".crewfs"))
    does("read the attribute `user.crewfs.lock`", lambda: os.getxattr("free", "user.crewfs.lock"))
    does("`flock`", lambda: locked("free", fcntl.flock))
    does("a lock by `fcntl`", lambda: locked("free", fcntl.lockf))


def paused():
    does("claim while the queue is paused", lambda: touch("tasks/claim/next"))


{"main": main, "paused": paused}[sys.argv[1]]()
print(json.dumps(list(done.items())))
