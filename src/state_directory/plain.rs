//! Directories and files that only the user of this process can change, and plain files of other users: judged by descriptor.
//!
//! May assume: nothing. Another user may have put there what a name leads to, and may replace it at any moment.
//! Must never: follow a symbolic link, wait for a pipe or for the holder of a lease, or cut, lengthen or read a file before it is
//! judged.
//!
//! An entry of an ACL that allows writing shows in the mode as the group's: the kernel keeps the ACL's mask there.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, ftruncate, openat, statat};
use rustix::io::Errno;
use rustix::path::Arg;
use rustix::process::geteuid;
use thiserror::Error;

/// Why a directory or a file is not trusted, and what to do about it.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum Distrust {
    /// It is another user's.
    #[error(
        "{0} belongs to user {1}, and crewfs runs here as user {2}; run it as user {1}, or look at what is in it and take it over: \
         chown -hR {2} {0}"
    )]
    Owner(PathBuf, u32, u32),
    /// Others may change it.
    #[error(
        "{0} can be changed by others than its owner (mode {1:04o}), so that other users may have put there what is in it; look at that, \
         and close it: chmod -R go-w {0}"
    )]
    Open(PathBuf, u32),
    /// It is no directory.
    #[error(
        "{0} is {1}, where crewfs keeps a directory of its own; find out who put it there, and remove it: rm -r {0}"
    )]
    NoDirectory(PathBuf, &'static str),
    /// It is no regular file.
    #[error(
        "{0} is {1}, where crewfs keeps a plain file; find out who put it there, and remove it: rm -r {0}"
    )]
    NoFile(PathBuf, &'static str),
    /// It can be reached by another name.
    #[error(
        "{0} is one of {1} hard links to a file, which can be changed from elsewhere; give crewfs a file of its own: \
         cp -p {0} {0}.copy && mv {0}.copy {0}"
    )]
    Linked(PathBuf, String),
    /// What was opened is not what was made.
    #[error("{0} was replaced while crewfs made it; find out who does that, and try again")]
    Replaced(PathBuf),
}

/// Why a directory or a file cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The system call failed.
    #[error("{0}")]
    Failed(#[from] Errno),
    /// It is not trusted.
    #[error(transparent)]
    Distrusted(#[from] Distrust),
}

impl From<OpenError> for io::Error {
    fn from(error: OpenError) -> io::Error {
        match error {
            OpenError::Failed(errno) => errno.into(),
            OpenError::Distrusted(why) => io::Error::other(why),
        }
    }
}

/// Open a directory in another one, if it is this user's alone. `shown` is its path, for people.
///
/// # Errors
/// Those of openat(2), or why it is not trusted.
pub fn open_directory(parent: impl AsFd, name: impl Arg + Copy, shown: &Path) -> Result<OwnedFd, OpenError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let directory = openat(&parent, name, flags, Mode::empty()).map_err(|error| {
        match (error, statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)) {
            (Errno::NOTDIR | Errno::LOOP, Ok(stat)) => {
                Distrust::NoDirectory(shown.to_path_buf(), kind(&stat)).into()
            }
            _ => OpenError::Failed(error),
        }
    })?;
    judge_directory(&directory, shown)?;
    Ok(directory)
}

/// Whether a directory is this user's alone.
///
/// # Errors
/// As for [`open_directory`].
pub fn judge_directory(directory: impl AsFd, shown: &Path) -> Result<(), OpenError> {
    Ok(judge_access(&fstat(directory)?, shown, own())?)
}

/// Open, or with `CREATE` make, a file in a directory, if it is a regular one with a single name and this user's alone. It is cut
/// (`TRUNC`) only when that is known. `within` is the path of the directory, for people.
///
/// # Errors
/// Those of openat(2), or why it is not trusted.
pub fn open_file(directory: impl AsFd, name: &str, flags: OFlags, within: &Path) -> Result<File, OpenError> {
    let cut = flags.contains(OFlags::TRUNC);
    let flags = flags.difference(OFlags::TRUNC) | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(&directory, name, flags, Mode::from(0o600)) {
        Ok(file) => file,
        Err(error) => {
            // A link, a pipe or a socket has an error of its own, which says less than what it is.
            judge_named(&directory, name, within)?;
            return Err(error.into());
        }
    };
    judge_file(&fstat(&file)?, &within.join(name), own())?;
    if cut {
        ftruncate(&file, 0)?;
    }
    Ok(file.into())
}

/// Whether a name leads to a file as [`open_file`] opens it, or to nothing.
///
/// # Errors
/// Those of fstatat(2), or why it is not trusted.
pub fn judge_named(directory: impl AsFd, name: &str, within: &Path) -> Result<(), OpenError> {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(()),
        stat => Ok(judge_file(&stat?, &within.join(name), own())?),
    }
}

/// Whether a directory and all that is in it, but for directories, is `user`'s alone, as [`open_file`] asks for it.
///
/// # Errors
/// Those of reading the directory, or why something is not trusted.
pub fn judge_all(directory: impl AsFd, within: &Path, user: u32) -> Result<(), OpenError> {
    judge_access(&fstat(&directory)?, within, user)?;
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let stat = match statat(&directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
            // It went meanwhile.
            Err(Errno::NOENT) => continue,
            stat => stat?,
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            judge_file(&stat, &within.join(&*entry.file_name().to_string_lossy()), user)?;
        }
    }
    Ok(())
}

/// Open a directory of any user for looking into it.
///
/// # Errors
/// Those of openat(2).
pub fn look_into(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty())
}

/// Open a file of any user for reading, if it is a regular one.
///
/// # Errors
/// Those of openat(2); ELOOP for a symbolic link, EINVAL for what is no regular file.
pub fn look_at(directory: impl AsFd, name: impl Arg + Copy) -> rustix::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let is_file = |stat: Stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    // Only to open a device may already do something.
    if !is_file(statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?) {
        return Err(Errno::INVAL);
    }
    let file = openat(directory, name, flags, Mode::empty())?;
    if is_file(fstat(&file)?) { Ok(file.into()) } else { Err(Errno::INVAL) }
}

/// The beginning of a file of any user, at most so many bytes.
///
/// # Errors
/// Those of [`look_at`] and of reading.
pub fn read(directory: impl AsFd, name: &str, most: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    look_at(directory, name)?.take(most).read_to_end(&mut content)?;
    Ok(content)
}

/// The user as whom this process makes files.
pub fn own() -> u32 {
    geteuid().as_raw()
}

fn judge_file(stat: &Stat, shown: &Path, user: u32) -> Result<(), Distrust> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Distrust::NoFile(shown.to_path_buf(), kind(stat)));
    }
    judge_access(stat, shown, user)?;
    // One that was just removed has none.
    if stat.st_nlink > 1 {
        return Err(Distrust::Linked(shown.to_path_buf(), stat.st_nlink.to_string()));
    }
    Ok(())
}

fn judge_access(stat: &Stat, shown: &Path, user: u32) -> Result<(), Distrust> {
    if stat.st_uid != user {
        return Err(Distrust::Owner(shown.to_path_buf(), stat.st_uid, user));
    }
    if stat.st_mode & 0o022 != 0 {
        return Err(Distrust::Open(shown.to_path_buf(), stat.st_mode & 0o7777));
    }
    Ok(())
}

fn kind(stat: &Stat) -> &'static str {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Directory => "a directory",
        _ => "a file",
    }
}
