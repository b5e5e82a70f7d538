//! What a task is: its instructions as understood, and where it stands.
//!
//! Must never: decide anything. These are the nouns; `decide` and `state` are the verbs.

use std::sync::Arc;

use imbl::OrdSet;
use serde::{Deserialize, Serialize};

use super::rank::ReadyPlace;
use super::{Access, Content, Digest, LossReason, Seq, Span, TaskId, Wall, WorkerName};
use crate::limits::NAMED_IN_A_SENTENCE;

/// How urgent a task is. Lower goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// `critical`, `P0`
    Critical,
    /// `high`, `P1`
    High,
    /// `normal`, `P2`; what a task has that does not say
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

/// A time that a front matter names: fixed, or counted from publishing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// An RFC 3339 time.
    At(Wall),
    /// A span from publishing.
    After(Span),
}

/// What the front matter of an instruction file says, with its defaults filled in.
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
    /// `lease`: how long a silent worker keeps the task; the mount's default when it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Span>,
    /// `attempts`: how many claims may be lost before the task fails as poisonous.
    #[serde(default = "default_attempts", skip_serializing_if = "is_default_attempts")]
    pub attempts: u32,
    /// `context`: paths to read first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub context: Vec<String>,
    /// What was understood only in part: unknown keys, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// How many claims of a task may be lost before it fails, when its front matter does not say.
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
    /// A task with nothing but a title.
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
    /// The line of the file, from 1; 0 when the file as a whole is wrong.
    pub line: u64,
    /// One sentence: what is wrong and what would be right.
    pub message: String,
}

/// An instruction file as understood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Manifest {
    /// It is a task.
    Spec(Arc<Spec>),
    /// It is not, and why.
    Problem(Arc<Problem>),
}

impl Manifest {
    /// About how many bytes it takes where it is written down.
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

    /// The needs that it names.
    pub fn needs(&self) -> &[TaskId] {
        match self {
            Manifest::Spec(spec) => &spec.needs,
            Manifest::Problem(_) => &[],
        }
    }
}

/// What tells one content of a file from another without reading it, and who may read it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FileStamp {
    /// Inode number on the disk.
    pub ino: u64,
    /// Length in bytes.
    pub size: u64,
    /// `st_mtime` in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Its rights, where it is or was private.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readers: Option<Arc<Access>>,
}

impl FileStamp {
    /// Whether it is the same content, whatever the rights are.
    pub fn is_content_of(&self, other: &FileStamp) -> bool {
        (self.ino, self.size, self.mtime_ns) == (other.ino, other.size, other.mtime_ns)
    }
}

/// When something happened: the event's position in the log and its time.
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
    /// When it began; its `seq` is the epoch.
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
    /// The event that carries it.
    pub seq: Seq,
    /// What the holder wrote.
    pub text: String,
    /// When.
    pub at: Wall,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finish {
    /// The holder that finished it; `None` when too many claims were lost, or an operator finished it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerName>,
    /// The operator that finished it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<WorkerName>,
    /// The epoch of the claim that ended.
    pub epoch: Seq,
    /// When it ended.
    pub when: Moment,
    /// The result or the reason; it lies in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<TextRef>,
}

/// A text that lies in the log: too large to keep thousands of them in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextRef {
    /// The event that carries it.
    pub seq: Seq,
    /// Length in bytes.
    pub size: u64,
    /// The first line, cut at [`crate::limits::RESULT_HEAD_BYTES`], for lists.
    pub head: String,
    /// A checksum of it.
    #[serde(with = "super::content::hexadecimal")]
    pub check: u64,
    /// When it was written.
    pub at: Wall,
}

impl TextRef {
    /// A text that the event of this moment carries.
    pub(super) fn to(content: &Content, moment: Moment) -> TextRef {
        let Digest { bytes, head, check } = content.digest().clone();
        TextRef { seq: moment.seq, size: bytes, head, check, at: moment.at }
    }

    /// Whether it is this text.
    pub fn is(&self, text: &Digest) -> bool {
        (self.size, &self.head, self.check) == (text.bytes, &text.head, text.check)
    }
}

/// A claim that ended without the task being finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Who lost it.
    pub worker: WorkerName,
    /// The epoch that ended.
    pub epoch: Seq,
    /// When it ended.
    pub at: Wall,
    /// Why.
    pub reason: LossReason,
}

/// Where a task stands. Whether an open one is ready or blocked is for [`State::state_of`](super::State::state_of) to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Waits to be claimed, or for something else.
    Open,
    /// Somebody works on it.
    Claimed(Claim),
    /// Done.
    Completed(Finish),
    /// Given up.
    Failed(Finish),
    /// Its file is not a task, for [`Manifest::Problem`] or for a cycle.
    Rejected(Arc<Problem>),
}

/// Where the instruction file of a task is. A task is its id; the file may go and come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileState {
    /// At its place, and complete.
    #[default]
    Present,
    /// Open for writing since then: what it says is not complete.
    Open(Moment),
    /// Gone since then.
    Missing(Moment),
}

/// One task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// What is in force. Of a rejected task: what was in force last, or a bare title.
    pub spec: Arc<Spec>,
    /// The newest content of the file as understood; in force as soon as the task is open again.
    pub manifest: Manifest,
    /// The cycle of needs that the newest content closes, starting with this task; empty when there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cycle: Vec<TaskId>,
    /// Which content of the file that was.
    pub stamp: FileStamp,
    /// Where the file is.
    #[serde(default, skip_serializing_if = "is_default")]
    pub file: FileState,
    /// When it was first published: its age.
    pub published: Moment,
    /// When anything about it changed last.
    pub changed: Moment,
    /// Where it stands.
    pub phase: Phase,
    /// Of an open task: the needs that are not completed yet.
    #[serde(default, skip_serializing_if = "OrdSet::is_empty")]
    pub unmet: OrdSet<TaskId>,
    /// Since when it could be claimed, but for files that others own: what it needs is met and its time has come. A claim
    /// that is lost does not set it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_since: Option<Wall>,
    /// Claims lost since it was published or retried, oldest first; of many, all that count as attempts and the newest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<Loss>,
    /// Workers whose last claim of it was ended by another hand: by an operator, the lease, or the end of a process.
    #[serde(default, skip_serializing_if = "OrdSet::is_empty")]
    pub ousted: OrdSet<WorkerName>,
    /// What follows from the time and the rules.
    #[serde(skip)]
    pub(super) place: ReadyPlace,
}

impl Task {
    /// The claim, while there is one.
    pub fn claim(&self) -> Option<&Claim> {
        match &self.phase {
            Phase::Claimed(claim) => Some(claim),
            Phase::Open | Phase::Completed(_) | Phase::Failed(_) | Phase::Rejected(_) => None,
        }
    }

    /// How it ended, once it has.
    pub fn finish(&self) -> Option<&Finish> {
        match &self.phase {
            Phase::Completed(finish) | Phase::Failed(finish) => Some(finish),
            Phase::Open | Phase::Claimed(_) | Phase::Rejected(_) => None,
        }
    }

    /// The events whose texts it shows, and how long those are, in bytes.
    pub fn texts(&self) -> impl Iterator<Item = (Seq, u64)> {
        let note = self.claim().and_then(|claim| claim.note.as_ref());
        let note = note.map(|note| (note.seq, note.text.len() as u64));
        let result = self.finish().and_then(|finish| finish.text.as_ref()).map(|text| (text.seq, text.size));
        note.into_iter().chain(result)
    }

    /// Whether its file is at its place and complete: only then can it be claimed.
    pub fn has_whole_file(&self) -> bool {
        self.file == FileState::Present
    }

    /// Whether its file is to be looked at until that is settled: it is open for writing, or gone while the task is not finished.
    pub fn is_unsettled(&self) -> bool {
        match self.file {
            FileState::Present => false,
            FileState::Open(_) => true,
            FileState::Missing(_) => self.finish().is_none(),
        }
    }

    /// Whether its file is gone.
    pub fn file_is_missing(&self) -> bool {
        matches!(self.file, FileState::Missing(_))
    }

    /// Whether it is open: ready or blocked.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Whether somebody works on it, or may yet.
    pub fn is_unfinished(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Claimed(_))
    }

    /// When it is to be done.
    pub fn deadline(&self) -> Option<Wall> {
        self.spec.deadline.map(|when| self.time_of(when))
    }

    /// When it may be begun.
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
    /// The problem of a task whose needs lead back to it.
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
