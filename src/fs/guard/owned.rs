//! Files that belong to a claimed task by its `owns` globs (C53).
//!
//! May assume: the queue's state holds only acknowledged events.
//! Must never: keep a glob longer than the claim.

use std::path::Path;
use std::sync::Arc;

use ignore::gitignore::Gitignore;
use parking_lot::Mutex;

use super::gitignore::rules;
use crate::engine::Engine;
use crate::queue::{Actor, Seq, TaskId, TaskState, Wall, WorkerName, owned_files, owned_roots};

/// A claimed task that owns files.
pub(super) struct OwningTask {
    pub(super) task: TaskId,
    pub(super) worker: WorkerName,
    pub(super) since: Wall,
    /// The user of that worker.
    uid: u32,
    epoch: Seq,
    globs: Gitignore,
    /// The leading directories of each glob that is bound to the root. A worker may not move these directories as a whole.
    roots: Vec<String>,
}

impl OwningTask {
    /// Whether a glob matches the path, or a directory above it.
    fn owns(&self, path: &Path, is_directory: bool) -> bool {
        self.globs.matched_path_or_any_parents(path, is_directory).is_ignore()
    }

    /// Whether a glob may match something below this directory.
    fn owns_below(&self, directory: &Path) -> bool {
        self.roots.iter().any(|root| Path::new(root).starts_with(directory))
    }
}

/// All owners at present.
pub(super) struct Owned {
    engine: Arc<Engine>,
    known: Mutex<KnownOwners>,
}

/// The owners as of a position in the log.
#[derive(Default)]
struct KnownOwners {
    at: Option<Seq>,
    owners: Arc<[Arc<OwningTask>]>,
}

impl Owned {
    pub(super) fn new(engine: Arc<Engine>) -> Owned {
        Owned { engine, known: Mutex::default() }
    }

    /// All claimed tasks that own files now.
    pub(super) fn owners(&self) -> Arc<[Arc<OwningTask>]> {
        let state = self.engine.state();
        let mut known = self.known.lock();
        if known.at == Some(state.tail()) {
            return known.owners.clone();
        }
        let before = known.owners.clone();
        let claimed = state.listed(TaskState::Claimed).filter_map(|id| {
            let task = state.task(id.as_str())?;
            let claim = task.claim()?;
            if task.spec.owns.is_empty() {
                return None;
            }
            let same = before.iter().find(|owner| owner.epoch == claim.epoch() && owner.task == *id);
            Some(same.cloned().unwrap_or_else(|| {
                Arc::new(OwningTask {
                    task: id.clone(),
                    worker: claim.worker.clone(),
                    since: claim.since.at,
                    uid: state.worker(claim.worker.as_str()).map_or(0, |worker| worker.uid),
                    epoch: claim.epoch(),
                    globs: globs_of(id, &task.spec.owns),
                    roots: owned_roots(&task.spec.owns),
                })
            }))
        });
        *known = KnownOwners { at: Some(state.tail()), owners: claimed.collect() };
        known.owners.clone()
    }
}

/// How far a change reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// The file at the path, which is not a directory.
    File,
    /// The directory at the path.
    Directory,
    /// The directory at the path, with all that is in it.
    Whole,
}

/// The task that owns the file at this path, so that this actor may not change it. No task keeps a file from an operator, or from root if
/// its worker belongs to another user.
pub(super) fn owner_of<'a>(
    owners: &'a [Arc<OwningTask>],
    path: &Path,
    reach: Reach,
    actor: Option<&Actor>,
) -> Option<&'a OwningTask> {
    let may_change = |owner: &OwningTask| match actor {
        Some(actor) => owner.worker == actor.worker || actor.operator || actor.uid == 0 && owner.uid != 0,
        None => false,
    };
    let mut others = owners.iter().filter(|owner| !may_change(owner));
    let owner = others.find(|owner| {
        owner.owns(path, reach != Reach::File) || reach == Reach::Whole && owner.owns_below(path)
    });
    owner.map(|owner| &**owner)
}

/// The globs of a task. They were checked when its file was read; but a task that an older crewfs accepted may have invalid ones.
fn globs_of(task: &TaskId, owns: &[String]) -> Gitignore {
    let globs = owns.iter().map(String::as_str);
    owned_files(globs.clone()).unwrap_or_else(|why| {
        log::warn!("{task} owns less than its front matter says: {why}");
        rules(globs)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(worker: &str, globs: &[&str]) -> Arc<OwningTask> {
        Arc::new(OwningTask {
            task: TaskId::parse("t").unwrap(),
            worker: WorkerName::parse(worker).unwrap(),
            since: Wall(0),
            uid: 1_000,
            epoch: 1,
            globs: owned_files(globs.iter().copied()).unwrap(),
            roots: owned_roots(&globs.iter().map(|glob| glob.to_string()).collect::<Vec<_>>()),
        })
    }

    fn owns(globs: &[&str], path: &str, reach: Reach) -> bool {
        let owners = [owner("w1", globs)];
        let actor = |name: &str, uid, operator| {
            let worker = WorkerName::parse(name).unwrap();
            Actor { worker, uid, operator }
        };
        let (holder, other) = (actor("w1", 1_000, false), actor("w2", 1_000, false));
        for free in [actor("root", 0, false), actor("w2", 1_001, true)] {
            assert!(owner_of(&owners, Path::new(path), reach, Some(&free)).is_none());
        }
        assert!(owner_of(&owners, Path::new(path), reach, Some(&holder)).is_none());
        let owned = owner_of(&owners, Path::new(path), reach, Some(&other)).is_some();
        assert_eq!(owned, owner_of(&owners, Path::new(path), reach, None).is_some());
        owned
    }

    #[test]
    fn globs_are_those_of_gitignore() {
        for (globs, path) in [
            (&["src/api/**"][..], "src/api/v1/a.rs"),
            (&["src/api/"], "src/api/v1/a.rs"),
            (&["*.sql"], "db/schema.sql"),
            (&["/docs"], "docs/a.md"),
        ] {
            assert!(owns(globs, path, Reach::File), "{path}");
        }
        assert!(!owns(&["/docs"], "docs2", Reach::File));
        assert!(!owns(&["src/**", "!src/shared.rs"], "src/shared.rs", Reach::File));
    }

    #[test]
    fn a_directory_above_owned_files_does_not_move() {
        assert!(owns(&["src/api/**"], "src", Reach::Whole));
        assert!(owns(&["src/api/*.rs"], "src/api", Reach::Whole));
        assert!(!owns(&["src/api/**"], "src", Reach::Directory));
        assert!(!owns(&["src/api/**"], "srcs", Reach::Whole));
        assert!(!owns(&["*.md"], "src", Reach::Whole));
    }
}
