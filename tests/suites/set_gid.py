"""Who keeps a set-group-id bit, whose ACL counts, and what a umask leaves: as every kind of caller.

Runs after `probes.py`. The disk judges the process that calls; a filesystem in between must come to the same.
"""

# The caller owns a file of group 2000. The callers below differ in their relation to that group.
OWNER, GROUP, FSETID = 1001, 2000, 4
CALLERS = {
    "of_the_group": dict(uid=OWNER, gid=GROUP),
    "in_the_group": dict(uid=OWNER, gid=OWNER, groups=[7, GROUP, 3000]),
    "stranger": dict(uid=OWNER, gid=OWNER, groups=[7, 3000]),
    "root": dict(uid=0, gid=0),
    "root_without_fsetid": dict(uid=0, gid=0, drop=FSETID),
}


def acl(*named, mask=7):
    """The value of an ACL that gives all to all, and something to these users besides."""
    entries = [(1, 7, -1), *((2, 7, user) for user in named), (4, 7, -1), (16, mask, -1), (32, 5, -1)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)


MINIMAL = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *e) for e in [(1, 7, -1), (4, 7, -1), (32, 5, -1)])


def of_group(name, kind, mode=0o2775, owner=OWNER):
    os.mkdir(name) if kind == "directory" else os.close(new(name))
    os.chown(name, owner, GROUP)
    os.chmod(name, mode)
    return name


def mode_of(path):
    s = os.lstat(path)
    return oct(s.st_mode), s.st_gid


@each("set_gid_and_an_acl", CALLERS)
def set_gid_and_an_acl(who):
    seen = []
    for kind in ("file", "directory"):
        for label, change in {
            "minimal": lambda path: os.setxattr(path, "system.posix_acl_access", MINIMAL),
            "named": lambda path: os.setxattr(path, "system.posix_acl_access", acl(12)),
            "default": lambda path: os.setxattr(path, "system.posix_acl_default", acl(12)),
            "empty": lambda path: os.setxattr(path, "system.posix_acl_access", struct.pack("<I", 2)),
            "removed": lambda path: os.removexattr(path, "system.posix_acl_access"),
        }.items():
            path = of_group(f"{kind}-{label}", kind)
            if label == "removed":
                os.setxattr(path, "system.posix_acl_access", acl(12))
            os.stat(path)
            done = as_user(lambda: change(path), **who)
            seen.append((kind, label, done, mode_of(path), sorted(os.listxattr(path))))
    return seen


@each("set_gid_and_no_group_that_runs", CALLERS)
def set_gid_and_no_group_that_runs(who):
    path = of_group("file", "file", 0o2665)
    done = as_user(lambda: os.setxattr(path, "system.posix_acl_access", acl(12, mask=6)), **who)
    return done, mode_of(path)


@each("set_gid_and_chmod", CALLERS)
def set_gid_and_chmod(who):
    seen = []
    for kind in ("file", "directory"):
        for mode in (0o2775, 0o2765, 0o6777):
            path = of_group(f"{kind}-{mode}", kind, 0o755)
            seen.append((as_user(lambda: os.chmod(path, mode), **who), mode_of(path)))
    return seen


@each("set_gid_and_chown", CALLERS)
def set_gid_and_chown(who):
    seen = []
    for kind in ("file", "directory"):
        for mode in (0o6775, 0o6765):
            path = of_group(f"{kind}-{mode}", kind, mode)
            to = (who.get("groups") or [who["gid"]])[0]
            seen.append((as_user(lambda: os.chown(path, -1, to), **who), mode_of(path)))
    return seen


@each("set_gid_and_a_write", {**CALLERS, "another": dict(uid=1002, gid=1002, groups=[7]),
                              "another_in_the_group": dict(uid=1002, gid=1002, groups=[GROUP])})
def set_gid_and_a_write(who):
    seen = []
    for mode in (0o6777, 0o2777, 0o2767, 0o4777):
        for label, change in {
            "write": lambda fd: os.write(fd, b"x"),
            "truncate": lambda fd: os.ftruncate(fd, 3),
            "allocate": lambda fd: os.posix_fallocate(fd, 0, 20000),
        }.items():
            path = of_group(f"{mode}-{label}", "file", mode)
            seen.append((label, as_user(lambda: change(os.open(path, os.O_RDWR)), **who), mode_of(path)))
    return seen


def make_all(where, umask, mode):
    """One of everything that can be made, as this umask leaves it."""
    before = os.umask(umask)
    try:
        os.close(os.open(f"{where}/open", os.O_CREAT | os.O_RDWR | os.O_EXCL, mode))
        os.mknod(f"{where}/node", mode | stat.S_IFREG)
        os.mknod(f"{where}/pipe", mode | stat.S_IFIFO)
        os.mkdir(f"{where}/directory", mode)
        os.symlink("nowhere", f"{where}/link")
        socket.socket(socket.AF_UNIX).bind(f"{where}/socket")
    finally:
        os.umask(before)


DIRECTORIES = {"plain": 0o777, "giving_its_group": 0o2777}
DEFAULTS = {"no_default": None, "named": acl(12), "masked": acl(12, mask=6), "minimal": MINIMAL}


@each("making", {f"{place}_{default}_{who}": (mode, inherited, caller)
                 for place, mode in DIRECTORIES.items()
                 for default, inherited in DEFAULTS.items()
                 for who, caller in CALLERS.items()})
def making(what):
    """In directories that are plain or give their group, with and without a default ACL."""
    directory, default, who = what
    seen = []
    for umask in (0, 0o022, 0o077, 0o010):
        for mode in (0o2777, 0o666):
            path = of_group(f"{umask}-{mode}", "directory", directory, 0)
            if default:
                os.setxattr(path, "system.posix_acl_default", default)
            seen.append(as_user(lambda: make_all(path, umask, mode), **who))
            for name in sorted(os.listdir(path)):
                has_acl = "system.posix_acl_access" in os.listxattr(f"{path}/{name}", follow_symlinks=False)
                seen.append((name, *mode_of(f"{path}/{name}"), has_acl))
    return seen


@probe
def only_an_owner_changes_an_acl():
    path = of_group("acl", "file", 0o666)
    stranger = dict(uid=1002, gid=GROUP)
    return [as_user(lambda: os.setxattr(path, "system.posix_acl_access", acl(1002)), **stranger),
            as_user(lambda: os.removexattr(path, "system.posix_acl_access"), **stranger),
            as_user(lambda: os.setxattr(path, "system.posix_acl_access", acl(1002)), uid=OWNER, gid=OWNER),
            as_user(lambda: os.removexattr(path, "system.posix_acl_access"), **stranger),
            as_user(lambda: os.removexattr(path, "system.posix_acl_access"), uid=OWNER, gid=OWNER), mode_of(path)]


@each("programs_and_set_gid", CALLERS)
def programs_and_set_gid(who):
    """What copies modes and ACLs, in a directory that gives its group and has a default ACL."""
    seen = []
    for default in (None, acl(12)):
        where = of_group(f"where-{bool(default)}", "directory", 0o2777)
        if default:
            os.setxattr(where, "system.posix_acl_default", default)
        from_file = of_group(f"{where}-file", "file", 0o2755)
        from_directory = of_group(f"{where}-directory", "directory", 0o2755)
        for program in (f"install -m 2755 {from_file} {where}/installed", f"cp -a {from_file} {where}/copied",
                        f"cp -a {from_directory} {where}/copied-directory", f"mkdir -m 2750 {where}/made",
                        f"cp {from_file} {where}/plain", f"mkdir -p {where}/a/b"):
            done = as_user(lambda: os.execvp("sh", ["sh", "-c", f"umask 027; exec {program} 2>/dev/null"]), **who)
            seen.append((program.split()[0], done))
        seen += [(name, *mode_of(f"{where}/{name}")) for name in sorted(os.listdir(where))]
    return seen


@probe
def umask_is_the_callers():
    before = os.umask(0o027)
    try:
        os.mkdir("masked", 0o777)
        os.close(os.open("masked/file", os.O_CREAT | os.O_RDWR, 0o666))
        os.mkfifo("masked/pipe", 0o666)
        return [oct(os.stat(name).st_mode) for name in ("masked", "masked/file", "masked/pipe")]
    finally:
        os.umask(before)
