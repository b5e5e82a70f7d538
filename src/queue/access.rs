//! Who may read the file of a task, and so its text (C18): judged as the kernel does, from owner, group, mode and POSIX ACL.
//!
//! May assume: the numbers are those of the file system, as the daemon sees them.
//! Must never: look for the user or the groups of a caller: they are given.

use serde::{Deserialize, Serialize};

/// Kinds of entries of an ACL (`include/uapi/linux/posix_acl.h`).
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;

/// What a caller wants to do with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Read it.
    Read = 4,
    /// Write it; of a directory, to make and remove names in it.
    Write = 2,
}

/// Whose a file is, and what its mode and its ACL allow.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Access {
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its permissions.
    pub mode: u16,
    /// The ACL, where that says more than the mode: tag, permissions and id of each entry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acl: Vec<(u16, u16, u32)>,
}

impl Access {
    /// Whether every user may read it.
    pub fn is_for_everybody(&self) -> bool {
        self.acl.is_empty() && self.mode & 0o444 == 0o444
    }

    /// Whether a user may do that. `is_in` tells whether it is in one of these groups; that may cost something, and is asked where it
    /// matters.
    pub fn allows(&self, uid: u32, wanted: Wanted, is_in: impl Fn(&[u32]) -> bool) -> bool {
        let allowed = |bits: u16| bits & wanted as u16 != 0;
        if uid == self.uid {
            return allowed(self.mode >> 6);
        }
        if self.acl.is_empty() {
            // A member of the group has what the group has, even if all others have more.
            let (group, others) = (allowed(self.mode >> 3), allowed(self.mode));
            return if group == others { others } else { group == is_in(&[self.gid]) };
        }
        let mask = self.acl.iter().find(|(tag, ..)| *tag == MASK).map_or(7, |(_, mask, _)| *mask);
        if let Some((_, user, _)) = self.acl.iter().find(|(tag, _, id)| *tag == USER && *id == uid) {
            return allowed(user & mask);
        }
        let groups = |granting: bool| -> Vec<u32> {
            let of = self.acl.iter().filter(|(tag, ..)| matches!(*tag, GROUP_OBJ | GROUP));
            let of = of.filter(|(_, bits, _)| !granting || allowed(*bits));
            of.map(|(tag, _, id)| if *tag == GROUP { *id } else { self.gid }).collect()
        };
        if is_in(&groups(true)) {
            return allowed(mask);
        }
        allowed(self.mode) && !is_in(&groups(false))
    }
}

/// Whose eyes see something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Eyes {
    /// Those of a user who may read everything.
    All,
    /// Those of a user, who is in these groups.
    User {
        /// The user.
        uid: u32,
        /// The groups.
        groups: Vec<u32>,
    },
}

impl Eyes {
    /// Those of a user without rights: what they may see, every user may see.
    pub const ANYBODY: Eyes = Eyes::User { uid: u32::MAX, groups: Vec::new() };

    /// Whether they may see what is in a file of which this is known; nothing is known of files that every user may read.
    pub fn may_read<'a>(&self, files: impl IntoIterator<Item = &'a Access>) -> bool {
        match self {
            Eyes::All => true,
            Eyes::User { uid, groups } => files.into_iter().all(|file| {
                file.allows(*uid, Wanted::Read, |of| of.iter().any(|group| groups.contains(group)))
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
