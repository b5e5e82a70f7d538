//! The state directory of a project: opened once, locked, and kept at its place.
//!
//! May assume: a local disk. A process with write permission on the parent can remove the directory at any moment, and does:
//! `git clean -fdx`. It can also put another one there, so a directory is trusted only if no other user can change it (`plain.rs`).
//! Must never: follow a symbolic link, reach a file by a path that a mount could cover, or know what the files in it mean.
//!
//! Files in it are opened through its descriptor. After a removal another directory is made at its place, and the descriptor is that of
//! the new one. So no caller keeps the descriptor for longer than one step, except to close files of the old one.
//!
//! One lock: `held`. Nothing else is locked, and nothing is logged, while it is.

pub mod plain;

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

use self::plain::{Distrust, OpenError, open_directory, open_file};

/// The name of a state directory that lies in its project (C3).
pub const NAME: &str = ".crewfs";
/// The lock file of the project's daemon. It says which process that is.
pub const LOCK: &str = "lock";
/// How much of the lock file is read, in bytes.
pub const LOCK_BYTES: u64 = 1 << 16;
/// Suffix of a copy that could not be put at its place.
const RESCUED: &str = ".rescued";

/// Identifies a file. No other file has the same while it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InodeId {
    device: u64,
    inode: u64,
}

impl From<Stat> for InodeId {
    fn from(stat: Stat) -> InodeId {
        InodeId { device: stat.st_dev, inode: stat.st_ino }
    }
}

impl InodeId {
    /// The file behind a descriptor.
    ///
    /// # Errors
    /// Those of fstat(2).
    pub fn of(fd: impl AsFd) -> rustix::io::Result<InodeId> {
        fstat(fd).map(InodeId::from)
    }

    /// The file behind a name in a directory. A symbolic link is not followed.
    ///
    /// # Errors
    /// Those of fstatat(2).
    pub fn at(directory: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<InodeId> {
        statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map(InodeId::from)
    }
}

/// Why a state directory cannot be taken.
#[derive(Debug)]
pub enum StateDirectoryError {
    /// There is none, and the caller did not want one made.
    Missing,
    /// It cannot be made.
    Make(Errno),
    /// It cannot be opened.
    Open(Errno),
    /// Another user could have changed it.
    Distrusted(Distrust),
    /// The lock file cannot be opened.
    OpenLock(Errno),
    /// The lock file cannot be locked.
    Lock(Errno),
    /// Another process has it locked. The content of the lock file.
    Held(Vec<u8>),
}

impl StateDirectoryError {
    /// Turn an error of the system call into `fails`, and a lack of trust into `Distrusted`.
    fn of(fails: impl Fn(Errno) -> StateDirectoryError) -> impl Fn(OpenError) -> StateDirectoryError {
        move |error| match error {
            OpenError::Failed(error) => fails(error),
            OpenError::Distrusted(why) => StateDirectoryError::Distrusted(why),
        }
    }
}

/// A state directory that this process has locked.
pub struct StateDirectory {
    /// Its parent directory.
    parent: OwnedFd,
    name: OsString,
    shown: PathBuf,
    held: Mutex<Held>,
    restored: AtomicU64,
}

struct Held {
    directory: Arc<OwnedFd>,
    lock: File,
    /// The content of the lock file.
    said: Vec<u8>,
}

impl StateDirectory {
    /// Open and lock the directory `name` in `parent`. With `create` it is made if there is none, for its owner alone. `shown` is its
    /// path, for messages. Nothing is changed in a directory that is not trusted.
    ///
    /// # Errors
    /// See [`StateDirectoryError`].
    pub fn take(
        parent: OwnedFd,
        name: &OsStr,
        shown: PathBuf,
        create: bool,
    ) -> Result<StateDirectory, StateDirectoryError> {
        let made = match create.then(|| mkdirat(&parent, name, Mode::from(0o700))) {
            None | Some(Err(Errno::EXIST)) => false,
            Some(Ok(())) => true,
            Some(Err(error)) => return Err(StateDirectoryError::Make(error)),
        };
        let directory =
            open_directory(&parent, name, &shown).map_err(StateDirectoryError::of(|error| match error {
                Errno::NOENT => StateDirectoryError::Missing,
                error => StateDirectoryError::Open(error),
            }))?;
        if made && !is_empty(&directory) {
            return Err(StateDirectoryError::Distrusted(Distrust::Replaced(shown)));
        }
        plain::judge_all(&directory, &shown, plain::own())
            .map_err(StateDirectoryError::of(StateDirectoryError::Open))?;
        let lock =
            open_lock(&directory, &shown).map_err(StateDirectoryError::of(StateDirectoryError::OpenLock))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut said = Vec::new();
                let _ = lock.take(LOCK_BYTES).read_to_end(&mut said);
                return Err(StateDirectoryError::Held(said));
            }
            Err(error) => return Err(StateDirectoryError::Lock(error)),
        }
        let held = Mutex::new(Held { directory: Arc::new(directory), lock, said: Vec::new() });
        Ok(StateDirectory { parent, name: name.to_owned(), shown, held, restored: AtomicU64::new(0) })
    }

    /// The same by path. The parent must exist.
    ///
    /// # Errors
    /// See [`StateDirectoryError`].
    pub fn at(path: &Path, create: bool) -> Result<StateDirectory, StateDirectoryError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(StateDirectoryError::Open(Errno::INVAL));
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = openat(CWD, parent, flags, Mode::empty()).map_err(StateDirectoryError::Open)?;
        StateDirectory::take(parent, name, path.to_path_buf(), create)
    }

    /// Its path, for messages.
    pub fn shown(&self) -> &Path {
        &self.shown
    }

    /// The descriptor of the directory as it is now. Not to be kept; see the module.
    pub fn descriptor(&self) -> Arc<OwnedFd> {
        self.held.lock().directory.clone()
    }

    /// Open a file in it. A new file is for its owner alone.
    ///
    /// # Errors
    /// Those of openat(2), or why the file or the directory is not trusted.
    pub fn open(&self, name: &str, flags: OFlags) -> Result<File, OpenError> {
        let directory = self.descriptor();
        plain::judge_directory(&*directory, &self.shown)?;
        open_file(&*directory, name, flags, &self.shown)
    }

    /// Open a directory in it. One that is not there is made, for its owner alone.
    ///
    /// # Errors
    /// Those of mkdirat(2) and openat(2), or why one of the directories is not trusted.
    pub fn subdirectory(&self, name: &str) -> Result<OwnedFd, OpenError> {
        let directory = self.descriptor();
        plain::judge_directory(&*directory, &self.shown)?;
        match mkdirat(&*directory, name, Mode::from(0o700)) {
            Ok(()) | Err(Errno::EXIST) => open_directory(&*directory, name, &self.shown.join(name)),
            Err(error) => Err(error.into()),
        }
    }

    /// Rename a file in it. A file with the new name is replaced.
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

    /// Sync its entries to the disk.
    ///
    /// # Errors
    /// Those of fsync(2).
    pub fn sync(&self) -> rustix::io::Result<()> {
        fsync(&*self.descriptor())
    }

    /// The file behind a name in it, if there is one.
    pub fn id(&self, name: &str) -> Option<InodeId> {
        InodeId::at(&*self.descriptor(), name).ok()
    }

    /// Whether its path still leads to it.
    pub fn is_in_place(&self) -> bool {
        self.leads_to(&self.descriptor())
    }

    fn leads_to(&self, directory: &OwnedFd) -> bool {
        InodeId::at(&self.parent, &*self.name).is_ok_and(|there| InodeId::of(directory) == Ok(there))
    }

    /// Write into the lock file which daemon has it.
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

    /// Make the directory again if it was removed, and the lock file in it. The owners of the other files bring those back, and then call
    /// [`StateDirectory::note_restored`]. After a failure it can be called again, and continues.
    ///
    /// # Errors
    /// Why the directory cannot be made, as a message.
    pub fn put_back(&self) -> Result<(), String> {
        let cannot = |error: Errno| format!("{} cannot be made: {error}", self.shown.display());
        let not_opened = |error: OpenError| match error {
            OpenError::Failed(error) => cannot(error),
            OpenError::Distrusted(why) => why.to_string(),
        };
        let mut held = self.held.lock();
        if !self.leads_to(&held.directory) {
            held.directory = Arc::new(self.make_anew()?);
        }
        plain::judge_directory(&*held.directory, &self.shown).map_err(not_opened)?;
        let locked = InodeId::of(&held.lock).map_err(cannot)?;
        if InodeId::at(&*held.directory, LOCK) != Ok(locked) {
            let mut lock = open_lock(&held.directory, &self.shown).map_err(not_opened)?;
            flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(cannot)?;
            lock.set_len(0)
                .and_then(|()| lock.write_all(&held.said))
                .map_err(|error| format!("{} cannot be written: {error}", self.shown.join(LOCK).display()))?;
            held.lock = lock;
        }
        Ok(())
    }

    /// Make another directory at its place. An empty one that exists there is taken.
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
        let directory =
            open_directory(&self.parent, &*self.name, &self.shown).map_err(|error| match error {
                OpenError::Failed(error) => cannot(error),
                OpenError::Distrusted(_) => taken(),
            })?;
        if !is_empty(&directory) {
            return Err(taken());
        }
        // An O_PATH descriptor, such as that of the parent, cannot be synced.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if let Ok(parent) = openat(&self.parent, ".", flags, Mode::empty()) {
            let _ = fsync(parent);
        }
        Ok(directory)
    }

    /// Count a restore: after a removal, all files are back.
    pub fn note_restored(&self) {
        self.restored.fetch_add(1, Ordering::AcqRel);
    }

    /// How often it was restored since it was locked.
    pub fn restored(&self) -> u64 {
        self.restored.load(Ordering::Acquire)
    }

    /// Make a directory beside it, for files that cannot be put at its place. With its path.
    ///
    /// # Errors
    /// Those of mkdirat(2). EEXIST if an earlier one exists. Why the directory found afterwards is not the one that was made.
    pub fn beside(&self) -> Result<(OwnedFd, PathBuf), OpenError> {
        let (name, shown) = self.rescued();
        mkdirat(&self.parent, &*name, Mode::from(0o700))?;
        let directory = open_directory(&self.parent, &*name, &shown)?;
        if is_empty(&directory) { Ok((directory, shown)) } else { Err(Distrust::Replaced(shown).into()) }
    }

    /// Remove the directory of [`StateDirectory::beside`], with these files in it.
    pub fn clear_beside(&self, files: &[&str]) {
        let (name, shown) = self.rescued();
        let Ok(directory) = open_directory(&self.parent, &*name, &shown) else { return };
        for file in files {
            let _ = unlinkat(&directory, *file, AtFlags::empty());
        }
        let _ = unlinkat(&self.parent, &*name, AtFlags::REMOVEDIR);
    }

    /// The name and the path of what [`StateDirectory::beside`] makes.
    fn rescued(&self) -> (OsString, PathBuf) {
        (rescued(&self.name), rescued(self.shown.as_os_str()).into())
    }
}

impl Drop for StateDirectory {
    /// Closing would do, if no thread of this process were starting a program: until its `exec`, the new process holds a
    /// copy of the descriptor, and with it the lock.
    fn drop(&mut self) {
        let _ = flock(&self.held.get_mut().lock, FlockOperation::Unlock);
    }
}

/// The name or path of the directory that [`StateDirectory::beside`] makes for a state directory.
pub fn rescued(name: &OsStr) -> OsString {
    let mut name = name.to_owned();
    name.push(RESCUED);
    name
}

fn open_lock(directory: &OwnedFd, shown: &Path) -> Result<File, OpenError> {
    open_file(directory, LOCK, OFlags::RDWR | OFlags::CREATE, shown)
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
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use rustix::fs::{XattrFlags, mkfifoat, setxattr};

    use super::*;

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
            assert!(matches!(again, Err(StateDirectoryError::Held(said)) if said == b"me"), "{away}");
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
        symlink(dir.path(), place.with_extension("link")).unwrap();
        fs::remove_dir_all(&place).unwrap();
        fs::rename(place.with_extension("link"), &place).unwrap();
        assert_eq!(state.put_back().unwrap_err(), why);
        fs::remove_file(&place).unwrap();
        state.put_back().unwrap();
        assert!(state.is_in_place());
    }

    /// What another user could have left at `path`, each by its name; `outside` is a file that is not to be changed.
    fn plant(what: &str, path: &Path, outside: &Path) {
        match what {
            "link" => symlink(outside, path).unwrap(),
            "pipe" => mkfifoat(CWD, path, Mode::from(0o600)).unwrap(),
            "hard link" => fs::hard_link(outside, path).unwrap(),
            "open to others" => {
                fs::write(path, "theirs").unwrap();
                fs::set_permissions(path, Permissions::from_mode(0o620)).unwrap();
            }
            _ => {
                fs::write(path, "theirs").unwrap();
                fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
                std::os::unix::fs::chown(path, Some(4321), None).unwrap();
            }
        }
    }

    fn why(outcome: Result<StateDirectory, StateDirectoryError>) -> String {
        match outcome {
            Err(StateDirectoryError::Distrusted(why)) => why.to_string(),
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("taken"),
        }
    }

    const PLANTS: [(&str, &str); 5] = [
        ("link", "is a symbolic link, where crewfs keeps a plain file"),
        ("pipe", "is a named pipe, where crewfs keeps a plain file"),
        ("hard link", "hard links to a file, which can be changed from elsewhere"),
        ("open to others", "can be changed by others than its owner (mode 0620)"),
        ("another user's", "belongs to user 4321"),
    ];

    fn plants() -> impl Iterator<Item = (&'static str, &'static str)> {
        // Only root can give a file away.
        PLANTS.into_iter().filter(|(what, _)| *what != "another user's" || plain::own() == 0)
    }

    #[test]
    fn what_another_user_could_have_planted_is_refused_and_stays_as_it_is() {
        for (what, said) in plants() {
            for name in [LOCK, "log.db", "log.db-wal", "log.db-journal", "reserve", "any"] {
                let dir = tempfile::tempdir().unwrap();
                let (place, outside) = (dir.path().join("state"), dir.path().join("outside"));
                fs::write(&outside, "precious").unwrap();
                fs::create_dir(&place).unwrap();
                plant(what, &place.join(name), &outside);
                let why = why(StateDirectory::at(&place, true));
                assert!(
                    why.contains(said) && why.contains(&place.join(name).display().to_string()),
                    "{what}: {why}"
                );
                assert_eq!(fs::read(&outside).unwrap(), b"precious", "{what}");
                assert_eq!(fs::read_dir(&place).unwrap().count(), 1, "nothing is made in it: {what}");
            }
        }
    }

    #[test]
    fn what_is_planted_while_it_is_held_is_refused_too() {
        for (what, said) in plants() {
            let (dir, place, state) = taken();
            let outside = dir.path().join("outside");
            fs::write(&outside, "precious").unwrap();
            plant(what, &place.join("file"), &outside);
            let flags = [
                OFlags::RDONLY,
                OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC,
                OFlags::RDWR | OFlags::CREATE | OFlags::APPEND,
            ];
            for flags in flags {
                let why = state.open("file", flags).unwrap_err().to_string();
                assert!(why.contains(said), "{what}: {why}");
            }
            assert_eq!(fs::read(&outside).unwrap(), b"precious", "{what}");
            fs::remove_file(place.join(LOCK)).unwrap();
            plant(what, &place.join(LOCK), &outside);
            let why = state.put_back().unwrap_err();
            assert!(why.contains(said), "{what}: {why}");
            assert_eq!(fs::read(&outside).unwrap(), b"precious", "{what}");
        }
    }

    #[test]
    fn a_directory_that_others_could_have_filled_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("state");
        fs::create_dir(&place).unwrap();
        for mode in [0o770, 0o720, 0o707, 0o2775] {
            fs::set_permissions(&place, Permissions::from_mode(mode)).unwrap();
            let why = why(StateDirectory::at(&place, true));
            assert!(why.contains(&format!("(mode {mode:04o})")), "{why}");
            assert!(why.ends_with(&format!("chmod -R go-w {}", place.display())), "{why}");
        }
        fs::set_permissions(&place, Permissions::from_mode(0o700)).unwrap();
        // An entry of an ACL: its owner all, user 4321 all, the mask all, others nothing.
        let entries: [(u16, u16, u32); 5] =
            [(1, 7, u32::MAX), (2, 7, 4321), (4, 0, u32::MAX), (16, 7, u32::MAX), (32, 0, u32::MAX)];
        let mut acl = 2_u32.to_le_bytes().to_vec();
        for (tag, permits, user) in entries {
            acl.extend(tag.to_le_bytes().into_iter().chain(permits.to_le_bytes()).chain(user.to_le_bytes()));
        }
        match setxattr(&place, "system.posix_acl_access", &acl, XattrFlags::empty()) {
            Ok(()) => {
                assert!(
                    why(StateDirectory::at(&place, true)).contains("by others than its owner (mode 0770)")
                )
            }
            Err(error) => eprintln!("no ACL here: {error}"),
        }
        fs::remove_dir(&place).unwrap();
        symlink(dir.path(), &place).unwrap();
        assert!(
            why(StateDirectory::at(&place, true))
                .contains("is a symbolic link, where crewfs keeps a directory")
        );
        fs::remove_file(&place).unwrap();
        fs::create_dir(&place).unwrap();
        fs::set_permissions(&place, Permissions::from_mode(0o700)).unwrap();
        StateDirectory::at(&place, true).unwrap();
        if plain::own() == 0 {
            std::os::unix::fs::chown(&place, Some(4321), None).unwrap();
            assert!(why(StateDirectory::at(&place, true)).contains("belongs to user 4321"));
        }
    }

    #[test]
    fn opened_to_others_while_it_is_held_it_takes_nothing_more() {
        let (_dir, place, state) = taken();
        fs::set_permissions(&place, Permissions::from_mode(0o770)).unwrap();
        let said = "by others than its owner (mode 0770)";
        let flags = OFlags::WRONLY | OFlags::CREATE;
        assert!(state.open("file", flags).unwrap_err().to_string().contains(said));
        assert!(state.put_back().unwrap_err().contains(said));
        assert!(!place.join("file").exists());
    }

    #[test]
    fn another_users_file_is_looked_at_without_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::write(&outside, "x".repeat(100)).unwrap();
        let within = plain::look_into(dir.path()).unwrap();
        for what in ["link", "pipe"] {
            plant(what, &dir.path().join(what), &outside);
            assert!(plain::read(&within, what, 10).is_err(), "{what}");
        }
        assert_eq!(plain::read(&within, "outside", 10).unwrap(), [b'x'; 10]);
    }

    #[test]
    fn it_is_free_when_it_is_dropped_even_if_a_starting_program_has_a_copy_of_the_lock() {
        let (_dir, place, state) = taken();
        let copy = state.held.lock().lock.try_clone().unwrap();
        assert!(matches!(StateDirectory::at(&place, false), Err(StateDirectoryError::Held(_))));
        drop(state);
        assert!(StateDirectory::at(&place, false).is_ok());
        drop(copy);
    }
}
