//! The kernel knows many files, and a thousand of them are open. Then these are renamed, replaced and removed beneath the mount. Each
//! is still read and written through its descriptor, and the daemon keeps few descriptors and little memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::project;
use crate::lines::Client;
use crate::markers::Markers;
use crate::ordinary::program;
use crate::tree_scale::{resident, walk};

const DIRECTORIES: usize = 100;
const FILES_A_DIRECTORY: usize = 1_000;
const OPEN: usize = 1_000;
/// More files than the daemon keeps descriptors for.
const OTHERS: usize = 1_200;
const DESCRIPTORS_MOST: usize = 20_000;
const GROWTH_MOST: usize = 100 << 20;

/// What happens to an open file beneath the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Renamed,
    Moved,
    Replaced,
    Removed,
}

/// One of the open files.
#[derive(Clone, Copy)]
struct Open(usize);

impl Open {
    fn directory(self) -> usize {
        self.0 % DIRECTORIES
    }

    fn fate(self) -> Fate {
        match self.0 / DIRECTORIES {
            0 => Fate::Replaced,
            1 => Fate::Removed,
            n if n % 2 == 0 => Fate::Renamed,
            _ => Fate::Moved,
        }
    }

    fn path(self) -> PathBuf {
        place(self.directory(), self.0 / DIRECTORIES * 7)
    }

    /// The path of the file at the end, if it still has one.
    fn path_in_the_end(self) -> Option<PathBuf> {
        let name = format!("renamed{}", self.0);
        match self.fate() {
            Fate::Renamed => Some(directory(self.directory()).join(name)),
            Fate::Moved => Some(directory((self.directory() + 1) % DIRECTORIES).join(name)),
            Fate::Replaced | Fate::Removed => None,
        }
    }

    fn happens(self, beneath: &Path) {
        let path = beneath.join(self.path());
        match self.fate() {
            Fate::Renamed | Fate::Moved => {
                fs::rename(path, beneath.join(self.path_in_the_end().unwrap())).unwrap();
            }
            Fate::Replaced => {
                let new = path.with_extension("new");
                fs::write(&new, "new").unwrap();
                fs::rename(new, path).unwrap();
            }
            Fate::Removed => fs::remove_file(path).unwrap(),
        }
    }
}

fn directory(n: usize) -> PathBuf {
    format!("many/d{n:03}").into()
}

fn place(d: usize, n: usize) -> PathBuf {
    directory(d).join(format!("f{n:04}"))
}

/// The first content of a file.
fn content(path: &Path) -> String {
    format!("this is {}", path.display())
}

fn ask(client: &mut Client, call: Value) -> Value {
    let answer = client.ask(&call.to_string()).unwrap_or_else(|how| panic!("{call}: {how}"));
    serde_json::from_str(&answer).unwrap()
}

#[test]
fn a_thousand_open_files_of_a_hundred_thousand_go_on_whatever_becomes_of_their_names() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: this test needs root");
    }
    let project = project!();
    let source = project.source().to_path_buf();
    fs::write(source.join(".gitignore"), "*\n").unwrap();
    fs::create_dir(source.join("others")).unwrap();
    for d in 0..DIRECTORIES {
        fs::create_dir_all(source.join(directory(d))).unwrap();
        for path in (0..FILES_A_DIRECTORY).map(|n| place(d, n)) {
            fs::write(source.join(&path), content(&path)).unwrap();
        }
    }
    let mut mounted = project.mount(&["stale_writes=allow"]);
    let root = mounted.path().to_path_buf();
    let (mut markers, mut client) = (Markers::new(&root, &source), program(&root));
    let (start, before) = (Instant::now(), resident(&mounted));
    let shown = |what: &str| {
        let (memory, descriptors) = (resident(&mounted), mounted.daemon_fds().len());
        let grown = memory.saturating_sub(before);
        let (mib, each) = (grown as f64 / f64::from(1 << 20), grown / (DIRECTORIES * FILES_A_DIRECTORY));
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{what:44} {mib:>7.1} MiB more, {each:>5} bytes a file, {descriptors:>6} open, {seconds:>5.1} s"
        );
        assert!(descriptors < DESCRIPTORS_MOST, "{descriptors} descriptors: {what}");
        assert!(grown < GROWTH_MOST, "{mib:.0} MiB: {what}");
    };
    // Half of the files are opened before the other files are examined, half of them afterwards.
    let open = |client: &mut Client, odd: usize| {
        for file in (odd..OPEN).step_by(2).map(Open) {
            assert_eq!(ask(client, json!(["open", file.0, file.path(), "RDWR"])), Value::Null);
        }
    };
    open(&mut client, 0);
    shown("half of the files are open");
    assert_eq!(walk(&root.join("many")), DIRECTORIES * FILES_A_DIRECTORY);
    shown("all files are known");
    open(&mut client, 1);
    shown("the other half is open");
    (0..OPEN).for_each(|n| Open(n).happens(&source));
    assert!(markers.barrier(), "a change beneath is not seen");
    shown("they are renamed, replaced and removed");
    assert_eq!(ask(&mut client, json!(["touch", "others", OTHERS])), Value::Null);
    shown("others were used meanwhile");

    let mut wrong = Vec::new();
    for file in (0..OPEN).map(Open) {
        let says = content(&file.path());
        let names = u64::from(file.path_in_the_end().is_some());
        let calls = [
            (json!(["pread", file.0, 100, 0]), json!([says.len(), says])),
            (json!(["write", file.0, 1, 1]), json!(1)),
            (json!(["pwrite", file.0, file.0, 100, 100]), json!(100)),
            (json!(["fstat", file.0]), json!(["file", "0o100644", names, 200, "changed"])),
            (json!(["fsync", file.0]), Value::Null),
        ];
        for (call, expected) in calls.into_iter().take(if file.0 % 10 == 0 { 5 } else { 4 }) {
            let answer = ask(&mut client, call.clone());
            if answer != expected {
                wrong.push(format!("{:?}: {call} is {answer}, not {expected}", file.fate()));
            }
        }
    }
    shown("they are read and written");
    let first: Vec<_> = wrong.iter().step_by((wrong.len() / 20).max(1)).collect();
    assert!(wrong.is_empty(), "{} answers are wrong, such as {first:#?}", wrong.len());
    for file in (0..OPEN).map(Open) {
        match file.path_in_the_end() {
            Some(path) => {
                let text = fs::read(source.join(path)).unwrap();
                assert_eq!((text.len(), text[0]), (200, b'1'), "file {}", file.0);
            }
            None => {
                let there = fs::read_to_string(source.join(file.path())).ok();
                assert_eq!(there.as_deref(), (file.fate() == Fate::Replaced).then_some("new"));
            }
        }
    }
    drop(client);
    mounted.stop();
}
