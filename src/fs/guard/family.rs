//! The processes that may have a file open for a worker: those that are known, and what descends from them. Read from `/proc`.
//!
//! May assume: `/proc` is that of the pid namespace in which the daemon runs.
//! Must never: look at a process that has nothing to do with the worker: how long a look takes must not depend on what else
//! runs on the machine. Nor at the daemon itself, which has many descriptors and holds nothing for a worker. Nor take the memory
//! lock of a process: threads that serve the kernel look, too.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use super::open_files::{OpenFiles, OpenForWriting, OpenState, processes};
use crate::fs::Ino;
use crate::queue::Instant;

/// How often the children of a process are read at most until two readings agree.
const READINGS: usize = 4;

/// One look at a few processes: each is looked at once, when it is first needed.
#[derive(Default)]
pub(super) struct ProcessScan {
    seen: HashMap<u32, ScannedProcess>,
    /// The children of every process, where the kernel does not tell them one by one.
    all_children: Option<HashMap<u32, Vec<u32>>>,
    may_wait: bool,
    began: Instant,
}

/// What was seen of one process.
#[derive(Default)]
struct ScannedProcess {
    open: OpenForWriting,
    /// What is known without a look, if there was none.
    unseen: Option<OpenState>,
    children: Option<Vec<u32>>,
}

impl ProcessScan {
    /// For a thread that may wait for other processes. It begins now.
    pub(super) fn patient(now: Instant) -> ProcessScan {
        ProcessScan { may_wait: true, began: now, ..ProcessScan::default() }
    }

    /// Before any of the looks.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// Whether the thread may wait for other processes, as those that serve the kernel may not.
    pub(super) fn may_wait(&self) -> bool {
        self.may_wait
    }

    /// How a process has a file open for writing. What it had open at this moment, or before, does not count.
    pub(super) fn sight(
        &mut self,
        descriptors: &OpenFiles,
        process: u32,
        ino: Ino,
        since: Instant,
    ) -> OpenState {
        let seen = self.look(descriptors, process);
        match seen.unseen {
            Some(state) => state,
            None if !seen.open.is_newer_than(since) => OpenState::Hidden,
            None if seen.open.files.contains_key(&ino) => descriptors.sight(process, ino, since),
            None => OpenState::Done,
        }
    }

    /// These processes and all that descend from them. The descriptors of each are looked at before its children are asked for: a
    /// process that passes a descriptor on and closes it is seen with it, or its child is.
    pub(super) fn family(
        &mut self,
        descriptors: &OpenFiles,
        roots: impl IntoIterator<Item = u32>,
    ) -> Vec<u32> {
        let (mut family, mut known) = (Vec::new(), HashSet::new());
        family.extend(roots.into_iter().filter(|process| known.insert(*process)));
        let mut at = 0;
        while let Some(process) = family.get(at).copied() {
            self.look(descriptors, process);
            family.extend(self.children(process).iter().filter(|child| known.insert(**child)));
            at += 1;
        }
        family
    }

    /// All files of the tree that these processes have open for writing.
    pub(super) fn open_files(&mut self, descriptors: &OpenFiles, processes: &[u32]) -> HashSet<Ino> {
        let mut files = HashSet::new();
        for process in processes {
            files.extend(self.look(descriptors, *process).open.files.keys());
        }
        files
    }

    fn look(&mut self, descriptors: &OpenFiles, process: u32) -> &mut ScannedProcess {
        self.seen.entry(process).or_insert_with(|| {
            let mut seen = ScannedProcess::default();
            if process != std::process::id() {
                match descriptors.open_for_writing(process) {
                    Ok(open) => seen.open = open,
                    Err(error) => seen.unseen = Some(OpenState::without_look(&error)),
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
            } else if all_children.is_none() && kernel_tells_children() {
                children_of(process)
            } else {
                all_children.get_or_insert_with(children_of_all).get(&process).cloned().unwrap_or_default()
            }
        })
    }
}

/// Whether the kernel tells the children of a process (`CONFIG_PROC_CHILDREN`).
fn kernel_tells_children() -> bool {
    static TELLS: OnceLock<bool> = OnceLock::new();
    *TELLS.get_or_init(|| Path::new("/proc/thread-self/children").exists())
}

/// The children of a process. The kernel may leave one out when another ends meanwhile, so they are read until two readings agree.
fn children_of(process: u32) -> Vec<u32> {
    let read = || -> HashSet<u32> {
        let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        let told = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
        told.flat_map(|line| line.split_ascii_whitespace().flat_map(str::parse).collect::<Vec<u32>>())
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

/// The children of every process: one pass over `/proc` that reads nothing but parents. `status` tells them without any lock of the
/// process.
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

    /// A shell whose child passes `file`, open for writing, on to a child of its own, and the number of that one. They live until
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
    fn what_descends_from_a_process_is_found_in_either_way_and_nothing_else_is_looked_at() {
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
                scan.sight(&descriptors, child.id(), meta.ino(), Instant::default()),
                OpenState::Done,
                "it never had it"
            );
            assert_eq!(
                scan.sight(&descriptors, grandchild, meta.ino(), Instant::default()),
                OpenState::Appending
            );
            assert!(scan.open_files(&descriptors, &family).contains(&meta.ino()));
            assert!(!scan.open_files(&descriptors, &family[..1]).contains(&meta.ino()));
        }
        drop(child.stdin.take());
        child.wait().unwrap();
        let mut scan = ProcessScan::default();
        assert_eq!(scan.family(&descriptors, [child.id()]), [child.id()]);
        assert_eq!(scan.sight(&descriptors, child.id(), meta.ino(), Instant::default()), OpenState::Done);
    }

    #[test]
    fn the_daemon_itself_is_not_looked_at_and_one_that_cannot_be_seen_is_hidden() {
        let dir = tempfile::tempdir().unwrap();
        let file = fs::File::create(dir.path().join("f")).unwrap();
        let meta = file.metadata().unwrap();
        let descriptors = OpenFiles::default();
        descriptors.mounted((rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev())));
        let mut scan = ProcessScan::default();
        let me = std::process::id();
        assert_eq!(scan.sight(&descriptors, me, meta.ino(), Instant::default()), OpenState::Done);
        assert_eq!(scan.family(&descriptors, [me, me]), [me]);
        assert_eq!(scan.sight(&descriptors, 0, meta.ino(), Instant::default()), OpenState::Hidden);
    }
}
