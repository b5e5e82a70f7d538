//! Which users may read the file of a task, and so its text (C18). The rules are those of the kernel: owner, group, mode and POSIX ACL.
//!
//! May assume: uids and gids are those of the file system, as the daemon sees them.
//! Must never: look up the user or the groups of a caller. The caller passes them.

use serde::{Deserialize, Serialize};

/// Tags of ACL entries (`include/uapi/linux/posix_acl.h`).
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;

/// The right that a caller needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Read the file.
    Read = 4,
    /// Write the file. For a directory: create and remove names in it.
    Write = 2,
}

/// The owner, group, mode and ACL of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Access {
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The permission bits.
    pub mode: u16,
    /// The ACL, if it says more than the mode: tag, permissions and id of each entry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acl: Vec<(u16, u16, u32)>,
}

impl Access {
    /// Whether every user may read the file.
    pub fn is_for_everybody(&self) -> bool {
        self.acl.is_empty() && self.mode & 0o444 == 0o444
    }

    /// Whether a user has this right. `is_in` returns whether the user is in one of the groups. It may be slow, so it is called only where
    /// the answer depends on it.
    pub fn allows(&self, uid: u32, wanted: Wanted, is_in: impl Fn(&[u32]) -> bool) -> bool {
        let allowed = |bits: u16| bits & wanted as u16 != 0;
        if uid == self.uid {
            return allowed(self.mode >> 6);
        }
        if self.acl.is_empty() {
            // The group's permissions hold for its members, even if they are less than those of all others.
            let (group, others) = (allowed(self.mode >> 3), allowed(self.mode));
            return if group == others { others } else { group == is_in(&[self.gid]) };
        }
        let mask = self.acl.iter().find(|(tag, ..)| *tag == MASK).map_or(7, |(_, mask, _)| *mask);
        if let Some((_, user, _)) = self.acl.iter().find(|(tag, _, id)| *tag == USER && *id == uid) {
            return allowed(user & mask);
        }
        let groups = |granting: bool| -> Vec<u32> {
            let entries = self.acl.iter().filter(|(tag, ..)| matches!(*tag, GROUP_OBJ | GROUP));
            let entries = entries.filter(|(_, bits, _)| !granting || allowed(*bits));
            entries.map(|(tag, _, id)| if *tag == GROUP { *id } else { self.gid }).collect()
        };
        if is_in(&groups(true)) {
            return allowed(mask);
        }
        allowed(self.mode) && !is_in(&groups(false))
    }
}

/// The user for whom a text is shown or withheld.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Eyes {
    /// A user that may read every file.
    All,
    /// Any other user, with its groups.
    User {
        /// The user.
        uid: u32,
        /// The groups.
        groups: Vec<u32>,
    },
}

impl Eyes {
    /// A user without special rights. What this user may see, every user may see.
    pub const ANYBODY: Eyes = Eyes::User { uid: u32::MAX, groups: Vec::new() };

    /// Whether the user may read all these files. Files that every user may read have no [`Access`] and are left out.
    pub fn may_read<'a>(&self, files: impl IntoIterator<Item = &'a Access>) -> bool {
        match self {
            Eyes::All => true,
            Eyes::User { uid, groups } => files.into_iter().all(|file| {
                file.allows(*uid, Wanted::Read, |wanted| wanted.iter().any(|group| groups.contains(group)))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(mode: u16, acl: &[(u16, u16, u32)]) -> Access {
        Access { uid: 5, gid: 7, mode, acl: acl.to_vec() }
    }

    #[test]
    fn a_mode_is_read_like_the_kernel_reads_it() {
        // Mode; uid of the caller, and whether it is in the group 7.
        for (mode, uid, in_group, reads) in [
            (0o400, 5, false, true),
            (0o400, 6, true, false),
            (0o040, 6, true, true),
            (0o040, 6, false, false),
            (0o404, 6, true, false),
            (0o404, 6, false, true),
            (0o044, 5, true, false),
        ] {
            let groups = if in_group { vec![1, 7] } else { vec![1] };
            let eyes = Eyes::User { uid, groups };
            assert_eq!(eyes.may_read([&access(mode, &[])]), reads, "{mode:o} {uid}");
            assert!(Eyes::All.may_read([&access(mode, &[])]));
        }
        assert!(access(0o644, &[]).is_for_everybody() && !access(0o604, &[]).is_for_everybody());
    }

    #[test]
    fn an_acl_names_users_and_groups_up_to_its_mask() {
        let entries = [
            (1, 6, 0),
            (USER, 6, 8),
            (USER, 0, 9),
            (GROUP_OBJ, 4, 0),
            (GROUP, 6, 20),
            (MASK, 6, 0),
            (32, 4, 0),
        ];
        let file = access(0o664, &entries);
        let may = |uid, group: u32, wanted| file.allows(uid, wanted, |groups| groups.contains(&group));
        assert!(may(8, 99, Wanted::Write) && !may(9, 20, Wanted::Read), "of a named user no group counts");
        assert!(may(10, 20, Wanted::Write) && may(10, 7, Wanted::Read) && !may(10, 7, Wanted::Write));
        assert!(may(10, 99, Wanted::Read) && !may(10, 99, Wanted::Write));
        let masked = access(0o664, &[(USER, 6, 8), (GROUP_OBJ, 6, 0), (MASK, 4, 0)]);
        assert!(!masked.allows(8, Wanted::Write, |_| false) && !masked.allows(10, Wanted::Write, |_| true));
    }
}
