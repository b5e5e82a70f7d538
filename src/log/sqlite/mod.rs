//! The log in a SQLite database: the embedded engine.
//!
//! May assume: a directory on a local disk, reached by a descriptor, that no other user can change. What is in the database may come
//! with a project of unknown origin all the same.
//! Must never: touch its files by a path that a mount could cover; let go of a connection that may be the only one to know some event;
//! have SQLite open a file that is not trusted, or run what a database says.
//!
//! One connection, `locking_mode=EXCLUSIVE` before `journal_mode=WAL` (so there is no shared memory file),
//! `synchronous=FULL` (one sync a commit). The write-ahead log is emptied while nobody waits, and overwritten in place
//! after that: a commit then changes no file length, which is what makes its sync cheap.
//!
//! The writer and the readers share this connection, since no second one can have the log. Each holds its lock for one call, a reader for
//! one piece of what it reads.
//!
//! Files that are removed stay readable for a connection that has them open. So a log that was taken away is copied from there
//! to where it belongs, and only when the copy is open, the old connection is closed.

mod reader;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};
use rustix::fs::{AtFlags, fsync, renameat, unlinkat};

use self::reader::SqliteReader;
use super::{Log, LogError, LogReader, Tail, check_batch, parse_line, parts};
use crate::limits::{WAL_PAGES_IDLE, WAL_PAGES_MAX};
use crate::queue::{Record, Seq};
use crate::state_directory::{InodeId, StateDirectory, plain};
use crate::sys;

/// What `PRAGMA application_id` says of our files: "crew" in ASCII.
const APPLICATION_ID: i64 = 0x6372_6577;
/// The newest format that we write and read, as `PRAGMA user_version`. Since 2 there are events of files (`file_opened`,
/// `file_missing`, `forgotten`), which an older crewfs would take for damage. Since 3 long texts lie beside their events.
const FORMAT: i64 = 3;
/// The size of its pages, in bytes.
const PAGE: u64 = 4096;
/// What lies beside the line of an event. Rows that go leave pages behind, which the next ones take.
const TEXTS: &str = "CREATE TABLE IF NOT EXISTS text (seq INTEGER PRIMARY KEY, body BLOB NOT NULL);";
/// The name of the database in its directory.
pub const FILE: &str = "log.db";
/// Its write-ahead log, by the name that SQLite gives it.
const WAL: &str = "log.db-wal";
/// What SQLite adds to the name of a database for the files that it keeps beside it.
const SQLITE_FILES: [&str; 4] = ["", "-wal", "-shm", "-journal"];
/// A copy of the database that is not whole yet.
const UNFINISHED: &str = "log.db.new";
/// How what stood in the place of the log is called afterwards, so that SQLite finds the two together.
const FOUND: [(&str, &str); 2] = [(FILE, "log.db.found"), (WAL, "log.db.found-wal")];
/// How much of its beginning says what it is: <https://www.sqlite.org/fileformat.html>.
pub const HEADER_BYTES: usize = 100;

/// A log on disk.
pub struct SqliteLog {
    directory: Arc<StateDirectory>,
    opened: Shared,
    tail: Tail,
    /// Pages in the write-ahead log since it was last emptied.
    wal_pages: u64,
    /// Whether it was tried to copy the log beside the place to which it cannot be put back, and succeeded.
    rescued: Option<bool>,
}

/// The connection, if there is one.
type Shared = Arc<Mutex<Option<OpenDatabase>>>;

/// A connection, and where its files were when they were opened.
struct OpenDatabase {
    connection: Connection,
    /// A write failed: what is in the files is known only when they are opened anew.
    failed: bool,
    /// The database and its write-ahead log.
    files: [(&'static str, Option<InodeId>); 2],
    /// Through this SQLite finds its files; it is dropped after the connection.
    _within: Arc<OwnedFd>,
}

impl SqliteLog {
    /// Open the log in `directory`, or make one.
    ///
    /// # Errors
    /// Those of [`Log::reopen`].
    pub fn open(directory: Arc<StateDirectory>) -> Result<SqliteLog, LogError> {
        let mut log = SqliteLog {
            directory,
            opened: Shared::default(),
            tail: Tail::default(),
            wal_pages: 0,
            rescued: None,
        };
        log.reopen()?;
        Ok(log)
    }

    /// The files are kept open until it is known that the next process will find them in their place.
    fn note_failure(&self) {
        self.opened.lock().iter_mut().for_each(|opened| opened.failed = true);
    }

    fn write(&mut self, batch: &[Record]) -> Result<Tail, LogError> {
        let (mut tail, mut pages) = (self.tail, 0);
        let opened = self.opened.lock();
        let transaction = usable(&opened)?.unchecked_transaction()?;
        {
            let mut insert = transaction.prepare_cached("INSERT INTO event VALUES (?1, ?2, ?3)")?;
            let mut beside = transaction.prepare_cached("INSERT INTO text VALUES (?1, ?2)")?;
            for record in batch {
                let (line, text) = parts(record);
                tail = Tail { seq: record.seq, bytes: tail.bytes + line.len() as u64 };
                insert.execute(params![tail.seq as i64, tail.bytes as i64, line])?;
                pages += 1 + line.len() as u64 / PAGE;
                if let Some(text) = text {
                    beside.execute(params![tail.seq as i64, text])?;
                    pages += 1 + text.len() as u64 / PAGE;
                }
            }
        }
        transaction.commit()?;
        drop(opened);
        self.wal_pages += pages;
        Ok(tail)
    }

    fn delete(&mut self, of: &[Seq]) -> Result<(), LogError> {
        let opened = self.opened.lock();
        let transaction = usable(&opened)?.unchecked_transaction()?;
        {
            let mut delete = transaction.prepare_cached("DELETE FROM text WHERE seq = ?1")?;
            for seq in of {
                delete.execute([*seq as i64])?;
            }
        }
        transaction.commit()?;
        drop(opened);
        // What is freed is not written, only the list of it.
        self.wal_pages += 1 + of.len() as u64;
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), LogError> {
        let moved = "PRAGMA wal_checkpoint(RESTART)";
        usable(&self.opened.lock())?.query_row(moved, [], |_| Ok(()))?;
        self.wal_pages = 0;
        Ok(())
    }

    /// What is not where it was, if the log is open.
    fn missing(&self) -> Option<String> {
        let opened = self.opened.lock();
        let opened = opened.as_ref()?;
        if !self.directory.is_in_place() {
            return Some(self.directory.to_string());
        }
        let is_there = |(name, id): &&(&str, Option<InodeId>)| self.directory.id(name) == *id;
        let (name, _) = opened.files.iter().find(|file| !is_there(file))?;
        Some(format!("{}/{name}", self.directory))
    }

    /// Put the log back where `missing` was taken away.
    fn restore(&mut self, missing: &str) -> Result<(), LogError> {
        match self.copy_to_its_place() {
            Ok(()) => {
                self.clear_rescued();
                self.directory.note_restored();
                log::error!(
                    "{missing} was taken away while it was in use; the event log was put back, whole, up to event {}",
                    self.tail.seq
                );
                Ok(())
            }
            Err(why) => {
                self.rescue();
                Err(LogError::Astray(why))
            }
        }
    }

    fn copy_to_its_place(&mut self) -> Result<(), String> {
        let mut place = self.opened.lock();
        let Some(opened) = &*place else { return Err("it is not open".into()) };
        self.directory.put_back()?;
        let cannot = |error: rustix::io::Errno| format!("{}/{FILE} cannot be made: {error}", self.directory);
        // What stands there instead is not ours to destroy.
        for ((name, id), (_, found)) in opened.files.iter().zip(FOUND) {
            if self.directory.id(name).is_some_and(|there| Some(there) != *id) {
                self.directory.rename(name, found).map_err(cannot)?;
            }
        }
        let within = self.directory.descriptor();
        copy(&opened.connection, within.as_fd(), self.directory.shown())
            .map_err(|error| format!("{}/{FILE} cannot be made: {error}", self.directory))?;
        // The old write-ahead log, where it is still there, must not be taken for the copy's. If this ends in between, it is, and
        // does no harm: the copy has every page as that log last had it.
        let _ = self.directory.remove(WAL);
        let (anew, tail) = connect(within, self.directory.shown()).map_err(|error| error.to_string())?;
        if tail.seq < self.tail.seq {
            return Err(format!("the copy ends at event {}, not at {}", tail.seq, self.tail.seq));
        }
        *place = Some(anew);
        (self.tail, self.wal_pages) = (tail, 0);
        Ok(())
    }

    fn clear_rescued(&mut self) {
        if self.rescued.take() == Some(true) {
            self.directory.clear_beside(&[FILE]);
        }
    }

    /// Copy the log beside its place: then it outlives this process even if the place stays taken.
    fn rescue(&mut self) {
        let opened = self.opened.lock();
        let Some(opened) = opened.as_ref().filter(|_| self.rescued.is_none()) else { return };
        let copied =
            self.directory.beside().map_err(|error| error.to_string()).and_then(|(beside, shown)| {
                let copied = copy(&opened.connection, beside.as_fd(), &shown);
                copied.map_err(|error| error.to_string()).map(|()| shown)
            });
        self.rescued = Some(copied.is_ok());
        match copied {
            Ok(shown) => log::error!("the event log was copied to {} for now", shown.display()),
            Err(why) => {
                log::error!("the event log cannot be copied anywhere beside {}: {why}", self.directory)
            }
        }
    }
}

/// The connection, unless a write of it has failed.
fn usable(opened: &Option<OpenDatabase>) -> Result<&Connection, LogError> {
    let usable = opened.as_ref().filter(|opened| !opened.failed);
    Ok(&usable.ok_or_else(|| LogError::Io("an earlier write failed".into()))?.connection)
}

/// A copy of the database in `directory`, page by page, that is whole and on disk when it has its name.
fn copy(from: &Connection, directory: BorrowedFd<'_>, shown: &Path) -> Result<(), LogError> {
    let _ = unlinkat(directory, UNFINISHED, AtFlags::empty());
    let copied = copy_unfinished(from, directory, shown);
    if copied.is_err() {
        // On a full disk it must not take the last space.
        let _ = unlinkat(directory, UNFINISHED, AtFlags::empty());
    }
    copied
}

fn copy_unfinished(from: &Connection, directory: BorrowedFd<'_>, shown: &Path) -> Result<(), LogError> {
    let mut to = connection_to(directory, UNFINISHED, shown)?;
    // No process needs the way back from a copy that is not whole.
    to.execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = FULL;")?;
    match Backup::new(from, &mut to)?.step(-1)? {
        StepResult::Done => {}
        other => return Err(LogError::Io(format!("{FILE}: the copy is not whole: {other:?}"))),
    }
    drop(to);
    let io = |error: rustix::io::Errno| LogError::Io(format!("{UNFINISHED}: {error}"));
    fsync(plain::look_at(directory, UNFINISHED).map_err(io)?).map_err(io)?;
    renameat(directory, UNFINISHED, directory, FILE).map_err(io)?;
    fsync(directory).map_err(io)
}

/// A connection to a database in a directory. SQLite opens its files by name: each is judged before, and in this directory no other
/// user can replace it meanwhile.
fn connection_to(directory: BorrowedFd<'_>, name: &str, shown: &Path) -> Result<Connection, LogError> {
    for suffix in SQLITE_FILES {
        plain::judge_named(directory, &format!("{name}{suffix}"), shown)
            .map_err(|error| LogError::Io(error.to_string()))?;
    }
    let path = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_PRIVATE_CACHE;
    let connection = Connection::open_with_flags_and_vfs(path, flags, sys::sqlite_vfs_by_descriptor())?;
    // As <https://www.sqlite.org/security.html> has it for a database of unknown origin: it holds data, and no program.
    for (setting, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
    ] {
        connection.set_db_config(setting, on)?;
    }
    Ok(connection)
}

fn connect(within: Arc<OwnedFd>, shown: &Path) -> Result<(OpenDatabase, Tail), LogError> {
    let connection = connection_to(within.as_fd(), FILE, shown)?;
    // Whoever has the log keeps it: waiting would not help.
    connection.busy_timeout(std::time::Duration::ZERO)?;
    connection.execute_batch(
        "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = 0; PRAGMA temp_store = MEMORY;",
    )?;
    let pragma = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
    let (application, format) = (pragma("application_id")?, pragma("user_version")?);
    let fresh = pragma("schema_version")? == 0;
    check_kind(fresh, application, format)?;
    if fresh {
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE;
             PRAGMA application_id = {APPLICATION_ID};
             PRAGMA user_version = {FORMAT};
             -- One event: its position, where its line ends in events.jsonl, and its line with the newline.
             CREATE TABLE event (seq INTEGER PRIMARY KEY, end INTEGER NOT NULL, line TEXT NOT NULL);
             {TEXTS}
             COMMIT;"
        ))?;
    }
    if !fresh && format < FORMAT {
        connection
            .execute_batch(&format!("BEGIN IMMEDIATE; PRAGMA user_version = {FORMAT}; {TEXTS} COMMIT;"))?;
    }
    let tail = connection
        .query_row("SELECT seq, end FROM event ORDER BY seq DESC LIMIT 1", [], |row| {
            Ok(Tail { seq: row.get::<_, i64>(0)? as Seq, bytes: row.get::<_, i64>(1)? as u64 })
        })
        .optional()?
        .unwrap_or_default();
    // SQLite opens both once, and keeps them until it closes the connection.
    let files = [FILE, WAL].map(|name| (name, InodeId::at(&within, name).ok()));
    Ok((OpenDatabase { connection, failed: false, files, _within: within }, tail))
}

fn check_kind(fresh: bool, application: i64, format: i64) -> Result<(), LogError> {
    if !fresh && application != APPLICATION_ID {
        return Err(LogError::Damaged { seq: 0, why: format!("{FILE} is a database of another program") });
    }
    if format > FORMAT {
        return Err(LogError::Newer { found: format, known: FORMAT });
    }
    Ok(())
}

/// Whether these bytes begin a log that this program can read; for who may not open it, since another process has it.
pub fn check_header(header: &[u8]) -> Result<(), LogError> {
    if header.len() < HEADER_BYTES || !header.starts_with(b"SQLite format 3\0") {
        return Err(LogError::Damaged { seq: 0, why: format!("{FILE} is no database") });
    }
    let number = |at: usize| {
        i64::from(u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]))
    };
    // The count of changes of the schema, the application, and its own version.
    check_kind(number(40) == 0, number(68), number(60))
}

impl Log for SqliteLog {
    fn tail(&self) -> Tail {
        self.tail
    }

    fn append(&mut self, expected: Seq, batch: &[Record]) -> Result<Tail, LogError> {
        usable(&self.opened.lock())?;
        check_batch(self.tail, expected, batch)?;
        match self.write(batch) {
            Ok(tail) => self.tail = tail,
            // SQLite has rolled back: the connection is as before.
            Err(LogError::Full) => return Err(LogError::Full),
            Err(error) => {
                // Kept until it is known that its files are still where the next one will find them.
                self.note_failure();
                return Err(error);
            }
        }
        self.stay()?;
        if self.wal_pages > WAL_PAGES_MAX {
            // The batch is on disk; a checkpoint that fails now is tried again later.
            if let Err(error) = self.checkpoint() {
                log::warn!("the write-ahead log cannot be emptied: {error}");
            }
        }
        Ok(self.tail)
    }

    fn read(&mut self, after: Seq, limit: usize) -> Result<Vec<Record>, LogError> {
        let opened = self.opened.lock();
        let mut select = usable(&opened)?
            .prepare_cached("SELECT seq, line FROM event WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
        let mut rows = select.query(params![after as i64, limit as i64])?;
        let mut records = Vec::new();
        while let Some(row) = rows.next()? {
            let (expected, seq) = (after + 1 + records.len() as Seq, row.get::<_, i64>(0)? as Seq);
            if seq != expected {
                return Err(LogError::Damaged {
                    seq: expected,
                    why: format!("event {seq} stands in its place"),
                });
            }
            let line = row
                .get_ref(1)?
                .as_str()
                .map_err(|error| LogError::Damaged { seq, why: error.to_string() })?;
            records.push(parse_line(seq, line)?);
        }
        Ok(records)
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        Arc::new(SqliteReader::new(self.opened.clone()))
    }

    fn texts(&mut self, after: Seq, limit: usize) -> Result<Vec<Seq>, LogError> {
        let opened = self.opened.lock();
        let mut select =
            usable(&opened)?.prepare_cached("SELECT seq FROM text WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
        let rows = select.query_map(params![after as i64, limit as i64], |row| {
            row.get::<_, i64>(0).map(|seq| seq as Seq)
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn drop_texts(&mut self, of: &[Seq]) -> Result<(), LogError> {
        match self.delete(of) {
            Err(error) if !matches!(error, LogError::Full) => {
                self.note_failure();
                Err(error)
            }
            done => done,
        }
    }

    fn reopen(&mut self) -> Result<Tail, LogError> {
        if let Some(missing) = self.missing() {
            self.restore(&missing)?;
            return Ok(self.tail);
        }
        let mut place = self.opened.lock();
        *place = None;
        let (opened, tail) = connect(self.directory.descriptor(), self.directory.shown())?;
        *place = Some(opened);
        drop(place);
        self.tail = tail;
        self.clear_rescued();
        match self.checkpoint() {
            // Only the emptying failed: the write-ahead log was synced first, so what was read is on disk.
            Err(LogError::Full) => log::warn!("the disk is full: the write-ahead log cannot be emptied"),
            other => other?,
        }
        Ok(tail)
    }

    fn stay(&mut self) -> Result<(), LogError> {
        match self.missing() {
            Some(missing) => self.restore(&missing),
            None => Ok(()),
        }
    }

    fn idle(&mut self) -> Result<(), LogError> {
        if self.wal_pages > WAL_PAGES_IDLE { self.checkpoint() } else { Ok(()) }
    }
}

impl From<rusqlite::Error> for LogError {
    fn from(error: rusqlite::Error) -> LogError {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => LogError::Full,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => LogError::InUse,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                LogError::Damaged { seq: 0, why: format!("{FILE}: {error}") }
            }
            _ => LogError::Io(format!("{FILE}: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Event, Wall, WorkerName};

    fn opened(directory: &Path) -> Result<SqliteLog, LogError> {
        SqliteLog::open(Arc::new(StateDirectory::at(directory, false).unwrap()))
    }

    fn joined(seq: Seq) -> Record {
        Record { seq, at: Wall(5), event: Event::Joined { worker: WorkerName::parse("w").unwrap(), uid: 7 } }
    }

    #[test]
    fn a_database_that_comes_with_a_project_runs_nothing() {
        let dir = tempfile::tempdir().unwrap();
        drop(opened(dir.path()).unwrap());
        let database = Connection::open(dir.path().join(FILE)).unwrap();
        let trigger = "CREATE TRIGGER t AFTER INSERT ON event BEGIN DELETE FROM event; END";
        database.execute_batch(trigger).unwrap();
        drop(database);
        let mut log = opened(dir.path()).unwrap();
        for seq in [1, 2] {
            log.append(seq - 1, &[joined(seq)]).unwrap();
        }
        assert_eq!(log.read(0, 9).unwrap(), [joined(1), joined(2)]);
    }
}
