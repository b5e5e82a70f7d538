//! The tree: the project as it is, for everyday tools and for every kind of call, mounted elsewhere and in place (C3).

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{Mounted, Project, as_root, project};
use crate::process::{Ran, until};

/// The place where a body runs.
struct Place<'a> {
    project: &'a Project,
    mounted: &'a Mounted,
    /// Relative to the project's root.
    dir: &'a str,
}

impl Place<'_> {
    #[track_caller]
    fn sh(&self, script: &str) -> Ran {
        self.mounted.sh("w1", &format!("cd {} || exit; {script}", self.dir))
    }

    #[track_caller]
    fn sh_as(&self, uid: u32, script: &str) -> Ran {
        // The same worker for every user: other tests check what another worker may not change.
        self.mounted.sh_as(uid, "w1", &format!("cd {} || exit; {script}", self.dir))
    }

    /// Run a Python script.
    #[track_caller]
    fn python(&self, script: &str) -> String {
        self.sh(&format!("python3 - <<'END'\nimport ctypes, errno, mmap, os, stat\n{script}\nEND")).ok()
    }

    /// A file on the disk.
    fn on_disk(&self, name: impl AsRef<Path>) -> PathBuf {
        self.project.behind().join(self.dir).join(name)
    }
}

/// Run a body in a project mounted elsewhere, in one mounted over itself, and among the ordinary files of a desk.
fn everywhere(prepare: impl Fn(&Path), body: impl Fn(&Place)) {
    for (in_place, dir) in [(false, "."), (true, "."), (false, "tasks"), (true, "tasks/sub")] {
        let project = project!();
        let there = project.source().join(dir);
        fs::create_dir_all(&there).unwrap();
        prepare(&there);
        let mut mounted = if in_place { project.mount_in_place(&[]) } else { project.mount(&[]) };
        body(&Place { project: &project, mounted: &mounted, dir });
        mounted.stop();
    }
}

#[test]
fn everyday_shell_work() {
    let script = "set -e
        mkdir -p src/deep/er && echo one > src/a && echo two >> src/a && cp src/a src/b && mv src/b src/deep/c
        ln src/a src/hard && ln -s a src/soft && test src/a -ef src/hard && cat src/soft | cmp - src/a
        test $(stat -c %h src/a) = 2 && rm src/hard && test $(stat -c %h src/a) = 1
        chmod 640 src/a && test $(stat -c %a src/a) = 640 && touch -d 2001-02-03T04:05:06.789Z src/a
        test \"$(TZ=UTC stat -c %y src/a)\" = '2001-02-03 04:05:06.789000000 +0000'
        mkfifo pipe && (cat pipe > got & echo through > pipe; wait) && grep -q through got
        truncate -s 1M big && test $(stat -c %s big) = 1048576 && truncate -s 3 src/a && test \"$(cat src/a)\" = one
        mkdir d && ! rmdir src 2>/dev/null && rmdir d && ! cat d 2>/dev/null
        printf 'x%.0s' $(seq 100000) > long && test $(wc -c < long) = 100000
        sed -i s/one/1/ src/a && test \"$(cat src/a)\" = 1 && find . -name c | grep -q src/deep/c
        chmod +x src/a && printf '#!/bin/sh\\necho ran\\n' > run && chmod +x run && ./run
        rm -r src && ! test -e src";
    everywhere(
        |_| {},
        |place| {
            assert_eq!(place.sh(script).ok(), "ran\n");
            // The disk shows the same.
            assert_eq!(fs::read_to_string(place.on_disk("got")).unwrap(), "through\n");
        },
    );
}

#[test]
fn renames_of_every_kind() {
    everywhere(
        |_| {},
        |place| {
            place.python(
                r#"
libc = ctypes.CDLL(None, use_errno=True)
def rename(a, b, flags):
    done = libc.renameat2(-100, a.encode(), -100, b.encode(), flags)
    return ctypes.get_errno() if done else 0
def write(name, text):
    with open(name, 'w') as f: f.write(text)
def read(name): return open(name).read()
write('a', 'A'); write('b', 'B')
assert rename('a', 'b', 1) == errno.EEXIST
assert rename('a', 'b', 2) == 0 and (read('a'), read('b')) == ('B', 'A')
assert rename('a', 'missing', 2) == errno.ENOENT
assert rename('a', 'c', 1) == 0 and read('c') == 'B' and not os.path.exists('a')
os.mkdir('dir'); write('dir/x', 'X')
assert rename('dir', 'b', 2) == 0 and read('b/x') == 'X' and read('dir') == 'A'
try: os.rename('dir', 'b')
except IsADirectoryError: pass
else: assert False
kept = open('c')
os.rename('dir', 'c')
assert kept.read() == 'B' and read('c') == 'A', 'who had it open keeps it'
os.mkdir('e'); os.rename('b', 'e'); assert read('e/x') == 'X'
try: os.rename('e', 'e/inside')
except OSError as error: assert error.errno == errno.EINVAL
"#,
            );
        },
    );
}

#[test]
fn calls_on_content() {
    everywhere(
        |_| {},
        |place| {
            place.python(
                r#"
fd = os.open('f', os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
assert os.write(fd, b'0123456789') == 10 and os.pread(fd, 4, 3) == b'3456'
os.pwrite(fd, b'end', 1 << 20)
assert os.fstat(fd).st_size == (1 << 20) + 3
assert os.lseek(fd, 0, os.SEEK_HOLE) in range(10, 1 << 20)
assert os.lseek(fd, 100000, os.SEEK_DATA) in range(100000, (1 << 20) + 1)
os.posix_fallocate(fd, 0, 2 << 20); assert os.fstat(fd).st_size == 2 << 20
libc = ctypes.CDLL(None, use_errno=True)
assert libc.fallocate(fd, 3, ctypes.c_long(0), ctypes.c_long(4096)) == 0 and os.pread(fd, 4, 3) == bytes(4)
os.ftruncate(fd, 5); assert os.fstat(fd).st_size == 5
os.pwrite(fd, b'hello', 0); os.fsync(fd); os.fdatasync(fd)
other = os.open('g', os.O_RDWR | os.O_CREAT)
assert os.copy_file_range(fd, other, 5, 0, 2) == 5 and os.pread(other, 9, 0) == b'\0\0hello'
assert os.sendfile(other, fd, 0, 5) == 5
append = os.open('f', os.O_WRONLY | os.O_APPEND)
os.write(append, b' one'); os.pwrite(fd, b'H', 0); os.write(append, b' two')
assert open('f').read() == 'Hello one two'
os.unlink('f'); assert os.pread(fd, 5, 0) == b'Hello' and os.fstat(fd).st_nlink == 0
os.pwrite(fd, b'still', 0); os.ftruncate(fd, 3); assert os.pread(fd, 9, 0) == b'sti'
open('new', 'w').write('new'); assert open('new').read() == 'new'
for kind in (os.O_TMPFILE | os.O_RDWR,):
    try: os.close(os.open('.', kind, 0o600))
    except OSError as error: assert error.errno in (errno.EOPNOTSUPP, errno.EISDIR), error
big = os.urandom(5 << 20)
open('big', 'wb').write(big); assert open('big', 'rb').read() == big
"#,
            );
        },
    );
}

#[test]
fn mapped_files() {
    everywhere(
        |_| {},
        |place| {
            place.python(
                r#"
open('m', 'wb').write(b'a' * 10000)
fd = os.open('m', os.O_RDWR)
shared = mmap.mmap(fd, 10000)
assert shared[9999:10000] == b'a'
shared[5000:5005] = b'HELLO'; shared.flush()
assert os.pread(fd, 5, 5000) == b'HELLO'
os.pwrite(fd, b'WRITE', 100); assert shared[100:105] == b'WRITE'
private = mmap.mmap(fd, 10000, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
private[0:1] = b'X'; assert os.pread(fd, 1, 0) == b'a'
os.close(fd); os.rename('m', 'moved'); shared[0:3] = b'end'; shared.close()
assert open('moved', 'rb').read(3) == b'end'
"#,
            );
            let on_disk = fs::read(place.on_disk("moved")).unwrap();
            assert_eq!((&on_disk[..3], &on_disk[5000..5005]), (&b"end"[..], &b"HELLO"[..]));
        },
    );
}

#[test]
fn extended_attributes() {
    everywhere(
        |_| {},
        |place| {
            place.python(
                r#"
open('f', 'w').close(); os.mkdir('d')
for path in ('f', 'd'):
    os.setxattr(path, 'user.colour', b'red'); os.setxattr(path, 'user.empty', b'')
    assert os.getxattr(path, 'user.colour') == b'red' and os.getxattr(path, 'user.empty') == b''
    assert sorted(os.listxattr(path)) == ['user.colour', 'user.empty']
    try: os.setxattr(path, 'user.colour', b'blue', os.XATTR_CREATE)
    except FileExistsError: pass
    else: assert False
    os.removexattr(path, 'user.colour')
    try: os.getxattr(path, 'user.colour')
    except OSError as error: assert error.errno == errno.ENODATA
    else: assert False
os.setxattr('f', 'user.big', b'x' * 2000); assert len(os.getxattr('f', 'user.big')) == 2000
"#,
            );
        },
    );
}

#[test]
fn what_users_make_is_theirs_and_permissions_hold() {
    as_root!();
    let prepare = |dir: &Path| {
        let shared = dir.join("shared");
        fs::create_dir(&shared).unwrap();
        fs::set_permissions(&shared, std::os::unix::fs::PermissionsExt::from_mode(0o2775)).unwrap();
        std::os::unix::fs::chown(&shared, Some(0), Some(5000)).unwrap();
    };
    everywhere(prepare, |place| {
        place.sh_as(1001, "touch mine").refused("Permission denied");
        place.sh_as(1001, "touch shared/mine").refused("Permission denied");
        let in_group =
            "setpriv --reuid=1001 --regid=1001 --groups=5000 bash -c 'umask 027; echo x > shared/f &&
            mkdir shared/d && mkfifo shared/p && ln -s f shared/l && chmod 660 shared/f && touch shared/f &&
            chgrp 5000 shared/d && ! chown 1002 shared/f 2> /dev/null'";
        place.sh(in_group).ok();
        let owners = place.sh("cd shared && stat -c '%n %u %g %a' f d p l").ok();
        assert_eq!(owners, "f 1001 5000 660\nd 1001 5000 2750\np 1001 5000 640\nl 1001 5000 777\n");
        place.sh_as(1002, "cat shared/f").refused("Permission denied");
        place.sh_as(1002, "rm -f shared/f").refused("Permission denied");
        place.sh_as(1002, "chmod 777 shared/f").refused("not permitted");
        place.sh_as(1002, "touch -d 2001-01-01 shared/f").refused("");
        place.sh("chown 1002:1002 shared/f").ok();
        place.sh_as(1002, "echo mine > shared/f && chmod 600 shared/f && cat shared/f").ok();
        place.sh_as(1001, "cat shared/f").refused("Permission denied");
        // Set-ID bits that one user sets are cleared when another user writes.
        place.sh("chown 0:0 shared/f && chmod 6777 shared/f").ok();
        let ways =
            ["echo more >> shared/f", "truncate -s 1 shared/f", "fallocate -l 9 shared/f", ": > shared/f"];
        for way in ways {
            place.sh("chmod 6777 shared/f && stat shared/f").ok();
            place.sh_as(1002, way).ok();
            assert_eq!(place.sh("stat -c %a shared/f").ok(), "777\n", "{way}");
            place.sh("chmod 6777 shared/f").ok();
            place.sh(way).ok();
            assert_eq!(place.sh("stat -c %a shared/f").ok(), "6777\n", "root: {way}");
        }
        place.sh("chown 1002 shared/f").ok();
        assert_eq!(place.sh("stat -c %a shared/f").ok(), "777\n", "another owner");
    });
}

#[test]
fn names_and_content_of_any_bytes() {
    everywhere(
        |_| {},
        |place| {
            place.python(
                r#"
names = [b'\xff\xfe', 'wörter'.encode(), b'new\nline', b'a' * 255, b' ', b'-rf', b'\\040', b'"quoted"']
for name in names:
    with open(name, 'wb') as f: f.write(name)
assert set(names) <= set(os.listdir(b'.'))
for name in names: assert open(name, 'rb').read() == name
for name in (b'a' * 256,):
    try: open(name, 'w')
    except OSError as error: assert error.errno == errno.ENAMETOOLONG
    else: assert False
deep = '/'.join(['d' * 100] * 30)
os.makedirs(deep); open(deep + '/f', 'w').close(); assert os.stat(deep + '/f').st_size == 0
"#,
            );
            let on_disk =
                place.on_disk(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff\xfe"));
            assert_eq!(fs::read(on_disk).unwrap(), b"\xff\xfe");
        },
    );
}

#[test]
fn changes_behind_the_mount_are_seen() {
    let prepare = |dir: &Path| fs::write(dir.join("f"), "old\n").unwrap();
    everywhere(prepare, |place| {
        assert_eq!(place.sh("cat f; test -e new; echo $?").ok(), "old\n1\n");
        fs::write(place.on_disk("f"), "newer\n").unwrap();
        fs::write(place.on_disk("new"), "").unwrap();
        until("the new content is there", || place.sh("cat f").ok() == "newer\n");
        until("the new name is there", || place.mounted.path().join(place.dir).join("new").exists());
        fs::remove_file(place.on_disk("new")).unwrap();
        until("the name is gone", || !place.mounted.path().join(place.dir).join("new").exists());
    });
}
