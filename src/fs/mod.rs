//! The two small filesystems, in plain types: the [`tree`] (the project as it is) and the [`desk`]
//! (the synthesized nodes), and what they share.
//!
//! May assume: requests come from the kernel, already split into fields by [`crate::fuse`]; names hold no `/`.
//! Must never: name fuser, read a clock, or answer a request twice.
//!
//! Every method that changes something takes a [`Reply`], because its answer may be parked: the thread
//! goes back to the kernel, and whoever learns the outcome answers. Methods that only read return at once.

mod ancestry;
pub mod caller;
pub mod desk;
pub mod exits;
pub mod files;
pub mod followed;
pub mod guard;
mod lookups;
pub mod names;
mod permissions;
mod process;
mod rights;
pub mod terms;
pub mod tree;

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::time::Duration;

use self::caller::Whose;
pub use self::terms::Terms;

/// A node number of one session. Not the inode number of the disk.
pub type Ino = u64;
/// The node number of a session's root directory, fixed by the kernel's protocol.
pub const ROOT: Ino = 1;

/// Who asks, as the kernel tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The **thread** id of the caller; 0 when the kernel itself asks, or the caller is outside our pid namespace.
    pub tid: u32,
    /// The caller's filesystem uid.
    pub uid: u32,
    /// The caller's filesystem gid.
    pub gid: u32,
}

/// What kind of file a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
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

impl Kind {
    /// The kind that the type bits of a `st_mode` mean; `None` for bits that mean nothing.
    pub fn from_mode(mode: u32) -> Option<Kind> {
        Some(match mode & libc::S_IFMT {
            libc::S_IFREG => Kind::File,
            libc::S_IFDIR => Kind::Directory,
            libc::S_IFLNK => Kind::Symlink,
            libc::S_IFIFO => Kind::Fifo,
            libc::S_IFSOCK => Kind::Socket,
            libc::S_IFCHR => Kind::CharDevice,
            libc::S_IFBLK => Kind::BlockDevice,
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
    pub kind: Kind,
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

/// A name that was found or made, and how long the kernel may believe it.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The node.
    pub attr: Attr,
    /// How long the name may be taken to mean this node.
    pub entry_ttl: Duration,
    /// How long the attributes may be taken as they are.
    pub attr_ttl: Duration,
}

/// What a name was found to mean.
#[derive(Debug, Clone, Copy)]
pub enum Found {
    /// A node.
    Entry(Entry),
    /// Nothing, and how long the kernel may believe that.
    Nothing(Duration),
}

/// An open file, and what the kernel may do with it by itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Opened {
    /// The handle that later requests carry.
    pub fh: u64,
    /// Reads and writes go to the daemon one by one, past the page cache.
    pub direct_io: bool,
    /// `close(2)` need not be reported.
    pub no_flush: bool,
}

/// One end of a time change: a value, or "now" by the disk's own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeChange {
    /// Set to this time.
    To(Timestamp),
    /// Set to the present.
    Now,
}

/// What a SETATTR wants changed; `None` leaves a field alone.
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

/// The mode that something is to be made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewMode {
    /// As the caller said it. Of a node it holds the type bits.
    pub mode: u32,
    /// The caller's umask. It counts where the directory has no default ACL.
    pub umask: u32,
}

/// One line of a directory listing.
#[derive(Debug, Clone)]
pub struct DirEntry<'a> {
    /// The number shown as `d_ino`.
    pub ino: Ino,
    /// Where the listing goes on after this line; never 0.
    pub next: u64,
    /// The file type.
    pub kind: Kind,
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
    /// Blocks free for everybody.
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

/// Why a call fails: the errno that the caller gets, and a sentence for the log and for `why`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsError {
    /// An errno of `errno(3)`. Never EINTR: agent programs retry it for ever.
    pub errno: i32,
    /// One sentence, where there is more to say than the errno does.
    pub why: Option<Cow<'static, str>>,
    /// In a word, if it is one of the queue's refusals: for counting.
    pub refusal: Option<&'static str>,
}

impl FsError {
    /// An error that its errno says whole.
    pub const fn new(errno: i32) -> FsError {
        FsError { errno, why: None, refusal: None }
    }

    /// An error with one sentence that says why.
    pub fn because(errno: i32, why: impl Into<Cow<'static, str>>) -> FsError {
        FsError { errno, why: Some(why.into()), refusal: None }
    }
}

impl From<rustix::io::Errno> for FsError {
    fn from(errno: rustix::io::Errno) -> FsError {
        FsError::new(errno.raw_os_error())
    }
}

impl From<std::io::Error> for FsError {
    fn from(error: std::io::Error) -> FsError {
        FsError::new(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

/// What a filesystem method comes to.
pub type Result<T> = std::result::Result<T, FsError>;

/// An answer still owed to the kernel. It can be kept, sent to another thread, and given once;
/// dropping it unanswered answers EIO, so that no caller ever hangs.
pub struct Reply<T>(Box<dyn FnOnce(Result<T>) + Send>);

impl<T> Reply<T> {
    /// An answer that `send` will carry to the caller.
    pub fn new(send: impl FnOnce(Result<T>) + Send + 'static) -> Reply<T> {
        Reply(Box::new(send))
    }

    /// Give the answer.
    pub fn send(self, answer: Result<T>) {
        (self.0)(answer)
    }

    /// An answer that is made of another one: where something else is known first.
    pub fn from<S>(self, make: impl FnOnce(S) -> T + Send + 'static) -> Reply<S>
    where
        T: 'static,
    {
        Reply::new(move |answer: Result<S>| self.send(answer.map(make)))
    }
}

/// What a request asks that only looks.
#[derive(Debug, Clone, Copy)]
pub enum Look<'a> {
    /// What a name in a directory leads to.
    Name(Ino, &'a OsStr),
    /// The attributes of a node.
    Attributes(Ino),
    /// Anything else.
    Other,
}

/// A filesystem in plain types. One session of the kernel calls it from several threads at once.
///
/// The shapes follow the kernel's requests one to one; what each must do is in fuse(4) and in
/// `Documentation/filesystems/fuse.rst` of Linux. The kernel has checked permissions (`default_permissions`)
/// before a request arrives. Defaults answer ENOSYS or EPERM, as for a filesystem without the feature.
#[allow(unused_variables)]
pub trait Filesystem: Send + Sync + 'static {
    /// Whether OPEN, FLUSH and RELEASE of regular files, and those of directories, reach this filesystem. When false, the
    /// kernel is told once that opens need no report, every later request carries handle 0, and the kernel keeps contents
    /// and listings by itself.
    fn opens_reported(&self) -> bool;
    /// How well it must be known who asks, for a request that only looks: exactly, if the answer may depend on it.
    fn whose(&self, look: Look<'_>) -> Whose;
    /// The session begins, on these terms.
    fn began(&self, terms: Arc<Terms>) {}

    /// Find `name` in `parent`, and count one reference to the node. A missing name that is to be asked for again is
    /// ENOENT.
    fn lookup(&self, req: &Request, parent: Ino, name: &OsStr) -> Result<Found>;
    /// The kernel drops `count` references to `ino`.
    fn forget(&self, ino: Ino, count: u64);
    /// The attributes, and how long they may be believed. The kernel asks for those of what a CREATE made before `open(2)`
    /// returns, if they may not be believed: a filesystem can hold that answer back until what was made is safe.
    fn getattr(&self, req: &Request, ino: Ino, fh: Option<u64>, reply: Reply<(Attr, Duration)>);
    /// Change attributes.
    fn setattr(
        &self,
        req: &Request,
        ino: Ino,
        fh: Option<u64>,
        change: &SetAttr,
        reply: Reply<(Attr, Duration)>,
    );
    /// The target of a symbolic link.
    fn readlink(&self, req: &Request, ino: Ino) -> Result<OsString>;

    /// Make a regular file, pipe, socket or device, which the type bits of the mode tell.
    fn mknod(&self, req: &Request, parent: Ino, name: &OsStr, mode: NewMode, rdev: u32, reply: Reply<Entry>);
    /// Make a directory. The answer must be a directory.
    fn mkdir(&self, req: &Request, parent: Ino, name: &OsStr, mode: NewMode, reply: Reply<Entry>);
    /// Make a symbolic link.
    fn symlink(&self, req: &Request, parent: Ino, name: &OsStr, target: &OsStr, reply: Reply<Entry>);
    /// Make a hard link.
    fn link(&self, req: &Request, ino: Ino, parent: Ino, name: &OsStr, reply: Reply<Entry>);
    /// Make and open a regular file in one step. The answer must be a regular file. `flags` are those of `open(2)`.
    fn create(
        &self,
        req: &Request,
        parent: Ino,
        name: &OsStr,
        mode: NewMode,
        flags: i32,
        reply: Reply<(Entry, Opened)>,
    );
    /// Remove a name that is not a directory.
    fn unlink(&self, req: &Request, parent: Ino, name: &OsStr, reply: Reply<()>);
    /// Remove an empty directory.
    fn rmdir(&self, req: &Request, parent: Ino, name: &OsStr, reply: Reply<()>);
    /// Rename; `flags` are those of `renameat2(2)`.
    #[allow(clippy::too_many_arguments)]
    fn rename(
        &self,
        req: &Request,
        parent: Ino,
        name: &OsStr,
        new_parent: Ino,
        new_name: &OsStr,
        flags: u32,
        reply: Reply<()>,
    );

    /// Open an existing regular file. Called only where opens are reported.
    fn open(&self, req: &Request, ino: Ino, flags: i32, reply: Reply<Opened>) {
        reply.send(Err(FsError::new(libc::ENOSYS)));
    }
    /// Read up to `size` bytes; fewer only at the end of the file. `flags` are those of the open file.
    #[allow(clippy::too_many_arguments)]
    fn read(
        &self,
        req: &Request,
        ino: Ino,
        fh: u64,
        offset: u64,
        size: u32,
        flags: i32,
        reply: Reply<Vec<u8>>,
    );
    /// Write all of `data`. `flags` are those of the open file (O_APPEND among them). Pages written through a mapping
    /// come with `cached` set and a caller of tid 0.
    #[allow(clippy::too_many_arguments)]
    fn write(
        &self,
        req: &Request,
        ino: Ino,
        fh: u64,
        offset: u64,
        data: &[u8],
        flags: i32,
        cached: bool,
        reply: Reply<u32>,
    );
    /// One `close(2)` of a handle; a handle with duplicates sees several. Called only where opens are reported.
    fn flush(&self, req: &Request, ino: Ino, fh: u64, reply: Reply<()>) {
        reply.send(Err(FsError::new(libc::ENOSYS)));
    }
    /// The last close of a handle. Called only where opens are reported.
    fn release(&self, ino: Ino, fh: u64) {}
    /// Put a file's content on disk.
    fn fsync(&self, req: &Request, ino: Ino, fh: u64, datasync: bool, reply: Reply<()>);

    /// Open a directory for listing; the answer is its handle. Called only where opens are reported.
    fn opendir(&self, req: &Request, ino: Ino) -> Result<u64>;
    /// List from `offset` (0, or a [`DirEntry::next`]) until `sink` returns false.
    fn readdir(
        &self,
        req: &Request,
        ino: Ino,
        fh: u64,
        offset: u64,
        sink: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<()>;
    /// As [`Filesystem::readdir`], and each line comes with its node, of which one reference is counted if `sink` took the
    /// line. What comes with `.` and `..` is not looked at. Called only where opens are not reported.
    fn readdirplus(
        &self,
        req: &Request,
        ino: Ino,
        offset: u64,
        sink: &mut dyn FnMut(DirEntry<'_>, &Entry) -> bool,
    ) -> Result<()> {
        Err(FsError::new(libc::ENOSYS))
    }
    /// Close a directory handle.
    fn releasedir(&self, ino: Ino, fh: u64);
    /// Put a directory's entries on disk.
    fn fsyncdir(&self, req: &Request, ino: Ino, fh: u64, reply: Reply<()>);
    /// Space and inodes of the filesystem.
    fn statfs(&self, req: &Request, ino: Ino) -> Result<StatFs>;

    /// Set an extended attribute; `flags` are those of `setxattr(2)`.
    fn setxattr(&self, req: &Request, ino: Ino, name: &OsStr, value: &[u8], flags: i32, reply: Reply<()>) {
        reply.send(Err(FsError::new(libc::EOPNOTSUPP)));
    }
    /// The value of an extended attribute.
    fn getxattr(&self, req: &Request, ino: Ino, name: &OsStr) -> Result<Vec<u8>> {
        Err(FsError::new(libc::EOPNOTSUPP))
    }
    /// The names of all extended attributes, each ended by a NUL.
    fn listxattr(&self, req: &Request, ino: Ino) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }
    /// Remove an extended attribute.
    fn removexattr(&self, req: &Request, ino: Ino, name: &OsStr, reply: Reply<()>) {
        reply.send(Err(FsError::new(libc::EOPNOTSUPP)));
    }

    /// Reserve or punch space; `mode` is that of `fallocate(2)`.
    #[allow(clippy::too_many_arguments)]
    fn fallocate(
        &self,
        req: &Request,
        ino: Ino,
        fh: u64,
        offset: u64,
        length: u64,
        mode: i32,
        reply: Reply<()>,
    ) {
        reply.send(Err(FsError::new(libc::EOPNOTSUPP)));
    }
    /// SEEK_DATA and SEEK_HOLE.
    fn lseek(&self, req: &Request, ino: Ino, fh: u64, offset: i64, whence: i32) -> Result<u64> {
        Err(FsError::new(libc::ENOSYS))
    }
    /// Copy within the filesystem; the answer is the number of bytes copied.
    fn copy_file_range(&self, req: &Request, from: FileRange, to: FileRange, length: u64, reply: Reply<u32>) {
        reply.send(Err(FsError::new(libc::ENOSYS)));
    }
}

/// What the kernel can be told to forget. Never to be called by a thread that owes the kernel an answer about the same
/// node, except for its attributes: both sides would wait for the node's lock. What the kernel does not know it need not
/// forget.
pub trait Kernel: Send + Sync {
    /// The attributes of a node. This takes no lock.
    fn forget_attributes(&self, ino: Ino);
    /// The attributes of a node and its content: a file's pages, a directory's listing, a link's target.
    fn forget_content(&self, ino: Ino);
    /// What a name means. When this returns, nothing is under way any more in that directory that was begun before.
    fn forget_name(&self, parent: Ino, name: &OsStr);
}

/// Where a copy starts, at one of its ends.
#[derive(Debug, Clone, Copy)]
pub struct FileRange {
    /// The file.
    pub ino: Ino,
    /// Its handle, 0 where opens are not reported.
    pub fh: u64,
    /// Where in the file, in bytes.
    pub offset: u64,
}
