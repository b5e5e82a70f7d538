//! `docs/filesystem.md` against the sources: paths, refusals with their errnos, limits, events, mount options.

use std::collections::BTreeSet;
use std::sync::Arc;

use crewfs::engine::Failure;
use crewfs::fs::FsError;
use crewfs::fs::desk::Misuse;
use crewfs::fs::guard::GuardRefusal;
use crewfs::fs::tree::Reserved;
use crewfs::limits;
use crewfs::queue::{
    BudgetUnit, ClaimFate, EndedClaim, Event, Moment, Obstacle, OperatorAct, Problem, Refusal, Span, Spender,
    Standing, TaskId, TaskState, Wall, WorkerName,
};

use crate::texts::{between, fences, pages, plain, quoted, rows, section, text, texts_below};

const PAGE: &str = "docs/filesystem.md";

#[test]
fn the_picture_shows_every_path() {
    let page = text(PAGE);
    let (blocks, _) = fences(section(&page, "## The tree"));
    let picture = &blocks[0].body;
    let table = text("src/fs/desk/table.rs");
    let top = quoted(between(&table, "const TOP:", "];"));
    let worker = quoted(between(&table, "const WORKER:", "];"));
    assert!(top.len() >= 10 && worker.len() >= 5, "the table has another form than this test knows");
    for name in top {
        let shown = picture.lines().any(|line| {
            let path = line.split_whitespace().next().unwrap_or_default();
            path.trim_end_matches('/') == name || path.starts_with(&format!("{name}/"))
        });
        assert!(shown, "the picture in {PAGE} lacks {name}");
    }
    for name in worker {
        assert!(picture.contains(&format!("<name>/{name} ")), "the picture in {PAGE} lacks <name>/{name}");
    }
    let root = text("src/fs/tree/root.rs");
    for link in quoted(between(&root, "const LINKS:", "];")).iter().step_by(2) {
        assert!(picture.contains(link), "the picture in {PAGE} lacks {link}");
    }
}

/// Every refusal, with the placeholders that the page has for its parts.
fn refusals() -> Vec<(Refusal, Vec<(&'static str, &'static str)>)> {
    let task = TaskId::parse("ID").unwrap();
    let name = WorkerName::parse("NAME").unwrap();
    let since = Moment { seq: 1, at: Wall(0) };
    let state = TaskState::Completed;
    let problem = Arc::new(Problem { line: 0, message: "WHY".into() });
    let fate = ClaimFate { ended: None, now: Standing::Is(TaskState::Ready) };
    let ready = vec![("it is ready", "<why>")];
    let completed = vec![("completed", "<state>")];
    vec![
        (Refusal::Unknown { task: task.clone() }, vec![]),
        (Refusal::Finished { task: task.clone(), state }, completed.clone()),
        (Refusal::Rejected { task: task.clone(), problem: Some(problem) }, vec![]),
        (
            Refusal::Blocked { task: task.clone(), why: vec![Obstacle::FileOpen] },
            vec![("its file is being written", "<why>")],
        ),
        (Refusal::Held { task: task.clone(), holder: name.clone(), since }, vec![]),
        (Refusal::AlreadyYours { task: task.clone() }, vec![]),
        (Refusal::AlreadyFinished { task: task.clone(), state }, completed),
        (Refusal::NothingReady { blocked: 7, claimed: 7 }, vec![("7", "<n>")]),
        (Refusal::NothingForWorker { worker: name.clone(), missing: vec!["WORDS".into()] }, vec![]),
        (
            Refusal::Incapable {
                task: task.clone(),
                worker: name.clone(),
                missing: vec!["WORDS".into()],
                others: vec![],
            },
            vec![("nobody has all that it requires", "<who>")],
        ),
        (Refusal::TooMany { worker: name.clone(), held: 7, limit: 7 }, vec![("7", "<n>")]),
        (Refusal::Private { task: task.clone(), worker: name.clone() }, vec![]),
        (Refusal::AllPrivate { worker: name.clone(), count: 7 }, vec![("7", "<n>")]),
        (Refusal::Paused, vec![]),
        (Refusal::Draining { worker: name.clone() }, vec![]),
        (Refusal::NotHolder { task: task.clone(), fate: fate.clone() }, ready),
        (Refusal::Stale { task: task.clone(), epoch: 7 }, vec![("7", "<epoch>")]),
        (Refusal::InUse { task: task.clone(), holder: name.clone() }, vec![]),
        (
            Refusal::NoNote(EndedClaim::Of(task.clone(), fate)),
            vec![("it is ready", "<why>"), ("claim/ID", "<claim>")],
        ),
        (Refusal::NoFile { task: task.clone() }, vec![]),
        (Refusal::HasFile { task: task.clone() }, vec![]),
        (
            Refusal::Cycle {
                task: task.clone(),
                cycle: ["a", "b"].map(|id| TaskId::parse(id).unwrap()).to_vec(),
            },
            vec![("a → b → a", "<ids>")],
        ),
        (Refusal::NotFinished { task, state: TaskState::Claimed }, vec![("claimed", "<state>")]),
        (Refusal::NameTaken { worker: name.clone(), owner: 7 }, vec![("7", "<uid>")]),
        (Refusal::NoMember { uid: 7 }, vec![("7", "<uid>")]),
        (
            Refusal::OverBudget {
                spender: Spender::Worker(name.clone()),
                unit: BudgetUnit::Events,
                a_second: 50,
                at_once: 12_800,
                wait: Span(3_000),
            },
            vec![
                ("NAME", "<who>"),
                ("50 events a second, 12800 events at once", "<how much>"),
                ("3s", "<span>"),
            ],
        ),
        (Refusal::OperatorOnly { act: OperatorAct::Pause }, vec![("pausing the queue", "<what>")]),
    ]
}

/// The rows of all tables under "Refusals": sentence and errno.
fn shown_refusals(page: &str) -> BTreeSet<(String, String)> {
    let rows = rows(section(page, "## Refusals"));
    rows.iter().map(|row| (plain(row[0]).to_string(), row[1].to_string())).collect()
}

fn errno_name(errno: i32) -> &'static str {
    match errno {
        libc::ENOENT => "ENOENT",
        libc::EEXIST => "EEXIST",
        libc::EBUSY => "EBUSY",
        libc::EACCES => "EACCES",
        libc::EPERM => "EPERM",
        libc::EINVAL => "EINVAL",
        libc::EIO => "EIO",
        libc::EROFS => "EROFS",
        libc::ENOSPC => "ENOSPC",
        libc::EDQUOT => "EDQUOT",
        libc::EFBIG => "EFBIG",
        libc::ENFILE => "ENFILE",
        libc::ENOLCK => "ENOLCK",
        other => panic!("errno {other} is in no table yet"),
    }
}

#[test]
fn every_refusal_is_described_with_its_errno() {
    let page = text(PAGE);
    let shown = shown_refusals(&page);
    let all = refusals();
    let names: Vec<&str> = all.iter().map(|(refusal, _)| refusal.name()).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>(), Refusal::NAMES.iter().collect(), "what is counted");
    for (refusal, parts) in all {
        let error = FsError::from(refusal);
        let mut sentence = error.sentence("tasks").unwrap();
        for (part, shown_as) in parts {
            sentence = sentence.replace(part, shown_as);
        }
        let common = [
            ("ID", "<id>"),
            ("NAME", "<name>"),
            ("WHY", "<why>"),
            ("WORDS", "<words>"),
            (EPOCH_START, "<time>"),
        ];
        for (part, shown_as) in common {
            sentence = sentence.replace(part, shown_as);
        }
        let row = (sentence, errno_name(error.errno()).to_string());
        assert!(shown.contains(&row), "{PAGE} lacks the row {row:?}");
    }
}

/// The text of the time 0.
const EPOCH_START: &str = "1970-01-01T00:00:00.000Z";

#[test]
fn every_failure_of_the_log_is_described_with_its_errno() {
    let page = text(PAGE);
    let shown = shown_refusals(&page);
    let why = "<why>".to_string();
    for failure in [Failure::Log(why.clone()), Failure::ReadOnly(why), Failure::DiskFull, Failure::Stopping] {
        let row = (failure.to_string(), errno_name(FsError::from(failure).errno()).to_string());
        assert!(shown.contains(&row), "{PAGE} lacks the row {row:?}");
    }
}

/// Every other refusal that has a sentence, and the variants that the sources define.
fn other_refusals() -> [(Vec<FsError>, &'static str, &'static str); 3] {
    let task = || TaskId::parse("PART").unwrap();
    let worker = || WorkerName::parse("PART").unwrap();
    let path = || "PART".to_string();
    let (by, holder, at, since) = (worker(), worker(), Wall(0), Wall(0));
    let misuses = vec![
        Misuse::OurName,
        Misuse::OurDirectory,
        Misuse::NotMakeable,
        Misuse::NotMovable,
        Misuse::NotRemovable,
        Misuse::NotAnId,
        Misuse::NoTaskReady,
        Misuse::NoClaim,
        Misuse::NotWritable,
        Misuse::OnlyFiles,
        Misuse::NoSymlinks,
        Misuse::MadeByWriting { task: task() },
        Misuse::WithdrawnByRemoving { task: task() },
        Misuse::KeepsItsName { task: task() },
        Misuse::StatusIsForReading,
        Misuse::ChangesAreForReading,
        Misuse::NoSuchMove,
        Misuse::NotWords,
        Misuse::CapabilitiesOfAnother { worker: worker() },
        Misuse::NoteOfAnother { worker: worker() },
        Misuse::NothingToNote { worker: worker() },
        Misuse::NoteTooLong,
        Misuse::TextTooLong { limit: NUMBER as usize },
        Misuse::TooMuchOpen { uid: NUMBER },
        Misuse::TooManyScratches,
        Misuse::ScratchOfAnother { uid: NUMBER },
    ];
    let guard = vec![
        GuardRefusal::Held { path: path(), holder: holder.clone(), since },
        GuardRefusal::HeldAndChanged { path: path(), holder, since, by: by.clone(), at },
        GuardRefusal::Changed { path: path(), by: by.clone(), at },
        GuardRefusal::ShowedRefused { path: path() },
        GuardRefusal::Gone { path: path(), by, at },
        GuardRefusal::Owned { path: path(), task: task(), worker: worker(), since },
        GuardRefusal::Superseded { path: path(), worker: worker() },
        GuardRefusal::LocksFull { uid: NUMBER },
        GuardRefusal::OwnAttribute { like: "PART" },
    ];
    let reserved = vec![
        Reserved::StateDirectory,
        Reserved::WithoutQueue,
        Reserved::Link,
        Reserved::TasksDirectory,
        Reserved::SessionAttribute,
    ];
    [
        (misuses.into_iter().map(FsError::from).collect(), "src/fs/desk/misuse.rs", "pub enum Misuse {"),
        (
            guard.into_iter().map(FsError::from).collect(),
            "src/fs/guard/refusal.rs",
            "pub enum GuardRefusal {",
        ),
        (reserved.into_iter().map(FsError::from).collect(), "src/fs/tree/reserved.rs", "pub enum Reserved {"),
    ]
}

/// A number that stands for the variable part of a sentence.
const NUMBER: u32 = 987_654;

/// The fixed parts of a sentence.
fn fixed_parts(sentence: &str) -> Vec<String> {
    let numbers =
        [NUMBER.to_string(), limits::NOTE_BYTES.to_string(), limits::LOCKED_FILES_OF_A_USER.to_string()];
    let parts = numbers.iter().map(String::as_str).chain([EPOCH_START]);
    let sentence = parts.fold(sentence.to_string(), |sentence, part| sentence.replace(part, "PART"));
    sentence.split("PART").map(str::to_string).collect()
}

#[test]
fn every_other_sentence_of_the_filesystem_is_described_with_its_errno() {
    let page = text(PAGE);
    for (errors, source, from) in other_refusals() {
        let defined = text(source);
        let is_variant =
            |line: &&str| line.strip_prefix("    ").is_some_and(|line| line.starts_with(char::is_uppercase));
        let variants = between(&defined, from, "\n}").lines().filter(is_variant).count();
        assert_eq!(errors.len(), variants, "a variant of {source} is missing in this test");
        for error in errors {
            let (errno, sentence) = (errno_name(error.errno()), error.sentence("tasks").unwrap());
            let described = page.lines().filter(|line| line.contains(errno)).any(|line| {
                let mut rest = Some(line);
                for part in fixed_parts(&sentence) {
                    rest = rest.and_then(|rest| rest.split_once(&part)).map(|(_, rest)| rest);
                }
                rest.is_some()
            });
            assert!(described, "{PAGE} lacks {errno} with the sentence: {sentence}");
        }
    }
}

#[test]
fn every_limit_that_is_described_is_the_one_in_force() {
    let values = [
        ("TASK_ID_BYTES", limits::TASK_ID_BYTES as u64),
        ("WORKER_NAME_BYTES", limits::WORKER_NAME_BYTES as u64),
        ("INSTRUCTIONS_BYTES", limits::INSTRUCTIONS_BYTES),
        ("INIT_FILE_BYTES", limits::INIT_FILE_BYTES),
        ("UNDO_FILE_BYTES", limits::UNDO_FILE_BYTES),
        ("SIMILAR_PAIRS", limits::SIMILAR_PAIRS as u64),
        ("FRONT_MATTER_BYTES", limits::FRONT_MATTER_BYTES as u64),
        ("LIST_ITEMS", limits::LIST_ITEMS as u64),
        ("LIST_ITEM_BYTES", limits::LIST_ITEM_BYTES as u64),
        ("TITLE_BYTES", limits::TITLE_BYTES as u64),
        ("MESSAGE_BYTES", limits::MESSAGE_BYTES as u64),
        ("WARNINGS_SHOWN", limits::WARNINGS_SHOWN as u64),
        ("SPAN_DAYS", limits::SPAN_DAYS),
        ("MISNAMED_KEPT", limits::MISNAMED_KEPT as u64),
        ("MAX_ATTEMPTS", limits::MAX_ATTEMPTS.into()),
        ("RESULT_BYTES", limits::RESULT_BYTES as u64),
        ("RESULT_HEAD_BYTES", limits::RESULT_HEAD_BYTES as u64),
        ("CAPABILITIES_BYTES", limits::CAPABILITIES_BYTES as u64),
        ("RESERVATIONS", limits::RESERVATIONS as u64),
        ("NOTE_BYTES", limits::NOTE_BYTES as u64),
        ("SCRATCH_FILES", limits::SCRATCH_FILES as u64),
        ("SCRATCH_FILES_OF_A_USER", limits::SCRATCH_FILES_OF_A_USER as u64),
        ("SCRATCH_BYTES", limits::SCRATCH_BYTES as u64),
        ("SCRATCH_BYTES_OF_A_USER", limits::SCRATCH_BYTES_OF_A_USER as u64),
        ("OPEN_TEXTS_OF_A_USER", limits::OPEN_TEXTS_OF_A_USER as u64),
        ("OPEN_BYTES_OF_A_USER", limits::OPEN_BYTES_OF_A_USER as u64),
        ("PRIVATE_FILES_OF_A_TASK", limits::PRIVATE_FILES_OF_A_TASK as u64),
        ("TORN_FILES", limits::TORN_FILES as u64),
        ("WORKERS_PRESENT", limits::WORKERS_PRESENT as u64),
        ("NAMED_IN_A_SENTENCE", limits::NAMED_IN_A_SENTENCE as u64),
        ("LOSSES_KEPT", limits::LOSSES_KEPT as u64),
        ("STUCK_SHOWN", limits::STUCK_SHOWN as u64),
        ("TASKS_ON_THE_DASHBOARD", limits::TASKS_ON_THE_DASHBOARD as u64),
        ("WORKERS_ON_THE_DASHBOARD", limits::WORKERS_ON_THE_DASHBOARD as u64),
        ("TEXT_ON_THE_DASHBOARD", limits::TEXT_ON_THE_DASHBOARD as u64),
        ("EVENTS_SHOWN", limits::EVENTS_SHOWN as u64),
        ("COMMANDS_IN_A_BATCH", limits::COMMANDS_IN_A_BATCH as u64),
        ("RESERVED_BYTES", limits::RESERVED_BYTES),
        ("LEASE_WAIT_MS", limits::LEASE_WAIT_MS),
        ("LEASED_REQUESTS", limits::LEASED_REQUESTS as u64),
        ("LEASED_REQUESTS_OF_A_USER", limits::LEASED_REQUESTS_OF_A_USER as u64),
        ("SNAPSHOT_BYTES", limits::SNAPSHOT_BYTES),
        ("LOG_BURST_SECONDS", limits::LOG_BURST_SECONDS),
        ("LOG_SHARES_OF_A_USER", limits::LOG_SHARES_OF_A_USER),
        ("TEXT_IN_LINE_BYTES", limits::TEXT_IN_LINE_BYTES as u64),
        ("SETTLE_MS", limits::SETTLE_MS),
        ("UNSETTLED_MS", limits::UNSETTLED_MS),
        ("ANCESTORS", limits::ANCESTORS as u64),
        ("ENVIRONMENT_BYTES", limits::ENVIRONMENT_BYTES as u64),
        ("ENVIRONMENTS_BYTES", limits::ENVIRONMENTS_BYTES as u64),
        ("NAMES_BELIEVED_MS", limits::NAMES_BELIEVED_MS),
        ("NAMES_FILE_BYTES", limits::NAMES_FILE_BYTES),
        ("LOOKUP_MS", limits::LOOKUP_MS),
        ("LOOKUP_WARY_MS", limits::LOOKUP_WARY_MS),
        ("WARY_MS", limits::WARY_MS),
        ("LATE_LOOKUPS_A_SECOND", limits::LATE_LOOKUPS_A_SECOND as u64),
        ("LOOKUP_LONGEST_MS", limits::LOOKUP_LONGEST_MS),
        ("LOOKERS", limits::LOOKERS as u64),
        ("LOOKUPS_QUEUED", limits::LOOKUPS_QUEUED as u64),
        ("FOLLOWED_PROCESSES", limits::FOLLOWED_PROCESSES as u64),
        ("WATCHED_EXITS", limits::WATCHED_EXITS as u64),
        ("EXIT_TOLD_MS", limits::EXIT_TOLD_MS),
        ("TREE_NODES_KEPT", limits::TREE_NODES_KEPT as u64),
        ("LOCKED_FILES", limits::LOCKED_FILES as u64),
        ("LOCKED_FILES_OF_A_USER", limits::LOCKED_FILES_OF_A_USER as u64),
        ("RECENT_FILES", limits::RECENT_FILES as u64),
        ("WAITING_CHANGES", limits::WAITING_CHANGES as u64),
        ("WAITING_CHANGES_OF_A_USER", limits::WAITING_CHANGES_OF_A_USER as u64),
        ("DIRECTORY_WAIT_MS", limits::DIRECTORY_WAIT_MS),
        ("STUCK_MS", limits::STUCK_MS),
        ("STUCK_UNSEEN_MS", limits::STUCK_UNSEEN_MS),
        ("UNSEEN_LOCK_MS", limits::UNSEEN_LOCK_MS),
        ("HISTORY_LOOSE_OBJECTS", limits::HISTORY_LOOSE_OBJECTS as u64),
        ("HISTORY_LOOSE_BYTES", limits::HISTORY_LOOSE_BYTES),
        ("HISTORY_PACKED_BYTES", limits::HISTORY_PACKED_BYTES),
        ("HISTORY_PACKS", limits::HISTORY_PACKS as u64),
        ("HISTORY_REMOVED_SHARE", limits::HISTORY_REMOVED_SHARE as u64),
        ("HISTORY_QUIET_MS", limits::HISTORY_QUIET_MS),
        ("HISTORY_STEP_MS", limits::HISTORY_STEP_MS),
        ("HISTORY_PACK_MS", limits::HISTORY_PACK_MS),
        ("HISTORY_PRUNE_MS", limits::HISTORY_PRUNE_MS),
        ("HISTORY_ITEMS", limits::HISTORY_ITEMS as u64),
        ("JOURNAL_LINES", limits::JOURNAL_LINES as u64),
        ("READ_WAIT_MS", limits::READ_WAIT_MS),
        ("DIFFS_KEPT", limits::DIFFS_KEPT as u64),
        ("REVISIONS_KEPT", limits::REVISIONS_KEPT as u64),
        ("HISTORY_HEADS", limits::HISTORY_HEADS),
        ("IGNORE_FILE_BYTES", limits::IGNORE_FILE_BYTES),
    ];
    let page = text(PAGE);
    let shown = rows(section(&page, "## Limits"));
    assert_eq!(shown.len(), values.len(), "{PAGE} and this test know different limits");
    for (name, value) in values {
        let row = shown.iter().find(|row| plain(row[2]) == name);
        let row = row.unwrap_or_else(|| panic!("{PAGE} lacks the limit {name}"));
        assert_eq!(row[1].split(' ').next(), Some(value.to_string().as_str()), "{name}");
    }
}

#[test]
fn every_kind_of_event_is_named() {
    let source = text("src/queue/event.rs");
    let variants = between(&source, "pub enum Event {\n", "\n}\n");
    let names = variants.lines().filter_map(|line| line.strip_prefix("    ")?.strip_suffix(" {"));
    let page = text(PAGE);
    let mut count = 0;
    for name in names {
        let mut kind = String::new();
        for (n, c) in name.chars().enumerate() {
            if n > 0 && c.is_uppercase() {
                kind.push('_');
            }
            kind.push(c.to_ascii_lowercase());
        }
        assert!(page.contains(&format!("`{kind}`")), "{PAGE} does not name the event {kind}");
        assert!(Event::NAMES.contains(&kind.as_str()), "the event {kind} is not counted");
        count += 1;
    }
    assert!(count >= 13, "only {count} events were found");
}

#[test]
fn the_mount_options_described_are_those_that_are_read() {
    let source = text("src/cli/options.rs");
    let known: BTreeSet<&str> = between(&source, "const KNOWN: &str = \"", "\"").split(", ").collect();
    let page = text(PAGE);
    let options = section(&page, "## Mount options");
    let described: BTreeSet<&str> = rows(options).iter().map(|row| plain(row[0])).collect();
    assert_eq!(described, known);
    let arms = between(&source, "match (key, value) {", "_ => return");
    let read: BTreeSet<&str> =
        arms.lines().filter_map(|line| line.trim_start().strip_prefix("(\"")?.split('"').next()).collect();
    let keys: BTreeSet<&str> = known.iter().filter_map(|option| option.split('=').next()).collect();
    assert_eq!(read, keys);
    let ignored = between(&source, "const IGNORED:", ";\n").split_once('=').map_or("", |(_, list)| list);
    for option in quoted(ignored) {
        assert!(options.contains(&format!("`{option}`")), "{PAGE} does not say that {option} is accepted");
    }
}

#[test]
fn every_metric_is_described() {
    let source = text("src/fs/desk/metrics.rs");
    let page = text(PAGE);
    let shown = section(&page, "### Looking at it");
    let metrics: BTreeSet<&str> =
        quoted(&source).into_iter().filter(|name| name.starts_with("crewfs_")).collect();
    assert!(metrics.len() >= 15, "only {metrics:?} were found");
    for metric in metrics {
        assert!(shown.contains(&format!("`{metric}`")), "{PAGE} does not describe {metric}");
    }
}

#[test]
fn every_kind_of_stuck_is_described() {
    let source = text("src/queue/stuck.rs");
    let page = text(PAGE);
    let shown = section(&page, "### Looking at it");
    let script = text("src/fs/desk/dashboard.html");
    let variants = between(&source, "pub enum StuckKind {\n", "\n}\n");
    let names = variants.lines().filter_map(|line| line.strip_prefix("    ")?.strip_suffix(','));
    let snake = |name: &str| match name {
        "LostClaims" => "lost_claims".into(),
        "GivenBack" => "given_back".into(),
        name => name.to_lowercase(),
    };
    let kinds: Vec<String> = names.map(snake).collect();
    assert!(kinds.len() >= 8, "only {kinds:?} were found");
    for kind in kinds {
        assert!(shown.contains(&format!("`{kind}`")), "{PAGE} does not describe {kind}");
        assert!(
            between(&script, "const KINDS = {", "};").contains(&format!("{kind}: ")),
            "the page has no words for {kind}"
        );
    }
}

/// The numbers of promises in a text, such as `C20`, that follow the text `before`.
fn promises(text: &str, before: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, mark) in text.match_indices(&format!("{before}C")) {
        let digits: String = text[at + mark.len()..].chars().take_while(char::is_ascii_digit).collect();
        let after = text[at + mark.len() + digits.len()..].chars().next();
        let is_apart = text[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_');
        let ends = after.is_none_or(|c| !c.is_alphanumeric() && c != '_');
        if is_apart && ends && (1..=2).contains(&digits.len()) {
            found.insert(format!("C{digits}"));
        }
    }
    found
}

#[test]
fn every_promise_is_on_the_page_once_and_in_its_index() {
    let page = text(PAGE);
    let (body, _) = page.split_once("\n## Promises\n").expect("an index of the promises");
    let listed: Vec<_> = rows(section(&page, "## Promises")).iter().map(|row| row[0].to_string()).collect();
    let index: BTreeSet<String> = listed.iter().cloned().collect();
    assert_eq!(listed.len(), index.len(), "a number is in the index twice");
    assert_eq!(promises(body, "**"), index, "what the page promises, and its index");
    let readers = ["tests", "src", "hooks", "mount-scripts"].into_iter().flat_map(texts_below);
    for (path, text) in readers.chain(pages()) {
        let unknown: Vec<_> = promises(&text, "").difference(&index).cloned().collect();
        assert!(unknown.is_empty(), "{path} quotes {unknown:?}, which {PAGE} does not promise");
    }
}
