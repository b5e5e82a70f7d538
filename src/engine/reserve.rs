//! The reserve: disk space that is held back, so that claimed tasks can be finished on a full disk while no new work is accepted.
//!
//! May assume: a write of the log failed for lack of space before [`Reserve::give_up`] is called.
//! Must never: fail a command. Without a reserve, a full disk is only noticed later.

use std::sync::Arc;

use rustix::fs::{FallocateFlags, OFlags};

use crate::limits::RESERVED_BYTES;
use crate::state_directory::StateDirectory;

/// The file in the state directory that holds the space.
pub const FILE: &str = "reserve";

/// The reserve of one state directory.
pub struct Reserve {
    directory: Arc<StateDirectory>,
    held: bool,
}

impl Reserve {
    /// Takes the reserve if the disk has the space.
    pub fn take(directory: Arc<StateDirectory>) -> Reserve {
        let mut reserve = Reserve { directory, held: false };
        reserve.retake();
        reserve
    }

    /// Whether the reserve is held. If it is, there is space for new work.
    pub fn held(&self) -> bool {
        self.held
    }

    /// Notes that the file was removed, and with it the space.
    pub fn mark_missing(&mut self) {
        self.held = false;
    }

    /// Frees the space. Returns whether the reserve was held.
    pub fn give_up(&mut self) -> bool {
        let freed = std::mem::take(&mut self.held);
        let _ = self.directory.remove(FILE);
        freed
    }

    /// Takes the reserve again if there is twice as much free space, because the reserve itself must not fill the disk.
    pub fn retake(&mut self) -> bool {
        let free = rustix::fs::fstatvfs(&*self.directory.descriptor())
            .map_or(0, |fs| fs.f_bavail.saturating_mul(fs.f_frsize));
        if !self.held && free > 2 * RESERVED_BYTES {
            let flags = OFlags::WRONLY | OFlags::CREATE;
            self.held = self.directory.open(FILE, flags).is_ok_and(|file| {
                rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, RESERVED_BYTES)
                    // Not every file system has fallocate. Where it is missing, the reserve counts as held.
                    .map_or_else(|errno| errno == rustix::io::Errno::OPNOTSUPP, |()| true)
            });
        }
        self.held
    }
}
