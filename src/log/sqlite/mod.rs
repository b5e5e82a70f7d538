//! The log in a SQLite database: the embedded engine.
//!
//! May assume: a directory on a local disk, reached by a descriptor, that no other user can change. But the content of the database is not
//! trusted, because it may come with a project of unknown origin.
//! Must never: reach its files by a path that a mount could cover; close a connection that may be the only copy of some event; let SQLite
//! open an untrusted file, or execute anything that a database contains.
//!
//! There is one connection. `locking_mode=EXCLUSIVE` is set before `journal_mode=WAL`, so there is no shared memory file.
//! `synchronous=FULL` makes one sync per commit. The write-ahead log is checkpointed while no caller waits, and then overwritten in place.
//! So a commit does not change the length of a file, which makes its sync cheap.
//!
//! The writer and the readers share this connection, because its lock excludes a second one. Each locks it for one call; a reader locks it
//! for one piece of its read.
//!
//! A connection can still read files that were removed after it opened them. So a log whose files were removed is copied from the
//! connection to its place. The old connection is closed only after the copy is open.

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

/// The `PRAGMA application_id` of our files: "crew" in ASCII.
const APPLICATION_ID: i64 = 0x6372_6577;
/// The newest format that this program writes and reads, stored as `PRAGMA user_version`. Format 2 added events of files (`file_opened`,
/// `file_missing`, `forgotten`), which an older crewfs would report as damage. Format 3 stores long texts beside their events.
const FORMAT: i64 = 3;
/// The size of a page of the database, in bytes.
const PAGE: u64 = 4096;
/// The table of texts that are stored beside the lines of events. New rows reuse the pages of deleted ones.
const TEXTS: &str = "CREATE TABLE IF NOT EXISTS text (seq INTEGER PRIMARY KEY, body BLOB NOT NULL);";
/// The name of the database in its directory.
pub const FILE: &str = "log.db";
/// The name of the write-ahead log, which SQLite chooses.
const WAL: &str = "log.db-wal";
/// The suffixes of the files that SQLite keeps for a database.
const SQLITE_FILES: [&str; 4] = ["", "-wal", "-shm", "-journal"];
/// The name of a copy of the database while it is incomplete.
const UNFINISHED: &str = "log.db.new";
/// The new names of foreign files that were in the place of the log. They match, so that SQLite finds the two together.
const FOUND: [(&str, &str); 2] = [(FILE, "log.db.found"), (WAL, "log.db.found-wal")];
/// How many bytes at the beginning of a database identify it: <https://www.sqlite.org/fileformat.html>.
pub const HEADER_BYTES: usize = 100;

/// A log on disk.
pub struct SqliteLog {
    directory: Arc<StateDirectory>,
    opened: Shared,
    tail: Tail,
    /// How many pages were written to the write-ahead log since the last checkpoint.
    wal_pages: u64,
    /// Whether the copy beside the place of the log succeeded; `None` if it was not tried. It is tried when the log cannot be restored in
    /// its place.
    rescued: Option<bool>,
}

/// The connection, if it is open.
type Shared = Arc<Mutex<Option<OpenDatabase>>>;

/// A connection, and the identity of its files when it was opened.
struct OpenDatabase {
    connection: Connection,
    /// Whether a write failed. Then the content of the files is unknown until they are opened again.
    failed: bool,
    /// The database and its write-ahead log.
    files: [(&'static str, Option<InodeId>); 2],
    /// The directory through which SQLite finds its files. It must be dropped after the connection.
    _directory: Arc<OwnedFd>,
}

impl SqliteLog {
    /// Opens or creates the log in `directory`.
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

    /// Marks the connection as failed. Its files stay open until the next process is certain to find them in their place.
    fn mark_failed(&self) {
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
        // A deletion writes the list of free pages, but not the freed pages.
        self.wal_pages += 1 + of.len() as u64;
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), LogError> {
        let moved = "PRAGMA wal_checkpoint(RESTART)";
        usable(&self.opened.lock())?.query_row(moved, [], |_| Ok(()))?;
        self.wal_pages = 0;
        Ok(())
    }

    /// The file or directory that is no longer in its place, if the log is open.
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

    /// Restores the log after `missing` was removed.
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
                Err(LogError::Displaced(why))
            }
        }
    }

    fn copy_to_its_place(&mut self) -> Result<(), String> {
        let mut opened = self.opened.lock();
        let Some(old) = &*opened else { return Err("it is not open".into()) };
        self.directory.put_back()?;
        let cannot = |error: rustix::io::Errno| format!("{}/{FILE} cannot be made: {error}", self.directory);
        // Foreign files in the place of the log are renamed, not destroyed.
        for ((name, id), (_, found)) in old.files.iter().zip(FOUND) {
            if self.directory.id(name).is_some_and(|there| Some(there) != *id) {
                self.directory.rename(name, found).map_err(cannot)?;
            }
        }
        let within = self.directory.descriptor();
        copy(&old.connection, within.as_fd(), self.directory.shown())
            .map_err(|error| format!("{}/{FILE} cannot be made: {error}", self.directory))?;
        // If the old write-ahead log still exists, SQLite must not use it for the copy. A crash before this line is harmless: the copy has
        // the newest version of every page in that log.
        let _ = self.directory.remove(WAL);
        let (reopened, tail) = connect(within, self.directory.shown()).map_err(|error| error.to_string())?;
        if tail.seq < self.tail.seq {
            return Err(format!("the copy ends at event {}, not at {}", tail.seq, self.tail.seq));
        }
        *opened = Some(reopened);
        (self.tail, self.wal_pages) = (tail, 0);
        Ok(())
    }

    fn clear_rescued(&mut self) {
        if self.rescued.take() == Some(true) {
            self.directory.clear_beside(&[FILE]);
        }
    }

    /// Copies the log beside its place, so that it outlives this process even if the place stays blocked.
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

/// The connection, unless one of its writes failed.
fn usable(opened: &Option<OpenDatabase>) -> Result<&Connection, LogError> {
    let usable = opened.as_ref().filter(|opened| !opened.failed);
    Ok(&usable.ok_or_else(|| LogError::Io("an earlier write failed".into()))?.connection)
}

/// Copies the database into `directory`, page by page. The copy gets its final name when it is complete and on disk.
fn copy(from: &Connection, directory: BorrowedFd<'_>, shown: &Path) -> Result<(), LogError> {
    let _ = unlinkat(directory, UNFINISHED, AtFlags::empty());
    let copied = copy_unfinished(from, directory, shown);
    if copied.is_err() {
        // On a full disk, the incomplete copy must not take the last space.
        let _ = unlinkat(directory, UNFINISHED, AtFlags::empty());
    }
    copied
}

fn copy_unfinished(from: &Connection, directory: BorrowedFd<'_>, shown: &Path) -> Result<(), LogError> {
    let mut to = connection_to(directory, UNFINISHED, shown)?;
    // A rollback journal in memory is enough, because an incomplete copy is deleted.
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

/// Opens a database in a directory. SQLite opens its files by name. So each file is checked before; no other user can replace it in this
/// directory.
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
    // Settings that <https://www.sqlite.org/security.html> recommends for a database of unknown origin, which may contain data but nothing
    // to execute.
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
    // Another process with the log keeps it, so waiting would not help.
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
    // SQLite opens both files once, and keeps them open until the connection is closed.
    let files = [FILE, WAL].map(|name| (name, InodeId::at(&within, name).ok()));
    Ok((OpenDatabase { connection, failed: false, files, _directory: within }, tail))
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

/// Checks that these bytes begin a log that this program can read. This is for a process that cannot open the log because another process
/// has it.
pub fn check_header(header: &[u8]) -> Result<(), LogError> {
    if header.len() < HEADER_BYTES || !header.starts_with(b"SQLite format 3\0") {
        return Err(LogError::Damaged { seq: 0, why: format!("{FILE} is no database") });
    }
    let number = |at: usize| {
        i64::from(u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]))
    };
    // The schema version, the application id, and the user version.
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
            // SQLite has rolled back, so the connection is unchanged.
            Err(LogError::Full) => return Err(LogError::Full),
            Err(error) => {
                // The connection stays open until its files are known to be in their place.
                self.mark_failed();
                return Err(error);
            }
        }
        self.ensure_in_place()?;
        if self.wal_pages > WAL_PAGES_MAX {
            // The batch is on disk. A failed checkpoint is tried again later.
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
                self.mark_failed();
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
        let mut opened = self.opened.lock();
        *opened = None;
        let (database, tail) = connect(self.directory.descriptor(), self.directory.shown())?;
        *opened = Some(database);
        drop(opened);
        self.tail = tail;
        self.clear_rescued();
        match self.checkpoint() {
            // Only the checkpoint failed. It syncs the write-ahead log first, so what was read is on disk.
            Err(LogError::Full) => log::warn!("the disk is full: the write-ahead log cannot be emptied"),
            other => other?,
        }
        Ok(tail)
    }

    fn ensure_in_place(&mut self) -> Result<(), LogError> {
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
