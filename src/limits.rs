//! Every bound of crewfs, in one place, so that they can be read against each other.
//!
//! Must never: hold anything that a user may want to change; those are mount options.

/// Longest task id, in bytes. Short enough that `<id>.md` and an editor's temporary name fit in a file name.
pub const TASK_ID_BYTES: usize = 128;
/// Longest worker name, in bytes.
pub const WORKER_NAME_BYTES: usize = 64;

/// Front matter must end within this many bytes of the file.
pub const FRONT_MATTER_BYTES: usize = 64 * 1024;
/// Largest instruction file; a larger one is rejected, not cut.
pub const INSTRUCTIONS_BYTES: u64 = 1024 * 1024;
/// Largest result or reason of failure (C26).
pub const RESULT_BYTES: usize = 1024 * 1024;
/// Largest progress note. Notes are kept in memory with the claim.
pub const NOTE_BYTES: usize = 4 * 1024;
/// How much of a result is kept in memory to be shown in lists, in bytes.
pub const RESULT_HEAD_BYTES: usize = 200;
/// How many ids one `needs` list may hold, and how many words or globs the other lists.
pub const LIST_ITEMS: usize = 1_000;
/// Most claims a front matter may allow before a task counts as poisonous.
pub const MAX_ATTEMPTS: u32 = 100;
/// How many ends of claims a task remembers. Those that count as attempts are all among them.
pub const LOSSES_KEPT: usize = 200;
const _: () = assert!(LOSSES_KEPT > MAX_ATTEMPTS as usize);
/// How many names a sentence spells out before it says "and N more".
pub const NAMED_IN_A_SENTENCE: usize = 5;

const _: () = assert!(TASK_ID_BYTES + ".md".len() < 255);
const _: () = assert!(RESULT_HEAD_BYTES < RESULT_BYTES);

/// Pages of the log's write-ahead file after which it is emptied while nobody waits.
pub const WAL_PAGES_IDLE: u64 = 500;
/// Pages after which it is emptied even though somebody waits: 16 MiB.
pub const WAL_PAGES_MAX: u64 = 4_096;
const _: () = assert!(WAL_PAGES_IDLE < WAL_PAGES_MAX);

/// Commands that may wait for the writer. A caller beyond that waits in its own thread.
pub const COMMANDS_WAITING: usize = 4_096;
/// Most commands that share one commit: bounds how long the first one waits for the last.
pub const COMMANDS_IN_A_BATCH: usize = 512;
/// Workers that are remembered without ever having claimed anything.
pub const WORKERS_PRESENT: usize = 10_000;
/// Events since the last snapshot after which a new one is written.
pub const EVENTS_BEFORE_SNAPSHOT: u64 = 20_000;
/// Events since the last snapshot for which a clean stop writes a new one.
pub const EVENTS_BEFORE_SNAPSHOT_AT_STOP: u64 = 1_000;
/// Events read from the log at once when the state is rebuilt.
pub const REPLAY_EVENTS: usize = 10_000;
/// Disk space held back, in bytes, so that work can be finished when the disk is full.
pub const RESERVED_BYTES: u64 = 4 * 1024 * 1024;
