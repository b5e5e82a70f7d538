//! Whether a caller may read or write a file: judged as the kernel does, from mode, groups and POSIX ACL.
//!
//! May assume: the caller waits for the answer, so its groups are those with which it asks.
//! Must never: grant what it cannot see. An ACL that cannot be read or understood leaves only the owner.

use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{fstat, getxattr};
use rustix::io::Errno;

use super::Request;
use super::rights::{self, Owner};
use crate::limits::XATTR_MAX;

const ACCESS_ACL: &str = "system.posix_acl_access";
/// The version of the format, and the kinds of entries (`include/uapi/linux/posix_acl_xattr.h`, `posix_acl.h`).
const VERSION: u32 = 2;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Read it.
    Read = 4,
    /// Write it; of a directory, to make and remove names in it.
    Write = 2,
}

/// Whose a file is, and what its mode and its ACL allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Permissions {
    uid: u32,
    gid: u32,
    mode: u16,
    acl: Vec<Entry>,
}

/// One entry of an ACL that says more than the mode does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    tag: u16,
    allows: u16,
    id: u32,
}

impl Permissions {
    /// Those of what a descriptor, perhaps of O_PATH, leads to.
    pub(super) fn of(file: impl AsFd) -> Result<Permissions, Errno> {
        let stat = fstat(file.as_fd())?;
        let (uid, gid, mode) = (stat.st_uid, stat.st_gid, (stat.st_mode & 0o777) as u16);
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
        Ok(match acl {
            Some(acl) => Permissions { uid, gid, mode, acl },
            None => Permissions { uid, gid, mode: mode & 0o700, acl: Vec::new() },
        })
    }

    /// Whether this caller may do that.
    pub(super) fn allow(&self, req: &Request, wanted: Wanted) -> bool {
        self.say(req.uid, wanted, |groups| {
            groups.contains(&req.gid) || rights::groups_of(req.tid).iter().any(|group| groups.contains(group))
        }) || rights::overrides(req, wanted == Wanted::Read, Owner { uid: self.uid, gid: self.gid })
    }

    /// `is_in` tells whether the caller is in one of these groups. It may cost something, and is asked where it matters.
    fn say(&self, uid: u32, wanted: Wanted, is_in: impl Fn(&[u32]) -> bool) -> bool {
        let wanted = wanted as u16;
        let allowed = |bits: u16| bits & wanted != 0;
        if uid == self.uid {
            return allowed(self.mode >> 6);
        }
        if self.acl.is_empty() {
            // Who is in the group has what the group has, even if all others have more.
            let (group, others) = (allowed(self.mode >> 3), allowed(self.mode));
            return if group == others { others } else { group == is_in(&[self.gid]) };
        }
        let mask = self.acl.iter().find(|entry| entry.tag == MASK).map_or(7, |mask| mask.allows);
        if let Some(user) = self.acl.iter().find(|entry| entry.tag == USER && entry.id == uid) {
            return allowed(user.allows & mask);
        }
        let groups = |granting: bool| -> Vec<u32> {
            let of = self.acl.iter().filter(|entry| matches!(entry.tag, GROUP_OBJ | GROUP));
            let of = of.filter(|entry| !granting || allowed(entry.allows));
            of.map(|entry| if entry.tag == GROUP { entry.id } else { self.gid }).collect()
        };
        if is_in(&groups(true)) {
            return allowed(mask);
        }
        allowed(self.mode) && !is_in(&groups(false))
    }
}

/// The entries of an ACL; nothing if it cannot be understood.
fn parse(value: &[u8]) -> Option<Vec<Entry>> {
    let (version, entries) = value.split_at_checked(4)?;
    if version != VERSION.to_le_bytes() || entries.len() % 8 != 0 {
        return None;
    }
    let entry = |bytes: &[u8]| {
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Entry { tag: half(0), allows: half(2), id: u32::from(half(4)) | u32::from(half(6)) << 16 }
    };
    Some(entries.chunks_exact(8).map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Vec<Entry> {
        entries.iter().map(|(tag, allows, id)| Entry { tag: *tag, allows: *allows, id: *id }).collect()
    }

    #[test]
    fn a_mode_is_read_like_the_kernel_reads_it() {
        // Owner, group, others; uid of who asks, and whether it is in the group 7.
        for (mode, uid, in_group, reads) in [
            (0o400, 5, false, true),
            (0o400, 6, true, false),
            (0o040, 6, true, true),
            (0o040, 6, false, false),
            (0o404, 6, true, false),
            (0o404, 6, false, true),
            (0o044, 5, true, false),
        ] {
            let file = Permissions { uid: 5, gid: 7, mode, acl: Vec::new() };
            assert_eq!(
                file.say(uid, Wanted::Read, |groups| in_group && groups == [7]),
                reads,
                "{mode:o} {uid}"
            );
        }
    }

    #[test]
    fn an_acl_names_users_and_groups_up_to_its_mask() {
        let entries = acl(&[
            (1, 6, 0),
            (USER, 6, 8),
            (USER, 0, 9),
            (GROUP_OBJ, 4, 0),
            (GROUP, 6, 20),
            (MASK, 6, 0),
            (0x20, 4, 0),
        ]);
        let file = Permissions { uid: 5, gid: 7, mode: 0o664, acl: entries };
        let may = |uid, group: u32, wanted| file.say(uid, wanted, |groups| groups.contains(&group));
        assert!(may(8, 99, Wanted::Write) && !may(9, 20, Wanted::Read), "who is named is asked for no group");
        assert!(may(10, 20, Wanted::Write) && may(10, 7, Wanted::Read) && !may(10, 7, Wanted::Write));
        assert!(may(10, 99, Wanted::Read) && !may(10, 99, Wanted::Write));
        let masked = Permissions { acl: acl(&[(USER, 6, 8), (GROUP_OBJ, 6, 0), (MASK, 4, 0)]), ..file };
        assert!(!masked.say(8, Wanted::Write, |_| false) && !masked.say(10, Wanted::Write, |_| true));
    }

    #[test]
    fn an_acl_is_parsed_or_not_believed() {
        let bytes = [2, 0, 0, 0, 2, 0, 6, 0, 0x39, 0x30, 1, 0];
        assert_eq!(parse(&bytes), Some(acl(&[(USER, 6, 0x1_3039)])));
        assert_eq!(parse(&bytes[..11]), None);
        assert_eq!(parse(&[3, 0, 0, 0]), None);
        assert_eq!(parse(&[]), None);
    }
}
