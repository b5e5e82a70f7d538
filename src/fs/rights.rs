//! The rights that a caller has by its supplementary groups and its capabilities, which a request does not carry.
//!
//! May assume: the caller waits for the answer. Reading its `status` and its id maps in `/proc` takes no lock of the process.
//! Must never: grant a right that it cannot verify. A caller without a thread id has only the rights of its uid and gid.

use std::fs;

use super::Request;

/// `CAP_DAC_OVERRIDE` of Linux: to read and write files whatever their permissions.
const DAC_OVERRIDE: u32 = 1;
/// `CAP_DAC_READ_SEARCH` of Linux: to read files whatever their permissions.
const DAC_READ_SEARCH: u32 = 2;
/// `CAP_FOWNER` of Linux: to change files as their owner may.
const FOWNER: u32 = 3;
/// `CAP_FSETID` of Linux: to keep set-id bits that a change by other callers clears.
const FSETID: u32 = 4;

/// The owner of a file, and its group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    /// Its owner.
    pub(super) uid: u32,
    /// Its group.
    pub(super) gid: u32,
}

/// Whether a set-group-id bit may stay on a file of this owner when the caller changes it: the caller is in the file's group, or
/// privileged.
pub(super) fn keeps_set_gid(req: &Request, file: Owner) -> bool {
    if req.gid == file.gid {
        return true;
    }
    let status = status_of(req.tid);
    groups(&status).any(|group| group == file.gid) || is_capable(req, &status, FSETID, file)
}

/// Whether set-id bits stay on every file that the caller writes: the caller is privileged in the daemon's own user namespace.
pub(super) fn keeps_set_ids(req: &Request) -> bool {
    let map = |process: &str| fs::read(format!("/proc/{process}/uid_map")).ok();
    match has(&status_of(req.tid), FSETID) {
        Some(has) => has && map(&req.tid.to_string()) == map("self"),
        None => req.uid == 0,
    }
}

/// Whether the caller may do to a file of this owner what only an owner may.
pub(super) fn acts_as_owner(req: &Request, file: Owner) -> bool {
    req.uid == file.uid || is_capable(req, &status_of(req.tid), FOWNER, file)
}

/// Whether the caller may read a file of this owner, or read and write it, whatever its permissions are.
pub(super) fn overrides(req: &Request, to_read: bool, file: Owner) -> bool {
    let status = status_of(req.tid);
    is_capable(req, &status, DAC_OVERRIDE, file) || to_read && is_capable(req, &status, DAC_READ_SEARCH, file)
}

/// The supplementary groups of a thread; none if its status cannot be read.
pub(super) fn groups_of(tid: u32) -> Vec<u32> {
    groups(&status_of(tid)).collect()
}

/// The `status` of a thread in `/proc`; empty if it cannot be read.
fn status_of(tid: u32) -> String {
    match tid {
        0 => String::new(),
        tid => {
            let status = fs::read(format!("/proc/{tid}/status")).unwrap_or_default();
            // The process name in it can be any bytes.
            String::from_utf8_lossy(&status).into_owned()
        }
    }
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name))
}

fn groups(status: &str) -> impl Iterator<Item = u32> {
    field(status, "Groups:")
        .unwrap_or_default()
        .split_ascii_whitespace()
        .filter_map(|group| group.parse().ok())
}

/// Whether a thread with this status has a capability in its user namespace; `None` if the status does not say it.
fn has(status: &str, capability: u32) -> Option<bool> {
    let effective = u64::from_str_radix(field(status, "CapEff:")?.trim(), 16).ok()?;
    Some(effective >> capability & 1 == 1)
}

/// Whether the caller has a capability over a file: its user namespace must know the file's owner and group.
fn is_capable(req: &Request, status: &str, capability: u32, file: Owner) -> bool {
    let Some(has) = has(status, capability) else { return req.uid == 0 };
    let knows = |map: &str, id| {
        fs::read_to_string(format!("/proc/{}/{map}", req.tid)).is_ok_and(|map| is_mapped(&map, id))
    };
    has && knows("uid_map", file.uid) && knows("gid_map", file.gid)
}

/// Whether an id is in a map: lines of first id inside, first id outside, and count (user_namespaces(7)).
fn is_mapped(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_ascii_whitespace().skip(1).filter_map(|number| number.parse().ok());
        let (Some(first), Some(count)) = (numbers.next(), numbers.next()) else { return false };
        u64::from(id).checked_sub(first).is_some_and(|offset: u64| offset < count)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_capabilities_are_those_of_the_status() {
        let status = "Name:\tGroups:\nUid:\t5\nGroups:\t4 24 1000 \nCapEff:\t0000000000000010\n";
        assert_eq!(groups(status).collect::<Vec<_>>(), [4, 24, 1000]);
        let file = Owner { uid: 0, gid: 0 };
        let req = Request { tid: std::process::id(), uid: 1000, gid: 1000 };
        // Every user namespace maps this process's own owner.
        assert!(is_capable(&req, status, FSETID, file));
        assert!(!is_capable(&req, status, FOWNER, file));
        assert!(groups("Groups:\t\n").next().is_none());
    }

    #[test]
    fn a_caller_without_a_thread_id_has_no_groups_and_is_privileged_only_as_root() {
        let file = Owner { uid: 7, gid: 8 };
        let of = |uid, gid| Request { tid: 0, uid, gid };
        assert!(
            keeps_set_gid(&of(7, 8), file)
                && !keeps_set_gid(&of(7, 9), file)
                && keeps_set_gid(&of(0, 9), file)
        );
        assert!(
            acts_as_owner(&of(7, 9), file)
                && !acts_as_owner(&of(9, 8), file)
                && acts_as_owner(&of(0, 9), file)
        );
    }

    #[test]
    fn the_privileges_of_this_process_are_seen() {
        let req = Request { tid: std::process::id(), uid: 12345, gid: 12345 };
        let privileged = has(&status_of(req.tid), FSETID).unwrap();
        assert_eq!(keeps_set_ids(&req), privileged, "whatever the request says of its uid");
        assert!(
            !keeps_set_ids(&Request { tid: 0, ..req }) && keeps_set_ids(&Request { tid: 0, uid: 0, ..req })
        );
    }

    #[test]
    fn a_map_holds_the_ids_outside() {
        let map = "         0       1000          1\n         1     100000      65536\n";
        for (id, known) in
            [(0, false), (999, false), (1000, true), (1001, false), (100_000, true), (165_535, true)]
        {
            assert_eq!(is_mapped(map, id), known, "{id}");
        }
        assert!(
            !is_mapped(map, 165_536) && !is_mapped("", 0) && is_mapped("0 0 4294967295\n", 4_294_967_294)
        );
    }
}
