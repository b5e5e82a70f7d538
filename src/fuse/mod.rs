//! The kernel's side: mount a [`Filesystem`], serve it, and invalidate what the kernel has cached.
//!
//! Must never: decide anything about files. Only the files of this folder may name fuser.

mod adapter;
mod convert;
mod trial;

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use fuser::{INodeNo, MountOption, SessionACL};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};
use rustix::process::{getegid, geteuid};

use self::adapter::Adapter;
pub use self::trial::{KernelOffer, TrialMount};
use crate::fs::identity::callers::Callers;
use crate::fs::{Filesystem, Ino, Kernel};
use crate::mountpoint::{Device, MountPoint, device_of, unmount_by_helper};
use crate::mounts;

/// The type of our mounts in the table of mounts, after `fuse.`.
const SUBTYPE: &str = "crewfs";

/// How a filesystem is mounted. Always with `default_permissions`, `nosuid` and `nodev`: files that agents leave in a shared directory
/// must not become privileged.
#[derive(Debug, Clone)]
pub struct MountOptions {
    /// The source of the mount, as the table of mounts shows it.
    pub fsname: String,
    /// The mount is read-only.
    pub read_only: bool,
    /// Users other than the one that mounts may use it.
    pub allow_other: bool,
    /// How many threads serve it.
    pub threads: usize,
}

/// A mounted filesystem, served by threads in the background. Dropping it leaves it mounted and served.
pub struct Session {
    device: Device,
    notifier: fuser::Notifier,
    server: JoinHandle<io::Result<()>>,
}

impl Session {
    /// Mount `fs` on `target`, the directory at `place`, and serve it. When this returns, the kernel's first request is answered and
    /// threads serve the others. On failure nothing is mounted.
    pub fn mount<F: Filesystem>(
        fs: Arc<F>,
        callers: Arc<Callers>,
        place: &MountPoint,
        target: &OwnedFd,
        options: &MountOptions,
    ) -> io::Result<Session> {
        let mut config = fuser::Config::default();
        config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
        config.n_threads = Some(options.threads.max(1));
        config.clone_fd = true;
        let adapter = Adapter::new(fs, callers, options.threads.max(1));
        if geteuid().is_root() {
            let (connection, mount) = make_mount(options)?;
            let device = device_of(&mount)?;
            let session = fuser::Session::from_fd(adapter, connection, config.acl, config)?;
            let session = Session::serve(session, device)?;
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            move_mount(mount, "", target, "", flags)?;
            return Ok(session);
        }
        config.mount_options = vec![
            MountOption::FSName(options.fsname.clone()),
            MountOption::Subtype(SUBTYPE.to_owned()),
            MountOption::DefaultPermissions,
            MountOption::NoSuid,
            MountOption::NoDev,
            if options.read_only { MountOption::RO } else { MountOption::RW },
        ];
        // fusermount3 takes only a path. Where the path has led is checked afterwards.
        let before = mounts::ours()?;
        let session = fuser::Session::new(adapter, place.shown(), &config)?;
        let mine: Vec<_> = mounts::ours()?
            .into_iter()
            .filter(|mount| mount.is_of(&options.fsname) && !before.contains(mount))
            .collect();
        let there = place.open().and_then(device_of);
        if let Some(mount) = mine.iter().find(|mount| there == Ok(mount.device)) {
            return Session::serve(session, mount.device);
        }
        for mount in mine {
            let _ = unmount_by_helper(&mount.mountpoint, true);
        }
        Err(io::Error::other("its path leads elsewhere by now; find out who changes it, and try again"))
    }

    fn serve<F: Filesystem>(session: fuser::Session<Adapter<F>>, device: Device) -> io::Result<Session> {
        let notifier = session.notifier();
        let server = std::thread::Builder::new().name("fuse".to_owned()).spawn(move || session.run())?;
        Ok(Session { device, notifier, server })
    }

    /// Whether the session is over: unmounted, and no longer in use.
    pub fn has_ended(&self) -> bool {
        self.server.is_finished()
    }

    /// Unmount. EBUSY while the mount is in use. With `detach` it leaves the directory at once, and the session ends with its last user.
    /// EINVAL if another mount is at that place.
    pub fn unmount(&self, place: &MountPoint, detach: bool) -> io::Result<()> {
        if self.has_ended() {
            return Ok(());
        }
        match place.unmount(self.device, detach) {
            // Only fusermount3 may.
            Err(rustix::io::Errno::PERM) => unmount_by_helper(place.shown(), true),
            answer => Ok(answer?),
        }
    }

    /// The device number of the mount's files.
    pub fn device(&self) -> Device {
        self.device
    }

    /// A handle by which the kernel's caches are invalidated.
    pub fn notifier(&self) -> Notifier {
        Notifier(self.notifier.clone())
    }
}

/// A connection to the kernel, and its mount, which is not attached to a directory yet. If the descriptor is closed before that, the
/// mount is gone.
fn make_mount(options: &MountOptions) -> io::Result<(OwnedFd, OwnedFd)> {
    let connection = openat(CWD, "/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let made = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let set = |key: &str, value: &str| fsconfig_set_string(&made, key, value);
    set("source", &options.fsname)?;
    // findmnt and crewfs recognise our mounts by it.
    set("subtype", SUBTYPE)?;
    set("fd", &connection.as_raw_fd().to_string())?;
    set("rootmode", &format!("{:o}", libc::S_IFDIR))?;
    set("user_id", &geteuid().as_raw().to_string())?;
    set("group_id", &getegid().as_raw().to_string())?;
    fsconfig_set_flag(&made, "default_permissions")?;
    if options.allow_other {
        fsconfig_set_flag(&made, "allow_other")?;
    }
    fsconfig_create(&made)?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, options.read_only);
    let mount = fsmount(&made, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    Ok((connection, mount))
}

/// Invalidates what the kernel has cached.
#[derive(Debug, Clone)]
pub struct Notifier(fuser::Notifier);

/// On an error the kernel does not know the node or the name, or the session is over.
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
