//! The processes that may have a file open for a worker: the known processes of the worker and their descendants, read from `/proc`.
//!
//! May assume: `/proc` is that of the pid namespace in which the daemon runs.
//! Must never: scan a process that is not related to the worker: the duration of a scan must not depend on what else runs on the machine.
//! Must never scan the daemon itself, which has many descriptors and holds nothing for a worker. Must never take the memory lock of a
//! process, because threads that serve the kernel scan too.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use super::open_files::{OpenFiles, OpenForWriting, OpenState, processes};
use crate::fs::Ino;
use crate::queue::Instant;

/// The largest number of times that the children of a process are read until two readings agree.
const READINGS: usize = 4;

/// A scan of several processes. Each process is read once, when it is first needed.
#[derive(Default)]
pub(super) struct ProcessScan {
    seen: HashMap<u32, ScannedProcess>,
    /// The children of every process, where the kernel does not list the children of one.
    all_children: Option<HashMap<u32, Vec<u32>>>,
    may_wait: bool,
    began: Instant,
}

/// The result for one process.
#[derive(Default)]
struct ScannedProcess {
    open: OpenForWriting,
    /// The state that stands for all its files if its descriptors could not be read.
    unread: Option<OpenState>,
    children: Option<Vec<u32>>,
}

impl ProcessScan {
    /// A scan by a thread that may wait for other processes. It begins now.
    pub(super) fn patient(now: Instant) -> ProcessScan {
        ProcessScan { may_wait: true, began: now, ..ProcessScan::default() }
    }

    /// The time before the first process was read.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// Whether the thread may wait for other processes. Threads that serve the kernel may not.
    pub(super) fn may_wait(&self) -> bool {
        self.may_wait
    }

    /// How a process has a file open for writing. A reading that began at `since` or earlier does not count.
    pub(super) fn open_state(
        &mut self,
        descriptors: &OpenFiles,
        process: u32,
        ino: Ino,
        since: Instant,
    ) -> OpenState {
        let scanned = self.scan(descriptors, process);
        match scanned.unread {
            Some(state) => state,
            None if !scanned.open.is_newer_than(since) => OpenState::Hidden,
            None if scanned.open.files.contains_key(&ino) => descriptors.open_state(process, ino, since),
            None => OpenState::Done,
        }
    }

    /// These processes and all their descendants. The descriptors of each are read before its children: so if a process passes a
    /// descriptor to a child and closes it, the scan finds the descriptor in one of the two.
    pub(super) fn family(
        &mut self,
        descriptors: &OpenFiles,
        roots: impl IntoIterator<Item = u32>,
    ) -> Vec<u32> {
        let (mut family, mut known) = (Vec::new(), HashSet::new());
        family.extend(roots.into_iter().filter(|process| known.insert(*process)));
        let mut next = 0;
        while let Some(process) = family.get(next).copied() {
            self.scan(descriptors, process);
            family.extend(self.children(process).iter().filter(|child| known.insert(**child)));
            next += 1;
        }
        family
    }

    /// All files of the tree that these processes have open for writing.
    pub(super) fn open_files(&mut self, descriptors: &OpenFiles, processes: &[u32]) -> HashSet<Ino> {
        let mut files = HashSet::new();
        for process in processes {
            files.extend(self.scan(descriptors, *process).open.files.keys());
        }
        files
    }

    fn scan(&mut self, descriptors: &OpenFiles, process: u32) -> &mut ScannedProcess {
        self.seen.entry(process).or_insert_with(|| {
            let mut seen = ScannedProcess::default();
            if process != std::process::id() {
                match descriptors.open_for_writing(process) {
                    Ok(open) => seen.open = open,
                    Err(error) => seen.unread = Some(OpenState::of_error(&error)),
                }
            }
            seen
        })
    }

    fn children(&mut self, process: u32) -> &[u32] {
        let ProcessScan { seen, all_children, .. } = self;
        let seen = seen.entry(process).or_default();
        seen.children.get_or_insert_with(|| {
            if process == std::process::id() {
                Vec::new()
            } else if all_children.is_none() && kernel_lists_children() {
                children_of(process)
            } else {
                all_children.get_or_insert_with(children_of_all).get(&process).cloned().unwrap_or_default()
            }
        })
    }
}

/// Whether the kernel lists the children of a process (`CONFIG_PROC_CHILDREN`).
fn kernel_lists_children() -> bool {
    static LISTS: OnceLock<bool> = OnceLock::new();
    *LISTS.get_or_init(|| Path::new("/proc/thread-self/children").exists())
}

/// The children of a process. The kernel may omit a child when another ends meanwhile, so they are read until two readings agree.
fn children_of(process: u32) -> Vec<u32> {
    let read = || -> HashSet<u32> {
        let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
        lists
            .flat_map(|line| line.split_ascii_whitespace().flat_map(str::parse).collect::<Vec<u32>>())
            .collect()
    };
    let (mut all, mut last) = (HashSet::new(), read());
    for _ in 1..READINGS {
        let again = read();
        let agree = again == last;
        all.extend(std::mem::replace(&mut last, again));
        if agree {
            break;
        }
    }
    all.extend(last);
    all.into_iter().collect()
}

/// The children of every process: one pass over `/proc` that reads only parents. Reading `status` takes no lock of the process.
fn children_of_all() -> HashMap<u32, Vec<u32>> {
    let mut all: HashMap<u32, Vec<u32>> = HashMap::new();
    for process in processes() {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        if let Some(parent) = parent.and_then(|parent| parent.trim().parse().ok()) {
            all.entry(parent).or_default().push(process);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::fs::MetadataExt;
    use std::process::{Child, Command, Stdio};

    /// A shell whose child passes `file`, open for writing, on to a child of its own; and the pid of that grandchild. They live until
    /// the standard input of the first ends.
    fn generations(file: &Path) -> (Child, u32) {
        let last = r#"sh -c "echo \$\$; read -r x" <&5"#;
        let script = format!("exec 5<&0; sh -c '{last} & exec 3>&-; wait' 3>>\"$1\" & read -r x; wait");
        let mut child = Command::new("sh")
            .args(["-c", &script, "sh"])
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (child, line.trim().parse().unwrap())
    }

    #[test]
    fn descendants_are_found_in_either_way_and_no_other_process_is_scanned() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "").unwrap();
        let meta = fs::metadata(&path).unwrap();
        let descriptors = OpenFiles::default();
        descriptors.mounted((rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev())));
        let (mut child, grandchild) = generations(&path);
        for all_children in [None, Some(children_of_all())] {
            let mut scan = ProcessScan { all_children, ..ProcessScan::default() };
            let family = scan.family(&descriptors, [child.id()]);
            assert_eq!((family[0], family.len(), family[2]), (child.id(), 3, grandchild), "{family:?}");
            assert_eq!(scan.seen.len(), 3);
            assert_eq!(
                scan.open_state(&descriptors, child.id(), meta.ino(), Instant::default()),
                OpenState::Done,
                "it never had it"
            );
            assert_eq!(
                scan.open_state(&descriptors, grandchild, meta.ino(), Instant::default()),
                OpenState::Appending
            );
            assert!(scan.open_files(&descriptors, &family).contains(&meta.ino()));
            assert!(!scan.open_files(&descriptors, &family[..1]).contains(&meta.ino()));
        }
        drop(child.stdin.take());
        child.wait().unwrap();
        let mut scan = ProcessScan::default();
        assert_eq!(scan.family(&descriptors, [child.id()]), [child.id()]);
        assert_eq!(
            scan.open_state(&descriptors, child.id(), meta.ino(), Instant::default()),
            OpenState::Done
        );
    }

    #[test]
    fn the_daemon_itself_is_not_scanned_and_an_invisible_process_is_hidden() {
        let dir = tempfile::tempdir().unwrap();
        let file = fs::File::create(dir.path().join("f")).unwrap();
        let meta = file.metadata().unwrap();
        let descriptors = OpenFiles::default();
        descriptors.mounted((rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev())));
        let mut scan = ProcessScan::default();
        let me = std::process::id();
        assert_eq!(scan.open_state(&descriptors, me, meta.ino(), Instant::default()), OpenState::Done);
        assert_eq!(scan.family(&descriptors, [me, me]), [me]);
        assert_eq!(scan.open_state(&descriptors, 0, meta.ino(), Instant::default()), OpenState::Hidden);
    }
}
