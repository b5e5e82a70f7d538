//! The state directory of a project: opened once, locked, and kept at its place.
//!
//! May assume: a local disk. A process that may write to its parent can take it away at any moment, and does: `git clean -fdx`.
//! Must never: follow a symbolic link, reach a file by a path that a mount could cover, or know what the files in it mean.
//!
//! Files in it are reached by its descriptor. When it was taken away, another directory is made at its place, and the descriptor
//! is then that one's: so no descriptor is kept for longer than one step, except for what must be closed in the old one.
//!
//! One lock: `held`. Nothing else is locked, and nothing is logged, while it is.

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::fs::{
    AtFlags, CWD, Dir, FlockOperation, Mode, OFlags, Stat, flock, fstat, fsync, mkdirat, openat, renameat,
    statat, unlinkat,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// The name of a state directory that lies in its project (C3).
pub const NAME: &str = ".crewfs";
/// The file in it that the daemon of the project has locked, and that says which process that is.
pub const LOCK: &str = "lock";
/// What is added to its name for a copy that could not be put at its place.
const RESCUED: &str = ".rescued";

/// Which file a name leads to: no other one has this as long as the file exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl From<Stat> for FileId {
    fn from(stat: Stat) -> FileId {
        FileId { device: stat.st_dev, inode: stat.st_ino }
    }
}

impl FileId {
    /// What is open as `fd`.
    ///
    /// # Errors
    /// Those of fstat(2).
    pub fn of(fd: impl AsFd) -> rustix::io::Result<FileId> {
        fstat(fd).map(FileId::from)
    }

    /// What a name in a directory leads to; a symbolic link is itself.
    ///
    /// # Errors
    /// Those of fstatat(2).
    pub fn at(directory: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<FileId> {
        statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map(FileId::from)
    }
}

/// Why a state directory cannot be taken.
#[derive(Debug)]
pub enum TakeError {
    /// There is none, and none was to be made.
    Missing,
    /// It cannot be made.
    Make(Errno),
    /// It cannot be opened.
    Open(Errno),
    /// The lock in it cannot be opened.
    OpenLock(Errno),
    /// The lock in it cannot be locked.
    Lock(Errno),
    /// Another process has it; what that wrote into the lock.
    Held(Vec<u8>),
}

/// A state directory that this process has taken.
pub struct StateDirectory {
    /// The directory that it is in.
    parent: OwnedFd,
    name: OsString,
    shown: PathBuf,
    held: Mutex<Held>,
    restored: AtomicU64,
}

struct Held {
    directory: Arc<OwnedFd>,
    lock: File,
    /// What is written in the lock.
    said: Vec<u8>,
}

impl StateDirectory {
    /// Open and lock the directory `name` in `parent`; with `create` it is made, for its owner alone, where there is none. `shown` is
    /// its path, for people.
    ///
    /// # Errors
    /// See [`TakeError`].
    pub fn take(
        parent: OwnedFd,
        name: &OsStr,
        shown: PathBuf,
        create: bool,
    ) -> Result<StateDirectory, TakeError> {
        if create {
            match mkdirat(&parent, name, Mode::from(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(TakeError::Make(error)),
            }
        }
        let directory = open_directory(&parent, name).map_err(|error| match error {
            Errno::NOENT => TakeError::Missing,
            error => TakeError::Open(error),
        })?;
        let mut lock = open_lock(&directory).map_err(TakeError::OpenLock)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut said = Vec::new();
                let _ = lock.read_to_end(&mut said);
                return Err(TakeError::Held(said));
            }
            Err(error) => return Err(TakeError::Lock(error)),
        }
        let held = Mutex::new(Held { directory: Arc::new(directory), lock, said: Vec::new() });
        Ok(StateDirectory { parent, name: name.to_owned(), shown, held, restored: AtomicU64::new(0) })
    }

    /// The same by its path; its parent must be there.
    ///
    /// # Errors
    /// See [`TakeError`].
    pub fn at(path: &Path, create: bool) -> Result<StateDirectory, TakeError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(TakeError::Open(Errno::INVAL));
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = openat(CWD, parent, flags, Mode::empty()).map_err(TakeError::Open)?;
        StateDirectory::take(parent, name, path.to_path_buf(), create)
    }

    /// Where it is, for people.
    pub fn shown(&self) -> &Path {
        &self.shown
    }

    /// The directory as it is now. See the module: not to be kept.
    pub fn descriptor(&self) -> Arc<OwnedFd> {
        self.held.lock().directory.clone()
    }

    /// Open a file in it. What is made is for its owner alone.
    ///
    /// # Errors
    /// Those of openat(2); ELOOP for a symbolic link.
    pub fn open(&self, name: &str, flags: OFlags) -> rustix::io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&*self.descriptor(), name, flags, Mode::from(0o600)).map(File::from)
    }

    /// Give a file in it another name, and what had that name away.
    ///
    /// # Errors
    /// Those of renameat(2).
    pub fn rename(&self, from: &str, to: &str) -> rustix::io::Result<()> {
        let directory = self.descriptor();
        renameat(&*directory, from, &*directory, to)
    }

    /// Remove a file in it.
    ///
    /// # Errors
    /// Those of unlinkat(2).
    pub fn remove(&self, name: &str) -> rustix::io::Result<()> {
        unlinkat(&*self.descriptor(), name, AtFlags::empty())
    }

    /// Have its names on disk.
    ///
    /// # Errors
    /// Those of fsync(2).
    pub fn sync(&self) -> rustix::io::Result<()> {
        fsync(&*self.descriptor())
    }

    /// Which file a name in it leads to, if to any.
    pub fn id(&self, name: &str) -> Option<FileId> {
        FileId::at(&*self.descriptor(), name).ok()
    }

    /// Whether its name leads to it.
    pub fn is_in_place(&self) -> bool {
        self.leads_to(&self.descriptor())
    }

    fn leads_to(&self, directory: &OwnedFd) -> bool {
        FileId::at(&self.parent, &*self.name).is_ok_and(|there| FileId::of(directory) == Ok(there))
    }

    /// Say in the lock who has it.
    ///
    /// # Errors
    /// Those of writing.
    pub fn announce(&self, said: Vec<u8>) -> io::Result<()> {
        let mut held = self.held.lock();
        held.lock.set_len(0)?;
        held.lock.rewind()?;
        held.lock.write_all(&said)?;
        held.said = said;
        Ok(())
    }

    /// See that its name leads to it and the lock is in it: where it was taken away, make another one. The files that were in it
    /// are for their owners to bring back; when all is there again, [`StateDirectory::note_restored`] is to be called. Done again
    /// after a failure, it goes on.
    ///
    /// # Errors
    /// Why there can be none at that place, as a sentence.
    pub fn put_back(&self) -> Result<(), String> {
        let cannot = |error: Errno| format!("{} cannot be made: {error}", self.shown.display());
        let mut held = self.held.lock();
        if !self.leads_to(&held.directory) {
            held.directory = Arc::new(self.make_anew()?);
        }
        let locked = FileId::of(&held.lock).map_err(cannot)?;
        if FileId::at(&*held.directory, LOCK) != Ok(locked) {
            let mut lock = open_lock(&held.directory).map_err(cannot)?;
            flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(cannot)?;
            lock.set_len(0)
                .and_then(|()| lock.write_all(&held.said))
                .map_err(|error| format!("{} cannot be written: {error}", self.shown.join(LOCK).display()))?;
            held.lock = lock;
        }
        Ok(())
    }

    /// Another directory at its place; an empty one that is there already will do.
    fn make_anew(&self) -> Result<OwnedFd, String> {
        let shown = self.shown.display();
        let cannot = |error: Errno| match error {
            Errno::NOENT => format!("the directory in which {shown} was is gone"),
            error => format!("{shown} cannot be made: {error}"),
        };
        let taken = || {
            format!(
                "something else is at {shown}; move it away, and crewfs puts its own back: mv {shown} {shown}.other"
            )
        };
        let made = mkdirat(&self.parent, &*self.name, Mode::from(0o700));
        if !matches!(made, Ok(()) | Err(Errno::EXIST)) {
            made.map_err(cannot)?;
        }
        let directory = open_directory(&self.parent, &self.name).map_err(|error| match error {
            Errno::NOTDIR | Errno::LOOP => taken(),
            error => cannot(error),
        })?;
        if made.is_err() && !is_empty(&directory) {
            return Err(taken());
        }
        // The parent is open as a path only, which cannot be synced.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if let Ok(parent) = openat(&self.parent, ".", flags, Mode::empty()) {
            let _ = fsync(parent);
        }
        Ok(directory)
    }

    /// All that was in it is there again, after something had been taken away.
    pub fn note_restored(&self) {
        self.restored.fetch_add(1, Ordering::AcqRel);
    }

    /// How often it had to be restored since it was taken.
    pub fn restored(&self) -> u64 {
        self.restored.load(Ordering::Acquire)
    }

    /// A new directory beside it, for what cannot be put at its place; and its path.
    ///
    /// # Errors
    /// Those of mkdirat(2); EEXIST if there is one from before.
    pub fn beside(&self) -> rustix::io::Result<(OwnedFd, PathBuf)> {
        let name = rescued(&self.name);
        mkdirat(&self.parent, &*name, Mode::from(0o700))?;
        Ok((open_directory(&self.parent, &name)?, rescued(self.shown.as_os_str()).into()))
    }

    /// Remove what [`StateDirectory::beside`] made, with these files in it.
    pub fn clear_beside(&self, files: &[&str]) {
        let name = rescued(&self.name);
        let Ok(directory) = open_directory(&self.parent, &name) else { return };
        for file in files {
            let _ = unlinkat(&directory, *file, AtFlags::empty());
        }
        let _ = unlinkat(&self.parent, &*name, AtFlags::REMOVEDIR);
    }
}

impl Drop for StateDirectory {
    /// Closing would do, if no thread of this process were starting a program: until its `exec`, the new process holds a
    /// copy of the descriptor, and with it the lock.
    fn drop(&mut self) {
        let _ = flock(&self.held.get_mut().lock, FlockOperation::Unlock);
    }
}

/// What [`StateDirectory::beside`] makes for the state directory of this name or path.
pub fn rescued(name: &OsStr) -> OsString {
    let mut name = name.to_owned();
    name.push(RESCUED);
    name
}

fn open_directory(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

fn open_lock(directory: &OwnedFd) -> rustix::io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, LOCK, flags, Mode::from(0o600)).map(File::from)
}

/// Whether a directory has no entries.
fn is_empty(directory: impl AsFd) -> bool {
    let own = |name: &[u8]| name == b"." || name == b"..";
    Dir::read_from(directory).is_ok_and(|entries| {
        entries.into_iter().all(|entry| entry.is_ok_and(|entry| own(entry.file_name().to_bytes())))
    })
}

impl Display for StateDirectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.shown.display().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn taken() -> (tempfile::TempDir, PathBuf, StateDirectory) {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("state");
        let state = StateDirectory::at(&place, true).unwrap();
        state.announce(b"me".to_vec()).unwrap();
        (dir, place, state)
    }

    #[test]
    fn it_is_made_again_where_it_was_and_locked() {
        for away in ["remove", "move", "lock", "empty"] {
            let (_dir, place, state) = taken();
            match away {
                "remove" => fs::remove_dir_all(&place).unwrap(),
                "move" => fs::rename(&place, place.with_extension("moved")).unwrap(),
                "lock" => fs::remove_file(place.join(LOCK)).unwrap(),
                _ => {
                    fs::remove_dir_all(&place).unwrap();
                    fs::create_dir(&place).unwrap();
                }
            }
            assert_eq!(state.is_in_place(), away == "lock", "{away}");
            state.put_back().unwrap();
            assert!(state.is_in_place(), "{away}");
            assert_eq!(fs::read(place.join(LOCK)).unwrap(), b"me", "{away}");
            let again = StateDirectory::at(&place, true);
            assert!(matches!(again, Err(TakeError::Held(said)) if said == b"me"), "{away}");
        }
    }

    #[test]
    fn what_took_its_place_is_kept_and_named() {
        let (dir, place, state) = taken();
        fs::remove_dir_all(&place).unwrap();
        fs::write(&place, "theirs").unwrap();
        let why = state.put_back().unwrap_err();
        assert!(why.starts_with("something else is at "), "{why}");
        fs::remove_file(&place).unwrap();
        fs::create_dir(&place).unwrap();
        fs::write(place.join("theirs"), "x").unwrap();
        assert_eq!(state.put_back().unwrap_err(), why);
        std::os::unix::fs::symlink(dir.path(), place.with_extension("link")).unwrap();
        fs::remove_dir_all(&place).unwrap();
        fs::rename(place.with_extension("link"), &place).unwrap();
        assert_eq!(state.put_back().unwrap_err(), why);
        fs::remove_file(&place).unwrap();
        state.put_back().unwrap();
        assert!(state.is_in_place());
    }

    #[test]
    fn a_link_in_it_leads_nowhere() {
        let (dir, place, state) = taken();
        fs::write(dir.path().join("outside"), "x").unwrap();
        std::os::unix::fs::symlink(dir.path().join("outside"), place.join("link")).unwrap();
        assert_eq!(state.open("link", OFlags::RDONLY).unwrap_err(), Errno::LOOP);
    }

    #[test]
    fn it_is_free_when_it_is_dropped_even_if_a_starting_program_has_a_copy_of_the_lock() {
        let (_dir, place, state) = taken();
        let copy = state.held.lock().lock.try_clone().unwrap();
        assert!(matches!(StateDirectory::at(&place, false), Err(TakeError::Held(_))));
        drop(state);
        assert!(StateDirectory::at(&place, false).is_ok());
        drop(copy);
    }
}
