//! The two small filesystems, in plain types: the [`tree`] (the project as it is) and the [`desk`] (the queue as files), and what
//! they share.
//!
//! [`types`] has the vocabulary, [`error`] the error of every method, and [`filesystem`] the trait with the operations that the kernel
//! requests.
//!
//! Must never: name fuser, read a clock, or answer a request twice.

pub mod desk;
mod error;
pub mod files;
mod filesystem;
pub mod guard;
pub mod identity;
mod permissions;
pub mod recorder;
mod rights;
pub mod session_info;
pub mod tree;
mod types;

pub use self::error::{Fault, FsError, OsError, Result};
pub use self::filesystem::{Filesystem, Kernel, Reply};
pub use self::session_info::SessionInfo;
pub use self::types::{
    Attr, CallerCheck, DirEntry, Entry, FileKind, FileRange, Found, Ino, NewMode, Opened, ROOT, ReadRequest,
    Request, SetAttr, StatFs, TimeChange, Timestamp,
};
