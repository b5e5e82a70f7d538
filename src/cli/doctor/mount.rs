//! Checks a mount: whether it answers, and what is in force there.
//!
//! Must never: touch the mount in this process.

use std::path::Path;

use serde_json::Value;

use super::dead::silent_mount;
use super::finding::Finding::{self, Good, Problem, Warning};
use super::liveness::{Liveness, LivenessCheck};
use crate::cli::error::dead_mount;
use crate::mounts;

/// What the daemon says is in force, if the mount answers, and the findings about the mount.
pub(super) fn findings(place: &Path, source: &Path) -> (Option<Value>, Vec<Finding>) {
    let session = match LivenessCheck::start(place).map(LivenessCheck::result) {
        Ok(Liveness::Alive(session)) => session,
        Ok(Liveness::Dead) => return (None, vec![Problem(dead_mount(place))]),
        Ok(Liveness::Silent) => return (None, vec![Problem(silent_mount(place, source))]),
        Err(error) => return (None, vec![Warning(format!("{}: {error}", place.display()))]),
    };
    let mut findings = Vec::new();
    let shown = place.display();
    if !matches!(mounts::desk_of(place), Ok(Some(_))) {
        findings.push(Problem(format!("{shown} has no desk; mount it anew: crewfs umount {shown}")));
    }
    match &session {
        Some(session) => findings.extend(in_force(session)),
        None => findings.push(Warning(format!(
            "{shown} does not tell what is in force; is the daemon of another version? mount it anew"
        ))),
    }
    (session, findings)
}

/// The benefit of each feature of the kernel.
const FEATURES: [(&str, &str); 8] = [
    ("opens_not_reported", "files are opened and closed without asking the daemon"),
    ("opendirs_not_reported", "directories are opened without asking, and listings are remembered"),
    ("readdirplus", "a listing brings the attributes along"),
    ("readdirplus_auto", "a listing brings them along only where they are used"),
    ("handle_killpriv_v2", "a write need not look for file capabilities first"),
    ("cache_symlinks", "the targets of symbolic links are remembered"),
    ("async_dio", "direct reads and writes go side by side"),
    ("max_pages", "reads and writes of up to 1 MiB are one request"),
];

fn in_force(session: &Value) -> Vec<Finding> {
    let (tree, watch) = (&session["tree"], &session["watch"]);
    let mut findings = Vec::new();
    for (name, good_for) in FEATURES {
        findings.push(match tree["kernel"][name].as_bool() {
            Some(true) => Good(format!("{name}: {good_for}")),
            _ => Warning(format!("{name} is not in force: this kernel does not offer it; a newer one does")),
        });
    }
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let (long, short) = (number(&watch["watched_seconds"]), number(&watch["unwatched_seconds"]));
    findings.push(match (watch["by"].as_str(), number(&watch["unwatched"])) {
        (Some("fanotify"), 0) => Good(format!(
            "{} directories are watched; what the kernel knows of them lives {long} s, or until it changes",
            number(&watch["watched"])
        )),
        (Some("fanotify"), unwatched) => Warning(format!(
            "{} directories are watched, {unwatched} are not, and what the kernel knows of these lives {short} s: they are \
             on another disk, or there are more than fs.fanotify.max_user_marks",
            number(&watch["watched"])
        )),
        _ => Warning(format!(
            "nothing is watched, and what the kernel knows lives {short} s: {}; keep the project on a local disk \
             (ext4, xfs, btrfs, tmpfs, f2fs, bcachefs, zfs)",
            watch["why"].as_str().unwrap_or("no reason is given")
        )),
    });
    if number(&watch["lost"]) > 0 {
        findings.push(Warning(format!(
            "{} times more changed behind the mount than the kernel keeps, and everything was looked at anew; let it keep \
             more: sysctl fs.fanotify.max_queued_events",
            number(&watch["lost"])
        )));
    }
    if session["endings"]["by"] == "nothing" {
        findings.push(Warning(format!(
            "how processes end is not told to this daemon ({}): claims of programs that are no agents and end badly wait for their leases; \
             Linux 6.15 tells it, and older kernels tell root with CAP_NET_ADMIN, outside of containers",
            session["endings"]["why"].as_str().unwrap_or("no reason is given")
        )));
    }
    findings.push(Good(format!("{} threads serve the tree", number(&tree["threads"]))));
    findings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_in_force_is_said_with_its_reason() {
        let session = json!({
            "tree": {"threads": 4, "kernel": {"readdirplus": true}},
            "watch": {"by": "nothing", "why": "it rains", "unwatched_seconds": 1},
            "endings": {"by": "nothing", "why": "it snows"},
        });
        let findings = in_force(&session);
        let has = |part: &str, good: bool| {
            findings.iter().any(|finding| match finding {
                Good(said) => good && said.contains(part),
                Warning(said) | Problem(said) => !good && said.contains(part),
            })
        };
        assert!(has("readdirplus: ", true) && has("max_pages is not in force", false));
        assert!(has("lives 1 s: it rains", false) && has("4 threads", true));
        assert!(has("not told to this daemon (it snows)", false));
    }
}
