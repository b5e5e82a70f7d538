//! Every changing request of the tree, in one type.
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

/// A requested change.
#[derive(Debug, Clone)]
pub enum Change {
    /// Write content.
    Write {
        /// The file.
        ino: Ino,
        /// Whether the file was opened with O_APPEND.
        append: bool,
    },
    /// Write back pages of a mapping. The kernel sends this request, and does not name the process that stored into them.
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
        /// Whether this may be part of an open that has not returned.
        opens: bool,
    },
    /// Change attributes other than the length.
    SetAttr {
        /// The node.
        ino: Ino,
        /// The new attributes.
        change: SetAttr,
    },
    /// Create and open a regular file.
    Create {
        /// Its name.
        at: EntryName,
        /// The flags of open(2).
        flags: i32,
    },
    /// Create a regular file, pipe, socket or device.
    Mknod(EntryName),
    /// Create a directory.
    Mkdir(EntryName),
    /// Create a symbolic link.
    Symlink(EntryName),
    /// Create a hard link.
    Link {
        /// The file.
        ino: Ino,
        /// Its additional name.
        to: EntryName,
    },
    /// Remove a name that is not a directory.
    Unlink(EntryName),
    /// Remove an empty directory.
    Rmdir(EntryName),
    /// Rename, or exchange two names.
    Rename {
        /// The old name.
        from: EntryName,
        /// The new name.
        to: EntryName,
        /// Whether the file at `to` moves to `from` instead of being replaced.
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
        /// The range that is read.
        from: FileRange,
        /// The range that is written.
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
