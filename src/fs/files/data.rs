//! The content of regular files, by node.
//!
//! May assume: the kernel lets one writer at a time into a file (`i_rwsem`), and has decided which callers may open it.
//! Must never: use anything but a regular file, wait for a process that has a lease on one, or open with O_APPEND: pwrite(2) would
//! then ignore the offset. Each appending write passes RWF_APPEND instead.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{
    Access, AtFlags, FallocateFlags, Mode, OFlags, SeekFrom, accessat, copy_file_range, fallocate,
    fcntl_getfl, fdatasync, fsync, ftruncate, openat, seek,
};
use rustix::io::{Errno, ReadWriteFlags, pread, pwrite, pwritev2, retry_on_intr};

use super::paths::Out;
use super::{Files, stat_of};
use crate::fs::{Fault, FileKind, Ino, Result};
use crate::limits;

/// A descriptor for content.
pub(super) struct Data {
    ino: Ino,
    pub(super) fd: Arc<OwnedFd>,
    access: OFlags,
    /// Used since the last [`Files::close_idle`].
    used: bool,
}

impl Data {
    /// A descriptor that was opened with this access mode.
    pub(super) fn new(ino: Ino, fd: Arc<OwnedFd>, access: OFlags) -> Data {
        Data { ino, fd, access, used: true }
    }
}

/// Whether a descriptor with this access mode permits writing, or reading.
fn permits(access: OFlags, write: bool) -> bool {
    let access = access & OFlags::RWMODE;
    access == OFlags::RDWR || access == if write { OFlags::WRONLY } else { OFlags::RDONLY }
}

impl Files {
    /// Open a regular file with the flags of an open(2), for a handle of its own.
    ///
    /// The flags that concern only the path are left out, since the path is already resolved. So are O_APPEND (the kernel sends the
    /// offset) and O_DIRECT (the daemon's buffers are not aligned).
    ///
    /// # Errors
    /// EAGAIN while another process has a lease on it.
    pub fn open(&self, ino: Ino, flags: i32) -> Result<OwnedFd> {
        let done = libc::O_NOFOLLOW | libc::O_CREAT | libc::O_EXCL | libc::O_NOCTTY | libc::O_DIRECTORY;
        let flags = flags & !(done | libc::O_APPEND | libc::O_DIRECT);
        self.open_content(ino, OFlags::from_bits_retain(flags as u32))
    }

    /// Read up to `size` bytes; fewer only at the end of the file.
    pub fn read(&self, ino: Ino, offset: u64, size: u32) -> Result<Vec<u8>> {
        read_from(&*self.content(ino, false)?, offset, size)
    }

    /// Write all of `data`, or as much as there is room for. The answer is the number of bytes written.
    pub fn write(&self, ino: Ino, offset: u64, data: &[u8]) -> Result<u32> {
        write_to(&*self.content(ino, true)?, offset, data)
    }

    /// Write all of `data` at the current end of the file on the disk, or as much as there is room for.
    pub fn append(&self, ino: Ino, data: &[u8]) -> Result<Appended> {
        append_to(&*self.content(ino, true)?, data)
    }

    /// Set the length.
    pub(super) fn truncate(&self, ino: Ino, size: u64) -> Result<()> {
        let fd = self.content(ino, true)?;
        Ok(retry_on_intr(|| ftruncate(&fd, size))?)
    }

    /// Sync the content to the disk, and the attributes too unless `datasync`.
    pub fn fsync(&self, ino: Ino, datasync: bool) -> Result<()> {
        let fd = self.content(ino, false).or_else(|_| self.content(ino, true))?;
        Ok(retry_on_intr(|| if datasync { fdatasync(&fd) } else { fsync(&fd) })?)
    }

    /// Reserve or punch space; `mode` is that of `fallocate(2)`.
    pub fn fallocate(&self, ino: Ino, offset: u64, length: u64, mode: i32) -> Result<()> {
        let fd = self.content(ino, true)?;
        let mode = FallocateFlags::from_bits_retain(mode as u32);
        Ok(retry_on_intr(|| fallocate(&fd, mode, offset, length))?)
    }

    /// SEEK_DATA and SEEK_HOLE.
    pub fn lseek(&self, ino: Ino, offset: i64, whence: i32) -> Result<u64> {
        let offset = u64::try_from(offset).map_err(|_| Fault::BeyondEnd)?;
        let from = match whence {
            libc::SEEK_DATA => SeekFrom::Data(offset),
            libc::SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return Err(Fault::Invalid.into()),
        };
        // No read uses the descriptor's own position, so this may move it.
        Ok(seek(&*self.content(ino, false)?, from)?)
    }

    /// Copy on the disk, in part or whole. The answer is the number of bytes copied. After EOPNOTSUPP the kernel copies by reading.
    pub fn copy_file_range(&self, from: (Ino, u64), to: (Ino, u64), length: u64) -> Result<u32> {
        let source = self.content(from.0, false)?;
        let target = self.content(to.0, true)?;
        let (mut read_at, mut write_at) = (from.1, to.1);
        let length = length.min(limits::COPY_MAX) as usize;
        let copied = copy_file_range(&source, Some(&mut read_at), &target, Some(&mut write_at), length);
        match copied {
            Ok(copied) => Ok(copied as u32),
            Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INTR) => {
                Err(Fault::Unsupported.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Close the descriptor that is kept of a file, if there is one.
    pub fn let_go(&self, ino: Ino) {
        let kept = self.data.lock().remove(ino);
        drop(kept);
    }

    /// Close the kept descriptors that were not used since the last call. The caller runs this about once a second: the kernel does not
    /// report closes to the tree, and the disk refuses to execute a file that the daemon has open for writing (ETXTBSY).
    pub fn close_idle(&self) {
        let idle = self.data.lock().take_if(|data| !std::mem::replace(&mut data.used, false));
        idle.into_iter().for_each(|data| self.close(data));
        self.close_idle_listings();
        self.clear_parcels();
    }

    /// A descriptor of a node that permits reading, or writing: a kept one, or a new one.
    pub(super) fn content(&self, ino: Ino, write: bool) -> Result<Arc<OwnedFd>> {
        if let Some(data) = self.data.lock().get(ino)
            && permits(data.access, write)
        {
            data.used = true;
            return Ok(data.fd.clone());
        }
        if let Some(fd) = self.lasting_descriptor(ino)
            && fcntl_getfl(&fd).is_ok_and(|access| permits(access, write))
        {
            return Ok(fd);
        }
        let (fd, access) = self.open_access(ino, write)?;
        let fd = Arc::new(fd);
        self.keep_data(Data::new(ino, fd.clone(), access));
        Ok(fd)
    }

    /// A read opens for reading only: a descriptor that permits writing would keep the disk from executing the file.
    fn open_access(&self, ino: Ino, write: bool) -> Result<(OwnedFd, OFlags)> {
        let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
        match self.open_known(ino, access) {
            // The mode may permit this daemon to write and not to read.
            Err(error) if write && error.errno() == libc::EACCES => {
                Ok((self.open_content(ino, OFlags::WRONLY)?, OFlags::WRONLY))
            }
            opened => Ok((opened?, access)),
        }
    }

    /// Keep a descriptor ready, unless a kept one permits more.
    pub(super) fn keep_data(&self, data: Data) {
        let mut kept = self.data.lock();
        let better = !permits(data.access, true)
            && kept.get(data.ino).is_some_and(|known| permits(known.access, true));
        let dropped = if better { Some(data) } else { kept.insert(data.ino, data) };
        drop(kept);
        dropped.into_iter().for_each(|data| self.close(data));
    }

    /// Close a descriptor, unless the daemon could not open the file again.
    pub(super) fn close(&self, data: Data) {
        if !self.reopens_all && !self.may_open(&data) {
            self.keep_lasting(data.ino, data.fd);
        }
    }

    fn keep_lasting(&self, ino: Ino, fd: Arc<OwnedFd>) {
        let mut out = Out::new();
        let _has_room = self.lasting.lock().insert(ino, fd, false, &mut out);
    }

    /// Whether the file's current mode lets this daemon open it with the access that this descriptor has. The answer is also yes for an
    /// executable file: it must not be kept open for writing.
    fn may_open(&self, data: &Data) -> bool {
        let mut access = Access::empty();
        access.set(Access::READ_OK, permits(data.access, false));
        access.set(Access::WRITE_OK, permits(data.access, true));
        let number = data.fd.as_raw_fd().to_string();
        let executes = || stat_of(&data.fd).is_ok_and(|stat| stat.stx_mode & 0o111 != 0);
        accessat(&self.proc_fds, number, access, AtFlags::EACCESS).is_ok() || executes()
    }

    /// The kept descriptor of a file or directory that this daemon could not open again.
    pub(super) fn lasting_descriptor(&self, ino: Ino) -> Option<Arc<OwnedFd>> {
        if self.reopens_all {
            return None;
        }
        let mut out = Out::new();
        let mut lasting = self.lasting.lock();
        lasting.get(ino, &mut out).ok().flatten()
    }

    /// A new mode is about to be set. If it may keep this daemon from opening a file that other processes have open, open the file now.
    pub(super) fn open_before_chmod(&self, ino: Ino, mode: u32) {
        const OWNER: u32 = libc::S_IRUSR | libc::S_IWUSR;
        if self.reopens_all || mode & OWNER == OWNER || self.lasting.lock().has(ino) {
            return;
        }
        let opened = match self.kind(ino) {
            Ok(FileKind::File) => {
                self.open_access(ino, true).or_else(|_| self.open_access(ino, false)).map(|(fd, _)| fd)
            }
            Ok(FileKind::Directory) => self.open_directory(ino),
            _ => return,
        };
        if let Ok(fd) = opened {
            self.keep_lasting(ino, Arc::new(fd));
        }
    }

    /// Open a regular file. Its last known name is the quicker way; if the file is not there, open it through its descriptor.
    /// `access` creates and truncates nothing.
    fn open_known(&self, ino: Ino, access: OFlags) -> Result<OwnedFd> {
        if self.kind(ino)? == FileKind::File
            && let Some((dir, name, id)) = self.location_at_hand(ino)
        {
            // Another file may have the name by now, and opening a pipe must not block.
            let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            if let Ok(fd) = openat(&dir, &name, flags, Mode::empty())
                && stat_of(&fd).is_ok_and(|stat| self.identify(&stat).is_ok_and(|found| found == id))
            {
                return Ok(fd);
            }
        }
        self.open_content(ino, access)
    }

    /// Open without blocking: a process that has a lease on the file would otherwise delay the daemon.
    fn open_content(&self, ino: Ino, flags: OFlags) -> Result<OwnedFd> {
        match self.kind(ino)? {
            FileKind::File => Ok(self.reopen(&*self.descriptor(ino)?, flags | OFlags::NONBLOCK)?),
            FileKind::Directory => Err(Fault::IsDirectory.into()),
            _ => Err(Fault::Invalid.into()),
        }
    }
}

/// The smallest page size of any machine.
const PAGE: usize = 4096;

/// Read up to `size` bytes; fewer only at the end of the file.
pub fn read_from(fd: &OwnedFd, offset: u64, size: u32) -> Result<Vec<u8>> {
    let size = size as usize;
    let mut data = Vec::with_capacity(size);
    while data.len() < size {
        let position = offset + data.len() as u64;
        let read = retry_on_intr(|| pread(fd, rustix::buffer::spare_capacity(&mut data), position))?;
        // A read that ends within a page ended at the end of the file: before that, the disk returns whole pages.
        if read == 0 || !(position as usize + read).is_multiple_of(PAGE) {
            break;
        }
    }
    // The allocator may have given more capacity than `size`.
    data.truncate(size);
    Ok(data)
}

/// Write all of `data`, or as much as there is room for. The answer is the number of bytes written.
pub fn write_to(fd: &OwnedFd, offset: u64, data: &[u8]) -> Result<u32> {
    let mut done = 0;
    while done < data.len() {
        match retry_on_intr(|| pwrite(fd, &data[done..], offset + done as u64)) {
            Ok(0) => break,
            Ok(written) => done += written,
            Err(_) if done > 0 => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(done as u32)
}

/// The outcome of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The number of bytes written.
    pub written: u32,
    /// The file's length afterwards.
    pub end: u64,
}

/// Write all of `data` at the file's end, or as much as there is room for. The disk finds the end and writes in one step, without
/// another write in between: pwritev2(2) with RWF_APPEND.
pub fn append_to(fd: &OwnedFd, data: &[u8]) -> Result<Appended> {
    let mut done = 0;
    while done < data.len() {
        let rest = [IoSlice::new(&data[done..])];
        match retry_on_intr(|| pwritev2(fd, &rest, 0, ReadWriteFlags::APPEND)) {
            Ok(0) => break,
            Ok(written) => done += written,
            Err(_) if done > 0 => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Appended { written: done as u32, end: stat_of(fd)?.stx_size })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::files::Opens;
    use crate::fs::{NewMode, ROOT, Request, SetAttr};
    use rustix::fs::{CWD, Mode, openat};
    use rustix::process::{Resource, Rlimit, getegid, geteuid, setrlimit};
    use std::ffi::OsStr;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    const MODE: fn(u32) -> NewMode = |mode| NewMode { mode, umask: 0 };

    /// Run the body of this test as an ordinary user. The answer is whether this process must run it itself.
    fn is_ordinary(test: &str) -> bool {
        if !geteuid().is_root() {
            return true;
        }
        // A directory that the ordinary user can reach.
        let place = tempfile::tempdir().unwrap();
        std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let program = place.path().join("test");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        let mut command = Command::new("setpriv");
        command.args(user).arg(program).args(["--exact", "--nocapture", test]).current_dir("/");
        let ran = command.output().unwrap();
        let output = String::from_utf8_lossy(&ran.stdout);
        assert!(
            ran.status.success() && output.contains("1 passed"),
            "{output}{}",
            String::from_utf8_lossy(&ran.stderr)
        );
        false
    }

    /// Files with room for 128 content descriptors.
    fn files(dir: &tempfile::TempDir) -> (Files, Request) {
        let few = Rlimit { current: Some(2048), maximum: Some(2048) };
        setrlimit(Resource::Nofile, few).unwrap();
        let root = openat(CWD, dir.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let req = Request { tid: std::process::id(), uid: geteuid().as_raw(), gid: getegid().as_raw() };
        (Files::new(root, Opens::Unreported(10_000)).unwrap(), req)
    }

    #[test]
    fn what_an_ordinary_user_has_opened_stays_usable() {
        if !is_ordinary("fs::files::data::tests::what_an_ordinary_user_has_opened_stays_usable") {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (files, req) = files(&dir);
        let create = |name: &str, mode| {
            let made = files.create(&req, ROOT, OsStr::new(name), MODE(mode), true).unwrap();
            made.0.ino
        };
        let chmod = |ino, mode| {
            files.setattr(&req, ino, &SetAttr { mode: Some(mode), ..SetAttr::default() }).unwrap();
        };
        let idle = || (0..2).for_each(|_| files.close_idle());
        let all = |ino| files.read(ino, 0, 100).unwrap();

        let protected = create("0444", 0o444);
        let taken = create("taken", 0o644);
        assert_eq!(files.write(taken, 0, b"before").unwrap(), 6);
        let write_only = create("0200", 0o200);
        let directory = files.mkdir(&req, ROOT, OsStr::new("d"), MODE(0o755)).unwrap().ino;
        files.create(&req, directory, OsStr::new("entry"), MODE(0o644), true).unwrap();
        idle();
        chmod(taken, 0);
        chmod(directory, 0o300);
        let many: Vec<_> = (0..600).map(|n| create(&format!("{n}"), 0o444)).collect();
        idle();

        for ino in many.iter().chain([&protected, &write_only]) {
            assert_eq!(files.write(*ino, 0, b"x").unwrap(), 1);
        }
        assert_eq!(files.write(taken, 6, b" after").unwrap(), 6);
        assert_eq!((all(taken), all(protected)), (b"before after".to_vec(), b"x".to_vec()));
        files.fsync(write_only, false).unwrap();
        let mut names = Vec::new();
        files
            .list(directory, 0, &mut |line| {
                names.push(line.name.to_owned());
                true
            })
            .unwrap();
        names.sort();
        assert_eq!(names, [".", "..", "entry"]);
        chmod(directory, 0);
        let entry = files.lookup(directory, OsStr::new("entry")).unwrap();
        assert_eq!(entry.size, 0);
        assert_eq!(files.lookup(directory, OsStr::new("other")).unwrap_err().errno(), libc::EACCES);
        chmod(directory, 0o755);

        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = open();
        assert!(before < 1_000, "{before}");
        for ino in many {
            files.forget(ino, 1, |_| ());
        }
        idle();
        assert!(open() <= before);
    }

    #[test]
    fn appending_ignores_where_the_end_was() {
        let file = tempfile::tempfile().unwrap();
        let fd: OwnedFd = file.into();
        assert_eq!(append_to(&fd, b"first").unwrap(), Appended { written: 5, end: 5 });
        assert_eq!(write_to(&fd, 100, b"far").unwrap(), 3);
        assert_eq!(append_to(&fd, b"last").unwrap(), Appended { written: 4, end: 107 });
        ftruncate(&fd, 2).unwrap();
        assert_eq!(append_to(&fd, b"").unwrap(), Appended { written: 0, end: 2 });
        assert_eq!(append_to(&fd, b"new").unwrap(), Appended { written: 3, end: 5 });
        assert_eq!(read_from(&fd, 0, 100).unwrap(), b"finew");
    }
}
