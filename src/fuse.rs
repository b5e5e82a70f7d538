//! The kernel's side: unwrap a request, call one method of a [`Filesystem`], reply exactly once.
//!
//! May assume: fuser answers EIO by itself for a reply that is dropped.
//! Must never: decide anything about files. No other file of the crate may name fuser.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, MountOption, OpenFlags, SessionACL, SessionUnmounter, TimeOrNow, WriteFlags,
};
use log::{debug, error};
use parking_lot::Mutex;
use rustix::fs::{CWD, Mode, OFlags, openat, stat};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{getegid, geteuid};

use crate::fs::{
    Attr, Entry, FileRange, Filesystem, FsError, Ino, Kernel, Kind, Opened, Reply, Request, SetAttr,
    TimeChange, Timestamp,
};
use crate::limits;

/// What our mounts are called after `fuse.` in the table of mounts.
const SUBTYPE: &str = "crewfs";

/// Numbers are never given to another file while the kernel knows them, so one generation is enough.
const GENERATION: Generation = Generation(0);

/// How a filesystem is mounted. Always with `default_permissions`, and with `nosuid` and `nodev`: what a crew of agents
/// leaves in a shared directory must not become privileged.
#[derive(Debug, Clone)]
pub struct MountOptions {
    /// What is shown as the source of the mount.
    pub fsname: String,
    /// Nothing can be changed through the mount.
    pub read_only: bool,
    /// Other users than the one who mounts may use it.
    pub allow_other: bool,
    /// How many threads serve it.
    pub threads: usize,
}

/// A mounted filesystem, served by threads in the background. Dropping it leaves it mounted and served.
pub struct Session {
    mountpoint: PathBuf,
    unmounter: Mutex<SessionUnmounter>,
    notifier: fuser::Notifier,
    server: JoinHandle<io::Result<()>>,
}

impl Session {
    /// Mount `fs` at `mountpoint` and serve it. When this returns, the kernel has been answered and requests are served.
    pub fn mount<F: Filesystem>(
        fs: Arc<F>,
        mountpoint: &Path,
        options: &MountOptions,
    ) -> io::Result<Session> {
        let mountpoint = mountpoint.canonicalize()?;
        let mut config = fuser::Config::default();
        config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
        config.n_threads = Some(options.threads.max(1));
        config.clone_fd = true;

        let mut session = if geteuid().is_root() {
            let device = mount_as_root(&mountpoint, options)?;
            fuser::Session::from_fd(Adapter(fs), device, config.acl, config).inspect_err(|_| {
                let _ = unmount(&mountpoint, UnmountFlags::DETACH);
            })?
        } else {
            config.mount_options = vec![
                MountOption::FSName(options.fsname.clone()),
                MountOption::Subtype(SUBTYPE.to_owned()),
                MountOption::DefaultPermissions,
                MountOption::NoSuid,
                MountOption::NoDev,
                if options.read_only { MountOption::RO } else { MountOption::RW },
            ];
            fuser::Session::new(Adapter(fs), &mountpoint, &config)?
        };
        let unmounter = Mutex::new(session.unmount_callable());
        let notifier = session.notifier();
        let server = std::thread::Builder::new().name("fuse".to_owned()).spawn(move || session.run())?;
        Ok(Session { mountpoint, unmounter, notifier, server })
    }

    /// Whether the session is over: unmounted, and no longer in use by anybody.
    pub fn has_ended(&self) -> bool {
        self.server.is_finished()
    }

    /// Take the mount away. While it is in use this is EBUSY, unless `detach` is set: then it vanishes at once from the
    /// directory, and the session ends with its last user.
    pub fn unmount(&self, detach: bool) -> io::Result<()> {
        if self.has_ended() {
            return Ok(());
        }
        let flags = if detach { UnmountFlags::DETACH } else { UnmountFlags::empty() };
        match unmount(&self.mountpoint, flags | UnmountFlags::NOFOLLOW) {
            // Only fusermount may, and it always detaches.
            Err(rustix::io::Errno::PERM) => self.unmounter.lock().unmount(),
            answer => Ok(answer?),
        }
    }

    /// The device number of the mount's files: major and minor. Read from the table of mounts, for to ask the mount itself
    /// would be to ask ourselves.
    pub fn device(&self) -> io::Result<(u32, u32)> {
        let mount = crate::mounts::at(&self.mountpoint)?;
        mount
            .map(|mount| mount.device)
            .ok_or_else(|| io::Error::other("the mount is not in the table of mounts"))
    }

    /// A handle to tell the kernel what to forget.
    pub fn notifier(&self) -> Notifier {
        Notifier(self.notifier.clone())
    }
}

/// Mount without a helper, as root may; the answer is the device to serve. fuser's own way leaves out the subtype, by which
/// `findmnt` and we tell our mounts from others.
fn mount_as_root(mountpoint: &Path, options: &MountOptions) -> io::Result<OwnedFd> {
    let device = openat(CWD, "/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let mode = stat(mountpoint)?.st_mode & libc::S_IFMT;
    let other = if options.allow_other { ",allow_other" } else { "" };
    let (fd, uid, gid) = (device.as_raw_fd(), geteuid().as_raw(), getegid().as_raw());
    let data = format!("fd={fd},rootmode={mode:o},user_id={uid},group_id={gid},default_permissions{other}");
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    flags.set(MountFlags::RDONLY, options.read_only);
    let (data, kind) = (CString::new(data)?, format!("fuse.{SUBTYPE}"));
    mount(options.fsname.as_str(), mountpoint, kind.as_str(), flags, data.as_c_str())?;
    Ok(device)
}

/// Tells the kernel what it must no longer believe. Never to be used by a thread that owes the kernel a reply about the
/// same node: both sides would wait for the node's lock.
#[derive(Debug, Clone)]
pub struct Notifier(fuser::Notifier);

impl Kernel for Notifier {
    fn forget_attributes(&self, ino: Ino) {
        let _ = self.0.inval_inode(INodeNo(ino), -1, 0);
    }

    fn forget_content(&self, ino: Ino) {
        let _ = self.0.inval_inode(INodeNo(ino), 0, 0);
    }

    fn forget_name(&self, parent: Ino, name: &OsStr) {
        let _ = self.0.inval_entry(INodeNo(parent), name);
    }
}

/// Speaks fuser's trait for a [`Filesystem`].
struct Adapter<F>(Arc<F>);

/// The one place where an error becomes an answer: its sentence is logged, and its errno is what the caller gets.
fn refuse(operation: &str, ino: INodeNo, error: FsError) -> Errno {
    match &error.why {
        Some(why) => debug!("{operation} of node {}: {} ({why})", ino.0, name_of(error.errno)),
        None => debug!("{operation} of node {}: {}", ino.0, name_of(error.errno)),
    }
    Errno::from_i32(error.errno)
}

fn name_of(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

/// Answer with what a call came to, by the method of fuser's reply that its success needs.
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
        let mut wanted =
            InitFlags::FUSE_ASYNC_READ | InitFlags::FUSE_PARALLEL_DIROPS | InitFlags::FUSE_AUTO_INVAL_DATA;
        if !self.0.opens_reported() {
            wanted |= InitFlags::FUSE_NO_OPEN_SUPPORT;
        }
        let offered = config.capabilities();
        if !self.0.opens_reported() && !offered.contains(InitFlags::FUSE_NO_OPEN_SUPPORT) {
            error!("this kernel cannot open files of a FUSE filesystem without reporting it");
            return Err(io::Error::from_raw_os_error(libc::ENOSYS));
        }
        config.add_capabilities(wanted & offered).expect("only what is offered");
        let bounds = config
            .set_max_write(limits::MAX_WRITE)
            .map(|_| ())
            .and_then(|()| config.set_max_background(limits::MAX_BACKGROUND).map_err(u32::from).map(|_| ()));
        bounds.map_err(|nearest| io::Error::other(format!("a bound is not possible; {nearest} would be")))
    }

    fn lookup(&self, req: &fuser::Request, parent: INodeNo, name: &OsStr, reply: fuser::ReplyEntry) {
        let found = self.0.lookup(&request(req), parent.0, name);
        // Too common to be logged: asking whether a name exists is not an error.
        match found {
            Err(FsError { errno: libc::ENOENT, .. }) => reply.error(Errno::ENOENT),
            found => answer!("lookup", parent, found, reply, entry => send_entry(reply, &entry)),
        }
    }

    fn forget(&self, _req: &fuser::Request, ino: INodeNo, count: u64) {
        self.0.forget(ino.0, count);
    }

    fn getattr(&self, req: &fuser::Request, ino: INodeNo, fh: Option<FileHandle>, reply: fuser::ReplyAttr) {
        let reply = later!("getattr", ino, reply, (attr, ttl) => reply.attr(&ttl, &file_attr(&attr)));
        self.0.getattr(&request(req), ino.0, fh.map(u64::from), reply);
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
        self.0.setattr(&request(req), ino.0, fh.map(u64::from), &change, reply);
    }

    fn readlink(&self, req: &fuser::Request, ino: INodeNo, reply: fuser::ReplyData) {
        let target = self.0.readlink(&request(req), ino.0);
        answer!("readlink", ino, target, reply, target => reply.data(target.as_bytes()));
    }

    fn mknod(
        &self,
        req: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        rdev: u32,
        reply: fuser::ReplyEntry,
    ) {
        let reply = later!("mknod", parent, reply, entry => send_entry(reply, &entry));
        self.0.mknod(&request(req), parent.0, name, mode, rdev, reply);
    }

    fn mkdir(
        &self,
        req: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: fuser::ReplyEntry,
    ) {
        let reply = later!("mkdir", parent, reply, entry => send_entry(reply, &entry));
        self.0.mkdir(&request(req), parent.0, name, mode, reply);
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
        self.0.symlink(&request(req), parent.0, name, target.as_os_str(), reply);
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
        self.0.link(&request(req), ino.0, parent.0, name, reply);
    }

    fn create(
        &self,
        req: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: fuser::ReplyCreate,
    ) {
        let reply = later!("create", parent, reply, (entry, opened) => {
            send_created(reply, &entry, &opened)
        });
        self.0.create(&request(req), parent.0, name, mode, flags, reply);
    }

    fn unlink(&self, req: &fuser::Request, parent: INodeNo, name: &OsStr, reply: fuser::ReplyEmpty) {
        let reply = later!("unlink", parent, reply, () => reply.ok());
        self.0.unlink(&request(req), parent.0, name, reply);
    }

    fn rmdir(&self, req: &fuser::Request, parent: INodeNo, name: &OsStr, reply: fuser::ReplyEmpty) {
        let reply = later!("rmdir", parent, reply, () => reply.ok());
        self.0.rmdir(&request(req), parent.0, name, reply);
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
        self.0.rename(&request(req), parent.0, name, new_parent.0, new_name, flags.bits(), reply);
    }

    fn open(&self, req: &fuser::Request, ino: INodeNo, flags: OpenFlags, reply: fuser::ReplyOpen) {
        if !self.0.opens_reported() {
            // Said once; the kernel never asks again.
            return reply.error(Errno::ENOSYS);
        }
        let reply = later!("open", ino, reply, opened => send_opened(reply, &opened));
        self.0.open(&request(req), ino.0, flags.0, reply);
    }

    fn read(
        &self,
        req: &fuser::Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: fuser::ReplyData,
    ) {
        let reply = later!("read", ino, reply, data => send_data(reply, data));
        self.0.read(&request(req), ino.0, fh.0, offset, size, reply);
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
        self.0.write(&request(req), ino.0, fh.0, offset, data, flags.0, cached, reply);
    }

    fn flush(
        &self,
        req: &fuser::Request,
        ino: INodeNo,
        fh: FileHandle,
        _lock_owner: LockOwner,
        reply: fuser::ReplyEmpty,
    ) {
        if !self.0.opens_reported() {
            return reply.error(Errno::ENOSYS);
        }
        let reply = later!("flush", ino, reply, () => reply.ok());
        self.0.flush(&request(req), ino.0, fh.0, reply);
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
        self.0.release(ino.0, fh.0);
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
        self.0.fsync(&request(req), ino.0, fh.0, datasync, reply);
    }

    fn opendir(&self, req: &fuser::Request, ino: INodeNo, _flags: OpenFlags, reply: fuser::ReplyOpen) {
        let opened = self.0.opendir(&request(req), ino.0);
        answer!("opendir", ino, opened, reply, fh => reply.opened(FileHandle(fh), FopenFlags::empty()));
    }

    fn readdir(
        &self,
        req: &fuser::Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: fuser::ReplyDirectory,
    ) {
        let listed = self.0.readdir(&request(req), ino.0, fh.0, offset, &mut |line| {
            !reply.add(INodeNo(line.ino), line.next, file_type(line.kind), line.name)
        });
        answer!("readdir", ino, listed, reply, () => reply.ok());
    }

    fn releasedir(
        &self,
        _req: &fuser::Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: fuser::ReplyEmpty,
    ) {
        self.0.releasedir(ino.0, fh.0);
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
        self.0.fsyncdir(&request(req), ino.0, fh.0, reply);
    }

    fn statfs(&self, req: &fuser::Request, ino: INodeNo, reply: fuser::ReplyStatfs) {
        answer!("statfs", ino, self.0.statfs(&request(req), ino.0), reply, s => reply.statfs(
            s.blocks, s.bfree, s.bavail, s.files, s.ffree, s.bsize, s.namelen, s.frsize,
        ));
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
        self.0.setxattr(&request(req), ino.0, name, value, flags, reply);
    }

    fn getxattr(
        &self,
        req: &fuser::Request,
        ino: INodeNo,
        name: &OsStr,
        size: u32,
        reply: fuser::ReplyXattr,
    ) {
        // The kernel asks before most writes, and nearly always there is none.
        match self.0.getxattr(&request(req), ino.0, name) {
            Err(FsError { errno: libc::ENODATA, .. }) => reply.error(Errno::from_i32(libc::ENODATA)),
            value => {
                answer!("getxattr", ino, value, reply, value => send_sized(reply, size, &value))
            }
        }
    }

    fn listxattr(&self, req: &fuser::Request, ino: INodeNo, size: u32, reply: fuser::ReplyXattr) {
        let names = self.0.listxattr(&request(req), ino.0);
        answer!("listxattr", ino, names, reply, names => send_sized(reply, size, &names));
    }

    fn removexattr(&self, req: &fuser::Request, ino: INodeNo, name: &OsStr, reply: fuser::ReplyEmpty) {
        let reply = later!("removexattr", ino, reply, () => reply.ok());
        self.0.removexattr(&request(req), ino.0, name, reply);
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
        self.0.fallocate(&request(req), ino.0, fh.0, offset, length, mode, reply);
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
        let found = self.0.lseek(&request(req), ino.0, fh.0, offset, whence);
        answer!("lseek", ino, found, reply, at => reply.offset(at as i64));
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
        self.0.copy_file_range(&request(req), from, to, length, reply);
    }

    // fuser's own answers to these two are right, but come with a warning in the log for each isatty(3) of a program.

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

fn request(req: &fuser::Request) -> Request {
    Request { tid: req.pid(), uid: req.uid(), gid: req.gid() }
}

fn send_entry(reply: fuser::ReplyEntry, entry: &Entry) {
    reply.entry_with_ttls(&entry.attr_ttl, &entry.entry_ttl, &file_attr(&entry.attr), GENERATION);
}

/// fuser passes on one lifetime for both the name and the attributes here: the shorter one is right for either.
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

/// Size 0 asks how long the value is; a buffer that is too short for it is ERANGE.
fn send_sized(reply: fuser::ReplyXattr, size: u32, value: &[u8]) {
    match size as usize {
        0 => reply.size(value.len() as u32),
        room if room < value.len() => reply.error(Errno::ERANGE),
        _ => reply.data(value),
    }
}

fn open_flags(opened: &Opened) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_DIRECT_IO, opened.direct_io);
    flags.set(FopenFlags::FOPEN_NOFLUSH, opened.no_flush);
    flags
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
    }
}

fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino),
        size: attr.size,
        blocks: attr.blocks,
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(attr.kind),
        perm: attr.perm,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: attr.blksize,
        flags: 0,
    }
}

fn system_time(time: Timestamp) -> SystemTime {
    let whole = Duration::from_secs(time.seconds.unsigned_abs());
    let second = if time.seconds >= 0 { UNIX_EPOCH + whole } else { UNIX_EPOCH - whole };
    second + Duration::from_nanos(time.nanos.into())
}

fn time_change(time: TimeOrNow) -> TimeChange {
    match time {
        TimeOrNow::Now => TimeChange::Now,
        TimeOrNow::SpecificTime(time) => TimeChange::To(timestamp(time)),
    }
}

/// The time that a SETATTR carried. Before 1970 this is not the inverse of [`system_time`]: fuser 0.18 reads a time of
/// `-s` seconds and `n` nanoseconds as `s` seconds and `n` nanoseconds before 1970, where `n` counts forward.
fn timestamp(time: SystemTime) -> Timestamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Timestamp { seconds: after.as_secs() as i64, nanos: after.subsec_nanos() },
        Err(before) => {
            let before = before.duration();
            Timestamp { seconds: -(before.as_secs() as i64), nanos: before.subsec_nanos() }
        }
    }
}
