//! Reads the mount in a child process.
//!
//! A call on a mount whose daemon hangs, or whose network is gone, cannot be ended, not even by killing its process. A thread that
//! made it would keep the whole program from ending. So a child reads the mount on request, and the program does not wait for its
//! end.
//!
//! May assume: the content of a document is fixed when it is opened.
//! Must never: touch the mount in the process that has the terminal.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use super::model::MountUpdate;
use crate::cli::error::{CliError, dead_mount};
use crate::cli::out;
use crate::clock::Clock;
use crate::limits::{TOP_DOCUMENT_BYTES, TOP_EVENT_BYTES, TOP_QUEUE_MS, TOP_REST};
use crate::queue::{Instant, Span};
use crate::state_directory::plain;

/// The result of reading the mount.
#[derive(Debug)]
pub(super) enum FeedMessage {
    /// The mount answered.
    Update(MountUpdate),
    /// An error that may pass.
    Trouble(String),
    /// The mount is gone. The program ends with this error.
    Ended(CliError),
}

/// Start to read the mount at a place, now and then again with pauses of at least `interval`.
pub(super) fn start(
    place: &Path,
    interval: Duration,
    clock: Clock,
) -> Result<Receiver<FeedMessage>, CliError> {
    let program = std::env::current_exe().map_err(CliError::failed)?;
    let mut child = Command::new(program);
    child
        .args(["top", "--feed"])
        .arg(place)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = child.spawn().map_err(|error| {
        CliError::failed(format!("the process that reads the mount cannot be started: {error}"))
    })?;
    let pipes = (child.stdin.take(), child.stdout.take());
    let (Some(orders), Some(answers)) = pipes else { return Err(CliError::failed("a pipe is missing")) };
    // One message may wait, so that a slow reader gets no old ones.
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || ask(orders, BufReader::new(answers), &sender, interval, &clock));
    Ok(receiver)
}

fn ask(
    mut orders: ChildStdin,
    mut answers: BufReader<ChildStdout>,
    news: &SyncSender<FeedMessage>,
    interval: Duration,
    clock: &Clock,
) {
    loop {
        let began = clock().instant;
        let told = orders.write_all(b"\n").and_then(|()| receive(&mut answers));
        let told = told.unwrap_or_else(|error| {
            FeedMessage::Ended(CliError::failed(format!("the process that reads the mount ended: {error}")))
        });
        let last = matches!(told, FeedMessage::Ended(_));
        if news.send(told).is_err() || last {
            return;
        }
        // A queue that takes long to read is read less often, so that reading takes little of the daemon's time.
        let took = clock().instant.since(began).to_std();
        std::thread::sleep(interval.max(took * TOP_REST));
    }
}

/// Receive one answer: documents, each with its name and length, and a line that ends it.
fn receive(from: &mut impl BufRead) -> io::Result<FeedMessage> {
    let (mut answer, mut line) = (MountUpdate::default(), String::new());
    loop {
        line.clear();
        if from.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (word, rest) = line.trim_end().split_once(' ').unwrap_or((line.trim_end(), ""));
        match word {
            "end" => return Ok(FeedMessage::Update(answer)),
            "trouble" => return Ok(FeedMessage::Trouble(rest.into())),
            "gone" => {
                let (code, message) = rest.split_once(' ').unwrap_or(("1", rest));
                let code = code.parse().unwrap_or(1);
                return Ok(FeedMessage::Ended(CliError { code, message: message.into() }));
            }
            name => {
                let mut text = vec![0; rest.parse().map_err(|_| io::ErrorKind::InvalidData)?];
                from.read_exact(&mut text)?;
                let text = Some(String::from_utf8_lossy(&text).into_owned());
                match name {
                    "queue" => answer.queue = text,
                    "workers" => answer.workers = text,
                    "summary" => answer.summary = text,
                    "events" => answer.events = text,
                    _ => {}
                }
            }
        }
    }
}

/// The child's part: for each line on standard input, read the mount and write the answer.
pub(super) fn serve(place: &Path, clock: &Clock) -> Result<(), CliError> {
    let mut desk = None;
    for order in io::stdin().lock().lines() {
        let answer = match &mut desk {
            None => {
                DeskReader::find(place).and_then(|found| desk.insert(found).read_changes(clock().instant))
            }
            Some(desk) => desk.read_changes(clock().instant),
        };
        let said = match answer {
            Ok(documents) => {
                let mut said = Vec::new();
                for (name, bytes) in documents {
                    said.extend(format!("{name} {}\n", bytes.len()).into_bytes());
                    said.extend(bytes);
                }
                said.extend(b"end\n");
                said
            }
            Err(ReadError::Trouble(why)) => format!("trouble {}\n", why.replace('\n', " ")).into_bytes(),
            Err(ReadError::Fatal(CliError { code, message })) => {
                format!("gone {code} {}\n", message.replace('\n', " ")).into_bytes()
            }
        };
        if order.is_err() || !out::write(&said) {
            break;
        }
    }
    Ok(())
}

/// Why there is no answer.
#[derive(Debug)]
enum ReadError {
    Trouble(String),
    Fatal(CliError),
}

type Documents = Vec<(&'static str, Vec<u8>)>;

/// Reads the documents of a desk, and keeps the last version of each.
struct DeskReader {
    mountpoint: PathBuf,
    tasks: PathBuf,
    /// The offset of the next event.
    events: u64,
    queue_at: Option<Instant>,
    last: [(&'static str, Vec<u8>); 3],
}

const DOCUMENTS: [(&str, &str); 3] =
    [("summary", "summary.json"), ("workers", "workers.json"), ("queue", "queue.json")];
const EVENTS: &str = "events.jsonl";

impl DeskReader {
    /// The desk of the project that is mounted at this place, or the place itself if it is a desk.
    fn find(place: &Path) -> Result<DeskReader, ReadError> {
        let is_desk = |tasks: &Path| -> io::Result<()> {
            fs::metadata(tasks.join("queue.json")).and_then(|_| fs::metadata(tasks.join(EVENTS))).map(drop)
        };
        let mut first_error = None;
        for tasks in candidates(place) {
            match is_desk(&tasks) {
                Ok(()) => {
                    return Ok(DeskReader {
                        mountpoint: place.to_path_buf(),
                        tasks,
                        events: 0,
                        queue_at: None,
                        last: DOCUMENTS.map(|(name, _)| (name, Vec::new())),
                    });
                }
                Err(error) if is_missing(&error) => {}
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        let shown = place.display();
        Err(ReadError::Fatal(match first_error {
            None => CliError::not_mounted(place),
            Some(error) if is_dead(&error) => CliError { code: 3, message: dead_mount(place) },
            Some(error) => CliError::failed(format!("{shown}: {error}")),
        }))
    }

    /// Read the documents that may have changed, and return those that have.
    fn read_changes(&mut self, now: Instant) -> Result<Documents, ReadError> {
        let mut found = Documents::new();
        let events = self.read_events();
        let events = self.checked(EVENTS, events)?.unwrap_or_default();
        // Tasks change with events. Changes by time alone may show a little later.
        let overdue = self.queue_at.is_none_or(|at| now.since(at) >= Span(TOP_QUEUE_MS));
        let read_queue = overdue || !events.is_empty();
        if !events.is_empty() {
            found.push(("events", events));
        }
        for (n, (name, file)) in DOCUMENTS.into_iter().enumerate() {
            if name == "queue" && !read_queue {
                continue;
            }
            let read = self.open(file).and_then(|file| {
                let mut bytes = Vec::new();
                file.take(TOP_DOCUMENT_BYTES).read_to_end(&mut bytes).map(|_| bytes)
            });
            let Some(bytes) = self.checked(file, read)? else { continue };
            if self.last[n].1 != bytes {
                self.last[n].1.clone_from(&bytes);
                found.push((name, bytes));
            }
        }
        if read_queue {
            self.queue_at = Some(now);
        }
        Ok(found)
    }

    /// Open a file of the desk. A directory that only looks like a desk may contain links, pipes, or files without an end.
    fn open(&self, file: &str) -> io::Result<File> {
        Ok(plain::look_at(plain::look_into(&self.tasks.join("."))?, file)?)
    }

    /// The events since the last reading, whole lines only. At first the latest.
    fn read_events(&mut self) -> io::Result<Vec<u8>> {
        let mut file = self.open(EVENTS)?;
        let end = file.seek(SeekFrom::End(0))?;
        let earliest = end.saturating_sub(TOP_EVENT_BYTES);
        // A log that is shorter than before is another log.
        let from = if self.events > end { earliest } else { self.events.max(earliest) };
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(TOP_EVENT_BYTES).read_to_end(&mut bytes)?;
        // The first line may be cut. It does not parse, and is not shown.
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |last| last + 1);
        let full = bytes.len() as u64 == TOP_EVENT_BYTES;
        bytes.truncate(whole);
        // A line that is longer than one read is skipped.
        self.events = if whole == 0 && full { from + TOP_EVENT_BYTES } else { from + whole as u64 };
        Ok(bytes)
    }

    /// The content of a document that was read. `None` if this mount has no such document.
    fn checked(&self, file: &str, read: io::Result<Vec<u8>>) -> Result<Option<Vec<u8>>, ReadError> {
        let error = match read {
            Ok(bytes) => return Ok(Some(bytes)),
            Err(error) => error,
        };
        if is_dead(&error) {
            return Err(ReadError::Fatal(CliError { code: 3, message: dead_mount(&self.mountpoint) }));
        }
        match is_missing(&error) {
            true if file == "summary.json" => Ok(None),
            true => Err(ReadError::Fatal(CliError {
                code: 3,
                message: format!("{} is no longer mounted", self.mountpoint.display()),
            })),
            false => Err(ReadError::Trouble(format!("{file} cannot be read: {error}"))),
        }
    }
}

/// Where the desk may be. The link in the project's root leads there, unless the project has a file of its own with that name.
fn candidates(place: &Path) -> Vec<PathBuf> {
    let link = fs::read_link(place.join("task-queue.json")).ok();
    let named = link.as_deref().and_then(Path::parent).map(|tasks| place.join(tasks));
    let mounted = crate::mounts::desk_of(place).ok().flatten().map(|desk| desk.mountpoint);
    named.into_iter().chain(mounted).chain([place.join("tasks"), place.to_path_buf()]).collect()
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR))
}

fn is_dead(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED | libc::ESTALE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desk(tasks: &Path) -> DeskReader {
        for file in ["queue.json", "workers.json", EVENTS] {
            fs::write(tasks.join(file), "").unwrap();
        }
        DeskReader::find(tasks).unwrap()
    }

    fn names(documents: &Documents) -> Vec<&str> {
        documents.iter().map(|(name, _)| *name).collect()
    }

    #[test]
    fn only_what_changed_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let mut desk = desk(dir.path());
        let put = |file: &str, text: &str| fs::write(dir.path().join(file), text).unwrap();
        put("queue.json", "{}");
        put("workers.json", "{ }");
        assert_eq!(names(&desk.read_changes(Instant(0)).unwrap()), ["workers", "queue"]);
        assert!(desk.read_changes(Instant(1)).unwrap().is_empty());
        put("queue.json", "{\"a\": 1}");
        assert!(desk.read_changes(Instant(2)).unwrap().is_empty(), "without an event the queue is the same");
        put(EVENTS, "one\ntw");
        let found = desk.read_changes(Instant(3)).unwrap();
        assert_eq!(names(&found), ["events", "queue"]);
        assert_eq!(found[0].1, b"one\n");
        put(EVENTS, "one\ntwo\n");
        assert_eq!(desk.read_changes(Instant(4)).unwrap()[0].1, b"two\n");
        put("queue.json", "{\"a\": 2}");
        assert_eq!(names(&desk.read_changes(Instant(4 + TOP_QUEUE_MS)).unwrap()), ["queue"]);
        put(EVENTS, "n\n");
        assert_eq!(desk.read_changes(Instant(9)).unwrap()[0].1, b"n\n", "another log");
        put("summary.json", "{}");
        assert_eq!(names(&desk.read_changes(Instant(9)).unwrap()), ["summary"]);
    }

    #[test]
    fn a_long_log_is_read_from_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut desk = desk(dir.path());
        let line = "x".repeat(TOP_EVENT_BYTES as usize * 2);
        fs::write(dir.path().join(EVENTS), format!("{line}\nlast\n")).unwrap();
        let found = desk.read_changes(Instant(0)).unwrap();
        assert!(found[0].1.ends_with(b"\nlast\n") && found[0].1.len() as u64 <= TOP_EVENT_BYTES);
        fs::write(dir.path().join(EVENTS), format!("{line}\nlast\n{line}")).unwrap();
        assert!(!names(&desk.read_changes(Instant(1)).unwrap()).contains(&"events"), "not a whole line");
        fs::write(dir.path().join(EVENTS), format!("{line}\nlast\n{line}\nmore\n")).unwrap();
        assert!(desk.read_changes(Instant(2)).unwrap()[0].1.ends_with(b"\nmore\n"));
    }

    #[test]
    fn what_is_no_mount_or_ends_is_3() {
        let dir = tempfile::tempdir().unwrap();
        let gone = |seen: ReadError| match seen {
            ReadError::Fatal(failure) => (failure.code, failure.message),
            ReadError::Trouble(why) => panic!("{why}"),
        };
        let (code, said) = gone(DeskReader::find(dir.path()).err().unwrap());
        assert_eq!(code, 3, "{said}");
        let tasks = dir.path().join("crew");
        fs::create_dir(&tasks).unwrap();
        desk(&tasks);
        std::os::unix::fs::symlink("crew/queue.json", dir.path().join("task-queue.json")).unwrap();
        let mut desk = DeskReader::find(dir.path()).unwrap();
        assert_eq!(desk.tasks, tasks, "a tasks directory of another name");
        desk.read_changes(Instant(0)).unwrap();
        fs::remove_file(tasks.join("queue.json")).unwrap();
        let (code, said) = gone(desk.read_changes(Instant(TOP_QUEUE_MS)).unwrap_err());
        assert!(code == 3 && said.contains("no longer mounted"), "{said}");
        fs::create_dir(tasks.join("queue.json")).unwrap();
        let trouble = desk.read_changes(Instant(TOP_QUEUE_MS)).unwrap_err();
        assert!(matches!(trouble, ReadError::Trouble(why) if why.contains("queue.json")));
    }

    #[test]
    fn an_answer_reads_as_it_was_said() {
        let said = |text: &str| receive(&mut text.as_bytes());
        match said("queue 3\n{}\nevents 2\nx\nend\n").unwrap() {
            FeedMessage::Update(answer) => {
                assert_eq!((answer.queue.as_deref(), answer.events.as_deref()), (Some("{}\n"), Some("x\n")));
                assert!(answer.workers.is_none());
            }
            other => panic!("{other:?}"),
        }
        assert!(
            matches!(said("trouble it rains\n").unwrap(), FeedMessage::Trouble(why) if why == "it rains")
        );
        let gone = |text: &str| match said(text).unwrap() {
            FeedMessage::Ended(CliError { code, message }) => (code, message),
            other => panic!("{other:?}"),
        };
        assert_eq!(gone("gone 3 no mount\n"), (3, "no mount".to_string()));
        said("queue 3\n{}").unwrap_err();
        said("").unwrap_err();
    }
}
