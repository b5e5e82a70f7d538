//! A trial mount: whether the kernel lets this process mount, and what it offers to a filesystem. It serves nothing, and is gone with
//! its descriptors.
//!
//! Must never: answer the kernel, or be visible outside of this process's own mount namespace.

use std::io;
use std::os::fd::OwnedFd;

use fuser::InitFlags;
use rustix::mount::{MoveMountFlags, move_mount};

use super::adapter::UNREPORTED;
use super::{MountOptions, make_mount};

/// The kernel writes nothing into a buffer that is smaller than this (`FUSE_MIN_READ_BUFFER`).
const ROOM: usize = 8192;
/// The offset of the first request's numbers, behind its header: the version of the protocol (major and minor), how far the kernel
/// reads ahead, the flags, and more flags.
const VERSION: usize = 40;
const FLAGS: usize = VERSION + 12;
const FURTHER_FLAGS: usize = VERSION + 16;

/// A mount that is not attached to a directory.
pub struct TrialMount {
    connection: OwnedFd,
    mount: OwnedFd,
}

/// What the kernel offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelOffer {
    /// Its version of the protocol, after 7.
    pub minor: u32,
    /// Each feature that the tree uses, and whether the kernel offers it.
    pub features: Vec<(&'static str, bool)>,
}

impl TrialMount {
    /// Make a trial mount.
    ///
    /// # Errors
    /// Why this process cannot.
    pub fn make() -> io::Result<TrialMount> {
        let options =
            MountOptions { fsname: "nothing".into(), read_only: true, allow_other: false, threads: 1 };
        let (connection, mount) = make_mount(&options)?;
        Ok(TrialMount { connection, mount })
    }

    /// What the kernel offers, as its first request says.
    ///
    /// # Errors
    /// If the kernel has written something else.
    pub fn offer(&self) -> io::Result<KernelOffer> {
        let mut request = [0; ROOM];
        let length = rustix::io::read(&self.connection, &mut request[..])?;
        parse(&request[..length]).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Attach it to a directory, in a mount namespace of this process alone.
    ///
    /// # Errors
    /// Why this process may not.
    pub fn appear(self, place: &OwnedFd) -> io::Result<()> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        Ok(move_mount(&self.mount, "", place, "", flags)?)
    }
}

fn parse(request: &[u8]) -> Option<KernelOffer> {
    let number = |at: usize| {
        let bytes = request.get(at..at + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    let minor = number(VERSION + 4)?;
    // Kernels before 5.17 write no more flags.
    let flags = u64::from(number(FLAGS)?) | u64::from(number(FURTHER_FLAGS).unwrap_or_default()) << 32;
    let flags = InitFlags::from_bits_retain(flags);
    let features = UNREPORTED.iter().map(|(name, flag)| (*name, flags.contains(*flag))).collect();
    Some(KernelOffer { minor, features })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_request_says_what_is_offered() {
        let mut request = vec![0; VERSION];
        for number in [7_u32, 32, 65_536, InitFlags::FUSE_DO_READDIRPLUS.bits() as u32] {
            request.extend(number.to_ne_bytes());
        }
        let offer = parse(&request).unwrap();
        assert_eq!(offer.minor, 32);
        let offered: Vec<_> = offer.features.iter().filter(|(_, offered)| *offered).collect();
        assert_eq!(offered, [&("readdirplus", true)]);
        assert_eq!(parse(&request[..VERSION]), None);
    }
}
