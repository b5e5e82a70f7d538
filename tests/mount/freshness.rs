//! Freshness: a process in the mount sees every change beneath it, even with full kernel caches; and the kernel
//! does not ask again for what it has cached.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::harness::{Mounted, Project, project};
use crate::process::until;

/// How many requests of these kinds the kernel has sent.
fn asked(mounted: &Mounted, kinds: &[&str]) -> u64 {
    let session = mounted.session();
    kinds.iter().map(|kind| session["tree"]["requests"][kind].as_u64().unwrap()).sum()
}

/// Whether the daemon receives events of changes beneath the mount. Without them there is nothing to test.
fn is_watched(mounted: &Mounted) -> bool {
    let session = mounted.session();
    let watched = session["watch"]["by"] == "fanotify";
    if !watched {
        eprintln!("skipped: {}", session["watch"]["why"]);
    }
    watched
}

fn names(directory: &Path) -> BTreeSet<OsString> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// A project with a file of each kind, all of them in the kernel's caches.
struct Warm {
    mounted: Mounted,
    // Dropped last: its drop checks that nothing is left.
    project: Project,
}

impl Warm {
    fn new() -> Option<Warm> {
        let project = Project::new()?;
        let source = project.source();
        fs::create_dir_all(source.join("d/e")).unwrap();
        for name in ["a", "b", "d/f", "d/e/g"] {
            fs::write(source.join(name), "old").unwrap();
        }
        symlink("a", source.join("link")).unwrap();
        let mounted = project.mount(&[]);
        let warm = Warm { mounted, project };
        warm.up();
        is_watched(&warm.mounted).then_some(warm)
    }

    /// Look at every file, and at some names that do not exist, twice.
    fn up(&self) {
        for _ in 0..2 {
            for directory in ["", "d", "d/e"] {
                names(&self.seen(directory)).iter().for_each(|name| {
                    let path = self.seen(directory).join(name);
                    let _ = (path.symlink_metadata(), fs::read(&path), fs::read_link(&path));
                });
                assert!(!self.seen(directory).join("new").exists());
            }
        }
    }

    fn seen(&self, name: &str) -> PathBuf {
        self.mounted.path().join(name)
    }

    fn behind(&self, name: &str) -> PathBuf {
        self.project.behind().join(name)
    }
}

/// A warm project. Where none can be made, the test ends.
macro_rules! warm {
    () => {
        match Warm::new() {
            Some(warm) => warm,
            None => return,
        }
    };
}

/// Run a shell script beneath the mount. The daemon ignores only events of its own process, and this script is another one.
fn behind_the_mount(warm: &Warm, script: &str) {
    let mut command = std::process::Command::new("bash");
    command.args(["-ec", script]).current_dir(warm.behind(""));
    crate::process::run(command).ok();
}

#[test]
fn content_of_the_same_size_is_seen() {
    let warm = warm!();
    for (n, name) in ["a", "d/f", "d/e/g"].into_iter().enumerate() {
        let text = format!("ne{n}");
        let mtime = fs::metadata(warm.behind(name)).unwrap().modified().unwrap();
        fs::write(warm.behind(name), &text).unwrap();
        until("the content is there", || read(&warm.seen(name)) == text);
        // The mtime is restored, so only the event reveals the change.
        let file = fs::File::options().write(true).open(warm.behind(name)).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"XXX", 0).unwrap();
        file.set_modified(mtime).unwrap();
        drop(file);
        until("the content is there", || read(&warm.seen(name)) == "XXX");
    }
}

#[test]
fn an_open_file_shows_what_is_written_behind_the_mount() {
    let warm = warm!();
    let open = fs::File::open(warm.seen("d/f")).unwrap();
    let mut writer = fs::File::options().append(true).open(warm.behind("d/f")).unwrap();
    for n in 1..20 {
        std::io::Write::write_all(&mut writer, b"more").unwrap();
        until("the file grows", || open.metadata().unwrap().len() == 3 + 4 * n);
    }
    let mut text = String::new();
    (&open).read_to_string(&mut text).unwrap();
    assert_eq!(text, format!("old{}", "more".repeat(19)));
}

#[test]
fn names_come_and_go() {
    let warm = warm!();
    for directory in ["", "d", "d/e"] {
        let (seen, behind) = (warm.seen(directory).join("new"), warm.behind(directory).join("new"));
        for _ in 0..10 {
            assert!(!seen.exists());
            fs::write(&behind, "x").unwrap();
            until("the name is there", || seen.exists());
            assert!(names(&warm.seen(directory)).contains(&OsString::from("new")), "it is listed");
            fs::remove_file(&behind).unwrap();
            until("the name is gone", || !seen.exists());
            assert!(!names(&warm.seen(directory)).contains(&OsString::from("new")), "it is not listed");
        }
    }
}

#[test]
fn a_cached_listing_shows_what_is_new() {
    let warm = warm!();
    for n in 0..50 {
        let name = OsString::from_vec(format!("n{n}").into_bytes());
        fs::create_dir(warm.behind("d").join(&name)).unwrap();
        until("the directory is listed", || names(&warm.seen("d")).contains(&name));
    }
    assert_eq!(fs::metadata(warm.seen("d")).unwrap().nlink(), 53);
}

#[test]
fn renames_of_files_and_directories() {
    let warm = warm!();
    behind_the_mount(&warm, "mv a moved");
    until("the file has moved", || !warm.seen("a").exists() && read(&warm.seen("moved")) == "old");
    behind_the_mount(&warm, "printf new > .t; mv .t b");
    until("the file is another", || read(&warm.seen("b")) == "new");
    behind_the_mount(&warm, "mv d/e e");
    until("the directory has moved", || !warm.seen("d/e").exists() && read(&warm.seen("e/g")) == "old");
    behind_the_mount(&warm, "mv d D; mkdir d; printf other > d/f");
    until("the directory is another", || read(&warm.seen("d/f")) == "other" && warm.seen("D/f").exists());
    // The files in a directory that has moved are watched as before.
    fs::write(warm.behind("e/g"), "NEW").unwrap();
    until("the content is there", || read(&warm.seen("e/g")) == "NEW");
}

#[test]
fn modes_times_and_owners() {
    let warm = warm!();
    for name in ["a", "d", "d/e", "d/e/g"] {
        fs::set_permissions(warm.behind(name), fs::Permissions::from_mode(0o700)).unwrap();
        until("the mode is there", || fs::metadata(warm.seen(name)).unwrap().mode() & 0o777 == 0o700);
        let time = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
        fs::File::open(warm.behind(name)).unwrap().set_times(time).unwrap();
        until("the time is there", || fs::metadata(warm.seen(name)).unwrap().mtime() == 0);
    }
    fs::set_permissions(warm.behind(""), fs::Permissions::from_mode(0o711)).unwrap();
    until("the root's mode is there", || fs::metadata(warm.seen("")).unwrap().mode() & 0o777 == 0o711);
}

#[test]
fn a_number_that_is_used_again_is_not_taken_for_the_old_file() {
    let warm = warm!();
    for n in 0..20 {
        let target = format!("target-{n}");
        fs::remove_file(warm.behind("link")).unwrap();
        symlink(&target, warm.behind("link")).unwrap();
        until("the link leads elsewhere", || {
            fs::read_link(warm.seen("link")).is_ok_and(|to| to == Path::new(&target))
        });
        // The same inode number is a file, then a directory, then a file.
        fs::remove_file(warm.behind("a")).unwrap();
        fs::create_dir(warm.behind("a")).unwrap();
        fs::write(warm.behind("a/inside"), &target).unwrap();
        until("it is a directory", || read(&warm.seen("a/inside")) == target);
        assert!(!warm.seen("a/new").exists());
        fs::write(warm.behind("a/new"), "").unwrap();
        until("it is watched", || warm.seen("a/new").exists());
        fs::remove_dir_all(warm.behind("a")).unwrap();
        fs::write(warm.behind("a"), &target).unwrap();
        until("it is a file", || read(&warm.seen("a")) == target);
    }
}

#[test]
fn hard_links_are_one_file() {
    let warm = warm!();
    fs::hard_link(warm.behind("a"), warm.behind("d/hard")).unwrap();
    until("there are two", || fs::metadata(warm.seen("a")).unwrap().nlink() == 2);
    assert_eq!(read(&warm.seen("d/hard")), "old");
    fs::write(warm.behind("d/hard"), "new").unwrap();
    until("the other name shows it", || read(&warm.seen("a")) == "new");
    fs::remove_file(warm.behind("d/hard")).unwrap();
    until("there is one", || fs::metadata(warm.seen("a")).unwrap().nlink() == 1);
}

#[test]
fn a_link_of_the_root_gives_way_to_the_project_and_comes_back() {
    let warm = warm!();
    let (seen, behind) = (warm.seen("workers"), warm.behind("workers"));
    for _ in 0..3 {
        assert!(fs::read_link(&seen).is_ok());
        fs::create_dir(&behind).unwrap();
        until("the directory is there", || seen.symlink_metadata().unwrap().is_dir());
        fs::remove_dir(&behind).unwrap();
        until("the link is there", || fs::read_link(&seen).is_ok());
        fs::create_dir(&behind).unwrap();
        until("the directory is there", || seen.symlink_metadata().unwrap().is_dir());
        fs::remove_dir(&seen).unwrap();
        assert!(fs::read_link(&seen).is_ok(), "removed through the mount");
    }
    fs::write(warm.behind(".crewfs/x"), "").unwrap();
    assert!(!warm.seen(".crewfs").exists());
}

#[test]
fn many_changes_at_once_are_all_seen_even_when_the_kernel_loses_count() {
    let warm = warm!();
    let most: usize =
        fs::read_to_string("/proc/sys/fs/fanotify/max_queued_events").unwrap().trim().parse().unwrap();
    let count = (most + most / 2).min(50_000);
    fs::create_dir(warm.behind("many")).unwrap();
    (0..count).for_each(|n| fs::write(warm.behind("many").join(n.to_string()), "1").unwrap());
    until("all are listed", || names(&warm.seen("many")).len() == count);
    let some = || (0..count).step_by(97);
    let seen = |n: usize| warm.seen("many").join(n.to_string());
    some().for_each(|n| assert_eq!(read(&seen(n)), "1"));
    assert!(!seen(count).exists());
    behind_the_mount(
        &warm,
        &format!(
            "cd many; python3 -c 'for n in range({count}): open(str(n), \"r+\").write(\"2\")'; touch {count}; rm 0"
        ),
    );
    some().skip(1).for_each(|n| until("the content is there", || read(&seen(n)) == "2"));
    until("the name is there", || seen(count).exists());
    until("the name is gone", || !seen(0).exists());
}

#[test]
fn what_is_lost_is_looked_at_anew() {
    let project = project!();
    (0..200).for_each(|n| {
        fs::create_dir(project.source().join(format!("d{n}"))).unwrap();
        fs::write(project.source().join(format!("d{n}/f")), "old").unwrap();
    });
    let mounted = project.mount(&[]);
    if !is_watched(&mounted) {
        return;
    }
    let seen = |n: usize, name: &str| mounted.path().join(format!("d{n}")).join(name);
    let look =
        |n| (read(&seen(n, "f")), seen(n, "new").exists(), names(&mounted.path().join(format!("d{n}"))));
    (0..200).for_each(|n| assert_eq!(look(n), ("old".into(), false, ["f".into()].into())));
    // While the daemon is stopped, the kernel's event queue overflows.
    let pid = rustix::process::Pid::from_raw(mounted.pid() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let most: usize =
        fs::read_to_string("/proc/sys/fs/fanotify/max_queued_events").unwrap().trim().parse().unwrap();
    let behind = project.behind();
    // Twice the queue's size: the daemon may have run for a moment, and the kernel merges the events of one name.
    for n in 0..2 * most {
        let name = behind.join("d0").join(format!("x{n}"));
        fs::write(&name, "").unwrap();
        fs::remove_file(&name).unwrap();
    }
    for n in 0..200 {
        fs::write(behind.join(format!("d{n}/f")), "new").unwrap();
        fs::write(behind.join(format!("d{n}/new")), "").unwrap();
    }
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    for n in 0..200 {
        until("all is new", || look(n) == ("new".into(), true, ["f".into(), "new".into()].into()));
    }
    assert!(mounted.session()["watch"]["lost"].as_u64().unwrap() > 0);
}

#[test]
fn what_is_warm_is_not_asked_for() {
    let warm = warm!();
    // The first look after a read requests the time of access.
    warm.up();
    let kinds = ["lookup", "getattr", "readdir", "readdirplus", "readlink", "read", "opendir"];
    let before = asked(&warm.mounted, &kinds);
    (0..10).for_each(|_| warm.up());
    assert_eq!(asked(&warm.mounted, &kinds), before, "{}", warm.mounted.session());
}

#[test]
fn large_directories_are_listed_by_many_at_once() {
    let warm = warm!();
    fs::create_dir(warm.behind("many")).unwrap();
    let expected: BTreeSet<OsString> = (0..20_000).map(|n| format!("name-{n}").into()).collect();
    expected.iter().for_each(|name| drop(fs::File::create(warm.behind("many").join(name)).unwrap()));
    let seen = warm.seen("many");
    until("it is there", || seen.exists());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..2).for_each(|_| assert!(names(&seen) == expected)));
        }
    });
    let python = "import os\nd = os.scandir('many'); first = next(d).name; d.close(); assert first
assert len(os.listdir('many')) == 20000
fd = os.open('many', os.O_RDONLY); os.fsync(fd); a = os.listdir(fd); os.lseek(fd, 0, 0); b = os.listdir(fd); assert a == b";
    warm.mounted.sh("w1", &format!("python3 -c \"{python}\"")).ok();
}

/// Change a small tree at random by one path for a while, look at it by another, and compare the two in the end.
const AT_RANDOM: &str = r#"
import os, random, stat, sys, threading, time
behind, mount, seed, stop = sys.argv[1], sys.argv[2], int(sys.argv[3]), time.time() + 1.5
def directory(r, base): return os.path.join(base, *[f'd{r.randrange(3)}' for _ in range(r.randrange(3))])
def write(n, r):
    with open(n, 'w') as f: f.write(str(r.random())[:r.randrange(3, 12)])
def change(base, seed):
    r = random.Random(seed)
    while time.time() < stop:
        d, e = directory(r, base), directory(r, base)
        n, m, s = (os.path.join(d, f'n{r.randrange(6)}'), os.path.join(e, f'n{r.randrange(6)}'),
                   os.path.join(d, f'd{r.randrange(3)}'))
        ways = [lambda: write(n, r), lambda: write(n, r), lambda: os.unlink(n), lambda: os.mkdir(s), lambda: os.mkdir(n),
                lambda: os.rmdir(s), lambda: os.rmdir(n), lambda: os.rename(n, m), lambda: os.symlink(str(r.random()), n),
                lambda: os.link(n, m), lambda: os.chmod(n, r.choice([0o600, 0o755])),
                lambda: os.utime(n, (1, r.randrange(10**9))), lambda: d != base and os.rename(d, e)]
        try: r.choice(ways)()
        except OSError: pass
def look(base, seed):
    r = random.Random(seed)
    while time.time() < stop:
        d = directory(r, base); n = os.path.join(d, f'n{r.randrange(6)}')
        ways = [lambda: os.lstat(n), lambda: open(n, 'rb').read(), lambda: os.readlink(n),
                lambda: [e.stat(follow_symlinks=False) for e in os.scandir(d)]]
        try: r.choice(ways)()
        except OSError: pass
def shown(base):
    found = {}
    def walk(at, name):
        for entry in os.listdir(at):
            path, key = os.path.join(at, entry), os.path.join(name, entry)
            s = os.lstat(path); found[key] = [s.st_mode, s.st_nlink, s.st_mtime_ns]
            if stat.S_ISDIR(s.st_mode): walk(path, key)
            elif stat.S_ISLNK(s.st_mode): found[key].append(os.readlink(path))
            else: found[key] += [s.st_size, open(path, 'rb').read()]
    walk(base, '')
    for d in ['', 'd0', 'd1', 'd2']:
        for n in range(6): found['?', d, n] = os.path.lexists(os.path.join(base, d, f'n{n}'))
    return found
todo = [(change, behind, 1), (change, behind, 2), (look, mount, 3), (look, mount, 4), (look, mount, 5)]
threads = [threading.Thread(target=what, args=(base, seed * 10 + n)) for what, base, n in todo]
[t.start() for t in threads]; [t.join() for t in threads]
limit, truth, seen = time.time() + 10, 1, 2
while truth != seen and time.time() < limit:
    time.sleep(0.02)
    try: truth, seen = shown(behind), shown(mount)
    except OSError as error: seen = error
if truth != seen:
    if isinstance(seen, dict): seen = [(k, truth.get(k), seen.get(k)) for k in {*truth, *seen} if truth.get(k) != seen.get(k)]
    sys.exit(f'not the same after seed {seed}: {seen}')
"#;

#[test]
fn whatever_happens_meanwhile_in_the_end_the_mount_shows_what_is_there() {
    let warm = warm!();
    for seed in 1..4_u32 {
        let name = format!("random-{seed}");
        fs::create_dir(warm.behind(&name)).unwrap();
        let mut command = std::process::Command::new("python3");
        command.arg("-c").arg(AT_RANDOM).args([warm.behind(&name), warm.seen(&name)]).arg(seed.to_string());
        crate::process::run(command).ok();
    }
}
