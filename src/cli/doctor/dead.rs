//! Finds mounts of the machine whose daemon is gone or hangs. A program that touches one fails, or waits for ever.
//!
//! Must never: touch a mount in this process.

use std::path::Path;

use super::finding::Finding::{self, Good, Warning};
use super::liveness::{Liveness, LivenessCheck};
use crate::cli::error::{CliError, dead_mount};
use crate::cli::find_daemon::RunningDaemon;
use crate::mounts::{self, Mount};

/// The findings about all mounts of crewfs but the one that is checked by itself.
pub(super) fn findings(but: Option<&Path>) -> Vec<Finding> {
    let mounts = match mounts::ours() {
        Ok(mounts) => mounts,
        Err(error) => {
            return vec![Warning(format!("the table of mounts cannot be read: {error}; is /proc mounted?"))];
        }
    };
    let trees = trees(&mounts).into_iter().filter(|tree| Some(tree.mountpoint.as_path()) != but);
    // All at once, so that several that hang take no longer than one.
    let checks: Vec<_> = trees.map(|tree| (tree, LivenessCheck::start(&tree.mountpoint))).collect();
    let (mut findings, mut answer) = (Vec::new(), 0);
    for (tree, check) in checks {
        match check.map(LivenessCheck::result) {
            Ok(Liveness::Alive(_)) => answer += 1,
            Ok(Liveness::Dead) => findings.push(Warning(dead_mount(&tree.mountpoint))),
            Ok(Liveness::Silent) => findings.push(Warning(silent_mount(&tree.mountpoint, &tree.source))),
            Err(error) => findings.push(Warning(format!(
                "the check of {} cannot be started: {error}; check it: stat -f {0}",
                tree.mountpoint.display()
            ))),
        }
    }
    if findings.is_empty() && answer > 0 {
        findings.push(Good(format!("all other mounts of crewfs answer: {answer}")));
    }
    findings
}

/// Whether the daemon of a mount is gone. A daemon that hangs does not block this call.
///
/// # Errors
/// The message about a mount that does not answer.
pub(in crate::cli) fn is_dead(mount: &Mount) -> Result<bool, CliError> {
    match LivenessCheck::start(&mount.mountpoint).map_err(CliError::failed)?.result() {
        Liveness::Dead => Ok(true),
        Liveness::Alive(_) => Ok(false),
        Liveness::Silent => Err(CliError::failed(silent_mount(&mount.mountpoint, &mount.source))),
    }
}

/// The mounts that are not the desk of another one. A desk has the daemon of its tree, and is unmounted with it.
fn trees(mounts: &[Mount]) -> Vec<&Mount> {
    let is_desk_of = |desk: &Mount, tree: &Mount| {
        desk.mountpoint.parent() == Some(&tree.mountpoint) && desk.source.parent() == Some(&tree.source)
    };
    let mut trees: Vec<&Mount> =
        mounts.iter().filter(|mount| !mounts.iter().any(|tree| is_desk_of(mount, tree))).collect();
    // Of several at one place, only the youngest can be reached.
    trees.reverse();
    let mut seen = std::collections::BTreeSet::new();
    trees.retain(|tree| seen.insert(&tree.mountpoint));
    trees
}

/// The message about a mount that does not answer.
pub(super) fn silent_mount(place: &Path, source: &Path) -> String {
    silent_mount_message(place, RunningDaemon::find(source).map(|served| (served.pid, served.is_stopped())))
}

fn silent_mount_message(place: &Path, daemon: Option<(u32, bool)>) -> String {
    let shown = place.display();
    match daemon {
        Some((pid, true)) => {
            format!(
                "{shown} gives no answer: its daemon, process {pid}, was stopped; let it go on: kill -CONT {pid}"
            )
        }
        Some((pid, false)) => format!(
            "{shown} gives no answer: its daemon, process {pid}, hangs; see what the project's disk does, else end it: \
             kill -9 {pid}; crewfs umount {shown}"
        ),
        None => format!(
            "{shown} gives no answer, and its daemon cannot be seen; look as root: sudo crewfs doctor {shown}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(mountpoint: &str, source: &str) -> Mount {
        Mount { mountpoint: mountpoint.into(), source: source.into(), id: 1, device: (0, 1), user: 0 }
    }

    #[test]
    fn a_desk_is_not_looked_at_twice_and_what_is_covered_not_at_all() {
        let mounts = [
            mount("/mnt/a", "/srv/a"),
            mount("/mnt/a/tasks", "/srv/a/tasks"),
            mount("/mnt/b", "/srv/old"),
            mount("/mnt/b", "/srv/b"),
            mount("/mnt/lone/tasks", "/srv/lone/tasks"),
            // Another project, mounted within this one.
            mount("/mnt/a/inner", "/srv/inner"),
        ];
        let sources: Vec<&str> = trees(&mounts).iter().filter_map(|tree| tree.source.to_str()).collect();
        assert_eq!(sources, ["/srv/inner", "/srv/lone/tasks", "/srv/b", "/srv/a"]);
    }

    #[test]
    fn what_does_not_answer_is_mended_by_what_is_wrong_with_its_daemon() {
        let place = Path::new("/mnt/a");
        assert!(silent_mount_message(place, Some((7, true))).ends_with("kill -CONT 7"));
        assert!(silent_mount_message(place, Some((7, false))).ends_with("kill -9 7; crewfs umount /mnt/a"));
        assert!(silent_mount_message(place, None).ends_with("sudo crewfs doctor /mnt/a"));
    }
}
