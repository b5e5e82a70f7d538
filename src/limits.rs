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
/// Largest file of a project that `crewfs init` reads, in order to add to it.
pub const INIT_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// Largest result or reason of failure (C26).
pub const RESULT_BYTES: usize = 1024 * 1024;
/// Largest progress note. Notes are kept in memory with the claim.
pub const NOTE_BYTES: usize = 4 * 1024;
/// How much of a result is kept in memory to be shown in lists, in bytes.
pub const RESULT_HEAD_BYTES: usize = 200;
/// Longest text that stands in the line of its event, in bytes. A longer one lies beside it, and goes when nothing shows it any more.
pub const TEXT_IN_LINE_BYTES: usize = RESULT_HEAD_BYTES;
/// How many ids one `needs` list may hold, and how many words or globs the other lists.
pub const LIST_ITEMS: usize = 1_000;
/// Longest item of one of those lists, in bytes: the longest path of Linux.
pub const LIST_ITEM_BYTES: usize = 4 * 1024;
/// Longest title of a task, in bytes; a longer one is cut.
pub const TITLE_BYTES: usize = 512;
/// Longest sentence about an instruction file, in bytes; a longer one is cut.
pub const MESSAGE_BYTES: usize = 512;
/// How many warnings of one sort a task keeps before it says "and N more".
pub const WARNINGS_SHOWN: usize = 10;
/// Longest span of time in a front matter, in days: a thousand years. Counted from now, its end has a year of four digits.
pub const SPAN_DAYS: u64 = 365_000;
/// Names in the directory of tasks of which it is remembered that they are no tasks, although they look so.
pub const MISNAMED_KEPT: usize = 1_000;
/// Most claims a front matter may allow before a task counts as poisonous.
pub const MAX_ATTEMPTS: u32 = 100;
/// How many ends of claims a task remembers. Those that count as attempts are all among them.
pub const LOSSES_KEPT: usize = 200;
const _: () = assert!(LOSSES_KEPT > MAX_ATTEMPTS as usize);
/// Files of one task, each with other readers, of which it is remembered who may read what was said of them. Beyond that operators may.
pub const PRIVATE_FILES_OF_A_TASK: usize = 16;
/// Longest text of a worker's capabilities, in bytes.
pub const CAPABILITIES_BYTES: usize = 4 * 1024;
/// Tasks that reserve the files they own, at one time: those who have waited longest. Each costs a comparison with whoever
/// begins to wait for some of the same files.
pub const RESERVATIONS: usize = 16;
/// How many names a sentence spells out before it says "and N more".
pub const NAMED_IN_A_SENTENCE: usize = 5;

/// How many of the last events are kept at hand to be shown.
pub const EVENTS_SHOWN: usize = 30;
/// How many tasks the dashboard lists. What is open goes first, then what was finished last.
pub const TASKS_ON_THE_DASHBOARD: usize = 5_000;
/// Longest text of a task or a worker on the dashboard, in characters; a longer one is cut.
pub const TEXT_ON_THE_DASHBOARD: usize = 160;
/// How many workers the dashboard lists, those who work first.
pub const WORKERS_ON_THE_DASHBOARD: usize = 200;
/// The dashboard's size is a multiple of this, in bytes, so that it seldom changes.
pub const DASHBOARD_GRAIN: usize = 16 * 1024;
/// How much of its end is blank, at least, in bytes.
pub const DASHBOARD_SPARE: usize = 2 * 1024;
/// For how long one rendering of what moves by itself is shown, unless the queue changes, in milliseconds.
pub const OVERVIEW_MS: u64 = 1_000;
/// How many renderings of one document are kept, each for callers who may not read the same files.
pub const RENDERINGS_KEPT: usize = 4;
/// How many things that do not move a summary names before it only counts them.
pub const STUCK_SHOWN: usize = 100;

const _: () = assert!(TASK_ID_BYTES + ".md".len() < 255);
const _: () = assert!(RESULT_HEAD_BYTES < RESULT_BYTES);

/// Pages of the log's write-ahead file after which it is emptied while nobody waits.
pub const WAL_PAGES_IDLE: u64 = 500;
/// Pages after which it is emptied even though somebody waits: 16 MiB.
pub const WAL_PAGES_MAX: u64 = 4_096;
const _: () = assert!(WAL_PAGES_IDLE < WAL_PAGES_MAX);

/// Bytes of the log that are read while its connection is locked: a commit waits for no more than that.
pub const LOG_PIECE_BYTES: usize = 32 << 10;

/// Texts that nothing shows any more which the log lets go of in one transaction, at most.
pub const TEXTS_DROPPED: usize = 256;
/// Bytes of such texts after which it does so even though callers wait: 4 MiB. Else it does once a second.
pub const TEXT_BYTES_SUPERSEDED: u64 = 4 << 20;
/// Texts of the log that are looked at in one go, after a start, whether something shows them.
pub const TEXTS_SWEPT: usize = 4_096;
/// For how many seconds a payer that wrote nothing may write at once.
pub const LOG_BURST_SECONDS: u64 = 256;
/// How many times as much as one worker all workers of one user may write to the log together.
pub const LOG_SHARES_OF_A_USER: u64 = 4;
/// Workers and users whose use of the log is remembered.
pub const LOG_ACCOUNTS: usize = 16_384;

/// Commands that may be decided and not on disk. A caller beyond that waits: it bounds how long the first one of a batch
/// waits for the last.
pub const COMMANDS_IN_A_BATCH: usize = 512;
/// Workers that are remembered without ever having claimed anything.
pub const WORKERS_PRESENT: usize = 10_000;
/// Events since the last snapshot after which a new one is written.
pub const EVENTS_BEFORE_SNAPSHOT: u64 = 20_000;
/// Events since the last snapshot for which a clean stop writes a new one.
pub const EVENTS_BEFORE_SNAPSHOT_AT_STOP: u64 = 1_000;
/// How large a snapshot may be that is read, in bytes. Without it, the whole log is read.
pub const SNAPSHOT_BYTES: u64 = 1 << 30;
/// Events read from the log at once when the state is rebuilt.
pub const REPLAY_EVENTS: usize = 10_000;
/// Disk space held back, in bytes, so that work can be finished when the disk is full.
pub const RESERVED_BYTES: u64 = 4 * 1024 * 1024;

/// Callers whose identity is remembered; each costs a descriptor.
pub const CALLERS_REMEMBERED: usize = 512;
/// How far up the tree of processes a name is looked for.
pub const ANCESTORS: usize = 64;
/// How much of an environment is read, in bytes: the kernel lets a program begin with no more arguments and environment than
/// this together (three quarters of `_STK_LIM`). Whose is larger has changed it since, and stays unknown.
pub const ENVIRONMENT_BYTES: usize = 6 << 20;
/// How much is read of those of a process and its ancestors together, in bytes.
pub const ENVIRONMENTS_BYTES: usize = 16 << 20;
/// How much of them is read at once, in bytes.
pub const ENVIRONMENT_PIECE: usize = 64 << 10;
/// How long it may take to find out who asks, in milliseconds, while the user's processes have been quick (C44).
pub const LOOKUP_MS: u64 = 50;
/// The same when one of them was not.
pub const LOOKUP_WARY_MS: u64 = 3;
/// For how long such a user's are looked at with that short patience, in milliseconds.
pub const WARY_MS: u64 = 60_000;
/// How many lookups a second that came late are waited for then.
pub const LATE_LOOKUPS_A_SECOND: usize = 4;
/// How long a lookup may take that is not in the way of anything but other work of the machine, in milliseconds.
pub const LOOKUP_LONGEST_MS: u64 = 1_000;
/// Threads that look at processes of one user, and that can hang there.
pub const LOOKERS: usize = 8;
/// Lookups of one user that wait for such a thread.
pub const LOOKUPS_QUEUED: usize = 4_096;
/// How long a file that says whom names belong to is believed without a look at it, in milliseconds (C45).
pub const NAMES_BELIEVED_MS: u64 = 1_000;
/// Largest such file that is read, in bytes.
pub const NAMES_FILE_BYTES: u64 = 16 << 20;
/// How much is read of what a process has mapped, in bytes.
pub const MAPPINGS_READ: u64 = 16 << 20;
/// How long a request of a known caller is taken as a sign of life without looking at the process again, in milliseconds.
/// Never used to decide who may do what.
pub const SIGN_OF_LIFE_MS: u64 = 1_000;
/// After how long at one request a thread that serves the kernel counts as one that hangs, in milliseconds.
pub const REQUEST_HANGS_MS: u64 = 20_000;
/// Processes that are followed to their end, at most; each costs a descriptor. Beyond that, whose claim is oldest is left to
/// its lease (C31).
pub const FOLLOWED_PROCESSES: usize = 1_024;
/// Processes whose exits the kernel lets through by their numbers, where it tells exits; beyond that it lets through all. A filter
/// may have 4,096 steps, and a number takes two.
pub const WATCHED_EXITS: usize = 2_000;
/// How long it is waited for the exit code of a process that has ended, where the kernel tells it, in milliseconds.
pub const EXIT_TOLD_MS: u64 = 1_000;
/// How much older than a claim a process must be to be taken for one that was there when it was made, in milliseconds: the
/// kernel tells its age in hundredths of a second.
pub const SURELY_BEFORE_MS: u64 = 100;
/// When it is tried again to end the claims of a worker who is gone, if the log did not work, in milliseconds.
pub const DEPARTURE_RETRY_MS: u64 = 1_000;
/// How long a reader waits for a task file that was just closed, but is perhaps still open elsewhere, in milliseconds.
pub const SETTLE_MS: u64 = 100;
/// How long a reader waits for a task file to be published whose last close was heard of, in milliseconds: for a slow disk.
pub const PUBLISH_MS: u64 = 5_000;
/// Threads that serve the desk, at least: all but one may wait for files to be published, and one hears of the close.
pub const DESK_THREADS_MIN: usize = 8;
/// Temporary files that editors may have in `completed/` and `failed/` at one time. For one more, that which was not used for longest
/// goes (C29).
pub const SCRATCH_FILES: usize = 1_024;
/// The same of one user.
pub const SCRATCH_FILES_OF_A_USER: usize = 128;
/// What all of them may hold, in bytes.
pub const SCRATCH_BYTES: usize = 128 * 1024 * 1024;
/// The same of one user.
pub const SCRATCH_BYTES_OF_A_USER: usize = 32 * 1024 * 1024;
const _: () = assert!(SCRATCH_FILES_OF_A_USER < SCRATCH_FILES && SCRATCH_BYTES_OF_A_USER < SCRATCH_BYTES);
/// Texts and listings of the desk that one user may have open.
pub const OPEN_TEXTS_OF_A_USER: usize = 8_192;
/// What these may hold in memory, in bytes; what several have open counts once.
pub const OPEN_BYTES_OF_A_USER: usize = 256 * 1024 * 1024;
/// Files left half-written by killed writers that are remembered (C16).
pub const TORN_FILES: usize = 1_024;
/// Contents of task files of which it is remembered who wrote them (C35).
pub const WRITERS_REMEMBERED: usize = 4_096;
/// How often files are looked for where the kernel cannot tell of changes, in milliseconds (C10).
pub const RESCAN_MS: u64 = 2_000;
/// How often a task's file is looked for that is missing or open for writing, in milliseconds (C14).
pub const UNSETTLED_MS: u64 = 1_000;

/// Processes that changed a file for one holder which are remembered, the youngest; others are found by going down from them.
pub const LOCK_PROCESSES: usize = 32;
/// Files that are held for writing at one time, at most.
pub const LOCKED_FILES: usize = 65_536;
/// The same of one user.
pub const LOCKED_FILES_OF_A_USER: usize = 16_384;
/// Locks of one user from which on it is looked now and then which of them are over.
pub const SWEPT_LOCKS: usize = 4_096;
const _: () = assert!(SWEPT_LOCKS < LOCKED_FILES_OF_A_USER && LOCKED_FILES_OF_A_USER < LOCKED_FILES);
/// How long a change waits for one of its user's locks to be over, when there are too many, in milliseconds. The kernel keeps the
/// directory or the file locked meanwhile, for other users too.
pub const LOCKS_FULL_MS: u64 = 100;
/// How long an open that made or emptied a file may take to return: until then no descriptor can be seen, in milliseconds.
pub const OPENING_MS: u64 = 20;
/// How long a worker that appends waits, after that, for the maker of the file to close it, in milliseconds.
pub const MAKING_MS: u64 = 100;
/// How long a lock holds after the last change where the holder's processes cannot be looked at, in milliseconds.
pub const UNSEEN_LOCK_MS: u64 = 10_000;
/// How long a rename, removal or link waits for a lock at most, in milliseconds: the kernel keeps the whole directory
/// locked meanwhile.
pub const DIRECTORY_WAIT_MS: u64 = 100;
/// How long it may take to find out who wrote to a mapping, in milliseconds.
pub const MAPPED_WAIT_MS: u64 = 200;
/// How long the answer to that is used again, in milliseconds.
pub const MAPPED_KNOWN_MS: u64 = 100;
/// Changes that wait for a lock, at most; one more is refused at once.
pub const WAITING_CHANGES: usize = 1_024;
/// The same of one user.
pub const WAITING_CHANGES_OF_A_USER: usize = 512;
/// Workers who are expected to read what another one changes: the last ones to have joined.
pub const CROWD: usize = 512;
/// Files whose last change and readers are remembered (C54).
pub const RECENT_FILES: usize = 65_536;
/// How long the kernel may believe the attributes of such a file when everybody has read it, in milliseconds: for so long a
/// new worker may read it without being seen.
pub const RECENT_BELIEVED_MS: u64 = 100;
/// How long the kernel shows what somebody writes before it asks whether that may be, as a rule, in milliseconds.
pub const WRITE_SHOWN_MS: u64 = 100;
/// How long a write can be on its way through the kernel, as a rule, in milliseconds.
pub const WRITE_UNDER_WAY_MS: u64 = 200;
/// How long after a refusal a program may still come with its other way of writing, in milliseconds.
pub const FALLBACK_MS: u64 = 5_000;
/// Files and directories of which it is remembered whether git would ignore them.
pub const EXEMPTIONS_KEPT: usize = 65_536;
/// Largest `.gitignore` that is read, in bytes.
pub const IGNORE_FILE_BYTES: u64 = 1 << 20;
/// Orders to the kernel to forget something that may be under way.
pub const FORGETTING_QUEUE: usize = 16_384;

/// Largest WRITE that the kernel may send, and so the largest READ, in bytes.
pub const MAX_WRITE: u32 = 1 << 20;
/// How far the kernel reads ahead in the tree, in KiB: a file that is read from end to end is asked for in fewer pieces.
pub const READ_AHEAD_KIB: u32 = 512;
/// Requests that the kernel may have under way by itself (readahead, write-out), at most.
pub const MAX_BACKGROUND: u16 = 64;
/// How long a request waits for a process to give back its lease on a file, in milliseconds.
pub const LEASE_WAIT_MS: u64 = 5_000;
/// Requests that wait for leases at one time, at most; one more is refused at once.
pub const LEASED_REQUESTS: usize = 16;
/// The same of one user.
pub const LEASED_REQUESTS_OF_A_USER: usize = 4;
const _: () = assert!(LEASED_REQUESTS_OF_A_USER < LEASED_REQUESTS);
const _: () = assert!(LEASED_REQUESTS < MAX_BACKGROUND as usize / 2);

/// Nodes of the tree that have a descriptor at hand at one time, at most.
pub const TREE_DESCRIPTORS_MAX: usize = 1 << 16;
/// Nodes of the tree that have a descriptor at one time, at hand or in a parcel, at most. Each costs the kernel about 1.5 KiB,
/// which it gets back when it forgets the node.
pub const TREE_NODES_KEPT: usize = 1 << 18;
/// Nodes of the desk that have a descriptor at one time, at most.
pub const DESK_DESCRIPTORS_MAX: usize = 4096;
/// Descriptors for content that one session keeps ready, at most.
pub const DATA_DESCRIPTORS_MAX: usize = 1024;
/// Directories that one session keeps open for listings that are under way, at most.
pub const LISTINGS_KEPT: usize = 64;
/// Names that are not there, of which the kernel may remember that for long, at most. They are kept by the daemon too.
pub const MISSING_NAMES_KEPT: usize = 1 << 16;
/// How often it is looked for files that were removed where that is not heard of, in seconds.
pub const REMOVED_SECONDS: u64 = 10;
/// Bytes of events about watched directories that are read at once.
pub const WATCH_BATCH: usize = 256 << 10;
/// How long the watch rests after events that all were its own doing, in milliseconds: meanwhile the kernel merges them.
pub const WATCH_REST_MS: i64 = 4;
/// Descriptors of any sort that a session may have however low the limit is: a walk needs a few at once.
pub const DESCRIPTORS_MIN: usize = 8;

/// What one session may do with the descriptors of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// Nodes that have a descriptor (`O_PATH`).
    pub paths: usize,
    /// Descriptors for content kept ready.
    pub data: usize,
}

impl Descriptors {
    /// The share of the tree, when the process may open `limit`. The kernel does not report the opens of its files, so each
    /// file that may be open needs a descriptor: most are for that.
    pub fn of_tree(limit: u64) -> Descriptors {
        Descriptors::share(limit, 10, TREE_DESCRIPTORS_MAX)
    }

    /// The share of the desk. What neither has is left for open directories, handles, processes and the log.
    pub fn of_desk(limit: u64) -> Descriptors {
        Descriptors::share(limit, 1, DESK_DESCRIPTORS_MAX)
    }

    /// How many the daemon has at one time, as a rule, at most.
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

/// Directories between a node and the root, at most. Changes behind the mount can make the known places form a ring.
pub const DEPTH_MAX: usize = 4096;
/// Bytes of a directory read from the disk at once.
pub const DIRECTORY_BATCH: usize = 32 << 10;
/// Longest value or list of extended attributes, in bytes: `XATTR_SIZE_MAX` and `XATTR_LIST_MAX` of Linux.
pub const XATTR_MAX: usize = 64 << 10;
/// Longest copy done in one request, in bytes: nobody can interrupt it. The caller asks again for the rest.
pub const COPY_MAX: u64 = 256 << 20;

const _: () =
    assert!(DESCRIPTORS_MIN <= DATA_DESCRIPTORS_MAX && DATA_DESCRIPTORS_MAX <= DESK_DESCRIPTORS_MAX);

/// How much longer than it looks `crewfs top` rests, at least: a look costs the daemon something.
pub const TOP_REST: u32 = 4;
/// How old what it shows of the tasks may be when no event happened, in milliseconds.
pub const TOP_QUEUE_MS: u64 = 5_000;
/// Bytes of a document of the desk that it reads.
pub const TOP_DOCUMENT_BYTES: u64 = 1 << 30;
/// Bytes of the event log that it reads at once.
pub const TOP_EVENT_BYTES: u64 = 256 << 10;
/// Events that it keeps.
pub const TOP_EVENTS: usize = 1_000;
/// After how long without an answer of the mount it says so, in milliseconds.
pub const TOP_SILENT_MS: u64 = 3_000;
/// How long it waits for the answer when only one is wanted, in milliseconds.
pub const TOP_ONCE_MS: u64 = 10_000;
/// Lines of one sort that it prints as plain text.
pub const TOP_PLAIN_LINES: usize = 50;
/// How long `crewfs doctor` waits for a mount or a program that may never answer, in milliseconds.
pub const DOCTOR_SILENT_MS: u64 = 3_000;
