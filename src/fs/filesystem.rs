//! Two traits: [`Filesystem`], the operations that the kernel requests, and [`Kernel`], the invalidations that a filesystem requests.
//!
//! May assume: requests come from the kernel, already split into fields by [`crate::fuse`]; names hold no `/`.
//!
//! Every method that changes something takes a [`Reply`], because its answer may have to wait: the thread returns to the kernel, and
//! another thread answers when the outcome is known. Methods that only read return at once.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::time::Duration;

use super::error::{Fault, Result};
use super::session_info::SessionInfo;
use super::types::{
    Attr, CallerCheck, DirEntry, Entry, FileRange, Found, Ino, NewMode, Opened, ReadRequest, Request,
    SetAttr, StatFs,
};

/// An answer still owed to the kernel. It can be kept, sent to another thread, and given once.
/// If it is dropped unanswered, the answer is EIO, so that no caller ever hangs.
pub struct Reply<T>(Box<dyn FnOnce(Result<T>) + Send>);

impl<T> Reply<T> {
    /// An answer that `send` delivers to the caller.
    pub fn new(send: impl FnOnce(Result<T>) + Send + 'static) -> Reply<T> {
        Reply(Box::new(send))
    }

    /// Give the answer.
    pub fn send(self, answer: Result<T>) {
        (self.0)(answer)
    }

    /// An answer that `make` converts from another value, once that value is known.
    pub fn from<S>(self, make: impl FnOnce(S) -> T + Send + 'static) -> Reply<S>
    where
        T: 'static,
    {
        Reply::new(move |answer: Result<S>| self.send(answer.map(make)))
    }
}

/// A filesystem in plain types. One session of the kernel calls it from several threads at once.
///
/// The methods follow the kernel's requests one to one; fuse(4) and `Documentation/filesystems/fuse.rst` of Linux define what each must
/// do. The kernel has checked permissions (`default_permissions`) before a request arrives. Default methods answer ENOSYS or EPERM, as
/// for a filesystem without the feature.
#[allow(unused_variables)]
pub trait Filesystem: Send + Sync + 'static {
    /// Whether the kernel sends OPEN, FLUSH and RELEASE of regular files, and those of directories, to this filesystem. When false, the
    /// daemon answers once that opens need no report; every later request carries handle 0, and the kernel caches contents and listings
    /// by itself.
    fn opens_reported(&self) -> bool;
    /// How exactly the caller of a request that changes nothing must be known: exactly, if the answer may depend on the caller.
    fn caller_check(&self, read: ReadRequest<'_>) -> CallerCheck;
    /// The session begins, with this information.
    fn began(&self, terms: Arc<SessionInfo>) {}

    /// Find `name` in `parent`, and count one reference to the node. The answer ENOENT makes the kernel ask again the next time it
    /// needs the name.
    fn lookup(&self, req: &Request, parent: Ino, name: &OsStr) -> Result<Found>;
    /// The kernel drops `count` references to `ino`.
    fn forget(&self, ino: Ino, count: u64);
    /// The attributes, and how long the kernel may cache them. If it may not cache those of a newly created file, it requests them
    /// before `open(2)` returns: so a filesystem can hold that answer back until the creation is durable.
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

    /// Create a regular file, pipe, socket or device, according to the type bits of the mode.
    fn mknod(&self, req: &Request, parent: Ino, name: &OsStr, mode: NewMode, rdev: u32, reply: Reply<Entry>);
    /// Create a directory. The answer must be a directory.
    fn mkdir(&self, req: &Request, parent: Ino, name: &OsStr, mode: NewMode, reply: Reply<Entry>);
    /// Create a symbolic link.
    fn symlink(&self, req: &Request, parent: Ino, name: &OsStr, target: &OsStr, reply: Reply<Entry>);
    /// Create a hard link.
    fn link(&self, req: &Request, ino: Ino, parent: Ino, name: &OsStr, reply: Reply<Entry>);
    /// Create and open a regular file in one step. The answer must be a regular file. `flags` are those of `open(2)`.
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
        reply.send(Err(Fault::NotImplemented.into()));
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
    /// One `close(2)` of a handle; a handle with duplicates gets several. Called only where opens are reported.
    fn flush(&self, req: &Request, ino: Ino, fh: u64, reply: Reply<()>) {
        reply.send(Err(Fault::NotImplemented.into()));
    }
    /// The last close of a handle. Called only where opens are reported.
    fn release(&self, ino: Ino, fh: u64) {}
    /// Sync a file's content to the disk.
    fn fsync(&self, req: &Request, ino: Ino, fh: u64, datasync: bool, reply: Reply<()>);

    /// Open a directory for listing. The answer is its handle. Called only where opens are reported.
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
    /// As [`Filesystem::readdir`], with the node of each entry. One reference to it is counted if `sink` took the entry. The kernel
    /// ignores the nodes of `.` and `..`. Called only where opens are not reported.
    fn readdirplus(
        &self,
        req: &Request,
        ino: Ino,
        offset: u64,
        sink: &mut dyn FnMut(DirEntry<'_>, &Entry) -> bool,
    ) -> Result<()> {
        Err(Fault::NotImplemented.into())
    }
    /// Close a directory handle.
    fn releasedir(&self, ino: Ino, fh: u64);
    /// Sync a directory's entries to the disk.
    fn fsyncdir(&self, req: &Request, ino: Ino, fh: u64, reply: Reply<()>);
    /// Space and inodes of the filesystem.
    fn statfs(&self, req: &Request, ino: Ino) -> Result<StatFs>;

    /// Set an extended attribute; `flags` are those of `setxattr(2)`.
    fn setxattr(&self, req: &Request, ino: Ino, name: &OsStr, value: &[u8], flags: i32, reply: Reply<()>) {
        reply.send(Err(Fault::Unsupported.into()));
    }
    /// The value of an extended attribute.
    fn getxattr(&self, req: &Request, ino: Ino, name: &OsStr, reply: Reply<Vec<u8>>) {
        reply.send(Err(Fault::Unsupported.into()));
    }
    /// The names of all extended attributes, each ended by a NUL.
    fn listxattr(&self, req: &Request, ino: Ino) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }
    /// Remove an extended attribute.
    fn removexattr(&self, req: &Request, ino: Ino, name: &OsStr, reply: Reply<()>) {
        reply.send(Err(Fault::Unsupported.into()));
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
        reply.send(Err(Fault::Unsupported.into()));
    }
    /// SEEK_DATA and SEEK_HOLE.
    fn lseek(&self, req: &Request, ino: Ino, fh: u64, offset: i64, whence: i32) -> Result<u64> {
        Err(Fault::NotImplemented.into())
    }
    /// Copy within the filesystem. The answer is the number of bytes copied.
    fn copy_file_range(&self, req: &Request, from: FileRange, to: FileRange, length: u64, reply: Reply<u32>) {
        reply.send(Err(Fault::NotImplemented.into()));
    }
}

/// Invalidations of what the kernel has cached. A thread that owes the kernel an answer about a node must not invalidate anything of that
/// node except its attributes: both sides would wait for the node's lock. Invalidating what the kernel does not know does nothing.
/// forget.
pub trait Kernel: Send + Sync {
    /// Invalidate the attributes of a node. This takes no lock.
    fn forget_attributes(&self, ino: Ino);
    /// Invalidate the attributes of a node and its content: a file's pages, a directory's listing, a link's target.
    fn forget_content(&self, ino: Ino);
    /// Invalidate a name. When this returns, every operation in that directory that was begun before has ended.
    fn forget_name(&self, parent: Ino, name: &OsStr);
}
