//! The kernel's side: mount a [`Filesystem`], serve it, and tell the kernel what to forget.
//!
//! Must never: decide anything about files. Nothing but this file and those below `fuse/` may name fuser.

mod adapter;
mod convert;

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use fuser::{INodeNo, MountOption, SessionACL, SessionUnmounter};
use parking_lot::Mutex;
use rustix::fs::{CWD, Mode, OFlags, openat, stat};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{getegid, geteuid};

use self::adapter::Adapter;
use crate::fs::{Filesystem, Ino, Kernel};

/// What our mounts are called after `fuse.` in the table of mounts.
const SUBTYPE: &str = "crewfs";

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
        let adapter = Adapter::new(fs, options.threads.max(1));

        let mut session = if geteuid().is_root() {
            let device = mount_as_root(&mountpoint, options)?;
            fuser::Session::from_fd(adapter, device, config.acl, config).inspect_err(|_| {
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
            fuser::Session::new(adapter, &mountpoint, &config)?
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

/// Tells the kernel what it must no longer believe.
#[derive(Debug, Clone)]
pub struct Notifier(fuser::Notifier);

/// An error means that the kernel does not know the node or the name, or that the session is over.
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
