//! The one place where changes are let through.
//!
//! May assume: every changing request of a session asks here before it touches the disk.
//! Must never: make the change itself, or wait: a request that has to wait is refused, or its reply is parked elsewhere.

use std::ffi::OsStr;

use super::{FileRange, Ino, Request, Result, SetAttr};

/// A name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name<'a> {
    /// The directory.
    pub parent: Ino,
    /// The name in it.
    pub name: &'a OsStr,
}

/// A change that is asked for.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    /// Write content. `cached`: pages of a mapping, written by the kernel for a caller it does not name.
    Write {
        /// The file.
        ino: Ino,
        /// Where the content starts, in bytes.
        offset: u64,
        /// Its length in bytes.
        length: usize,
        /// Whether the kernel writes by itself.
        cached: bool,
    },
    /// Set the length of a file.
    Truncate {
        /// The file.
        ino: Ino,
        /// Its new length in bytes.
        size: u64,
    },
    /// Change attributes other than the length.
    SetAttr {
        /// The node.
        ino: Ino,
        /// What is to be changed.
        change: &'a SetAttr,
    },
    /// Make and open a regular file.
    Create(Name<'a>),
    /// Make a regular file, pipe, socket or device.
    Mknod(Name<'a>),
    /// Make a directory.
    Mkdir(Name<'a>),
    /// Make a symbolic link.
    Symlink(Name<'a>),
    /// Make a hard link.
    Link {
        /// The file.
        ino: Ino,
        /// Its further name.
        to: Name<'a>,
    },
    /// Remove a name that is not a directory.
    Unlink(Name<'a>),
    /// Remove an empty directory.
    Rmdir(Name<'a>),
    /// Rename, or exchange two names.
    Rename {
        /// The name that moves.
        from: Name<'a>,
        /// Where it moves to.
        to: Name<'a>,
        /// The flags of `renameat2(2)`.
        flags: u32,
    },
    /// Set an extended attribute.
    SetXattr {
        /// The node.
        ino: Ino,
        /// The attribute's name.
        name: &'a OsStr,
    },
    /// Remove an extended attribute.
    RemoveXattr {
        /// The node.
        ino: Ino,
        /// The attribute's name.
        name: &'a OsStr,
    },
    /// Reserve or punch space.
    Fallocate {
        /// The file.
        ino: Ino,
        /// Where the space starts, in bytes.
        offset: u64,
        /// Its length in bytes.
        length: u64,
    },
    /// Copy content from one file into another.
    CopyFileRange {
        /// Where it is read.
        from: FileRange,
        /// Where it is written.
        to: FileRange,
        /// How much, in bytes.
        length: u64,
    },
}

/// What a session forbids whoever asks.
pub trait Policy: Send + Sync {
    /// Why the change is refused, if it is.
    fn permits(&self, change: &Change<'_>) -> Result<()>;
}

/// Told of every request that a caller makes.
pub type Activity = Box<dyn Fn(&Request) + Send + Sync>;

/// Lets changes through, or does not. See the top of this file.
pub struct Guard {
    policy: Box<dyn Policy>,
    activity: Activity,
}

impl Guard {
    /// A guard of one session.
    pub fn new(policy: Box<dyn Policy>, activity: Activity) -> Guard {
        Guard { policy, activity }
    }

    /// Whether `change` may be made by this caller, now. An error is the answer that the caller gets.
    pub fn admit(&self, _req: &Request, change: &Change<'_>) -> Result<()> {
        self.policy.permits(change)
    }

    /// This caller did something.
    pub fn seen(&self, req: &Request) {
        (self.activity)(req);
    }
}
