//! The system calls that need `unsafe`, and the settings of the process that are made once at its start.
//!
//! May assume: nothing. Each function says when it may be called.
//! Must never: know what a filesystem is. No other file of the crate may contain `unsafe`.

#![allow(unsafe_code)]

use std::ffi::OsStr;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::OnceLock;

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, WaitOptions, getegid, geteuid, getrlimit, pidfd_open, setrlimit,
    umask, waitpid,
};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, UnshareFlags, capabilities, capabilities_secure_bits,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits, unshare_unsafe,
};

/// The ids of files that this process creates for itself. Read once.
fn own_ids() -> (u32, u32) {
    static IDS: OnceLock<(u32, u32)> = OnceLock::new();
    *IDS.get_or_init(|| (geteuid().as_raw(), getegid().as_raw()))
}

/// Whether this process was started as root.
pub fn is_root() -> bool {
    own_ids().0 == 0
}

/// While this lives, files that this thread creates belong to another user. It cannot leave its thread.
#[must_use = "the thread acts for the caller only while this lives"]
#[derive(Debug)]
pub struct CreatorIds {
    changed: bool,
    of_this_thread: PhantomData<*const ()>,
}

/// Let this thread create files as `uid` and `gid` until the returned value is dropped.
///
/// This sets the owner and checks nothing. With `default_permissions` the kernel has checked every permission already, with all of
/// the caller's groups, which a request does not carry. So the thread keeps its capabilities (see [`keep_capabilities`]). A daemon
/// that is not root can only create files as itself, and this changes nothing.
pub fn create_as(uid: u32, gid: u32) -> CreatorIds {
    let own = own_ids();
    let changed = is_root() && (uid, gid) != own;
    if changed {
        set_ids(uid, gid);
    }
    CreatorIds { changed, of_this_thread: PhantomData }
}

impl Drop for CreatorIds {
    fn drop(&mut self) {
        if self.changed {
            let (uid, gid) = own_ids();
            set_ids(uid, gid);
        }
    }
}

fn set_ids(uid: u32, gid: u32) {
    // SAFETY: both calls take plain integers and change only the filesystem ids of the calling thread. The C library does not spread
    // them to other threads, as it does for setuid(2).
    unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
    }
}

/// Let threads keep their capabilities when their filesystem uid changes.
///
/// Without it, taking on a caller's uid would also drop `CAP_DAC_OVERRIDE`, and the disk would check the caller a second time, without
/// its supplementary groups. Threads inherit the setting. Call this before any thread is started.
pub fn keep_capabilities() -> io::Result<()> {
    if is_root() {
        let bits = capabilities_secure_bits()? | CapabilitiesSecureBits::NO_SETUID_FIXUP;
        set_capabilities_secure_bits(bits)?;
    }
    Ok(())
}

/// Drop CAP_NET_ADMIN. Only opening the source of exits needs it. Threads inherit capabilities. Call this before any thread is started.
///
/// # Errors
/// Those of capset(2).
pub fn drop_network_capability() -> io::Result<()> {
    let mut sets = capabilities(None)?;
    let less = CapabilitySet::NET_ADMIN;
    if sets.permitted.contains(less) {
        sets.permitted.remove(less);
        sets.effective.remove(less);
        sets.inheritable.remove(less);
        set_capabilities(None, sets)?;
    }
    // A program that this one starts must not have it either. Dropping it there takes CAP_SETPCAP, which an ordinary user lacks.
    match remove_capability_from_bounding_set(less) {
        Err(Errno::PERM) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Raise the soft limit of open descriptors to the hard one, and return the limit now in force.
pub fn raise_descriptor_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return descriptor_limit();
    }
    // After a refusal the old limit stays, which is only smaller.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    descriptor_limit()
}

/// Make room for so many descriptors in the process's table. Call this before there are threads: a process with threads waits for
/// all processors each time its table grows.
pub fn widen_descriptor_table(most: u64) {
    let last = most.min(descriptor_limit()).saturating_sub(1).min(i32::MAX as u64) as libc::c_int;
    let highest = std::fs::File::open("/dev/null").and_then(|file| {
        // SAFETY: the descriptor is open, and the result is a new one that nothing else holds.
        unsafe {
            match libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, last) {
                -1 => Err(io::Error::last_os_error()),
                fd => Ok(OwnedFd::from_raw_fd(fd)),
            }
        }
    });
    // On failure the table grows as it is needed.
    drop(highest);
}

/// The limit of open descriptors of this process.
pub fn descriptor_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Whether any process has a file open for writing. `None` if the filesystem does not say, or if this process may not ask. `file` must
/// be open for reading only.
///
/// The kernel grants no read lease (fcntl(2), F_SETLEASE) on a file that is open for writing. The lease is given back at once. A process
/// that opens the file for writing meanwhile waits for that, and the signal by which the kernel asks for the lease is ignored
/// ([`ignore_lease_breaks`]).
pub fn is_open_for_writing(file: impl AsFd) -> Option<bool> {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open for as long as `file` is borrowed; no memory is passed.
    let lease = |kind: libc::c_int| unsafe { libc::fcntl(fd, libc::F_SETLEASE, kind) };
    if lease(libc::F_RDLCK) == 0 {
        lease(libc::F_UNLCK);
        return Some(false);
    }
    match io::Error::last_os_error().raw_os_error() {
        Some(libc::EAGAIN) => Some(true),
        _ => None,
    }
}

/// Ignore the signal by which the kernel asks for a lease back. By default it ends the process.
pub fn ignore_lease_breaks() {
    // SAFETY: ignoring a signal installs no handler.
    unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
}

/// Create files with exactly the requested mode. The kernel has applied the caller's umask already.
pub fn clear_umask() {
    umask(Mode::empty());
}

/// The name of a SQLite VFS like the default one that takes a path as it is given.
///
/// The default VFS resolves every symbolic link of a path before it opens the file. `/proc/self/fd/N/log.db` would become a path
/// that our own mount may cover. Unresolved, it names the file in the directory that the descriptor holds.
pub fn sqlite_vfs_by_descriptor() -> &'static str {
    use rusqlite::ffi;
    use std::ffi::{CStr, c_char, c_int};

    const NAME: &CStr = c"crewfs";

    /// Copy the path instead of resolving it.
    unsafe extern "C" fn full_pathname(
        _vfs: *mut ffi::sqlite3_vfs,
        path: *const c_char,
        size: c_int,
        out: *mut c_char,
    ) -> c_int {
        // SAFETY: SQLite passes a NUL-terminated path, and a buffer of `size` bytes.
        let (path, out) = unsafe {
            (
                CStr::from_ptr(path).to_bytes_with_nul(),
                std::slice::from_raw_parts_mut(out.cast::<u8>(), size as usize),
            )
        };
        match out.get_mut(..path.len()) {
            Some(out) => {
                out.copy_from_slice(path);
                ffi::SQLITE_OK
            }
            None => ffi::SQLITE_CANTOPEN,
        }
    }

    static REGISTERED: std::sync::Once = std::sync::Once::new();
    REGISTERED.call_once(|| {
        // SAFETY: the default VFS lives as long as the process, and so does our leaked copy, which shares its file type
        // (`szOsFile`, `xOpen`) and its private data.
        unsafe {
            let mut vfs = *ffi::sqlite3_vfs_find(std::ptr::null());
            vfs.zName = NAME.as_ptr();
            vfs.pNext = std::ptr::null_mut();
            vfs.xFullPathname = Some(full_pathname);
            ffi::sqlite3_vfs_register(Box::leak(Box::new(vfs)), 0);
        }
    });
    "crewfs"
}

/// Whether the kernel considers the clock synchronised. `None` where it does not say.
pub fn clock_is_synchronised() -> Option<bool> {
    // SAFETY: all zeros is a request to read and change nothing. The structure is plain numbers and outlives the call.
    let state = unsafe {
        let mut request: libc::timex = std::mem::zeroed();
        libc::adjtimex(&mut request)
    };
    match state {
        -1 => None,
        state => Some(state != libc::TIME_ERROR),
    }
}

/// Names a file for as long as it exists, whatever its path is: `struct file_handle` without its length.
pub type FileHandle = Box<[u8]>;

/// The handle of the file that a descriptor refers to. The descriptor may be an `O_PATH` one.
pub fn handle_of(fd: BorrowedFd<'_>) -> io::Result<FileHandle> {
    /// `MAX_HANDLE_SZ` of Linux.
    const LARGEST: usize = 128;
    // The length of the handle, its type, the handle.
    let mut buffer = [0_u32; 2 + LARGEST / 4];
    buffer[0] = LARGEST as u32;
    let mut mount: libc::c_int = 0;
    // SAFETY: the buffer is aligned for the structure, begins with the size of the room behind its header, and outlives the call, as does
    // `mount`. The path is an empty string.
    let done = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            fd.as_raw_fd(),
            c"".as_ptr(),
            buffer.as_mut_ptr(),
            &mut mount,
            libc::AT_EMPTY_PATH,
        )
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    let length = buffer[0] as usize;
    let bytes = buffer[1..].iter().flat_map(|word| word.to_ne_bytes());
    Ok(bytes.take(4 + length).collect())
}

/// Open (`O_PATH`) the file of a handle, on the filesystem of `mount`, which must not be an `O_PATH` descriptor itself.
///
/// # Errors
/// EPERM without CAP_DAC_READ_SEARCH, ESTALE when the file no longer exists.
pub fn open_handle(mount: BorrowedFd<'_>, handle: &[u8]) -> io::Result<OwnedFd> {
    let length = handle.len().checked_sub(4).ok_or(io::ErrorKind::InvalidInput)?;
    let mut buffer = vec![0_u32; 1 + handle.len().div_ceil(4)];
    buffer[0] = length as u32;
    for (word, bytes) in buffer[1..].iter_mut().zip(handle.chunks(4)) {
        let mut whole = [0; 4];
        whole[..bytes.len()].copy_from_slice(bytes);
        *word = u32::from_ne_bytes(whole);
    }
    // SAFETY: the buffer is aligned for the structure, holds as many bytes as its header says, and outlives the call. The result is a new
    // descriptor that nothing else holds.
    unsafe {
        let flags = libc::O_PATH | libc::O_CLOEXEC;
        match libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), buffer.as_mut_ptr(), flags) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd as libc::c_int)),
        }
    }
}

/// An event of a watched directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectoryEvent<'a> {
    /// An entry of a directory changed, or the directory itself, whose name then is `.`.
    Entry {
        /// Whether this process did it.
        by_us: bool,
        /// Whether the name came or went. Otherwise the file behind it changed.
        name_changed: bool,
        /// The [`FileHandle`] of the directory.
        directory: &'a [u8],
        /// The name.
        name: &'a OsStr,
    },
    /// The kernel's event queue overflowed.
    Lost,
}

/// Watches directories by fanotify(7) with names. The marks are on single directories, which any user may set.
#[derive(Debug)]
pub struct DirectoryWatch(OwnedFd);

const NAMES: u64 = libc::FAN_CREATE | libc::FAN_DELETE | libc::FAN_MOVED_FROM | libc::FAN_MOVED_TO;
const WATCHED: u64 = NAMES
    | libc::FAN_MODIFY
    | libc::FAN_CLOSE_WRITE
    | libc::FAN_ATTRIB
    | libc::FAN_ONDIR
    | libc::FAN_EVENT_ON_CHILD;

impl DirectoryWatch {
    /// A watch without directories.
    pub fn new() -> io::Result<DirectoryWatch> {
        let flags = libc::FAN_CLASS_NOTIF
            | libc::FAN_REPORT_DIR_FID
            | libc::FAN_REPORT_NAME
            | libc::FAN_CLOEXEC
            | libc::FAN_NONBLOCK;
        // SAFETY: plain integers. The result is a new descriptor that nothing else holds.
        unsafe {
            match libc::fanotify_init(flags, libc::O_RDONLY as libc::c_uint) {
                -1 => Err(io::Error::last_os_error()),
                fd => Ok(DirectoryWatch(OwnedFd::from_raw_fd(fd))),
            }
        }
    }

    /// Watch a directory, given by a descriptor of any kind. Watching it twice has no effect.
    pub fn add(&self, directory: BorrowedFd<'_>) -> io::Result<()> {
        self.mark(libc::FAN_MARK_ADD, directory)
    }

    /// Stop watching a directory.
    pub fn remove(&self, directory: BorrowedFd<'_>) -> io::Result<()> {
        self.mark(libc::FAN_MARK_REMOVE, directory)
    }

    fn mark(&self, what: libc::c_uint, directory: BorrowedFd<'_>) -> io::Result<()> {
        let flags = what | libc::FAN_MARK_ONLYDIR;
        // SAFETY: both descriptors are open, and the path is a NUL-terminated string.
        let done = unsafe {
            libc::fanotify_mark(self.0.as_raw_fd(), flags, WATCHED, directory.as_raw_fd(), c".".as_ptr())
        };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Read the events there are now, at most what fits into `buffer`. False if there was none.
    pub fn read(&self, buffer: &mut [u8], on_event: &mut dyn FnMut(DirectoryEvent<'_>)) -> io::Result<bool> {
        let read = match rustix::io::read(&self.0, &mut *buffer) {
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            read => read?,
        };
        parse_events(&buffer[..read], std::process::id(), on_event);
        Ok(read > 0)
    }
}

impl AsFd for DirectoryWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The layout is in fanotify(7). Records of other types are skipped by their length.
fn parse_events(mut events: &[u8], own: u32, on_event: &mut dyn FnMut(DirectoryEvent<'_>)) {
    const HEAD: usize = 24;
    // Type and length of the record, the filesystem's id, and the length of the handle.
    const RECORD_HEAD: usize = 4 + 8 + 4;
    let u16_at = |from: &[u8], at: usize| u16::from_ne_bytes([from[at], from[at + 1]]) as usize;
    let u32_at =
        |from: &[u8], at: usize| u32::from_ne_bytes(from[at..at + 4].try_into().expect("four bytes"));
    while events.len() >= HEAD {
        let length = (u32_at(events, 0) as usize).clamp(HEAD, events.len());
        let (event, rest) = events.split_at(length);
        events = rest;
        let mask = u64::from_ne_bytes(event[8..16].try_into().expect("eight bytes"));
        let by_us = u32_at(event, 20) == own;
        if mask & libc::FAN_Q_OVERFLOW != 0 {
            on_event(DirectoryEvent::Lost);
            continue;
        }
        let mut records = &event[u16_at(event, 6).clamp(HEAD, length)..];
        while records.len() >= RECORD_HEAD + 4 {
            let length = u16_at(records, 2).clamp(RECORD_HEAD + 4, records.len());
            let (record, rest) = records.split_at(length);
            records = rest;
            let handle_ends = RECORD_HEAD + 4 + u32_at(record, RECORD_HEAD - 4) as usize;
            if record[0] == libc::FAN_EVENT_INFO_TYPE_DFID_NAME && handle_ends <= record.len() {
                let name = record[handle_ends..].split(|byte| *byte == 0).next().unwrap_or_default();
                on_event(DirectoryEvent::Entry {
                    by_us,
                    name_changed: mask & NAMES != 0,
                    directory: &record[RECORD_HEAD..handle_ends],
                    name: OsStr::from_bytes(name),
                });
            }
        }
    }
}

/// Give this thread a descriptor table of its own, with the three standard descriptors alone. If the thread hangs for ever, the process's
/// files are still closed with its other threads.
///
/// # Errors
/// ENOSYS before Linux 5.9, and what a seccomp filter answers. Then the table stays shared.
pub fn unshare_descriptors() -> io::Result<()> {
    // SAFETY: no descriptor is closed that another thread could use: the call makes a new table first, or fails. This thread must have
    // none open, and what it opens from here on is in its own table.
    let done =
        unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Give this process a mount namespace of its own, and with `user` a user namespace in which it may mount.
///
/// # Errors
/// EINVAL when this process has a second thread; EPERM, ENOSPC and others where the machine does not allow it.
pub fn unshare_namespaces(user: bool) -> io::Result<()> {
    let mut flags = UnshareFlags::NEWNS;
    flags.set(UnshareFlags::NEWUSER, user);
    // SAFETY: descriptors stay as they are, so no use of them changes.
    Ok(unsafe { unshare_unsafe(flags) }?)
}

/// The wait(2) status of a process that has ended and that its parent has waited for. `None` before that, and where the kernel does not
/// keep the status (Linux before 6.15).
pub fn exit_status(pidfd: BorrowedFd<'_>) -> Option<i32> {
    // SAFETY: the structure is plain integers, for which zero is a value.
    let mut info: libc::pidfd_info = unsafe { std::mem::zeroed() };
    info.mask = u64::from(libc::PIDFD_INFO_EXIT);
    // SAFETY: the descriptor is open, and the request encodes the size of the structure, which outlives the call.
    let done = unsafe { libc::ioctl(pidfd.as_raw_fd(), libc::PIDFD_GET_INFO, &mut info) };
    (done == 0 && info.mask & u64::from(libc::PIDFD_INFO_EXIT) != 0).then_some(info.exit_code)
}

/// Whether the kernel keeps the exit status of a process with its pidfd ([`exit_status`]). A child is forked to find out, and ends at once.
///
/// # Errors
/// Those of fork(2) and pidfd_open(2).
pub fn exit_status_is_kept() -> io::Result<bool> {
    // SAFETY: the child only exits, which is allowed even if other threads hold locks.
    let child = match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()),
        // SAFETY: it ends the child, without any of this program's clean-up.
        0 => unsafe { libc::_exit(0) },
        child => Pid::from_raw(child).expect("a process that was made has a number"),
    };
    let descriptor = pidfd_open(child, PidfdFlags::empty());
    waitpid(Some(child), WaitOptions::empty())?;
    Ok(exit_status(descriptor?.as_fd()).is_some())
}

/// Attach a filter to a socket. A message passes if `number` is at offset `at`, and if one of `one_of`'s numbers is at its offset. A number
/// is four bytes in this machine's byte order.
///
/// # Errors
/// Those of setsockopt(2); EINVAL for more than about 2,000 numbers.
pub fn filter_messages(
    socket: impl AsFd,
    (at, number): (usize, u32),
    one_of: Option<(usize, &[u32])>,
) -> io::Result<()> {
    let step =
        |code, k, on_true, on_false| libc::sock_filter { code: code as u16, jt: on_true, jf: on_false, k };
    let load = |at: usize| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at as u32, 0, 0);
    // A load converts from network byte order. `then` and `or` are the steps skipped if the number is equal, or not.
    let is =
        |number: u32, then, or| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number.to_be(), then, or);
    let (drop, pass) =
        (step(libc::BPF_RET | libc::BPF_K, 0, 0, 0), step(libc::BPF_RET | libc::BPF_K, u32::MAX, 0, 0));
    let mut steps = vec![load(at), is(number, 1, 0), drop];
    match one_of {
        Some((at, numbers)) => {
            steps.push(load(at));
            steps.extend(numbers.iter().flat_map(|number| [is(*number, 0, 1), pass]));
            steps.push(drop);
        }
        None => steps.push(pass),
    }
    let program = libc::sock_fprog {
        len: u16::try_from(steps.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: the kernel copies the program, which outlives the call and has the length given.
    let set = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn what_is_created_belongs_to_the_caller_and_the_thread_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let owner_of = |name: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            let meta = std::fs::metadata(path).unwrap();
            (meta.uid(), meta.gid())
        };
        std::thread::scope(|scope| {
            // A thread of its own, because the secure bits stay with it.
            scope.spawn(|| {
                keep_capabilities().unwrap();
                let own = own_ids();
                let acting = create_as(4321, 1234);
                let expected = if own.0 == 0 { (4321, 1234) } else { own };
                assert_eq!(owner_of("theirs"), expected);
                drop(acting);
                assert_eq!(owner_of("ours"), own);
            });
        });
    }

    #[test]
    fn a_watch_tells_who_did_what_where() {
        let dir = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap();
        let Ok(watch) = DirectoryWatch::new() else { return eprintln!("skipped: no fanotify") };
        watch.add(fd.as_fd()).unwrap();
        let handle = handle_of(fd.as_fd()).unwrap();
        std::fs::write(dir.path().join("ours"), "x").unwrap();
        let there = dir.path().join("theirs");
        assert!(std::process::Command::new("touch").arg(there).status().unwrap().success());
        let mut heard = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        while watch
            .read(&mut buffer, &mut |event| {
                let DirectoryEvent::Entry { by_us, name_changed, directory, name } = event else { return };
                assert_eq!(directory, &*handle);
                heard.push((by_us, name_changed, name.to_str().unwrap().to_owned()));
            })
            .unwrap()
        {}
        let told = |by_us, changed, name: &str| heard.contains(&(by_us, changed, name.to_owned()));
        assert!(told(true, true, "ours") && told(false, true, "theirs"), "{heard:?}");
        assert!(!told(true, true, "theirs") && !told(false, true, "ours"), "{heard:?}");
        watch.remove(fd.as_fd()).unwrap();
        std::fs::write(dir.path().join("ours"), "y").unwrap();
        assert!(!watch.read(&mut buffer, &mut |_| ()).unwrap());
    }

    #[test]
    fn a_handle_leads_to_its_file_whatever_that_is_called() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
        std::fs::write(&a, "content").unwrap();
        let handle = handle_of(std::fs::File::open(&a).unwrap().as_fd()).unwrap();
        std::fs::rename(&a, &b).unwrap();
        std::fs::write(&a, "another").unwrap();
        let mount = std::fs::File::open(dir.path()).unwrap();
        let opened = match open_handle(mount.as_fd(), &handle) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                return eprintln!("skipped: this user may not open by handle");
            }
            opened => opened.unwrap(),
        };
        let ino = |meta: std::fs::Metadata| meta.ino();
        let there = rustix::fs::fstat(&opened).unwrap().st_ino;
        assert_eq!(there, ino(std::fs::metadata(&b).unwrap()));
        drop(opened);
        std::fs::remove_file(&b).unwrap();
        assert_eq!(open_handle(mount.as_fd(), &handle).unwrap_err().raw_os_error(), Some(libc::ESTALE));
        assert!(open_handle(mount.as_fd(), &[1]).is_err());
    }

    #[test]
    fn broken_events_are_passed_over() {
        let mut heard = 0;
        for length in 0..64 {
            parse_events(&vec![0xff; length], 1, &mut |_| heard += 1);
            parse_events(&vec![0; length], 1, &mut |_| heard += 1);
        }
        assert!(heard < 64);
    }
}
