//! Opens directories and files that only this process's user can change, and plain files of other users. Each is checked by its
//! descriptor.
//!
//! May assume: nothing. Another user may have put the file there, and may replace it at any moment.
//! Must never: follow a symbolic link, wait for a pipe or for the holder of a lease, or truncate, extend or read a file before it is
//! checked.
//!
//! An ACL entry that allows writing shows as the mode's group bits, because the kernel keeps the mask of the ACL there.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, ftruncate, openat, statat};
use rustix::io::Errno;
use rustix::path::Arg;
use rustix::process::geteuid;
use thiserror::Error;

/// Why a directory or a file is not trusted, and how to solve that.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum Distrust {
    /// It belongs to another user.
    #[error(
        "{0} belongs to user {1}, and crewfs runs here as user {2}; run it as user {1}, or look at what is in it and take it over: \
         chown -hR {2} {0}"
    )]
    Owner(PathBuf, u32, u32),
    /// Other users may change it.
    #[error(
        "{0} can be changed by others than its owner (mode {1:04o}), so that other users may have put there what is in it; look at that, \
         and close it: chmod -R go-w {0}"
    )]
    Open(PathBuf, u32),
    /// It is not a directory.
    #[error(
        "{0} is {1}, where crewfs keeps a directory of its own; find out who put it there, and remove it: rm -r {0}"
    )]
    NoDirectory(PathBuf, &'static str),
    /// It is not a regular file.
    #[error(
        "{0} is {1}, where crewfs keeps a plain file; find out who put it there, and remove it: rm -r {0}"
    )]
    NoFile(PathBuf, &'static str),
    /// It has another name (a hard link).
    #[error(
        "{0} is one of {1} hard links to a file, which can be changed from elsewhere; give crewfs a file of its own: \
         cp -p {0} {0}.copy && mv {0}.copy {0}"
    )]
    Linked(PathBuf, String),
    /// The opened directory is not the one that was made.
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

/// Open a directory if only this user can change it. `shown` is its path, for messages.
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

/// Check that only this user can change a directory.
///
/// # Errors
/// As for [`open_directory`].
pub fn judge_directory(directory: impl AsFd, shown: &Path) -> Result<(), OpenError> {
    Ok(judge_access(&fstat(directory)?, shown, own())?)
}

/// Open a file in a directory, or with `CREATE` make one, if it is a regular file with a single name that only this user can change. It is
/// truncated (`TRUNC`) after that check. `within` is the path of the directory, for messages.
///
/// # Errors
/// Those of openat(2), or why it is not trusted.
pub fn open_file(directory: impl AsFd, name: &str, flags: OFlags, within: &Path) -> Result<File, OpenError> {
    let cut = flags.contains(OFlags::TRUNC);
    let flags = flags.difference(OFlags::TRUNC) | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(&directory, name, flags, Mode::from(0o600)) {
        Ok(file) => file,
        Err(error) => {
            // For a link, a pipe or a socket, the file type says more than the error of openat(2).
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

/// Check that a name leads to a file that [`open_file`] would open, or to nothing.
///
/// # Errors
/// Those of fstatat(2), or why it is not trusted.
pub fn judge_named(directory: impl AsFd, name: &str, within: &Path) -> Result<(), OpenError> {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(()),
        stat => Ok(judge_file(&stat?, &within.join(name), own())?),
    }
}

/// Check that only `user` can change a directory and the files in it. Directories in it are left out.
///
/// # Errors
/// Those of reading the directory, or why one of them is not trusted.
pub fn judge_all(directory: impl AsFd, within: &Path, user: u32) -> Result<(), OpenError> {
    judge_access(&fstat(&directory)?, within, user)?;
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let stat = match statat(&directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
            // It was removed meanwhile.
            Err(Errno::NOENT) => continue,
            stat => stat?,
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            judge_file(&stat, &within.join(&*entry.file_name().to_string_lossy()), user)?;
        }
    }
    Ok(())
}

/// Open a directory of any user for reading.
///
/// # Errors
/// Those of openat(2).
pub fn look_into(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty())
}

/// Open a file of any user for reading, if it is a regular file.
///
/// # Errors
/// Those of openat(2). ELOOP for a symbolic link, EINVAL for a file that is not regular.
pub fn look_at(directory: impl AsFd, name: impl Arg + Copy) -> rustix::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let is_file = |stat: Stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    // Opening a device may have an effect.
    if !is_file(statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?) {
        return Err(Errno::INVAL);
    }
    let file = openat(directory, name, flags, Mode::empty())?;
    if is_file(fstat(&file)?) { Ok(file.into()) } else { Err(Errno::INVAL) }
}

/// The beginning of a file of any user, at most `most` bytes.
///
/// # Errors
/// Those of [`look_at`] and of reading.
pub fn read(directory: impl AsFd, name: &str, most: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    look_at(directory, name)?.take(most).read_to_end(&mut content)?;
    Ok(content)
}

/// The user of the files that this process makes.
pub fn own() -> u32 {
    geteuid().as_raw()
}

fn judge_file(stat: &Stat, shown: &Path, user: u32) -> Result<(), Distrust> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Distrust::NoFile(shown.to_path_buf(), kind(stat)));
    }
    judge_access(stat, shown, user)?;
    // A file that was just removed has 0 names.
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
