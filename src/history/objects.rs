//! Git's objects: content, trees and commits by their ids.
//!
//! May assume: one process writes, the daemon. Other processes may read at any time.
//! Must never: follow a link, sync, or reach an object other than through the descriptor of the directory: the path of the state
//! directory may lead into the mount.
//!
//! libgit2 resolves the paths of the repositories that it opens, but not the path of an object database. So it gets the objects alone,
//! as `/proc/self/fd/N`, and only for reading: it does not write to a database that was added as an alternate. New objects are written
//! here, as loose objects. A loose object is a zlib stream; here it holds uncompressed blocks, which cost a copy. Packing compresses them.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use git2::{ObjectType, Odb, OdbLookupFlags, Oid};
use parking_lot::{Mutex, RwLock};
use rustix::fs::{Access, AtFlags, Mode, OFlags, accessat, fsync, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;

use super::{ContentId, HistoryError};

/// How the names of objects begin that are being written. `git gc` knows them and removes old ones.
pub(super) const UNFINISHED: &str = "tmp_obj_";

/// The objects of a repository.
pub(super) struct Objects {
    directory: OwnedFd,
    database: RwLock<Odb<'static>>,
    /// What a reader makes, which it must not write.
    made: Option<Mutex<BTreeMap<Oid, ObjectData>>>,
    /// The ids that were asked for since objects began to be removed.
    requested: Mutex<Option<HashSet<Oid>>>,
    written: AtomicU64,
}

/// What an object is, and what it holds.
type ObjectData = (ObjectType, Vec<u8>);

impl From<ContentId> for Oid {
    fn from(id: ContentId) -> Oid {
        Oid::from_bytes(&id.0).unwrap_or(Oid::ZERO_SHA1)
    }
}

impl From<Oid> for ContentId {
    fn from(id: Oid) -> ContentId {
        let mut bytes = [0; 20];
        bytes.copy_from_slice(id.as_bytes());
        ContentId(bytes)
    }
}

impl Objects {
    /// The objects in a repository's directory. Those that a reader makes are kept in memory.
    pub(super) fn open(repository: &OwnedFd, is_writer: bool) -> Result<Objects, HistoryError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = openat(repository, "objects", flags, Mode::empty()).map_err(HistoryError::reading)?;
        let database = database(&directory).map_err(|error| HistoryError::reading(error.message()))?;
        let database = RwLock::new(database);
        let made = (!is_writer).then(Mutex::default);
        Ok(Objects { directory, database, made, requested: Mutex::default(), written: AtomicU64::new(0) })
    }

    /// Make the directories of the objects.
    pub(super) fn create(repository: &OwnedFd) -> Result<(), Errno> {
        let directories = ["objects", "objects/info", "objects/pack"];
        directories.iter().try_for_each(|directory| make_directory(repository, directory))
    }

    /// Whether this is the process that writes.
    pub(super) fn is_writer(&self) -> bool {
        self.made.is_none()
    }

    /// The directory of the objects.
    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// A database of the same objects. It knows only those that were written.
    pub(super) fn database(&self) -> Result<Odb<'static>, git2::Error> {
        database(&self.directory)
    }

    /// An object of a kind. Its id is checked against what was read.
    pub(super) fn read(&self, id: Oid, kind: ObjectType) -> Result<Vec<u8>, HistoryError> {
        of_kind(id, self.read_any(id)?, kind)
    }

    fn read_any(&self, id: Oid) -> Result<ObjectData, HistoryError> {
        let read = |database: &Odb<'_>| {
            let object = database.read(id)?;
            Ok((object.kind(), object.data().to_vec()))
        };
        if let Some(made) = self.made.as_ref().and_then(|made| made.lock().get(&id).cloned()) {
            return Ok(made);
        }
        let first: Result<_, git2::Error> = read(&self.database.read());
        match first {
            Ok(found) => Ok(found),
            // The writer may have packed the object since this database was opened.
            Err(_) => {
                self.reopen()?;
                read(&self.database.read()).map_err(|error| HistoryError::reading(error.message()))
            }
        }
    }

    /// Look again which packs there are.
    pub(super) fn reopen(&self) -> Result<(), HistoryError> {
        *self.database.write() = self.database().map_err(|error| HistoryError::reading(error.message()))?;
        Ok(())
    }

    /// Whether an object is there.
    pub(super) fn has(&self, id: Oid) -> bool {
        self.has_loose(id) || self.database.read().exists_ext(id, OdbLookupFlags::NO_REFRESH)
    }

    fn has_loose(&self, id: Oid) -> bool {
        accessat(&self.directory, loose_name(id).as_str(), Access::EXISTS, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Write an object unless it is there.
    pub(super) fn write(&self, kind: ObjectType, data: &[u8]) -> Result<Oid, HistoryError> {
        let id = Oid::hash_object(kind, data).map_err(|error| HistoryError::writing(error.message()))?;
        if let Some(requested) = &mut *self.requested.lock() {
            requested.insert(id);
        }
        if self.has(id) {
            return Ok(id);
        }
        if let Some(made) = &self.made {
            made.lock().insert(id, (kind, data.to_vec()));
        } else {
            self.write_loose(id, kind, data).map_err(HistoryError::writing)?;
        }
        Ok(id)
    }

    /// Check a loose object.
    pub(super) fn read_loose(&self, id: Oid) -> Result<(), HistoryError> {
        self.read_any(id).map(drop)
    }

    /// Remove a file.
    pub(super) fn remove(&self, name: &str) -> Result<(), HistoryError> {
        match unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(HistoryError::writing(error)),
        }
    }

    /// Wait until a file or a directory is on the disk.
    pub(super) fn sync(&self, name: &str) -> Result<(), HistoryError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let synced = openat(&self.directory, name, flags, Mode::empty()).and_then(fsync);
        synced.map_err(HistoryError::writing)
    }

    /// Begin or end to note which ids are asked for.
    pub(super) fn note_requests(&self, begin: bool) {
        *self.requested.lock() = begin.then(HashSet::new);
    }

    /// Remove objects: save those that were asked for and are not `kept`, call `remove` with them, and look again which objects there are.
    /// Meanwhile no thread can ask for one.
    pub(super) fn remove_all_but(
        &self,
        kept: &dyn Fn(Oid) -> bool,
        remove: &mut dyn FnMut(&HashSet<Oid>) -> Result<(), HistoryError>,
    ) -> Result<(), HistoryError> {
        let requested = self.requested.lock();
        let lost = requested.iter().flatten().copied().filter(|id| !kept(*id) && self.has(*id));
        let lost: HashSet<Oid> = lost.collect();
        for id in lost.iter().filter(|id| !self.has_loose(**id)) {
            let (kind, data) = self.read_any(*id)?;
            self.write_loose(*id, kind, &data).map_err(HistoryError::writing)?;
        }
        let removed = remove(&lost);
        self.reopen()?;
        removed
    }

    /// Whether this process is writing the file with this name.
    pub(super) fn is_own(&self, unfinished: &str) -> bool {
        unfinished.starts_with(&own_prefix())
    }

    fn write_loose(&self, id: Oid, kind: ObjectType, data: &[u8]) -> io::Result<()> {
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        let unfinished = format!("{}{number}", own_prefix());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(&self.directory, unfinished.as_str(), flags, Mode::from(0o400))?);
        let header = format!("{kind} {}\0", data.len());
        let done = write_stored(file, header.as_bytes(), data)
            .and_then(|()| self.put(&unfinished, &loose_name(id)).map_err(io::Error::from));
        if done.is_err() {
            let _ = unlinkat(&self.directory, unfinished.as_str(), AtFlags::empty());
        }
        done
    }

    fn put(&self, unfinished: &str, name: &str) -> Result<(), Errno> {
        match renameat(&self.directory, unfinished, &self.directory, name) {
            Err(Errno::NOENT) => {
                make_directory(&self.directory, &name[..2])?;
                renameat(&self.directory, unfinished, &self.directory, name)
            }
            done => done,
        }
    }
}

fn database(objects: &OwnedFd) -> Result<Odb<'static>, git2::Error> {
    let database = Odb::new()?;
    database.add_disk_alternate(&format!("/proc/self/fd/{}", objects.as_raw_fd()))?;
    Ok(database)
}

fn of_kind(id: Oid, (found, data): ObjectData, kind: ObjectType) -> Result<Vec<u8>, HistoryError> {
    match found == kind {
        true => Ok(data),
        false => Err(HistoryError::reading(format_args!("{id} is a {found}, where a {kind} should be"))),
    }
}

/// How the names begin of what this process writes.
fn own_prefix() -> String {
    format!("{UNFINISHED}{}_", std::process::id())
}

/// The name of a loose object in the directory of the objects.
pub(super) fn loose_name(id: Oid) -> String {
    let name = id.to_string();
    format!("{}/{}", &name[..2], &name[2..])
}

/// Make a directory for the owner alone, unless it is there.
pub(super) fn make_directory(parent: &OwnedFd, name: &str) -> Result<(), Errno> {
    match mkdirat(parent, name, Mode::from(0o700)) {
        Err(Errno::EXIST) => Ok(()),
        made => made,
    }
}

/// Write a zlib stream (RFC 1950) of stored blocks (RFC 1951, 3.2.4).
fn write_stored(mut file: File, header: &[u8], data: &[u8]) -> io::Result<()> {
    const BLOCK: usize = u16::MAX as usize;
    let block = |last: bool, bytes: usize| {
        let length = bytes as u16;
        let [low, high] = length.to_le_bytes();
        let [not_low, not_high] = (!length).to_le_bytes();
        [u8::from(last), low, high, not_low, not_high]
    };
    let mut out = Vec::with_capacity(data.len().min(16 * BLOCK) + header.len() + 64);
    // No preset dictionary, the fastest level; both bytes as a number are a multiple of 31.
    out.extend([0x78, 0x01]);
    let mut rest = data;
    let mut first = header;
    loop {
        let (now, later) = rest.split_at(rest.len().min(BLOCK - first.len()));
        out.extend(block(later.is_empty(), first.len() + now.len()));
        out.extend(first);
        out.extend(now);
        if later.is_empty() {
            break;
        }
        (rest, first) = (later, &[]);
        if out.len() >= 8 * BLOCK {
            file.write_all(&out)?;
            out.clear();
        }
    }
    out.extend(adler32(&[header, data]).to_be_bytes());
    file.write_all(&out)
}

/// The checksum of a zlib stream.
fn adler32(parts: &[&[u8]]) -> u32 {
    const BASE: u32 = 65_521;
    // As many bytes as cannot overflow the sums.
    const RUN: usize = 5_552;
    let (mut a, mut b) = (1u32, 0u32);
    for run in parts.iter().flat_map(|part| part.chunks(RUN)) {
        for byte in run {
            a += u32::from(*byte);
            b += a;
        }
        a %= BASE;
        b %= BASE;
    }
    b << 16 | a
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects() -> (tempfile::TempDir, Objects) {
        let place = crate::history::in_memory().unwrap();
        let directory = OwnedFd::from(File::open(place.path()).unwrap());
        Objects::create(&directory).unwrap();
        let objects = Objects::open(&directory, true).unwrap();
        (place, objects)
    }

    #[test]
    fn objects_of_all_lengths_come_back() {
        let (_place, objects) = objects();
        let header = "blob 65525\0".len();
        let edge = 65_535 - header;
        for length in [0, 1, 5_551, 5_553, edge - 1, edge, edge + 1, 65_535, 65_536, 200_000, 1_000_000] {
            let data: Vec<u8> = (0..length).map(|at| (at * 7 % 251) as u8).collect();
            let id = objects.write(ObjectType::Blob, &data).unwrap();
            assert!(objects.read(id, ObjectType::Blob).unwrap() == data, "{length} bytes");
        }
    }

    #[test]
    fn what_is_there_is_not_written_again() {
        let (_place, objects) = objects();
        let id = objects.write(ObjectType::Blob, b"once").unwrap();
        assert_eq!(objects.write(ObjectType::Blob, b"once").unwrap(), id);
        assert_eq!(objects.written.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn damage_is_found_by_the_id() {
        let (place, objects) = objects();
        let id = objects.write(ObjectType::Blob, b"as it was").unwrap();
        let file = place.path().join("objects").join(loose_name(id));
        std::fs::remove_file(&file).unwrap();
        write_stored(File::create(&file).unwrap(), b"blob 9\0", b"as it is!").unwrap();
        assert!(objects.read(id, ObjectType::Blob).is_err());
    }

    #[test]
    fn a_reader_writes_nothing() {
        let (place, objects) = objects();
        let id = objects.write(ObjectType::Blob, b"on disk").unwrap();
        let reader = Objects::open(&OwnedFd::from(File::open(place.path()).unwrap()), false).unwrap();
        assert_eq!(reader.write(ObjectType::Blob, b"on disk").unwrap(), id);
        let made = reader.write(ObjectType::Blob, b"in memory").unwrap();
        assert_eq!(reader.read(made, ObjectType::Blob).unwrap(), b"in memory");
        assert!(!objects.has(made) && objects.has(id));
    }

    #[test]
    fn a_kind_is_checked() {
        let (_place, objects) = objects();
        let id = objects.write(ObjectType::Blob, b"no tree").unwrap();
        assert!(objects.read(id, ObjectType::Tree).is_err());
    }
}
