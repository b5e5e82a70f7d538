//! The vocabulary of both filesystems: node numbers, attributes, requests, and the parts of answers.
//!
//! Must never: do anything. These are values; their shapes follow the kernel's protocol (fuse(4)) without naming a library for it.

use std::ffi::OsStr;
use std::time::Duration;

/// A node number of one session. Not the inode number of the disk.
pub type Ino = u64;
/// The node number of a session's root directory, fixed by the kernel's protocol.
pub const ROOT: Ino = 1;

/// The caller of a request, as the kernel names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The **thread** id of the caller; 0 if the kernel itself makes the request, or the caller is outside our pid namespace.
    pub tid: u32,
    /// The caller's filesystem uid.
    pub uid: u32,
    /// The caller's filesystem gid.
    pub gid: u32,
}

/// A request that changes nothing; the check of its caller depends on its kind.
#[derive(Debug, Clone, Copy)]
pub enum ReadRequest<'a> {
    /// LOOKUP of a name in a directory.
    Lookup(Ino, &'a OsStr),
    /// GETATTR of a node.
    Getattr(Ino),
    /// Any other.
    Other,
}

/// How exactly the caller of a request must be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallerCheck {
    /// The request is only a sign of life. The worker that the thread belonged to a moment ago suffices.
    Recent,
    /// The answer depends on the worker that calls now.
    Exact,
    /// As [`CallerCheck::Exact`], for a request whose thread may not wait for the answer and may be in any state.
    ExactUnwaited,
}

/// The kind of a node's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

impl FileKind {
    /// The kind in the type bits of a `st_mode`; `None` for unknown bits.
    pub fn from_mode(mode: u32) -> Option<FileKind> {
        Some(match mode & libc::S_IFMT {
            libc::S_IFREG => FileKind::File,
            libc::S_IFDIR => FileKind::Directory,
            libc::S_IFLNK => FileKind::Symlink,
            libc::S_IFIFO => FileKind::Fifo,
            libc::S_IFSOCK => FileKind::Socket,
            libc::S_IFCHR => FileKind::CharDevice,
            libc::S_IFBLK => FileKind::BlockDevice,
            _ => return None,
        })
    }
}

/// A point in time as `stat(2)` gives it: seconds since 1970 (negative before), and nanoseconds below 10⁹.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub seconds: i64,
    /// Nanoseconds into that second.
    pub nanos: u32,
}

/// What `stat(2)` shows of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// The node's number in this session, shown as `st_ino`.
    pub ino: Ino,
    /// The file type.
    pub kind: FileKind,
    /// Permission bits with set-id and sticky bits, `0o7777` at most.
    pub perm: u16,
    /// Hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number, for device nodes.
    pub rdev: u32,
    /// Length in bytes.
    pub size: u64,
    /// Space used, in 512-byte blocks.
    pub blocks: u64,
    /// Preferred I/O size in bytes.
    pub blksize: u32,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last change of anything.
    pub ctime: Timestamp,
}

/// A name that was found or created, and how long the kernel may cache it.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The node.
    pub attr: Attr,
    /// How long the kernel may cache that the name leads to this node.
    pub entry_ttl: Duration,
    /// How long the kernel may cache the attributes.
    pub attr_ttl: Duration,
}

/// The result of a lookup.
#[derive(Debug, Clone, Copy)]
pub enum Found {
    /// A node.
    Entry(Entry),
    /// No entry, and how long the kernel may cache that.
    Nothing(Duration),
}

/// An open file, and what the kernel may do with it without the daemon.
#[derive(Debug, Clone, Copy, Default)]
pub struct Opened {
    /// The handle that later requests carry.
    pub fh: u64,
    /// Every read and write goes to the daemon, past the page cache.
    pub direct_io: bool,
    /// `close(2)` need not be reported.
    pub no_flush: bool,
}

/// One end of a time change: a value, or "now" by the disk's own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeChange {
    /// Set to this time.
    To(Timestamp),
    /// Set to the current time of the disk's clock.
    Now,
}

/// The changes of a SETATTR; `None` leaves a field unchanged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// New mode bits.
    pub mode: Option<u32>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New length in bytes (`truncate`, and `open` with O_TRUNC).
    pub size: Option<u64>,
    /// New access time.
    pub atime: Option<TimeChange>,
    /// New modification time.
    pub mtime: Option<TimeChange>,
}

/// The mode for a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewMode {
    /// The mode of the request. For a node it holds the type bits.
    pub mode: u32,
    /// The caller's umask. It applies where the directory has no default ACL.
    pub umask: u32,
}

/// One entry of a directory listing.
#[derive(Debug, Clone)]
pub struct DirEntry<'a> {
    /// The number shown as `d_ino`.
    pub ino: Ino,
    /// The position after this entry; never 0.
    pub next: u64,
    /// The file type.
    pub kind: FileKind,
    /// The name.
    pub name: &'a OsStr,
}

/// What `statfs(2)` shows, in blocks of `frsize` bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct StatFs {
    /// Blocks in all.
    pub blocks: u64,
    /// Blocks free.
    pub bfree: u64,
    /// Blocks free for unprivileged users.
    pub bavail: u64,
    /// Inodes in all.
    pub files: u64,
    /// Inodes free.
    pub ffree: u64,
    /// Preferred I/O size in bytes.
    pub bsize: u32,
    /// Longest name in bytes.
    pub namelen: u32,
    /// Size of a block in bytes.
    pub frsize: u32,
}

/// Where a copy starts, at one of its ends.
#[derive(Debug, Clone, Copy)]
pub struct FileRange {
    /// The file.
    pub ino: Ino,
    /// Its handle, 0 where opens are not reported.
    pub fh: u64,
    /// The position in the file, in bytes.
    pub offset: u64,
}
