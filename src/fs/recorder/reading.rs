//! What the history tells the tasks directory: the changes of one task, as far as a caller may read them.
//!
//! May assume: the caller waits for the answer.
//! Must never: show a version to a caller that may not read the file, or make a thread wait for longer than [`READ_WAIT_MS`].

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use super::Recorder;
use super::recording::HistoryRequest;
use crate::fs::permissions::allow;
use crate::fs::{FsError, Request, Result};
use crate::history::{PathChange, Version};
use crate::limits::{DIFFS_KEPT, READ_WAIT_MS};
use crate::queue::{Access, TaskId, Wanted};

/// A diff that was made for a caller.
pub(super) struct KnownDiff {
    task: TaskId,
    uid: u32,
    gid: u32,
    /// [`super::table::Table::revision`] when it was made.
    revision: u64,
    diff: Arc<[u8]>,
}

impl Recorder {
    /// The unified diff of what a task has changed, without the files that the caller may not read.
    ///
    /// # Errors
    /// Why the history cannot be read.
    pub fn task_diff(self: &Arc<Self>, task: &TaskId, req: &Request) -> Result<Arc<[u8]>> {
        let revision = self.state.lock().table.revision(task);
        let is_it = |known: &KnownDiff| {
            (&known.task, known.uid, known.gid, known.revision) == (task, req.uid, req.gid, revision)
        };
        if let Some(known) = self.diffs.lock().iter().find(|known| is_it(known)) {
            return Ok(known.diff.clone());
        }
        let changes = self.task_changes(task)?;
        let all = changes.len();
        let seen: Vec<PathChange> = changes.into_iter().filter(|change| self.may_read(req, change)).collect();
        let hidden = all - seen.len();
        let (sender, receiver) = sync_channel(1);
        self.order(HistoryRequest::Read(Box::new(move |repository| {
            let diff = repository.and_then(|it| it.diff(&seen, false).map_err(|error| error.to_string()));
            let _ = sender.send(diff);
        })));
        let mut diff = wait(receiver)?;
        if hidden > 0 {
            diff.splice(0..0, format!("{hidden} files that you may not read are left out\n").into_bytes());
        }
        let diff: Arc<[u8]> = diff.into();
        let mut diffs = self.diffs.lock();
        diffs.retain(|known| known.task != *task || known.revision == revision);
        if diffs.len() >= DIFFS_KEPT {
            diffs.remove(0);
        }
        let (task, uid, gid) = (task.clone(), req.uid, req.gid);
        diffs.push(KnownDiff { task, uid, gid, revision, diff: diff.clone() });
        Ok(diff)
    }

    /// What a task has changed until now, each path once.
    fn task_changes(&self, task: &TaskId) -> Result<Vec<PathChange>> {
        let (sender, receiver) = sync_channel(1);
        let task = task.clone();
        self.order(HistoryRequest::ReadTask(
            task.clone(),
            Box::new(move |repository| {
                let changes =
                    repository.and_then(|it| it.task_changes(&task, None).map_err(|error| error.to_string()));
                let _ = sender.send(changes);
            }),
        ));
        wait(receiver)
    }

    /// Whether a caller may read the versions of a change: the file of each, and the directories above.
    fn may_read(&self, req: &Request, change: &PathChange) -> bool {
        let may = |version: &Version| {
            let Version { mode, uid, gid, .. } = *version;
            allow(&Access { uid, gid, mode: (mode & 0o777) as u16, acl: Vec::new() }, req, Wanted::Read)
        };
        [&change.before, &change.after].into_iter().flatten().all(may) && self.may_search(req, &change.path)
    }

    /// Whether a caller may search the directories above a path, as far as they exist.
    fn may_search(&self, req: &Request, path: &Path) -> bool {
        path.ancestors().skip(1).all(|directory| {
            let shown = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
            let Ok(Some(present)) = self.files.present_at_path(shown) else { return true };
            let attr = present.attr;
            // The right to search, in the place of the right to read.
            let mode = (attr.perm & 0o111) << 2;
            allow(&Access { uid: attr.uid, gid: attr.gid, mode, acl: Vec::new() }, req, Wanted::Read)
        })
    }
}

fn wait<T>(answer: std::sync::mpsc::Receiver<std::result::Result<T, String>>) -> Result<T> {
    match answer.recv_timeout(Duration::from_millis(READ_WAIT_MS)) {
        Ok(answer) => answer.map_err(FsError::History),
        Err(_) => Err(FsError::History("the history is busy; try again".into())),
    }
}
