//! What can be asked to be changed: every changing request of the tree, in one type.
//!
//! Must never: borrow from the request. A change that has to wait outlives it.

use std::ffi::{OsStr, OsString};

use crate::fs::{FileRange, Ino, SetAttr};

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryName {
    /// The directory.
    pub parent: Ino,
    /// The name in it.
    pub name: OsString,
}

impl EntryName {
    /// The name `name` in `parent`.
    pub fn new(parent: Ino, name: &OsStr) -> EntryName {
        EntryName { parent, name: name.to_owned() }
    }
}

/// A change that is asked for.
#[derive(Debug, Clone)]
pub enum Change {
    /// Write content.
    Write {
        /// The file.
        ino: Ino,
        /// Whether the file was opened with O_APPEND.
        append: bool,
    },
    /// Write back pages of a mapping: the kernel does, and does not say for whom.
    WriteMapped {
        /// The file.
        ino: Ino,
    },
    /// Set the length of a file: `truncate`, or an open with O_TRUNC.
    Truncate {
        /// The file.
        ino: Ino,
        /// Its new length in bytes.
        size: u64,
        /// Whether this may be part of an open, which has not returned.
        opens: bool,
    },
    /// Change attributes other than the length.
    SetAttr {
        /// The node.
        ino: Ino,
        /// What is to be changed.
        change: SetAttr,
    },
    /// Make and open a regular file.
    Create {
        /// Its name.
        at: EntryName,
        /// How it is opened, as open(2) is told.
        flags: i32,
    },
    /// Make a regular file, pipe, socket or device.
    Mknod(EntryName),
    /// Make a directory.
    Mkdir(EntryName),
    /// Make a symbolic link.
    Symlink(EntryName),
    /// Make a hard link.
    Link {
        /// The file.
        ino: Ino,
        /// Its further name.
        to: EntryName,
    },
    /// Remove a name that is not a directory.
    Unlink(EntryName),
    /// Remove an empty directory.
    Rmdir(EntryName),
    /// Rename, or exchange two names.
    Rename {
        /// The name that moves.
        from: EntryName,
        /// Where it moves to.
        to: EntryName,
        /// Whether what is at `to` moves to `from` instead of going away.
        exchange: bool,
    },
    /// Set or remove an extended attribute.
    Xattr {
        /// The node.
        ino: Ino,
        /// The attribute's name.
        name: OsString,
    },
    /// Reserve or punch space.
    Fallocate {
        /// The file.
        ino: Ino,
    },
    /// Copy content from one file into another.
    CopyFileRange {
        /// Where it is read.
        from: FileRange,
        /// Where it is written.
        to: FileRange,
    },
}

impl Change {
    /// Whether the kernel keeps whole directories locked until the request is answered, and not just one file.
    pub fn locks_directories(&self) -> bool {
        matches!(
            self,
            Change::Link { .. }
                | Change::Unlink(_)
                | Change::Rename { .. }
                | Change::Create { .. }
                | Change::Mknod(_)
                | Change::Mkdir(_)
                | Change::Symlink(_)
                | Change::Rmdir(_)
        )
    }
}
