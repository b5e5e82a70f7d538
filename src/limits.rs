//! Every bound of crewfs, in one place, so that they can be compared.
//!
//! Must never: hold anything that a user may want to change. That is a mount option.

/// Longest task id, in bytes. `<id>.md` and an editor's temporary name must fit into a file name.
pub const TASK_ID_BYTES: usize = 128;
/// Longest worker name, in bytes.
pub const WORKER_NAME_BYTES: usize = 64;

/// Front matter must end within this many bytes of the file.
pub const FRONT_MATTER_BYTES: usize = 64 * 1024;
/// Largest instruction file; a larger one is rejected, not cut.
pub const INSTRUCTIONS_BYTES: u64 = 1024 * 1024;
/// Largest file of a project that `crewfs init` adds to.
pub const INIT_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// Largest result or reason of failure (C26).
pub const RESULT_BYTES: usize = 1024 * 1024;
/// Largest progress note. Notes are kept in memory with the claim.
pub const NOTE_BYTES: usize = 4 * 1024;
/// How much of a result is kept in memory for lists, in bytes.
pub const RESULT_HEAD_BYTES: usize = 200;
/// Longest text within the record of its event, in bytes. A longer text is stored beside the log, and deleted when nothing shows it.
pub const TEXT_IN_LINE_BYTES: usize = RESULT_HEAD_BYTES;
/// How many ids one `needs` list may hold, and how many words or globs the other lists.
pub const LIST_ITEMS: usize = 1_000;
/// Longest item of one of those lists, in bytes: the longest path of Linux.
pub const LIST_ITEM_BYTES: usize = 4 * 1024;
/// Longest title of a task, in bytes; a longer one is cut.
pub const TITLE_BYTES: usize = 512;
/// Longest message about an instruction file, in bytes; a longer one is cut.
pub const MESSAGE_BYTES: usize = 512;
/// Warnings of one sort that a task lists before "and N more".
pub const WARNINGS_SHOWN: usize = 10;
/// Longest span of time in a front matter, in days: a thousand years. Counted from now, it ends in a year of four digits.
pub const SPAN_DAYS: u64 = 365_000;
/// Misnamed files of the tasks directory that the state keeps: names that look like tasks and are not.
pub const MISNAMED_KEPT: usize = 1_000;
/// Largest `max_attempts` of a front matter.
pub const MAX_ATTEMPTS: u32 = 100;
/// Ends of claims that a task keeps. All that count as attempts are among them.
pub const LOSSES_KEPT: usize = 200;
const _: () = assert!(LOSSES_KEPT > MAX_ATTEMPTS as usize);
/// Versions of a task's file, each with other readers, whose readers the state keeps. Texts about further versions are shown to
/// operators alone.
pub const PRIVATE_FILES_OF_A_TASK: usize = 16;
/// Longest text of a worker's capabilities, in bytes.
pub const CAPABILITIES_BYTES: usize = 4 * 1024;
/// Tasks that reserve the files they own at one time: those that have waited longest. Each is compared with every task that begins to
/// wait for some of the same files.
pub const RESERVATIONS: usize = 16;
/// Pairs of a removed and a created file that are compared to tell whether a step renamed one into the other. A step with more of them is
/// searched for files with the same content only.
pub const SIMILAR_PAIRS: usize = 4_096;
/// Largest file of the project that `crewfs undo` reads to compare it with its versions. A larger one counts as not kept.
pub const UNDO_FILE_BYTES: u64 = 256 * 1024 * 1024;
/// Names that a message lists before "and N more".
pub const NAMED_IN_A_SENTENCE: usize = 5;

/// Latest events that are kept in memory.
pub const EVENTS_SHOWN: usize = 30;
/// Tasks that the dashboard lists: open ones first, then those that were finished last.
pub const TASKS_ON_THE_DASHBOARD: usize = 5_000;
/// Longest text of a task or a worker on the dashboard, in characters; a longer one is cut.
pub const TEXT_ON_THE_DASHBOARD: usize = 160;
/// Workers that the dashboard lists, those with a claim first.
pub const WORKERS_ON_THE_DASHBOARD: usize = 200;
/// The size of the dashboard is a multiple of this, in bytes, so that it seldom changes.
pub const DASHBOARD_GRAIN: usize = 16 * 1024;
/// Blank bytes at the end of the dashboard, at least.
pub const DASHBOARD_SPARE: usize = 2 * 1024;
/// How long one rendering of a document that changes with time is used, unless the queue changes, in milliseconds.
pub const OVERVIEW_MS: u64 = 1_000;
/// Renderings of one document that are kept, each for callers with other rights to read.
pub const RENDERINGS_KEPT: usize = 4;
/// Stuck tasks and workers that a summary lists. Further ones are only counted.
pub const STUCK_SHOWN: usize = 100;

const _: () = assert!(TASK_ID_BYTES + ".md".len() < 255);
const _: () = assert!(RESULT_HEAD_BYTES < RESULT_BYTES);

/// Pages of the log's write-ahead file after which it is checkpointed while no caller waits.
pub const WAL_PAGES_IDLE: u64 = 500;
/// Pages after which it is checkpointed although callers wait: 16 MiB.
pub const WAL_PAGES_MAX: u64 = 4_096;
const _: () = assert!(WAL_PAGES_IDLE < WAL_PAGES_MAX);

/// Bytes of the log that are read while its connection is locked. A commit waits no longer than for those.
pub const LOG_PIECE_BYTES: usize = 32 << 10;

/// Unused texts that the log deletes in one transaction, at most.
pub const TEXTS_DROPPED: usize = 256;
/// Bytes of unused texts after which the log deletes them although callers wait: 4 MiB. Otherwise it does so once a second.
pub const TEXT_BYTES_SUPERSEDED: u64 = 4 << 20;
/// Texts of the log that are checked for use in one step, after a start.
pub const TEXTS_SWEPT: usize = 4_096;
/// Seconds of the budget that a payer saves up while it writes nothing.
pub const LOG_BURST_SECONDS: u64 = 256;
/// The budget of a user, in budgets of one worker.
pub const LOG_SHARES_OF_A_USER: u64 = 4;
/// Workers and users whose use of the log is kept.
pub const LOG_ACCOUNTS: usize = 16_384;

/// Commands that may be decided and not yet on disk. Further callers wait. This bounds how long the first of a batch waits for the
/// last.
pub const COMMANDS_IN_A_BATCH: usize = 512;
/// Workers that are kept although they have never claimed a task.
pub const WORKERS_PRESENT: usize = 10_000;
/// Events since the last snapshot after which the next one is written.
pub const EVENTS_BEFORE_SNAPSHOT: u64 = 20_000;
/// Events since the last snapshot from which on a clean stop writes one.
pub const EVENTS_BEFORE_SNAPSHOT_AT_STOP: u64 = 1_000;
/// Largest snapshot that is read, in bytes. For a larger one the whole log is read instead.
pub const SNAPSHOT_BYTES: u64 = 1 << 30;
/// Events read from the log at once when the state is rebuilt.
pub const REPLAY_EVENTS: usize = 10_000;
/// Disk space held in reserve, in bytes, so that claimed tasks can be finished when the disk is full.
pub const RESERVED_BYTES: u64 = 4 * 1024 * 1024;

/// Callers whose identity is cached. Each costs a descriptor.
pub const CALLERS_REMEMBERED: usize = 512;
/// How many ancestors of a process are searched for a worker's name.
pub const ANCESTORS: usize = 64;
/// How much of an environment is read, in bytes. The kernel starts no program with more arguments and environment than this together
/// (three quarters of `_STK_LIM`). A process with a larger one has changed it since, and stays unknown.
pub const ENVIRONMENT_BYTES: usize = 6 << 20;
/// How much is read of the environments of a process and its ancestors together, in bytes.
pub const ENVIRONMENTS_BYTES: usize = 16 << 20;
/// How much of an environment is read at once, in bytes.
pub const ENVIRONMENT_PIECE: usize = 64 << 10;
/// How long the lookup of a caller may take while the user's processes answer quickly, in milliseconds (C44).
pub const LOOKUP_MS: u64 = 50;
/// The same after one of them was late.
pub const LOOKUP_WARY_MS: u64 = 3;
/// How long the shorter limit then holds for the user, in milliseconds.
pub const WARY_MS: u64 = 60_000;
/// Late lookups a second that are waited for then.
pub const LATE_LOOKUPS_A_SECOND: usize = 4;
/// How long a lookup may take that is delayed only by other work of the machine, in milliseconds.
pub const LOOKUP_LONGEST_MS: u64 = 1_000;
/// Threads that look up processes of one user. Each may hang.
pub const LOOKERS: usize = 8;
/// Lookups of one user that may wait for such a thread.
pub const LOOKUPS_QUEUED: usize = 4_096;
/// How long the content of a file of keys is used before the file is checked again, in milliseconds (C45).
pub const NAMES_BELIEVED_MS: u64 = 1_000;
/// Largest file of keys that is read, in bytes.
pub const NAMES_FILE_BYTES: u64 = 16 << 20;
/// How much is read of the mappings of a process, in bytes.
pub const MAPPINGS_READ: u64 = 16 << 20;
/// How long requests of a known caller count as heartbeats before its process is looked up again, in milliseconds.
/// No permission is decided by this.
pub const SIGN_OF_LIFE_MS: u64 = 1_000;
/// How long a thread may serve one request before it counts as hanging, in milliseconds.
pub const REQUEST_HANGS_MS: u64 = 20_000;
/// Processes that are watched until they end, at most. Each costs a descriptor. Beyond that, the process with the oldest claim is no longer
/// watched, and its claim ends with the lease (C31).
pub const FOLLOWED_PROCESSES: usize = 1_024;
/// Processes that the filter for exits passes by their pids. With more, it passes all. A filter may have 4,096 steps, and a pid takes
/// two.
pub const WATCHED_EXITS: usize = 2_000;
/// How long the daemon waits for the exit code of a process that has ended, where the kernel reports it, in milliseconds.
pub const EXIT_TOLD_MS: u64 = 1_000;
/// How much older than a claim a process must be to count as started before it, in milliseconds. The kernel reports ages in hundredths
/// of a second.
pub const SURELY_BEFORE_MS: u64 = 100;
/// When ending the claims of a worker that is gone is tried again, if the log failed, in milliseconds.
pub const DEPARTURE_RETRY_MS: u64 = 1_000;
/// How long a reader waits for a task file that was just closed and may still be open elsewhere, in milliseconds.
pub const SETTLE_MS: u64 = 100;
/// How long a reader waits until a task file is published after its last close, in milliseconds. A disk may be slow.
pub const PUBLISH_MS: u64 = 5_000;
/// Threads that serve the desk, at least. All but one may wait for files to be published, and one receives the close.
pub const DESK_THREADS_MIN: usize = 8;
/// Temporary files that editors may have in `completed/` and `failed/` at one time. For a further one, the least recently used one goes
/// (C29).
pub const SCRATCH_FILES: usize = 1_024;
/// The same of one user.
pub const SCRATCH_FILES_OF_A_USER: usize = 128;
/// Their size together, in bytes.
pub const SCRATCH_BYTES: usize = 128 * 1024 * 1024;
/// The same of one user.
pub const SCRATCH_BYTES_OF_A_USER: usize = 32 * 1024 * 1024;
const _: () = assert!(SCRATCH_FILES_OF_A_USER < SCRATCH_FILES && SCRATCH_BYTES_OF_A_USER < SCRATCH_BYTES);
/// Texts and listings of the desk that one user may have open.
pub const OPEN_TEXTS_OF_A_USER: usize = 8_192;
/// Their size in memory, in bytes. One that is open several times counts once.
pub const OPEN_BYTES_OF_A_USER: usize = 256 * 1024 * 1024;
/// Half-written files of killed writers that are kept track of (C16).
pub const TORN_FILES: usize = 1_024;
/// Contents of task files whose writers are kept (C35).
pub const WRITERS_REMEMBERED: usize = 4_096;
/// How often the tasks directory is scanned where the kernel does not report changes, in milliseconds (C10).
pub const RESCAN_MS: u64 = 2_000;
/// How often a task file that is missing or open for writing is checked, in milliseconds (C14).
pub const UNSETTLED_MS: u64 = 1_000;

/// Processes of one lock holder that are kept, the youngest. Others are found as their descendants.
pub const LOCK_PROCESSES: usize = 32;
/// Write locks at one time, at most.
pub const LOCKED_FILES: usize = 65_536;
/// The same of one user.
pub const LOCKED_FILES_OF_A_USER: usize = 16_384;
/// Locks of one user from which on the daemon checks now and then which of them are over.
pub const SWEPT_LOCKS: usize = 4_096;
const _: () = assert!(SWEPT_LOCKS < LOCKED_FILES_OF_A_USER && LOCKED_FILES_OF_A_USER < LOCKED_FILES);
/// How long a change waits until one of its user's locks is over, when there are too many, in milliseconds. Meanwhile the kernel keeps
/// the directory or the file locked, for other users too.
pub const LOCKS_FULL_MS: u64 = 100;
/// How long an open that created or truncated a file may take to return, in milliseconds. Until then `/proc` shows no descriptor.
pub const OPENING_MS: u64 = 20;
/// How long a worker that appends then waits until the file's creator closes it, in milliseconds.
pub const MAKING_MS: u64 = 100;
/// How long a holder waits in one place in the kernel before a change of another worker no longer waits for it, in milliseconds (C51).
pub const STUCK_MS: u64 = 50;
/// The same if it is not known whether the holder has the file open.
pub const STUCK_UNSEEN_MS: u64 = 1_000;
/// How long a lock holds after the last change if the holder's processes cannot be inspected, in milliseconds.
pub const UNSEEN_LOCK_MS: u64 = 10_000;
/// How long a rename, removal or link waits for a lock at most, in milliseconds. Meanwhile the kernel keeps the whole directory locked.
pub const DIRECTORY_WAIT_MS: u64 = 100;
/// How long the search for the writer of a mapping may take, in milliseconds.
pub const MAPPED_WAIT_MS: u64 = 200;
/// How long its result is reused, in milliseconds.
pub const MAPPED_KNOWN_MS: u64 = 100;
/// Changes that wait for a lock, at most. A further one is refused at once.
pub const WAITING_CHANGES: usize = 1_024;
/// The same of one user.
pub const WAITING_CHANGES_OF_A_USER: usize = 512;
/// Workers that are expected to read a changed file: the last to have joined.
pub const CROWD: usize = 512;
/// Files whose last change and readers are kept (C54).
pub const RECENT_FILES: usize = 65_536;
/// How long the kernel may cache the attributes of such a file when all workers have read it, in milliseconds. For so long the daemon
/// may miss that a new worker reads it.
pub const RECENT_BELIEVED_MS: u64 = 100;
/// How long the kernel shows written pages before it sends the WRITE, as a rule, in milliseconds.
pub const WRITE_SHOWN_MS: u64 = 100;
/// How long a write takes through the kernel, as a rule, in milliseconds.
pub const WRITE_UNDER_WAY_MS: u64 = 200;
/// How long after a refusal a program may still try another way of writing, in milliseconds.
pub const FALLBACK_MS: u64 = 5_000;
/// How long a file must not have been changed before the history reads it, in milliseconds. A version that a program beside the mount
/// replaces sooner is not kept.
pub const HISTORY_QUIET_MS: u64 = 250;
/// How long a step of the history lasts at most, in milliseconds.
pub const HISTORY_STEP_MS: u64 = 60_000;
/// How often the history is packed, if there is something to pack, in milliseconds.
pub const HISTORY_PACK_MS: u64 = 60_000;
/// How often it is bounded by age and size, in milliseconds.
pub const HISTORY_PRUNE_MS: u64 = 3_600_000;
/// Changes that one step of the history has at most. Further ones make another step.
pub const HISTORY_ITEMS: usize = 10_000;
/// How long a reader of `changes/` waits for the history, in milliseconds.
pub const READ_WAIT_MS: u64 = 5_000;
/// Diffs that are kept for the next reader.
pub const DIFFS_KEPT: usize = 64;
/// Tasks whose last change is known, for the diffs that are kept.
pub const REVISIONS_KEPT: usize = 4_096;
/// Lines of the history's journal after which it is begun anew, if most of them say nothing any more.
pub const JOURNAL_LINES: usize = 10_000;
/// Files and directories for which the answer of git's rules is cached.
pub const EXEMPTIONS_KEPT: usize = 65_536;
/// Largest `.gitignore` that is read, in bytes.
pub const IGNORE_FILE_BYTES: u64 = 1 << 20;
/// Invalidations of the kernel's caches that may be under way.
pub const FORGETTING_QUEUE: usize = 16_384;

/// Largest WRITE and READ that the kernel may send, in bytes.
pub const MAX_WRITE: u32 = 1 << 20;
/// How far the kernel reads ahead in the tree, in KiB. A file that is read as a whole takes fewer requests.
pub const READ_AHEAD_KIB: u32 = 512;
/// Background requests of the kernel (readahead, writeback) that may be under way, at most.
pub const MAX_BACKGROUND: u16 = 64;
/// How long a request waits until a process gives back its lease on a file, in milliseconds.
pub const LEASE_WAIT_MS: u64 = 5_000;
/// Requests that wait for leases at one time, at most. A further one is refused at once.
pub const LEASED_REQUESTS: usize = 16;
/// The same of one user.
pub const LEASED_REQUESTS_OF_A_USER: usize = 4;
const _: () = assert!(LEASED_REQUESTS_OF_A_USER < LEASED_REQUESTS);
const _: () = assert!(LEASED_REQUESTS < MAX_BACKGROUND as usize / 2);

/// Nodes of the tree with a descriptor in the table of the process, at most.
pub const TREE_DESCRIPTORS_MAX: usize = 1 << 16;
/// Nodes of the tree with a descriptor, in the table or in a parcel, at most. Each costs the kernel about 1.5 KiB until it forgets the
/// node.
pub const TREE_NODES_KEPT: usize = 1 << 18;
/// Nodes of the desk with a descriptor, at most.
pub const DESK_DESCRIPTORS_MAX: usize = 4096;
/// Descriptors for content that one session keeps open, at most.
pub const DATA_DESCRIPTORS_MAX: usize = 1024;
/// Directories that one session keeps open for listings under way, at most.
pub const LISTINGS_KEPT: usize = 64;
/// Missing names that the kernel may cache for long, at most. The daemon keeps them too.
pub const MISSING_NAMES_KEPT: usize = 1 << 16;
/// How often the daemon checks for removed files where no event reports a removal, in seconds.
pub const REMOVED_SECONDS: u64 = 10;
/// Bytes of fanotify events that are read at once.
pub const WATCH_BATCH: usize = 256 << 10;
/// How long the watch pauses after events that the daemon itself caused, in milliseconds. Meanwhile the kernel merges further ones.
pub const WATCH_REST_MS: i64 = 4;
/// Descriptors of each sort that a session may have however low the limit is. A walk needs a few at once.
pub const DESCRIPTORS_MIN: usize = 8;

/// One session's share of the descriptors of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// Nodes with a descriptor (`O_PATH`).
    pub paths: usize,
    /// Descriptors for content.
    pub data: usize,
}

impl Descriptors {
    /// The share of the tree if the process may open `limit` files. The kernel does not report the opens of its files, so each file
    /// that may be open needs a descriptor.
    pub fn of_tree(limit: u64) -> Descriptors {
        Descriptors::share(limit, 10, TREE_DESCRIPTORS_MAX)
    }

    /// The share of the desk. The rest is left for open directories, handles, processes and the log.
    pub fn of_desk(limit: u64) -> Descriptors {
        Descriptors::share(limit, 1, DESK_DESCRIPTORS_MAX)
    }

    /// How many descriptors the daemon has at one time, as a rule, at most.
    pub fn in_all(limit: u64) -> u64 {
        let shares = [Descriptors::of_tree(limit), Descriptors::of_desk(limit)];
        let kept: usize = shares.iter().map(|share| share.paths + share.data).sum();
        (kept + kept / 8) as u64
    }

    fn share(limit: u64, sixteenths: u64, most: usize) -> Descriptors {
        let share = |part: u64| usize::try_from(limit / 16 * part).unwrap_or(usize::MAX).max(DESCRIPTORS_MIN);
        Descriptors { paths: share(sixteenths).min(most), data: share(1).min(DATA_DESCRIPTORS_MAX) }
    }
}

/// Directories between a node and the root, at most. Changes beneath the mount can make the known parents form a ring.
pub const DEPTH_MAX: usize = 4096;
/// Bytes of a directory that are read from the disk at once.
pub const DIRECTORY_BATCH: usize = 32 << 10;
/// Longest value or list of extended attributes, in bytes: `XATTR_SIZE_MAX` and `XATTR_LIST_MAX` of Linux.
pub const XATTR_MAX: usize = 64 << 10;
/// Longest copy in one request, in bytes. It cannot be interrupted. The caller asks again for the rest.
pub const COPY_MAX: u64 = 256 << 20;

const _: () =
    assert!(DESCRIPTORS_MIN <= DATA_DESCRIPTORS_MAX && DATA_DESCRIPTORS_MAX <= DESK_DESCRIPTORS_MAX);

/// Loose objects of the history from which on they are packed.
pub const HISTORY_LOOSE_OBJECTS: usize = 4_096;
/// The same by their size, in bytes. They are not compressed.
pub const HISTORY_LOOSE_BYTES: u64 = 64 << 20;
/// Largest object of the history that is packed, in bytes. Packing holds several in memory.
pub const HISTORY_PACKED_BYTES: u64 = 16 << 20;
/// Packs of the history from which on all go into one.
pub const HISTORY_PACKS: usize = 16;
/// Share of removed steps in the history, as a divisor, from which on their space is freed. All that is kept is packed anew then.
pub const HISTORY_REMOVED_SHARE: usize = 16;
/// Last commits of the history that are noted besides its reference, at least. After the death of the machine, the newest whole one is
/// looked for among them.
pub const HISTORY_HEADS: u64 = 4_096;

/// How many times as long as its last reading `crewfs top` pauses, at least. Each reading costs the daemon something.
pub const TOP_REST: u32 = 4;
/// How old the tasks that it shows may be if no event happened, in milliseconds.
pub const TOP_QUEUE_MS: u64 = 5_000;
/// Bytes of a document that it reads.
pub const TOP_DOCUMENT_BYTES: u64 = 1 << 30;
/// Bytes of the event log that it reads at once.
pub const TOP_EVENT_BYTES: u64 = 256 << 10;
/// Events that it keeps.
pub const TOP_EVENTS: usize = 1_000;
/// How long the mount may not answer before it says so, in milliseconds.
pub const TOP_SILENT_MS: u64 = 3_000;
/// How long `crewfs top --once` waits for the mount, in milliseconds.
pub const TOP_ONCE_MS: u64 = 10_000;
/// Lines of one sort that it prints as plain text.
pub const TOP_PLAIN_LINES: usize = 50;
/// How long `crewfs doctor` waits for a mount or a program, in milliseconds.
pub const DOCTOR_SILENT_MS: u64 = 3_000;
