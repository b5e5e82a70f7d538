//! The forms in which workers claim and complete tasks. Each form makes the system calls of one command.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_NOW, futimens, linkat, mkdirat, openat,
    renameat, renameat_with,
};
use rustix::io::{Errno, Result};

/// How to claim a task by its id (C20).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Form {
    /// `touch`
    Touch,
    /// `set -C; >`
    Exclusive,
    Mkdir,
    /// `mv` before renameat2(2)
    Rename,
    /// `mv -n`, and current `mv`
    RenameNoReplace,
    /// `ln`
    Link,
}

impl Form {
    pub(crate) const ALL: [Form; 6] =
        [Form::Touch, Form::Exclusive, Form::Mkdir, Form::Rename, Form::RenameNoReplace, Form::Link];

    /// Claim the task.
    pub(crate) fn claim(self, desk: impl AsFd, id: &str) -> Result<()> {
        let (ready, claim) = (format!("ready/{id}"), format!("claim/{id}"));
        match self {
            Form::Touch => touch(desk, &claim),
            Form::Exclusive => create(desk, &claim, OFlags::EXCL).map(drop),
            Form::Mkdir => mkdirat(desk, &claim, Mode::from(0o777)),
            Form::Rename => renameat(&desk, &ready, &desk, &claim),
            Form::RenameNoReplace => renameat_with(&desk, &ready, &desk, &claim, RenameFlags::NOREPLACE),
            Form::Link => linkat(&desk, &ready, &desk, &claim, AtFlags::empty()),
        }
    }

    /// The errors that the loser of a race may get (C22). `waits`: the task may be blocked.
    pub(crate) fn allowed(self, waits: bool) -> &'static [Errno] {
        match self {
            Form::Touch | Form::Exclusive | Form::Mkdir if waits => {
                &[Errno::EXIST, Errno::NOENT, Errno::BUSY]
            }
            _ => &[Errno::EXIST, Errno::NOENT],
        }
    }
}

/// Create a file, open for writing.
pub(crate) fn create(desk: impl AsFd, path: &str, flags: OFlags) -> Result<OwnedFd> {
    openat(desk, path, OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | flags, Mode::from(0o666))
}

/// Make the system calls of `touch`.
pub(crate) fn touch(desk: impl AsFd, path: &str) -> Result<()> {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let file = create(desk, path, OFlags::NOCTTY | OFlags::NONBLOCK)?;
    futimens(file, &Timestamps { last_access: now, last_modification: now })
}

/// Read the whole content.
pub(crate) fn read(desk: impl AsFd, path: &str) -> Result<Vec<u8>> {
    let file = openat(desk, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let (mut file, mut content) = (std::fs::File::from(file), Vec::new());
    match file.read_to_end(&mut content) {
        Ok(_) => Ok(content),
        Err(error) => Err(Errno::from_io_error(&error).unwrap()),
    }
}

/// The task that the caller works on.
pub(crate) fn current(desk: impl AsFd) -> Result<String> {
    let shown: serde_json::Value = serde_json::from_slice(&read(desk, "claim/next")?).unwrap();
    Ok(shown["task"].as_str().unwrap().to_string())
}
