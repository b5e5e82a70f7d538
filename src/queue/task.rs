//! The data of a task: its parsed instructions, and its history in the queue.
//!
//! Must never: decide anything. That is for `decide` and `state`.

use std::sync::Arc;

use imbl::OrdSet;
use serde::{Deserialize, Serialize};

use super::rank::ReadyPlace;
use super::{Access, Content, Digest, LossReason, Seq, Span, TaskId, Wall, WorkerName};
use crate::limits::NAMED_IN_A_SENTENCE;

/// How urgent a task is. Lower values go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// `critical`, `P0`
    Critical,
    /// `high`, `P1`
    High,
    /// `normal`, `P2`; the default
    #[default]
    Normal,
    /// `low`, `P3`
    Low,
    /// `background`, `P4`
    Background,
}

impl Priority {
    /// Every priority, most urgent first, with its two spellings.
    pub const ALL: [(Priority, &'static str, &'static str); 5] = [
        (Priority::Critical, "critical", "P0"),
        (Priority::High, "high", "P1"),
        (Priority::Normal, "normal", "P2"),
        (Priority::Low, "low", "P3"),
        (Priority::Background, "background", "P4"),
    ];
}

/// A time that a front matter names: a fixed time, or a span from publishing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// An RFC 3339 time.
    At(Wall),
    /// A span from publishing.
    After(Span),
}

/// The front matter of an instruction file, with its defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// `title`, or the first heading, or the id.
    pub title: String,
    /// `priority`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub priority: Priority,
    /// `needs`: tasks that must be completed first, in the order given, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<TaskId>,
    /// `requires`: capabilities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<String>,
    /// `owns`: globs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owns: Vec<String>,
    /// `deadline`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<When>,
    /// `not_before`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<When>,
    /// `lease`: how long a worker without activity keeps the task; the default of the mount if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Span>,
    /// `attempts`: how many claims may be lost before the task fails.
    #[serde(default = "default_attempts", skip_serializing_if = "is_default_attempts")]
    pub attempts: u32,
    /// `context`: paths to read first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub context: Vec<String>,
    /// Warnings about the front matter, such as unknown keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// How many claims of a task may be lost before it fails, if its front matter does not say.
pub(super) const DEFAULT_ATTEMPTS: u32 = 3;

fn default_attempts() -> u32 {
    DEFAULT_ATTEMPTS
}

fn is_default_attempts(n: &u32) -> bool {
    *n == DEFAULT_ATTEMPTS
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Spec {
    /// A task that has only a title.
    pub fn titled(title: impl Into<String>) -> Spec {
        Spec {
            title: title.into(),
            priority: Priority::default(),
            needs: Vec::new(),
            requires: Vec::new(),
            owns: Vec::new(),
            deadline: None,
            not_before: None,
            lease: None,
            attempts: DEFAULT_ATTEMPTS,
            context: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

/// Why an instruction file cannot be a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The line of the file, from 1; 0 if the file as a whole is wrong.
    pub line: u64,
    /// One sentence: what is wrong and what would be right.
    pub message: String,
}

/// A parsed instruction file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Manifest {
    /// The file is a task.
    Spec(Arc<Spec>),
    /// The file is not a task, for this reason.
    Problem(Arc<Problem>),
}

impl Manifest {
    /// About how many bytes the manifest has in the log.
    pub(super) fn bytes(&self) -> u64 {
        let words = |words: &[String]| words.iter().map(|word| word.len() + 3).sum::<usize>();
        let bytes = match self {
            Manifest::Spec(spec) => {
                let needs: usize = spec.needs.iter().map(|need| need.as_str().len() + 3).sum();
                let lists = [&spec.requires, &spec.owns, &spec.context, &spec.warnings];
                spec.title.len() + needs + lists.into_iter().map(|list| words(list)).sum::<usize>()
            }
            Manifest::Problem(problem) => problem.message.len(),
        };
        bytes as u64
    }

    /// The needs that the file names.
    pub fn needs(&self) -> &[TaskId] {
        match self {
            Manifest::Spec(spec) => &spec.needs,
            Manifest::Problem(_) => &[],
        }
    }
}

/// Identifies a content of a file without reading it, and says which users may read the file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FileStamp {
    /// Inode number on the disk.
    pub ino: u64,
    /// Length in bytes.
    pub size: u64,
    /// `st_mtime` in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// The access rights of the file, if the file is or was private.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readers: Option<Arc<Access>>,
}

impl FileStamp {
    /// Whether both stamps have the same content. The access rights do not count.
    pub fn is_content_of(&self, other: &FileStamp) -> bool {
        (self.ino, self.size, self.mtime_ns) == (other.ino, other.size, other.mtime_ns)
    }
}

/// The position and the time of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Moment {
    /// Position in the log.
    pub seq: Seq,
    /// Time of the event.
    pub at: Wall,
}

/// A worker's exclusive right to a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The holder.
    pub worker: WorkerName,
    /// When the claim began; `since.seq` is the epoch.
    pub since: Moment,
    /// The last progress note.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Note>,
}

impl Claim {
    /// The fencing token: the position in the log at which this claim began.
    pub fn epoch(&self) -> Seq {
        self.since.seq
    }
}

/// A progress note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The event that carries the text.
    pub seq: Seq,
    /// What the holder wrote.
    pub text: String,
    /// When the holder wrote the note.
    pub at: Wall,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finish {
    /// The holder that finished the task; `None` if too many claims were lost, or if an operator finished it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerName>,
    /// The operator that finished the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<WorkerName>,
    /// The epoch of the claim that ended.
    pub epoch: Seq,
    /// When it ended.
    pub when: Moment,
    /// The result or the reason, whose text is in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<TextRef>,
}

/// A reference to a text in the log. Thousands of such texts would be too large for memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextRef {
    /// The event that carries the text.
    pub seq: Seq,
    /// Length in bytes.
    pub size: u64,
    /// The first line that is not blank, cut at [`crate::limits::RESULT_HEAD_BYTES`], for lists.
    pub head: String,
    /// A checksum of the text.
    #[serde(with = "super::content::hexadecimal")]
    pub check: u64,
    /// When the text was written.
    pub at: Wall,
}

impl TextRef {
    /// The reference to `content`, which the event at `moment` carries.
    pub(super) fn to(content: &Content, moment: Moment) -> TextRef {
        let Digest { bytes, head, check } = content.digest().clone();
        TextRef { seq: moment.seq, size: bytes, head, check, at: moment.at }
    }

    /// Whether the reference is to this text.
    pub fn is(&self, text: &Digest) -> bool {
        (self.size, &self.head, self.check) == (text.bytes, &text.head, text.check)
    }
}

/// A claim that ended although the task was not finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// The worker that lost the claim.
    pub worker: WorkerName,
    /// The epoch of the claim.
    pub epoch: Seq,
    /// When it ended.
    pub at: Wall,
    /// Why the claim ended.
    pub reason: LossReason,
}

/// The phase of a task. [`State::state_of`](super::State::state_of) says whether an open task is ready or blocked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The task can be claimed, or is blocked.
    Open,
    /// A worker holds the task.
    Claimed(Claim),
    /// The task is done.
    Completed(Finish),
    /// The task is given up.
    Failed(Finish),
    /// The file is not a valid task: it is a [`Manifest::Problem`], or its needs form a cycle.
    Rejected(Arc<Problem>),
}

/// The state of the instruction file of a task. The id identifies the task; the file may go and come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileState {
    /// The file exists and is complete.
    #[default]
    Present,
    /// The file is open for writing since then. Its content is not complete.
    Open(Moment),
    /// The file is gone since then.
    Missing(Moment),
}

/// One task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The instructions in force. A rejected task has those that were in force before, or only a title.
    pub spec: Arc<Spec>,
    /// The newest parsed content of the file. It comes into force when the task is open.
    pub manifest: Manifest,
    /// The cycle of needs that the newest content closes, starting with this task; empty if there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cycle: Vec<TaskId>,
    /// The stamp of the newest content.
    pub stamp: FileStamp,
    /// The state of the file.
    #[serde(default, skip_serializing_if = "is_default")]
    pub file: FileState,
    /// When the task was first published. This is its age.
    pub published: Moment,
    /// When the task last changed.
    pub changed: Moment,
    /// The phase.
    pub phase: Phase,
    /// The needs of an open task that are not completed yet.
    #[serde(default, skip_serializing_if = "OrdSet::is_empty")]
    pub unmet: OrdSet<TaskId>,
    /// Since when the task could be claimed, apart from files that other tasks own: all its needs are met, and `not_before` has passed. A
    /// lost claim does not reset it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_since: Option<Wall>,
    /// Claims lost since the task was published or retried, oldest first. If there are many: all that count as attempts, and the newest
    /// others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<Loss>,
    /// Workers whose last claim of the task was ended by an operator, the lease, or the end of a process.
    #[serde(default, skip_serializing_if = "OrdSet::is_empty")]
    pub ousted: OrdSet<WorkerName>,
    /// The rank and the next due time, which follow from the time and the rules.
    #[serde(skip)]
    pub(super) place: ReadyPlace,
}

impl Task {
    /// The claim, if a worker holds the task.
    pub fn claim(&self) -> Option<&Claim> {
        match &self.phase {
            Phase::Claimed(claim) => Some(claim),
            Phase::Open | Phase::Completed(_) | Phase::Failed(_) | Phase::Rejected(_) => None,
        }
    }

    /// The finish, if the task is completed or failed.
    pub fn finish(&self) -> Option<&Finish> {
        match &self.phase {
            Phase::Completed(finish) | Phase::Failed(finish) => Some(finish),
            Phase::Open | Phase::Claimed(_) | Phase::Rejected(_) => None,
        }
    }

    /// The events whose texts the task shows, each with the length of the text in bytes.
    pub fn texts(&self) -> impl Iterator<Item = (Seq, u64)> {
        let note = self.claim().and_then(|claim| claim.note.as_ref());
        let note = note.map(|note| (note.seq, note.text.len() as u64));
        let result = self.finish().and_then(|finish| finish.text.as_ref()).map(|text| (text.seq, text.size));
        note.into_iter().chain(result)
    }

    /// Whether the file exists and is complete. Only then can the task be claimed.
    pub fn has_whole_file(&self) -> bool {
        self.file == FileState::Present
    }

    /// Whether the daemon must check the file again: it is open for writing, or it is gone and the task is not finished.
    pub fn is_unsettled(&self) -> bool {
        match self.file {
            FileState::Present => false,
            FileState::Open(_) => true,
            FileState::Missing(_) => self.finish().is_none(),
        }
    }

    /// Whether the file is gone.
    pub fn file_is_missing(&self) -> bool {
        matches!(self.file, FileState::Missing(_))
    }

    /// Whether the task is open: ready or blocked.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Whether the task is open or claimed.
    pub fn is_unfinished(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Claimed(_))
    }

    /// The deadline as a time.
    pub fn deadline(&self) -> Option<Wall> {
        self.spec.deadline.map(|when| self.time_of(when))
    }

    /// The earliest time at which the task can be claimed.
    pub fn not_before(&self) -> Option<Wall> {
        self.spec.not_before.map(|when| self.time_of(when))
    }

    fn time_of(&self, when: When) -> Wall {
        match when {
            When::At(wall) => wall,
            When::After(span) => self.published.at.after(span),
        }
    }

    /// The needs that the newest content names.
    pub fn declared_needs(&self) -> &[TaskId] {
        self.manifest.needs()
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        f.write_str(&self.message)
    }
}

impl Problem {
    /// The problem of a task whose needs lead back to the task itself.
    pub fn cycle(cycle: &[TaskId]) -> Problem {
        let named = cycle.iter().take(NAMED_IN_A_SENTENCE).map(|id| format!("{id} → "));
        let more = match cycle.len().saturating_sub(NAMED_IN_A_SENTENCE) {
            0 => String::new(),
            more => format!("{more} more → "),
        };
        let path = named.chain([more]).chain(cycle.first().map(TaskId::to_string)).collect::<String>();
        Problem {
            line: 0,
            message: format!("its needs form a cycle, so none of these could ever run: {path}"),
        }
    }
}
