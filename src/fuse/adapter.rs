//! Implements fuser's trait for a [`Filesystem`]: unwrap a request, call one method, reply exactly once.
//!
//! May assume: fuser answers EIO for a reply that is dropped.
//! Must never: decide anything about files; or call a method that depends on the caller before the caller is known (`serve!`).

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    Errno, FileHandle, FopenFlags, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, TimeOrNow,
    WriteFlags,
};
use log::{debug, error};

use super::convert::{GENERATION, NOTHING, file_attr, file_type, open_flags, request, time_change};
use crate::fs::identity::callers::Callers;
use crate::fs::session_info::RequestKind;
use crate::fs::{
    CallerCheck, Entry, FileRange, Filesystem, Found, FsError, NewMode, Opened, ReadRequest, Reply, Request,
    SessionInfo, SetAttr,
};
use crate::limits;

/// Implements fuser's trait for a [`Filesystem`].
pub(super) struct Adapter<F> {
    fs: Arc<F>,
    callers: Arc<Callers>,
    terms: Arc<SessionInfo>,
    /// The process number of the daemon.
    daemon: u32,
}

impl<F: Filesystem> Adapter<F> {
    pub(super) fn new(fs: Arc<F>, callers: Arc<Callers>, threads: usize) -> Adapter<F> {
        Adapter {
            fs,
            callers,
            terms: Arc::new(SessionInfo::new(threads, Vec::new())),
            daemon: std::process::id(),
        }
    }

    /// Count a request, if its kind is counted.
    fn asked(&self, asked: RequestKind, req: &fuser::Request) -> Request {
        self.terms.count(asked);
        let mut request = request(req);
        // The daemon itself is not a worker.
        if request.tid == self.daemon {
            request.tid = 0;
        }
        request
    }
}

/// The kernel features for a filesystem whose opens are not reported, by the names that `crewfs doctor` shows.
pub(super) const UNREPORTED: [(&str, InitFlags); 9] = [
    ("opens_not_reported", InitFlags::FUSE_NO_OPEN_SUPPORT),
    ("opendirs_not_reported", InitFlags::FUSE_NO_OPENDIR_SUPPORT),
    ("readdirplus", InitFlags::FUSE_DO_READDIRPLUS),
    ("readdirplus_auto", InitFlags::FUSE_READDIRPLUS_AUTO),
    ("handle_killpriv_v2", InitFlags::FUSE_HANDLE_KILLPRIV_V2),
    ("cache_symlinks", InitFlags::FUSE_CACHE_SYMLINKS),
    ("async_dio", InitFlags::FUSE_ASYNC_DIO),
    ("max_pages", InitFlags::FUSE_MAX_PAGES),
    ("posix_acl", InitFlags::FUSE_POSIX_ACL),
];

/// The one place where an error becomes an answer: its message is logged, and the caller gets its errno.
fn refuse(operation: &str, ino: INodeNo, error: FsError) -> Errno {
    debug!("{}", described(operation, ino, &error));
    Errno::from_i32(error.errno())
}

/// A refusal for the log, with its sentence. A session does not know the name of the tasks directory: here it is `tasks`.
fn described(operation: &str, ino: INodeNo, error: &FsError) -> String {
    let (node, errno) = (ino.0, name_of(error.errno()));
    match error.sentence("tasks") {
        Some(why) => format!("{operation} of node {node}: {errno} ({why})"),
        None => format!("{operation} of node {node}: {errno}"),
    }
}

fn name_of(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

/// Serve a request: now if the caller is known, otherwise by another thread as soon as it is. What the request lends is copied for that
/// thread.
macro_rules! serve {
    ($self:ident, $asked:ident, $check:expr, $req:ident, [$($lent:ident),*], |$fs:ident| $serve:expr) => {{
        let ($req, check, _at_work) = ($self.asked(RequestKind::$asked, $req), $check, $self.terms.takes_up());
        match $self.callers.admit(&$req, check) {
            Some(_serving) => {
                let $fs = &$self.fs;
                $serve
            }
            None => {
                $(let $lent = $lent.to_owned();)*
                let fs = $self.fs.clone();
                let serve = move || {
                    let $fs = &fs;
                    $(let $lent = &*$lent;)*
                    $serve
                };
                $self.callers.find_out(&$req, check, Box::new(serve));
            }
        }
    }};
}

/// Answer with the result of a call, by the method of fuser's reply that its success needs.
macro_rules! answer {
    ($operation:literal, $ino:expr, $result:expr, $reply:ident, $ok:pat => $send:expr) => {
        match $result {
            Ok($ok) => $send,
            Err(error) => $reply.error(refuse($operation, $ino, error)),
        }
    };
}

/// A [`Reply`] that answers later by the same rule.
macro_rules! later {
    ($operation:literal, $ino:expr, $reply:ident, $ok:pat => $send:expr) => {{
        let ino = $ino;
        Reply::new(move |result| answer!($operation, ino, result, $reply, $ok => $send))
    }};
}

impl<F: Filesystem> fuser::Filesystem for Adapter<F> {
    fn init(&mut self, _req: &fuser::Request, config: &mut KernelConfig) -> io::Result<()> {
        let offered = config.capabilities();
        // A request carries the umask. Whether it applies depends on the directory.
        let mut wanted = InitFlags::FUSE_ASYNC_READ
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_AUTO_INVAL_DATA
            | InitFlags::FUSE_DONT_MASK
            // Without it the kernel takes the mask of an ACL for the rights of the file's group, which may be more than the group has.
            | InitFlags::FUSE_POSIX_ACL;
        if !self.fs.opens_reported() {
            if !offered.contains(InitFlags::FUSE_NO_OPEN_SUPPORT) {
                error!("this kernel cannot open files of a FUSE filesystem without reporting it");
                return Err(io::Error::from_raw_os_error(libc::ENOSYS));
            }
            wanted |= UNREPORTED.iter().fold(InitFlags::empty(), |all, (_, flag)| all | *flag);
        }
        let agreed = wanted & offered;
        config.add_capabilities(agreed).expect("only what is offered");
        let features = UNREPORTED.iter().map(|(name, flag)| (*name, agreed.contains(*flag))).collect();
        self.terms = Arc::new(SessionInfo::new(self.terms.threads, features));
        self.fs.began(self.terms.clone());
        let bounds = config
            .set_max_write(limits::MAX_WRITE)
            .map(|_| ())
            .and_then(|()| config.set_max_background(limits::MAX_BACKGROUND).map_err(u32::from).map(|_| ()));
        bounds.map_err(|nearest| io::Error::other(format!("a bound is not possible; {nearest} would be")))
    }

    fn lookup(&self, req: &fuser::Request, parent: INodeNo, name: &OsStr, reply: fuser::ReplyEntry) {
        serve!(self, Lookup, self.fs.caller_check(ReadRequest::Lookup(parent.0, name)), req, [name], |fs| {
            // Too common to be logged. Asking whether a name exists is not an error.
            match fs.lookup(&req, parent.0, name) {
                Err(error) if error.errno() == libc::ENOENT => reply.error(Errno::ENOENT),
                Ok(Found::Entry(entry)) => send_entry(reply, &entry),
                Ok(Found::Nothing(ttl)) if ttl.is_zero() => reply.error(Errno::ENOENT),
                Ok(Found::Nothing(ttl)) => reply.entry_with_ttls(&ttl, &ttl, &NOTHING, GENERATION),
                Err(error) => reply.error(refuse("lookup", parent, error)),
            }
        });
    }

    fn forget(&self, _req: &fuser::Request, ino: INodeNo, count: u64) {
        self.fs.forget(ino.0, count);
    }

    fn getattr(&self, req: &fuser::Request, ino: INodeNo, fh: Option<FileHandle>, reply: fuser::ReplyAttr) {
        let reply = later!("getattr", ino, reply, (attr, ttl) => reply.attr(&ttl, &file_attr(&attr)));
        serve!(self, Getattr, self.fs.caller_check(ReadRequest::Getattr(ino.0)), req, [], |fs| fs.getattr(
            &req,
            ino.0,
            fh.map(u64::from),
            reply
        ));
    }

    fn setattr(
        &self,
        req: &fuser::Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: fuser::ReplyAttr,
    ) {
        let (atime, mtime) = (atime.map(time_change), mtime.map(time_change));
        let change = SetAttr { mode, uid, gid, size, atime, mtime };
        let reply = later!("setattr", ino, reply, (attr, ttl) => reply.attr(&ttl, &file_attr(&attr)));
        let fh = fh.map(u64::from);
        serve!(self, Setattr, CallerCheck::Exact, req, [], |fs| fs.setattr(&req, ino.0, fh, &change, reply));
    }

    fn readlink(&self, req: &fuser::Request, ino: INodeNo, reply: fuser::ReplyData) {
        serve!(self, Readlink, self.fs.caller_check(ReadRequest::Other), req, [], |fs| {
            answer!("readlink", ino, fs.readlink(&req, ino.0), reply, target => reply.data(target.as_bytes()));
        });
    }

    fn mknod(
        &self,
        req: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: fuser::ReplyEntry,
    ) {
        let reply = later!("mknod", parent, reply, entry => send_entry(reply, &entry));
        let mode = NewMode { mode, umask };
        serve!(self, Mknod, CallerCheck::Exact, req, [name], |fs| {
            fs.mknod(&req, parent.0, name, mode, rdev, reply);
        });
    }

    fn mkdir(
        &self,
        req: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: fuser::ReplyEntry,
    ) {
        let reply = later!("mkdir", parent, reply, entry => send_entry(reply, &entry));
        let mode = NewMode { mode, umask };
        serve!(self, Mkdir, CallerCheck::Exact, req, [name], |fs| fs
            .mkdir(&req, parent.0, name, mode, reply));
    }

    fn symlink(
        &self,
        req: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: fuser::ReplyEntry,
    ) {
        let reply = later!("symlink", parent, reply, entry => send_entry(reply, &entry));
        let target = target.as_os_str();
        serve!(self, Symlink, CallerCheck::Exact, req, [name, target], |fs| {
            fs.symlink(&req, parent.0, name, target, reply);
        });
    }

    fn link(
        &self,
        req: &fuser::Request,
        ino: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: fuser::ReplyEntry,
    ) {
        let reply = later!("link", ino, reply, entry => send_entry(reply, &entry));
        serve!(self, Link, CallerCheck::Exact, req, [name], |fs| fs.link(&req, ino.0, parent.0, name, reply));
    }

    fn create(
        &self,
        req: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: fuser::ReplyCreate,
    ) {
        let reply = later!("create", parent, reply, (entry, opened) => {
            send_created(reply, &entry, &opened)
        });
        let mode = NewMode { mode, umask };
        serve!(self, Create, CallerCheck::Exact, req, [name], |fs| {
            fs.create(&req, parent.0, name, mode, flags, reply);
        });
    }

    fn unlink(&self, req: &fuser::Request, parent: INodeNo, name: &OsStr, reply: fuser::ReplyEmpty) {
        let reply = later!("unlink", parent, reply, () => reply.ok());
        serve!(self, Unlink, CallerCheck::Exact, req, [name], |fs| fs.unlink(&req, parent.0, name, reply));
    }

    fn rmdir(&self, req: &fuser::Request, parent: INodeNo, name: &OsStr, reply: fuser::ReplyEmpty) {
        let reply = later!("rmdir", parent, reply, () => reply.ok());
        serve!(self, Rmdir, CallerCheck::Exact, req, [name], |fs| fs.rmdir(&req, parent.0, name, reply));
    }

    fn rename(
        &self,
        req: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: fuser::RenameFlags,
        reply: fuser::ReplyEmpty,
    ) {
        let reply = later!("rename", parent, reply, () => reply.ok());
        serve!(self, Rename, CallerCheck::Exact, req, [name, new_name], |fs| {
            fs.rename(&req, parent.0, name, new_parent.0, new_name, flags.bits(), reply);
        });
    }

    fn open(&self, req: &fuser::Request, ino: INodeNo, flags: OpenFlags, reply: fuser::ReplyOpen) {
        if !self.fs.opens_reported() {
            // Answered once. The kernel does not ask again.
            return reply.error(Errno::ENOSYS);
        }
        let reply = later!("open", ino, reply, opened => send_opened(reply, &opened));
        serve!(self, Open, CallerCheck::Exact, req, [], |fs| fs.open(&req, ino.0, flags.0, reply));
    }

    fn read(
        &self,
        req: &fuser::Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: fuser::ReplyData,
    ) {
        let _at_work = self.terms.takes_up();
        let reply = later!("read", ino, reply, data => send_data(reply, data));
        self.fs.read(&self.asked(RequestKind::Read, req), ino.0, fh.0, offset, size, flags.0, reply);
    }

    fn write(
        &self,
        req: &fuser::Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: fuser::ReplyWrite,
    ) {
        let cached = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let reply = later!("write", ino, reply, written => reply.written(written));
        // With O_DIRECT a program may go on, and execute another one, before it is answered (io_submit(2)).
        let direct = flags.0 & libc::O_DIRECT != 0;
        let check = if direct { CallerCheck::ExactUnwaited } else { CallerCheck::Exact };
        serve!(self, Write, check, req, [data], |fs| {
            fs.write(&req, ino.0, fh.0, offset, data, flags.0, cached, reply);
        });
    }

    fn flush(
        &self,
        req: &fuser::Request,
        ino: INodeNo,
        fh: FileHandle,
        _lock_owner: LockOwner,
        reply: fuser::ReplyEmpty,
    ) {
        if !self.fs.opens_reported() {
            return reply.error(Errno::ENOSYS);
        }
        let _at_work = self.terms.takes_up();
        let reply = later!("flush", ino, reply, () => reply.ok());
        self.fs.flush(&self.asked(RequestKind::Flush, req), ino.0, fh.0, reply);
    }

    fn release(
        &self,
        _req: &fuser::Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: fuser::ReplyEmpty,
    ) {
        self.terms.count(RequestKind::Release);
        let _at_work = self.terms.takes_up();
        self.fs.release(ino.0, fh.0);
        reply.ok();
    }

    fn fsync(
        &self,
        req: &fuser::Request,
        ino: INodeNo,
        fh: FileHandle,
        datasync: bool,
        reply: fuser::ReplyEmpty,
    ) {
        let reply = later!("fsync", ino, reply, () => reply.ok());
        serve!(self, Fsync, self.fs.caller_check(ReadRequest::Other), req, [], |fs| fs
            .fsync(&req, ino.0, fh.0, datasync, reply));
    }

    fn opendir(&self, req: &fuser::Request, ino: INodeNo, _flags: OpenFlags, reply: fuser::ReplyOpen) {
        if !self.fs.opens_reported() {
            self.terms.count(RequestKind::Opendir);
            // Answered once where the kernel knows that answer. At each open, other kernels are answered to keep what they have cached.
            let keep = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR;
            return match self.terms.has("opendirs_not_reported") {
                true => reply.error(Errno::ENOSYS),
                false => reply.opened(FileHandle(0), keep),
            };
        }
        serve!(self, Opendir, CallerCheck::Exact, req, [], |fs| {
            let opened = fs.opendir(&req, ino.0);
            answer!("opendir", ino, opened, reply, fh => reply.opened(FileHandle(fh), FopenFlags::empty()));
        });
    }

    fn readdir(
        &self,
        req: &fuser::Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: fuser::ReplyDirectory,
    ) {
        serve!(self, Readdir, self.fs.caller_check(ReadRequest::Other), req, [], |fs| {
            let mut reply = reply;
            let listed = fs.readdir(&req, ino.0, fh.0, offset, &mut |line| {
                !reply.add(INodeNo(line.ino), line.next, file_type(line.kind), line.name)
            });
            answer!("readdir", ino, listed, reply, () => reply.ok());
        });
    }

    fn readdirplus(
        &self,
        req: &fuser::Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        reply: fuser::ReplyDirectoryPlus,
    ) {
        serve!(self, Readdirplus, self.fs.caller_check(ReadRequest::Other), req, [], |fs| {
            let mut reply = reply;
            let listed = fs.readdirplus(&req, ino.0, offset, &mut |line, entry| {
                let ttl = entry.entry_ttl.min(entry.attr_ttl);
                !reply.add(INodeNo(line.ino), line.next, line.name, &ttl, &file_attr(&entry.attr), GENERATION)
            });
            answer!("readdirplus", ino, listed, reply, () => reply.ok());
        });
    }

    fn releasedir(
        &self,
        _req: &fuser::Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: fuser::ReplyEmpty,
    ) {
        self.terms.count(RequestKind::Releasedir);
        self.fs.releasedir(ino.0, fh.0);
        reply.ok();
    }

    fn fsyncdir(
        &self,
        req: &fuser::Request,
        ino: INodeNo,
        fh: FileHandle,
        _datasync: bool,
        reply: fuser::ReplyEmpty,
    ) {
        let reply = later!("fsyncdir", ino, reply, () => reply.ok());
        serve!(self, Fsyncdir, self.fs.caller_check(ReadRequest::Other), req, [], |fs| fs
            .fsyncdir(&req, ino.0, fh.0, reply));
    }

    fn statfs(&self, req: &fuser::Request, ino: INodeNo, reply: fuser::ReplyStatfs) {
        serve!(self, Statfs, self.fs.caller_check(ReadRequest::Other), req, [], |fs| {
            answer!("statfs", ino, fs.statfs(&req, ino.0), reply, s => reply.statfs(
                s.blocks, s.bfree, s.bavail, s.files, s.ffree, s.bsize, s.namelen, s.frsize,
            ));
        });
    }

    fn setxattr(
        &self,
        req: &fuser::Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: fuser::ReplyEmpty,
    ) {
        let reply = later!("setxattr", ino, reply, () => reply.ok());
        serve!(self, Setxattr, CallerCheck::Exact, req, [name, value], |fs| {
            fs.setxattr(&req, ino.0, name, value, flags, reply);
        });
    }

    fn getxattr(
        &self,
        req: &fuser::Request,
        ino: INodeNo,
        name: &OsStr,
        size: u32,
        reply: fuser::ReplyXattr,
    ) {
        // The kernel asks before most writes, and there is hardly ever one.
        let reply = Reply::new(move |value: crate::fs::Result<Vec<u8>>| match value {
            Err(error) if error.errno() == libc::ENODATA => reply.error(Errno::from_i32(libc::ENODATA)),
            value => answer!("getxattr", ino, value, reply, value => send_sized(reply, size, &value)),
        });
        serve!(self, Getxattr, self.fs.caller_check(ReadRequest::Other), req, [name], |fs| {
            fs.getxattr(&req, ino.0, name, reply);
        });
    }

    fn listxattr(&self, req: &fuser::Request, ino: INodeNo, size: u32, reply: fuser::ReplyXattr) {
        serve!(self, Listxattr, self.fs.caller_check(ReadRequest::Other), req, [], |fs| {
            let names = fs.listxattr(&req, ino.0);
            answer!("listxattr", ino, names, reply, names => send_sized(reply, size, &names));
        });
    }

    fn removexattr(&self, req: &fuser::Request, ino: INodeNo, name: &OsStr, reply: fuser::ReplyEmpty) {
        let reply = later!("removexattr", ino, reply, () => reply.ok());
        serve!(self, Removexattr, CallerCheck::Exact, req, [name], |fs| {
            fs.removexattr(&req, ino.0, name, reply);
        });
    }

    fn fallocate(
        &self,
        req: &fuser::Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: fuser::ReplyEmpty,
    ) {
        let reply = later!("fallocate", ino, reply, () => reply.ok());
        serve!(self, Fallocate, CallerCheck::Exact, req, [], |fs| {
            fs.fallocate(&req, ino.0, fh.0, offset, length, mode, reply);
        });
    }

    fn lseek(
        &self,
        req: &fuser::Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: fuser::ReplyLseek,
    ) {
        serve!(self, Lseek, self.fs.caller_check(ReadRequest::Other), req, [], |fs| {
            let found = fs.lseek(&req, ino.0, fh.0, offset, whence);
            answer!("lseek", ino, found, reply, at => reply.offset(at as i64));
        });
    }

    fn copy_file_range(
        &self,
        req: &fuser::Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        length: u64,
        _flags: fuser::CopyFileRangeFlags,
        reply: fuser::ReplyWrite,
    ) {
        let from = FileRange { ino: ino.0, fh: fh.0, offset };
        let to = FileRange { ino: ino_out.0, fh: fh_out.0, offset: offset_out };
        let reply = later!("copy_file_range", ino_out, reply, copied => reply.written(copied));
        serve!(self, CopyFileRange, CallerCheck::Exact, req, [], |fs| {
            fs.copy_file_range(&req, from, to, length, reply);
        });
    }

    // fuser's own answers to these two are right, but each isatty(3) of a program would log a warning.

    fn ioctl(
        &self,
        _req: &fuser::Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: fuser::IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: fuser::ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn poll(
        &self,
        _req: &fuser::Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _handle: fuser::PollNotifier,
        _events: fuser::PollEvents,
        _flags: fuser::PollFlags,
        reply: fuser::ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }
}

fn send_entry(reply: fuser::ReplyEntry, entry: &Entry) {
    reply.entry_with_ttls(&entry.attr_ttl, &entry.entry_ttl, &file_attr(&entry.attr), GENERATION);
}

/// fuser passes on one lifetime for the name and the attributes. The shorter of the two is right for both.
fn send_created(reply: fuser::ReplyCreate, entry: &Entry, opened: &Opened) {
    let ttl = entry.entry_ttl.min(entry.attr_ttl);
    let fh = FileHandle(opened.fh);
    reply.created(&ttl, &file_attr(&entry.attr), GENERATION, fh, open_flags(opened));
}

fn send_opened(reply: fuser::ReplyOpen, opened: &Opened) {
    reply.opened(FileHandle(opened.fh), open_flags(opened));
}

fn send_data(reply: fuser::ReplyData, data: Vec<u8>) {
    reply.data(&data);
}

/// Size 0 asks for the length of the value. A buffer that is too short for it gets ERANGE.
fn send_sized(reply: fuser::ReplyXattr, size: u32, value: &[u8]) {
    match size as usize {
        0 => reply.size(value.len() as u32),
        room if room < value.len() => reply.error(Errno::ERANGE),
        _ => reply.data(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::Fault;

    #[test]
    fn the_log_has_the_sentence_of_a_refusal() {
        let error = FsError::Log("the disk is gone".into());
        let said = described("read", INodeNo(7), &error);
        assert!(said.starts_with("read of node 7: ") && said.ends_with(" (the disk is gone)"), "{said}");
        let said = described("open", INodeNo(7), &FsError::Plain(Fault::Absent));
        assert!(said.starts_with("open of node 7: ") && !said.contains("Absent"), "{said}");
    }
}
