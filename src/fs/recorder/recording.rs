//! The thread that reads what authors leave, stores content in the repository, and records the steps.
//!
//! May assume: it alone writes the repository.
//! Must never: hold the recorder's state while it reads or writes a file, or end a request without an answer.
//!
//! A version that is read counts only if the path's entry has not changed meanwhile. A caller that changes the path next has then not yet
//! been let in, so the content is that of the entry's author.

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::journal::Journal;
use super::records::{Author, ContentSource, Item, Observed, Snapshot, SnapshotKind, StepId};
use super::table::{Due, Table};
use super::{Recorder, RecorderState};
use crate::fs::files::Present;
use crate::history::{
    ClaimEnd, ContentId, HistoryError, KeptContent, PathChange, Repository, Step, TaskClaim, Version,
    VersionKind,
};
use crate::limits::{
    HISTORY_ITEMS, HISTORY_PACK_MS, HISTORY_PRUNE_MS, HISTORY_QUIET_MS, HISTORY_STEP_MS, JOURNAL_LINES,
};
use crate::queue::{Instant, Phase, Seq, Span, Task, TaskId, Wall};

/// The pause between two rounds while there is something to do.
const ROUND: Duration = Duration::from_millis(100);
/// The pause while there is nothing to do, or after a failure.
const IDLE_ROUND: Duration = Duration::from_secs(1);
/// The history is bounded when this part of what it may take was stored since the last time.
const PRUNE_SHARE: u64 = 8;

/// Reads the repository.
type Reading = Box<dyn FnOnce(Result<&mut Repository, String>) + Send>;

/// A request to the thread.
pub(super) enum HistoryRequest {
    /// Call this when all changes made until now are in the repository.
    Flush(Box<dyn FnOnce(Result<(), String>) + Send>),
    /// Call this with the repository.
    Read(Reading),
    /// Call this with the repository when all changes that the task has made until now are in it.
    ReadTask(TaskId, Reading),
}

/// Start the thread. It ends when the recorder is stopped or gone.
pub(super) fn start(recorder: &Arc<Recorder>) -> io::Result<()> {
    let repository = open_repository(recorder).map_err(io::Error::other)?;
    let (weak, began) = (Arc::downgrade(recorder), (recorder.clock)().instant);
    let thread = std::thread::Builder::new().name("history".into()).spawn(move || {
        let mut thread = Recording {
            repository,
            is_loose: true,
            packed: began,
            pruned: None,
            stored: Cell::new(0),
            failure: None,
        };
        while let Some(recorder) = Weak::upgrade(&weak) {
            if !thread.round(&recorder) {
                break;
            }
        }
    })?;
    *recorder.thread.lock() = Some(thread);
    Ok(())
}

fn open_repository(recorder: &Recorder) -> Result<Repository, String> {
    let directory =
        recorder.directory.subdirectory(crate::history::REPOSITORY).map_err(|error| error.to_string())?;
    Repository::open(directory, true).map_err(|error| error.to_string())
}

struct Recording {
    repository: Repository,
    /// Whether anything was recorded since the repository was last packed.
    is_loose: bool,
    packed: Instant,
    /// When the history was last bounded; `None` since the start.
    pruned: Option<Instant>,
    /// How many bytes of content were stored since then.
    stored: Cell<u64>,
    /// Why the last round failed.
    failure: Option<String>,
}

/// What a round is to bring into the repository.
#[derive(Clone, Copy)]
struct RoundScope<'a> {
    /// Everything that was changed until now.
    all: bool,
    /// It is the last round: the next daemon finds no open entry.
    closing: bool,
    /// Otherwise, what these tasks have changed.
    tasks: &'a HashSet<TaskId>,
}

impl Recording {
    /// One round; false when the recorder was stopped.
    fn round(&mut self, recorder: &Recorder) -> bool {
        let (requests, closed) = {
            let mut waiting = recorder.requests.lock();
            let stirred = recorder.stirred.swap(false, Ordering::AcqRel) && self.failure.is_none();
            if waiting.waiting.is_empty() && !waiting.closed && !stirred {
                let is_busy = self.failure.is_none() && Recording::is_busy(recorder);
                recorder.work.wait_for(&mut waiting, if is_busy { ROUND } else { IDLE_ROUND });
            }
            (std::mem::take(&mut waiting.waiting), waiting.closed)
        };
        let now = (recorder.clock)().instant;
        let all = closed || requests.iter().any(|request| matches!(request, HistoryRequest::Flush(_)));
        let tasks = requests.iter().filter_map(|request| match request {
            HistoryRequest::ReadTask(task, _) => Some(task.clone()),
            _ => None,
        });
        let tasks: HashSet<TaskId> = tasks.collect();
        let outcome = self.work(recorder, now, RoundScope { all, closing: closed, tasks: &tasks });
        let outcome = outcome.map_err(|error| error.to_string());
        // The same failure in each round is said once.
        if let Err(error) = &outcome
            && self.failure.as_ref() != Some(error)
        {
            log::error!("{error}");
        }
        self.failure = outcome.clone().err();
        if outcome.is_err() {
            self.open_again(recorder);
        }
        for request in requests {
            match (request, outcome.clone()) {
                (HistoryRequest::Flush(answer), outcome) => answer(outcome),
                (HistoryRequest::Read(answer) | HistoryRequest::ReadTask(_, answer), outcome) => {
                    answer(outcome.map(|()| &mut self.repository));
                }
            }
        }
        if !closed && outcome.is_ok() {
            self.tidy(recorder, now);
        }
        !closed
    }

    /// Pack and bound the repository from time to time, while no request waits.
    fn tidy(&mut self, recorder: &Recorder, now: Instant) {
        let is_due = |last: Instant, span: u64| now.since(last) >= Span(span);
        // Workers that change large files by turns could fill the disk between two times.
        let is_large = self.stored.get() > recorder.config.bytes / PRUNE_SHARE;
        if !is_due(self.packed, HISTORY_PACK_MS) && !is_large {
            return;
        }
        let mut go_on = || {
            let requests = recorder.requests.lock();
            !requests.closed && requests.waiting.is_empty()
        };
        let packed = if self.is_loose { self.repository.pack(&mut go_on) } else { Ok(()) };
        (self.is_loose, self.packed) = (packed.is_err() || !go_on(), now);
        let mut outcome = packed;
        if (is_large || self.pruned.is_none_or(|last| is_due(last, HISTORY_PRUNE_MS))) && go_on() {
            let needed =
                || recorder.state.lock().table.stored_contents().into_iter().map(ContentId).collect();
            let wall = (recorder.clock)().wall;
            let age = i64::try_from(recorder.config.age.0).unwrap_or(i64::MAX);
            let oldest = Wall(wall.0.saturating_sub(age));
            outcome = outcome.and(self.repository.prune(oldest, recorder.config.bytes, &needed, &mut go_on));
            // What was interrupted goes on after the next pause.
            if go_on() {
                self.pruned = Some(now);
                self.stored.set(0);
            }
        }
        if let Err(error) = outcome {
            log::error!("the history cannot be tidied: {error}");
        }
    }

    /// Recording failed, perhaps because the repository was removed. What is not recorded stays in the table; what was stored only in
    /// the lost repository is lost.
    fn open_again(&mut self, recorder: &Recorder) {
        match open_repository(recorder) {
            Ok(repository) => {
                if repository.is_empty() {
                    recorder.update(Table::repository_lost);
                }
                self.repository = repository;
            }
            Err(error) => log::error!("the history cannot be opened again: {error}"),
        }
    }

    fn is_busy(recorder: &Recorder) -> bool {
        let state = recorder.state.lock();
        state.table.has_unread() || !state.table.is_recorded() || state.table.is_open_anywhere()
    }

    /// Read, store and record.
    fn work(
        &mut self,
        recorder: &Recorder,
        now: Instant,
        wanted: RoundScope<'_>,
    ) -> Result<(), HistoryError> {
        let quiet = if wanted.all { Span(0) } else { Span(HISTORY_QUIET_MS) };
        let unread = recorder.state.lock().table.unread(quiet, now);
        for due in &unread {
            self.read(recorder, due)?;
        }
        let open = recorder.state.lock().table.open_steps();
        for step in open {
            let claim = step.author.claim.as_ref();
            let is_over = claim.is_some() && !has_claim(recorder, &step.author);
            let is_long = |since: Instant| now.since(since) >= Span(HISTORY_STEP_MS);
            let is_idle = claim.is_none() && is_long(step.changed);
            let is_wanted = wanted.all || claim.is_some_and(|(task, _)| wanted.tasks.contains(task));
            let is_last = is_over || is_idle || wanted.closing;
            if is_last || step.unsettled.is_some_and(|since| is_long(since) || is_wanted) {
                self.settle(recorder, step.id, is_last)?;
            }
            if is_over {
                recorder.update(|table| table.end(step.id));
            }
        }
        self.store_all(recorder)?;
        self.record_all(recorder)?;
        recorder.shorten(wanted.closing);
        Ok(())
    }

    /// Bring all that a step has changed into the queue.
    fn settle(&self, recorder: &Recorder, step: StepId, last: bool) -> Result<(), HistoryError> {
        let due = recorder.state.lock().table.due(Some(step));
        for due in &due {
            self.read(recorder, due)?;
            let now = (recorder.clock)().wall;
            recorder.update(|table| table.record(due, last, now));
        }
        if !last {
            recorder.state.lock().table.settled(step);
        }
        Ok(())
    }

    /// Read what is at an entry's path, unless that version is known.
    fn read(&self, recorder: &Recorder, due: &Due) -> Result<(), HistoryError> {
        // Content that changes while it is read is read again.
        for _ in 0..3 {
            let Ok(present) = recorder.files.present_at_path(&due.path) else { return Ok(()) };
            let stamp = present.as_ref().map(|present| recorder.stamp(present));
            if recorder.state.lock().table.is_known(due, &stamp) {
                return Ok(());
            }
            let snapshot = match &present {
                Some(present) => recorder.snapshot(present, |kind| self.source(recorder, present, kind))?,
                None => None,
            };
            let again = recorder.files.present_at_path(&due.path).ok().flatten();
            if again.map(|present| recorder.stamp(&present)) == stamp {
                let found: Observed = (stamp, snapshot);
                let now = (recorder.clock)();
                recorder.update(|table| table.note(due, found, now));
                return Ok(());
            }
        }
        Ok(())
    }

    fn source(
        &self,
        recorder: &Recorder,
        present: &Present,
        kind: SnapshotKind,
    ) -> Result<ContentSource, HistoryError> {
        let size = present.attr.size;
        let stored = match kind {
            SnapshotKind::Directory => return Ok(ContentSource::NotKept(0)),
            _ if size > recorder.config.file_bytes => return Ok(ContentSource::NotKept(size)),
            SnapshotKind::Symlink => match present.target() {
                Ok(target) => self.store(target.as_bytes())?,
                Err(_) => return Ok(ContentSource::NotKept(size)),
            },
            SnapshotKind::File => match content_of(recorder, present) {
                Ok(content) => self.store(&content)?,
                Err(_) => return Ok(ContentSource::NotKept(size)),
            },
        };
        Ok(ContentSource::Stored(stored.0))
    }

    fn store(&self, content: &[u8]) -> Result<ContentId, HistoryError> {
        self.stored.set(self.stored.get() + content.len() as u64);
        self.repository.store(content)
    }

    /// Move all content of the spool into the repository.
    fn store_all(&self, recorder: &Recorder) -> Result<(), HistoryError> {
        let spool = recorder.spool.read().clone();
        let spooled = recorder.state.lock().table.spooled();
        for number in spooled {
            let source = match spool.read(number) {
                Ok(file) => {
                    let bytes = file.metadata().map_or(0, |metadata| metadata.len());
                    self.stored.set(self.stored.get() + bytes);
                    ContentSource::Stored(self.repository.store_file(&file, bytes)?.0)
                }
                Err(error) => {
                    log::error!("file {number} of the spool of the history cannot be read: {error}");
                    ContentSource::NotKept(0)
                }
            };
            recorder.update(|table| table.stored(number, source));
            spool.remove(number);
        }
        Ok(())
    }

    /// Record what is in the queue.
    fn record_all(&mut self, recorder: &Recorder) -> Result<(), HistoryError> {
        loop {
            let items = recorder.state.lock().table.queued(HISTORY_ITEMS);
            let Some(step) = items.first().map(Item::step) else { return Ok(()) };
            // Content that came into the spool after it was emptied is stored in the next round.
            let run = items.iter().take_while(|item| item.step() == step && item.is_stored()).count();
            if run == 0 {
                return Ok(());
            }
            let author = recorder.state.lock().table.author(step).cloned();
            if let Some(author) = author {
                self.record(recorder, &author, &items[..run])?;
            }
            recorder.update(|table| table.recorded(run));
        }
    }

    fn record(&mut self, recorder: &Recorder, author: &Author, items: &[Item]) -> Result<(), HistoryError> {
        let state = recorder.engine.state();
        let claim = author.claim.as_ref().map(|(task, epoch)| TaskClaim {
            task: task.clone(),
            epoch: *epoch,
            title: state.task(task.as_str()).map_or_else(String::new, |task| task.spec.title.clone()),
        });
        let mut changes: BTreeMap<&Path, PathChange> = BTreeMap::new();
        let (mut at, mut is_end) = (None, false);
        for item in items {
            match item {
                Item::End { .. } => is_end = true,
                Item::Change { path, before, after, at: when, .. } => {
                    at = Some(*when);
                    let change = changes.entry(path).or_insert_with(|| PathChange {
                        path: path.clone(),
                        before: before.map(version),
                        after: None,
                    });
                    change.after = after.map(version);
                }
            }
        }
        let mut changes: Vec<PathChange> = changes.into_values().collect();
        changes.retain(|change| change.before != change.after);
        let end = claim
            .as_ref()
            .filter(|_| is_end)
            .map(|claim| end_of(recorder, state.task(claim.task.as_str()), claim.epoch));
        let at = at.unwrap_or_else(|| (recorder.clock)().wall);
        let worker = author.worker.clone();
        if !changes.is_empty() {
            let step = Step {
                worker: worker.clone(),
                claim: claim.clone(),
                program: author.program.clone(),
                at,
                end: end.clone(),
                changes,
            };
            self.repository.record(&step)?;
            self.is_loose = true;
        }
        if let (Some(claim), Some(end), Some(worker)) = (claim, end, worker) {
            self.repository.end_task(&claim, &end, &worker)?;
        }
        Ok(())
    }
}

impl Recorder {
    /// Begin the journal anew when most of its lines say nothing any more, or at the end.
    fn shorten(&self, closing: bool) {
        let spool = self.spool.read().clone();
        let mut state = self.state.lock();
        let is_long = state.journal.len() >= JOURNAL_LINES && state.journal.len() >= 4 * state.table.len();
        if !is_long && !closing {
            return;
        }
        let RecorderState { table, journal } = &mut *state;
        let lines = table.as_lines();
        match Journal::begin(spool.directory(), &lines) {
            Ok(begun) => *journal = begun,
            Err(error) => log::error!("the journal of the history cannot be written: {error}"),
        }
    }

    /// Call `answer` when all changes made until now are in the history.
    pub fn flush(&self, answer: impl FnOnce(Result<(), String>) + Send + 'static) {
        self.order(HistoryRequest::Flush(Box::new(answer)));
    }

    pub(super) fn order(&self, request: HistoryRequest) {
        let mut requests = self.requests.lock();
        // Dropped, it answers.
        if !requests.closed {
            requests.waiting.push(request);
            self.work.notify_all();
        }
    }

    /// Record everything, and end the thread.
    pub fn stop(&self) {
        self.requests.lock().closed = true;
        self.work.notify_all();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            log::error!("the thread of the history ended by a panic");
        }
    }
}

fn version(snapshot: Snapshot) -> Version {
    let kind = match snapshot.kind {
        SnapshotKind::File => VersionKind::File,
        SnapshotKind::Symlink => VersionKind::Symlink,
        SnapshotKind::Directory => VersionKind::Directory,
    };
    let content = match snapshot.source {
        ContentSource::Stored(id) => KeptContent::Kept(ContentId(id)),
        ContentSource::NotKept(bytes) => KeptContent::NotKept { bytes },
        // The queue holds such a snapshot back.
        ContentSource::Spooled(_) => KeptContent::NotKept { bytes: 0 },
    };
    Version { kind, mode: snapshot.mode, uid: snapshot.uid, gid: snapshot.gid, content }
}

/// The content of a file of the tree. A file that grows meanwhile is cut at the length that it had.
fn content_of(recorder: &Recorder, present: &Present) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::from(recorder.files.open_present(present)?).take(present.attr.size).read_to_end(&mut content)?;
    Ok(content)
}

/// Whether the claim of an author has not ended.
fn has_claim(recorder: &Recorder, author: &Author) -> bool {
    let state = recorder.engine.state();
    let claim = author
        .claim
        .as_ref()
        .and_then(|(task, epoch)| state.task(task.as_str())?.claim().filter(|claim| claim.epoch() == *epoch));
    claim.is_some()
}

/// How the claim of this epoch ended.
fn end_of(recorder: &Recorder, task: Option<&Arc<Task>>, epoch: Seq) -> ClaimEnd {
    let Some(task) = task else { return ClaimEnd { how: "forgotten".into(), text: String::new() } };
    let how = match &task.phase {
        Phase::Completed(finish) if finish.epoch == epoch => "completed",
        Phase::Failed(finish) if finish.epoch == epoch => "failed",
        _ => match task.losses.iter().find(|loss| loss.epoch == epoch) {
            Some(loss) => loss.reason.name(),
            None => "ended",
        },
    };
    let text = task.finish().filter(|finish| finish.epoch == epoch).and_then(|finish| finish.text.as_ref());
    ClaimEnd {
        how: how.into(),
        text: text.map_or_else(String::new, |text| read_text(recorder, text.seq, &text.head)),
    }
}

/// The text of a result or a reason; its first line if the log cannot be read.
fn read_text(recorder: &Recorder, seq: Seq, head: &str) -> String {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    recorder.engine.read_text(seq, move |text| {
        let _ = sender.send(text);
    });
    match receiver.recv() {
        Ok(Ok(Some(text))) => String::from_utf8_lossy(&text).into_owned(),
        _ => head.to_owned(),
    }
}
