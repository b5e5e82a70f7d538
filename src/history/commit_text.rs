//! The text of a commit: what git's files, ids and modes do not say about a step.
//!
//! Must never: lose anything. What is written reads back as the same value; a property test says so.
//!
//! ```text
//! login: Sign in with a key                      the task and its title, or "Changes by worker-1"
//!
//! Keys are read from ~/.keys.                    the result, at the end of the claim
//!
//! Task: login
//! Worker: worker-1
//! Epoch: 17
//! Ended: completed
//! At: 2026-01-31T12:00:00.250Z
//! Owner: 1000:1000                               of every version without a line of its own; root's is not written
//! Old-Attributes: 0600 1000:1000 src/key.rs      before the step
//! Attributes: 0640 1000:0 src/key.rs             after it
//! Not-Kept: 73400320 0644 1000:1000 model.bin
//! ```
//!
//! A value with control characters, quotes or bytes that are no UTF-8 is quoted as git quotes paths.

use std::ffi::OsString;
use std::fmt::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::{ClaimEnd, TaskClaim};
use crate::queue::{TaskId, Wall, WorkerName};

/// What the text of a commit says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct CommitText {
    pub(super) worker: Option<WorkerName>,
    pub(super) claim: Option<TaskClaim>,
    pub(super) program: Option<String>,
    pub(super) at: Wall,
    pub(super) end: Option<ClaimEnd>,
    /// The owner and group of the versions that no remark mentions.
    pub(super) owner: (u32, u32),
    pub(super) remarks: Vec<Remark>,
}

/// What git's tree does not say about one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remark {
    /// Whether it is the version before the step.
    pub(super) before: bool,
    pub(super) subject: RemarkSubject,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) path: PathBuf,
}

/// The version that a remark describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RemarkSubject {
    /// The one in the tree, with other attributes.
    InTree,
    /// A file of this length without content.
    FileNotKept(u64),
    /// A link of this length without its target.
    LinkNotKept(u64),
    /// An empty directory.
    Directory,
}

/// Who a step is by, where no worker made it.
pub(super) const OUTSIDE: &str = "outside";

const OLD: &str = "Old-";
const ATTRIBUTES: &str = "Attributes";
const FILE_NOT_KEPT: &str = "Not-Kept";
const LINK_NOT_KEPT: &str = "Link-Not-Kept";
const DIRECTORY: &str = "Directory";

impl CommitText {
    /// The text.
    pub(super) fn format(&self) -> String {
        let mut text = self.subject();
        text.push_str("\n\n");
        let result = self.end.as_ref().map_or("", |end| &end.text);
        // Git ends the text at a NUL.
        let quoted = result.contains('\0');
        if !result.is_empty() {
            text.push_str(&if quoted { quote(result.as_bytes()) } else { result.to_string() });
            text.push_str("\n\n");
        }
        let mut trailer = |name: &str, value: &str| {
            let _ = writeln!(text, "{name}: {value}");
        };
        if let Some(claim) = &self.claim {
            trailer("Task", claim.task.as_str());
            if !in_subject(&claim.title) {
                trailer("Title", &quote(claim.title.as_bytes()));
            }
        }
        if let Some(worker) = &self.worker {
            trailer("Worker", worker.as_str());
        }
        if let Some(claim) = &self.claim {
            trailer("Epoch", &claim.epoch.to_string());
        }
        if let Some(program) = &self.program {
            trailer("Program", &quote(program.as_bytes()));
        }
        if let Some(end) = &self.end {
            trailer("Ended", &quote(end.how.as_bytes()));
            if quoted {
                trailer("Result", "quoted");
            }
        }
        trailer("At", &self.at.to_string());
        if self.owner != (0, 0) {
            trailer("Owner", &format!("{}:{}", self.owner.0, self.owner.1));
        }
        for remark in &self.remarks {
            let (name, bytes) = match remark.subject {
                RemarkSubject::InTree => (ATTRIBUTES, String::new()),
                RemarkSubject::FileNotKept(bytes) => (FILE_NOT_KEPT, format!("{bytes} ")),
                RemarkSubject::LinkNotKept(bytes) => (LINK_NOT_KEPT, format!("{bytes} ")),
                RemarkSubject::Directory => (DIRECTORY, String::new()),
            };
            let Remark { before, mode, uid, gid, ref path, .. } = *remark;
            let path = quote(path.as_os_str().as_bytes());
            let name = format!("{}{name}", if before { OLD } else { "" });
            trailer(&name, &format!("{bytes}{mode:04o} {uid}:{gid} {path}"));
        }
        text
    }

    fn subject(&self) -> String {
        let by = self.worker.as_ref().map_or("outside crewfs", WorkerName::as_str);
        match (&self.claim, &self.program) {
            (Some(claim), _) if in_subject(&claim.title) => format!("{}: {}", claim.task, claim.title),
            (Some(claim), _) => format!("{}: {}", claim.task, one_line(&claim.title)),
            (None, _) if self.worker.is_none() => format!("Changes from {by}"),
            (None, Some(program)) => format!("Changes by {by} with {}", one_line(program)),
            (None, None) => format!("Changes by {by}"),
        }
    }

    /// What a text says; `None` if crewfs did not write it.
    pub(super) fn parse(text: &str) -> Option<CommitText> {
        let (subject, rest) = text.split_once("\n\n")?;
        let (body, trailers) = rest.rsplit_once("\n\n").unwrap_or(("", rest));
        let mut said = CommitText::default();
        let (mut task, mut title, mut epoch, mut how, mut quoted) = (None, None, None, None, false);
        for line in trailers.strip_suffix('\n')?.split('\n') {
            let (name, value) = line.split_once(": ")?;
            match name {
                "Task" => task = Some(TaskId::parse(value)?),
                "Title" => title = Some(unquote_text(value)?),
                "Worker" => said.worker = Some(WorkerName::parse(value)?),
                "Epoch" => epoch = Some(value.parse().ok()?),
                "Program" => said.program = Some(unquote_text(value)?),
                "Ended" => how = Some(unquote_text(value)?),
                "Result" => quoted = true,
                "At" => said.at = parse_time(value)?,
                "Owner" => said.owner = parse_owner(value)?,
                _ => said.remarks.push(parse_remark(name, value)?),
            }
        }
        if let Some(task) = task {
            let title = match title {
                Some(title) => title,
                None => subject.strip_prefix(task.as_str())?.strip_prefix(": ")?.to_string(),
            };
            said.claim = Some(TaskClaim { task, epoch: epoch?, title });
        }
        if let Some(how) = how {
            let text = if quoted { unquote_text(body)? } else { body.to_string() };
            said.end = Some(ClaimEnd { how, text });
        }
        Some(said)
    }
}

/// Whether the first line of a text can hold a title as it is.
fn in_subject(title: &str) -> bool {
    !title.contains(['\n', '\0'])
}

/// A text for people, in one line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn parse_time(value: &str) -> Option<Wall> {
    Wall::parse(value).or_else(|| value.strip_suffix("ms")?.parse().ok().map(Wall))
}

fn parse_owner(value: &str) -> Option<(u32, u32)> {
    let (uid, gid) = value.split_once(':')?;
    Some((uid.parse().ok()?, gid.parse().ok()?))
}

fn parse_remark(name: &str, value: &str) -> Option<Remark> {
    let (before, name) = name.strip_prefix(OLD).map_or((false, name), |name| (true, name));
    let (subject, rest) = match name {
        ATTRIBUTES => (RemarkSubject::InTree, value),
        DIRECTORY => (RemarkSubject::Directory, value),
        FILE_NOT_KEPT | LINK_NOT_KEPT => {
            let (bytes, rest) = value.split_once(' ')?;
            let bytes = bytes.parse().ok()?;
            let is_file = name == FILE_NOT_KEPT;
            (
                if is_file { RemarkSubject::FileNotKept(bytes) } else { RemarkSubject::LinkNotKept(bytes) },
                rest,
            )
        }
        _ => return None,
    };
    let (mode, rest) = rest.split_once(' ')?;
    let (owner, path) = rest.split_once(' ')?;
    let (uid, gid) = parse_owner(owner)?;
    let path = PathBuf::from(OsString::from_vec(unquote(path)?));
    Some(Remark { before, subject, mode: u32::from_str_radix(mode, 8).ok()?, uid, gid, path })
}

/// A value for one line: as it is, or in quotes with escapes.
pub(super) fn quote(bytes: &[u8]) -> String {
    let plain = std::str::from_utf8(bytes).ok().filter(|text| {
        !text.is_empty()
            && text.trim() == *text
            && !text.contains(['"', '\\'])
            && !text.contains(char::is_control)
    });
    if let Some(text) = plain {
        return text.to_string();
    }
    let mut quoted = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => quoted.extend(['\\', c]),
                '\n' => quoted.push_str("\\n"),
                '\t' => quoted.push_str("\\t"),
                c if c.is_control() => {
                    let mut bytes = [0; 4];
                    c.encode_utf8(&mut bytes).bytes().for_each(|byte| octal(&mut quoted, byte));
                }
                c => quoted.push(c),
            }
        }
        chunk.invalid().iter().for_each(|byte| octal(&mut quoted, *byte));
    }
    quoted.push('"');
    quoted
}

fn octal(quoted: &mut String, byte: u8) {
    let _ = write!(quoted, "\\{byte:03o}");
}

fn unquote(value: &str) -> Option<Vec<u8>> {
    let Some(inner) = value.strip_prefix('"') else { return Some(value.as_bytes().to_vec()) };
    let mut bytes = inner.strip_suffix('"')?.bytes();
    let mut found = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            found.push(byte);
            continue;
        }
        found.push(match bytes.next()? {
            b'n' => b'\n',
            b't' => b'\t',
            first @ b'0'..=b'3' => {
                let mut digit =
                    || bytes.next().filter(|byte| (b'0'..b'8').contains(byte)).map(|byte| byte - b'0');
                (first - b'0') << 6 | digit()? << 3 | digit()?
            }
            other => other,
        });
    }
    Some(found)
}

fn unquote_text(value: &str) -> Option<String> {
    String::from_utf8(unquote(value)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claims() -> impl Strategy<Value = TaskClaim> {
        let task = "[A-Za-z0-9][A-Za-z0-9._-]{0,20}";
        (task, any::<u64>(), texts()).prop_filter_map("a name", |(task, epoch, title)| {
            Some(TaskClaim { task: TaskId::parse(&task)?, epoch, title })
        })
    }

    fn texts() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            "[a-z \n\0\"\\\\:]{0,12}",
            Just("a\n\nTask: other\n".to_string()),
            Just("\n\n".to_string())
        ]
    }

    fn remarks() -> impl Strategy<Value = Remark> {
        let subject = prop_oneof![
            Just(RemarkSubject::InTree),
            any::<u64>().prop_map(RemarkSubject::FileNotKept),
            any::<u64>().prop_map(RemarkSubject::LinkNotKept),
            Just(RemarkSubject::Directory)
        ];
        let path = prop_oneof![
            proptest::collection::vec(1u8.., 1..12),
            Just(b"\xc3\xa4 \" \\303".to_vec()),
            Just(b" edge ".to_vec())
        ];
        (any::<bool>(), subject, 0u32..0o10000, any::<u32>(), any::<u32>(), path).prop_map(
            |(before, subject, mode, uid, gid, path)| {
                let path = PathBuf::from(OsString::from_vec(path));
                Remark { before, subject, mode, uid, gid, path }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn what_is_written_reads_back(
            worker in proptest::option::of("[a-z][a-z0-9._-]{0,9}"),
            claim in proptest::option::of(claims()),
            program in proptest::option::of(texts()),
            at in prop_oneof![any::<i64>(), -99_999_999_999_999i64..99_999_999_999_999],
            end in proptest::option::of((texts(), texts())),
            owner in any::<(u32, u32)>(),
            remarks in proptest::collection::vec(remarks(), 0..4),
        ) {
            let worker = worker.and_then(|name| WorkerName::parse(&name));
            let end = end.map(|(how, text)| ClaimEnd { how, text });
            let said = CommitText { worker, claim, program, at: Wall(at), end, owner, remarks };
            let text = said.format();
            prop_assert!(!text.contains('\0'));
            prop_assert_eq!(CommitText::parse(&text), Some(said));
        }
    }

    #[test]
    fn a_commit_reads_as_people_expect() {
        let said = CommitText {
            worker: WorkerName::parse("worker-1"),
            claim: Some(TaskClaim {
                task: TaskId::parse("login").unwrap(),
                epoch: 17,
                title: "Sign in".into(),
            }),
            program: Some("git".into()),
            at: Wall(1_769_860_800_250),
            end: Some(ClaimEnd { how: "completed".into(), text: "Keys are read.".into() }),
            owner: (1000, 1000),
            remarks: vec![Remark {
                before: false,
                subject: RemarkSubject::InTree,
                mode: 0o640,
                uid: 1000,
                gid: 0,
                path: "src/key.rs".into(),
            }],
        };
        let text = "login: Sign in\n\nKeys are read.\n\nTask: login\nWorker: worker-1\nEpoch: 17\nProgram: git\nEnded: completed\n\
                    At: 2026-01-31T12:00:00.250Z\nOwner: 1000:1000\nAttributes: 0640 1000:0 src/key.rs\n";
        assert_eq!(said.format(), text);
    }
}
