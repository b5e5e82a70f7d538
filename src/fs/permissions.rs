//! Whether a caller may read or write a file, according to the file's own mode and ACL.
//!
//! May assume: the caller waits for the answer, so its groups do not change meanwhile.
//! Must never: grant a right that it cannot verify. If an ACL cannot be read or understood, only the owner has access.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use rustix::fs::{AtFlags, fstat, getxattr, lgetxattr, statat};
use rustix::io::Errno;

use super::Request;
use super::rights::{self, Owner};
use crate::limits::XATTR_MAX;
use crate::queue::{Access, Wanted};

const ACCESS_ACL: &str = "system.posix_acl_access";
/// The version of the ACL format (`include/uapi/linux/posix_acl_xattr.h`).
const VERSION: u32 = 2;

/// The owner, mode and ACL of a descriptor's file; the descriptor may be an O_PATH one.
pub(super) fn access_of(file: impl AsFd) -> Result<Access, Errno> {
    let stat = fstat(file.as_fd())?;
    let mode = (stat.st_mode & 0o777) as u16;
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    let mut value = [0; 1024];
    let acl = match getxattr(&path, ACCESS_ACL, &mut value) {
        Ok(length) => parse(&value[..length]),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Some(Vec::new()),
        Err(Errno::RANGE) => {
            let mut value = vec![0; XATTR_MAX];
            getxattr(&path, ACCESS_ACL, &mut value[..]).ok().and_then(|length| parse(&value[..length]))
        }
        Err(_) => None,
    };
    let (mode, acl) = acl.map_or((mode & 0o700, Vec::new()), |acl| (mode, acl));
    Ok(Access { uid: stat.st_uid, gid: stat.st_gid, mode, acl })
}

/// Whether every user can certainly read a file in a directory.
pub(super) fn is_for_everybody(directory: impl AsFd, name: &OsStr) -> bool {
    let path = Path::new("/proc/self/fd").join(directory.as_fd().as_raw_fd().to_string()).join(name);
    let mode = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_or(0, |stat| stat.st_mode);
    mode & 0o444 == 0o444
        && matches!(lgetxattr(&path, ACCESS_ACL, &mut [0; 0]), Err(Errno::NODATA | Errno::OPNOTSUPP))
}

/// Whether this caller may do what is `wanted` with a file.
pub(super) fn allow(access: &Access, req: &Request, wanted: Wanted) -> bool {
    access.allows(req.uid, wanted, |groups| {
        groups.contains(&req.gid) || rights::groups_of(req.tid).iter().any(|group| groups.contains(group))
    }) || rights::overrides(req, wanted == Wanted::Read, Owner { uid: access.uid, gid: access.gid })
}

/// The entries of an ACL; `None` if it cannot be understood.
fn parse(value: &[u8]) -> Option<Vec<(u16, u16, u32)>> {
    let (version, entries) = value.split_at_checked(4)?;
    if version != VERSION.to_le_bytes() || entries.len() % 8 != 0 {
        return None;
    }
    let entry = |bytes: &[u8]| {
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        (half(0), half(2), u32::from(half(4)) | u32::from(half(6)) << 16)
    };
    Some(entries.chunks_exact(8).map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acl_is_parsed_or_refused() {
        let bytes = [2, 0, 0, 0, 2, 0, 6, 0, 0x39, 0x30, 1, 0];
        assert_eq!(parse(&bytes), Some(vec![(2, 6, 0x1_3039)]));
        assert_eq!(parse(&bytes[..11]), None);
        assert_eq!(parse(&[3, 0, 0, 0]), None);
        assert_eq!(parse(&[]), None);
    }
}
