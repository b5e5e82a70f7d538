//! Checks the state directory of a project: which users may read it, which daemon serves it, and whether the log can be read.
//!
//! May assume: nothing about the files. Root checks other users' projects too.
//! Must never: lock or repair the files, since a daemon may start at this moment; follow a link, or wait for a pipe.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, Stat, fstat, statat};
use rustix::io::Errno;
use serde_json::Value;

use super::disk::{self, size};
use super::finding::Finding::{self, Good, Problem, Warning};
use crate::cli::find_daemon::RunningDaemon;
use crate::cli::settings::Settings;
use crate::clock;
use crate::engine::{RESERVE_FILE, SNAPSHOT_FILE};
use crate::log::{LOG_FILE, LOG_HEADER_BYTES, LogError, check_header};
use crate::mounts;
use crate::state_directory::plain::{self, OpenError};
use crate::state_directory::{self, LOCK, LOCK_BYTES};

/// Size of a log from which on a start without a snapshot takes long, in bytes.
const LOG_LONG: u64 = 64 * 1024 * 1024;
/// How far files may be ahead of the clock, in milliseconds. The kernel stamps them with a coarser clock.
const AHEAD_MS: i64 = 2_000;

/// The findings about the project in this directory. `session` is what its daemon says is in force, if it answers.
pub(super) fn findings(source: &Path, session: Option<&Value>) -> Vec<Finding> {
    let told = session.map(|session| &session["state"]);
    let mut findings = told.map(place).unwrap_or_default();
    findings.extend(tasks(session));
    findings.extend(on_the_disk(source, told));
    findings
}

/// Judge what the daemon says about its state directory.
fn place(told: &Value) -> Vec<Finding> {
    let Some(directory) = told["directory"].as_str() else { return Vec::new() };
    let mut findings = Vec::new();
    findings.push(match (told["in_place"].as_bool(), told["broken"].as_str()) {
        (_, Some(why)) => Problem(format!(
            "nothing can be changed, and {directory} may not have what happened last: {why}; the daemon tries again every second"
        )),
        (Some(false), _) => Problem(format!(
            "the state directory is not at its place, {directory}: it was removed or moved; the daemon puts it back within a second \
             or says in its log why it cannot: look again"
        )),
        _ => Good(format!("the state is in {directory}")),
    });
    if let Some(times) = told["restored"].as_u64().filter(|times| *times > 0) {
        findings.push(Problem(format!(
            "{directory} was taken away {times} times since the mount began, and restored with all that was in the log; find out \
             what does that (git clean -fdx in the project does), and keep it outside of the project: -o state=DIR"
        )));
    }
    findings
}

/// Judge whether the served tasks directory is that of the project, and always was.
fn tasks(session: Option<&Value>) -> Option<Finding> {
    let tasks = &session?["tasks"];
    let name = tasks["name"].as_str()?;
    if tasks["in_place"].as_bool() == Some(false) {
        return Some(Problem(format!(
            "the directory {name} that is served is not the one that the project has by that name: it was replaced, moved or removed \
             on the disk; the daemon goes over to the new one, or makes it again, within seconds: look again"
        )));
    }
    let times = tasks["replaced"].as_u64().filter(|times| *times > 0)?;
    Some(Problem(format!(
        "the directory {name} was replaced {times} times on the disk since the mount began, beneath the mount (git in the project's own \
         directory does that); the newest one is served; work in the mount, where changes are guarded and tasks are not withdrawn"
    )))
}

fn on_the_disk(source: &Path, told: Option<&Value>) -> Vec<Finding> {
    let served = RunningDaemon::find(source);
    let said = told.and_then(|told| told["directory"].as_str()).map(PathBuf::from);
    let named = || served.as_ref().map(|served| served.state_named.clone());
    let inside = source.join(state_directory::NAME);
    let shown = said.or_else(named).or_else(|| Settings::state_of(source)).unwrap_or(inside);
    let covered = mounts::at(source).is_ok_and(|mount| mount.is_some());
    let state = match &served {
        Some(served) => served.state.clone(),
        // A mount covers it, and its daemon cannot be seen.
        None if covered && !mounts_are_dead(source) => return vec![unseen(source)],
        None if covered => {
            return vec![Warning(format!(
                "the dead mount hides {}; when it is cleared, look again: crewfs doctor {}",
                shown.display(),
                source.display()
            ))];
        }
        None => shown.clone(),
    };
    let opened = plain::look_into(&state).and_then(|directory| Ok((fstat(&directory)?, directory)));
    let (there, directory) = match opened {
        Ok(opened) => opened,
        Err(Errno::ACCESS) => return vec![unseen(source)],
        Err(error) => {
            return vec![Problem(format!(
                "the state directory {} cannot be looked at: {error}; mount the project: crewfs mount {}",
                shown.display(),
                source.display()
            ))];
        }
    };
    let directory = directory.as_fd();
    let files = files_in(directory);
    let length =
        |name: &str| files.iter().find(|(file, _)| file == name).map(|(_, stat)| stat.st_size as u64);
    let trusted = plain::judge_all(directory, &shown, there.st_uid);
    let mut findings =
        vec![judge_access(&shown, &there, trusted), holder(source, directory, served.as_ref())];
    findings.push(log(&shown, directory, length(LOG_FILE), length(SNAPSHOT_FILE).is_some()));
    findings.extend(judge_times(&shown, &files, clock::system()().wall.0));
    let reserved = length(RESERVE_FILE).is_some_and(|length| length > 0);
    findings.extend(disk::findings(source, &state, reserved));
    findings
}

fn unseen(source: &Path) -> Finding {
    let shown = source.display();
    Warning(format!(
        "the state of {shown} is shown to its owner and to root only; look as root: sudo crewfs doctor {shown}"
    ))
}

/// Whether the daemon of the youngest mount over a directory is gone.
fn mounts_are_dead(place: &Path) -> bool {
    use super::liveness::{Liveness, LivenessCheck};
    LivenessCheck::start(place).is_ok_and(|check| check.result() == Liveness::Dead)
}

/// The files of a directory, by name.
fn files_in(directory: BorrowedFd<'_>) -> Vec<(String, Stat)> {
    let entries = Dir::read_from(directory).into_iter().flatten().flatten();
    let file = |name: &std::ffi::CStr| {
        let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some((name.to_str().ok()?.to_string(), stat))
    };
    entries
        .filter_map(|entry| file(entry.file_name()))
        .filter(|(name, _)| name != "." && name != "..")
        .collect()
}

/// Only the user that serves the project may read the state directory: the log contains tasks, results and notes.
fn judge_access(shown: &Path, directory: &Stat, trusted: Result<(), OpenError>) -> Finding {
    if let Err(OpenError::Distrusted(why)) = trusted {
        return Problem(format!("the next mount refuses the state directory: {why}"));
    }
    let (shown, mode) = (shown.display(), directory.st_mode & 0o7777);
    if mode & 0o077 != 0 {
        return Warning(format!(
            "others may look into {shown} (mode {mode:04o}), where all tasks and results are; close it: chmod 700 {shown}"
        ));
    }
    Good(format!("{shown} is closed to all users but its owner, user {}, and root", directory.st_uid))
}

fn holder(source: &Path, state: BorrowedFd<'_>, served: Option<&RunningDaemon>) -> Finding {
    let said = plain::read(state, LOCK, LOCK_BYTES).ok();
    let holder = said.and_then(|said| serde_json::from_slice::<crate::daemon::LockOwner>(&said).ok());
    let shown = source.display();
    let Some(RunningDaemon { pid, .. }) = served else {
        return Good(format!("no daemon serves {shown}; it can be mounted: crewfs mount {shown}"));
    };
    match holder.filter(|holder| holder.pid == *pid) {
        Some(holder) if mounts::at(&holder.mountpoint).is_ok_and(|mount| mount.is_some()) => {
            Good(format!("process {pid} serves {shown}, mounted at {}", holder.mountpoint.display()))
        }
        Some(holder) => Warning(format!(
            "process {pid} serves {shown}, but at {} nothing is mounted that can be seen from here: a process still uses what \
             umount --lazy took away, or it is mounted in a container; to end it all the same: kill {pid}",
            holder.mountpoint.display()
        )),
        None => Warning(format!(
            "process {pid} has taken {shown} and not mounted it yet; look again in a moment, and if it stays so: kill {pid}"
        )),
    }
}

fn log(shown: &Path, state: BorrowedFd<'_>, length: Option<u64>, snapshot: bool) -> Finding {
    let read = plain::read(state, LOG_FILE, LOG_HEADER_BYTES as u64).map(|header| check_header(&header));
    judge_log(&shown.join(LOG_FILE), read, length.unwrap_or(0), snapshot)
}

fn judge_log(log: &Path, header: io::Result<Result<(), LogError>>, length: u64, snapshot: bool) -> Finding {
    let (shown, long) = (log.display(), size(length));
    match header {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Good(format!("{shown} is not there yet: the first mount makes it"))
        }
        Err(error) => {
            Problem(format!("{shown} cannot be read: {error}; see what the disk does: dmesg | tail"))
        }
        // SQLite writes the first page at the first checkpoint of the write-ahead log.
        Ok(_) if length == 0 => Good(format!("{shown} is empty: nothing has happened yet")),
        Ok(Err(error @ LogError::Newer { .. })) => Problem(format!("{shown}: {error}")),
        Ok(Err(error)) => Problem(format!("{shown}: {error}; put a copy from a backup in its place")),
        Ok(Ok(())) if length > LOG_LONG && !snapshot => Warning(format!(
            "{shown} has {long} and there is no snapshot, so the next mount reads all of it; a clean end writes one: \
             crewfs umount"
        )),
        Ok(Ok(())) => Good(format!("{shown} can be read, {long}")),
    }
}

/// Files from the future show that the clock went back, or that another machine stamps them.
fn judge_times(shown: &Path, files: &[(String, Stat)], now_ms: i64) -> Option<Finding> {
    let newest = files
        .iter()
        .map(|(_, there)| there.st_mtime * 1_000 + there.st_mtime_nsec as i64 / 1_000_000)
        .max()?;
    judge_ahead(shown, newest - now_ms)
}

fn judge_ahead(shown: &Path, ahead_ms: i64) -> Option<Finding> {
    (ahead_ms > AHEAD_MS).then(|| {
        Warning(format!(
            "files in {} are {} s ahead of the clock: it was set back, or the disk has a clock of its own; leases do not care, \
             people and not_before do: timedatectl, and keep the project on a local disk",
            shown.display(),
            ahead_ms / 1_000
        ))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_state_directory_that_is_or_was_away_is_a_problem() {
        let told = |more: Value| {
            let mut told = json!({"directory": "/s", "in_place": true, "restored": 0, "broken": null});
            told.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            place(&told)
        };
        assert_eq!(told(json!({})), [Good("the state is in /s".into())]);
        let away = told(json!({"in_place": false}));
        assert!(matches!(&away[..], [Problem(said)] if said.contains("not at its place, /s")));
        let broken = told(json!({"in_place": false, "broken": "it rains"}));
        assert!(matches!(&broken[..], [Problem(said)] if said.contains("it rains")));
        let restored = told(json!({"restored": 2}));
        assert!(matches!(&restored[..], [Good(_), Problem(said)] if said.contains("taken away 2 times")));
        let other = json!({"tasks": {"name": "tasks", "in_place": false}});
        assert!(matches!(tasks(Some(&other)), Some(Problem(_))) && tasks(Some(&json!({}))).is_none());
        let followed = |times: u64| json!({"tasks": {"name": "tasks", "in_place": true, "replaced": times}});
        assert!(tasks(Some(&followed(0))).is_none());
        assert!(
            matches!(tasks(Some(&followed(2))), Some(Problem(said)) if said.contains("replaced 2 times"))
        );
    }

    #[test]
    fn the_state_is_for_its_owner_alone() {
        let shown = Path::new("/p/.crewfs");
        let dir = tempfile::tempdir().unwrap();
        let directory = plain::look_into(dir.path()).unwrap();
        let judged = |mode: u32| {
            rustix::fs::fchmod(&directory, mode.into()).unwrap();
            let (stat, trusted) =
                (fstat(&directory).unwrap(), plain::judge_all(&directory, shown, plain::own()));
            judge_access(shown, &stat, trusted)
        };
        assert!(matches!(judged(0o700), Good(_)));
        assert!(matches!(judged(0o755), Warning(said) if said.ends_with("chmod 700 /p/.crewfs")));
        assert!(matches!(judged(0o770), Problem(said) if said.ends_with("chmod -R go-w /p/.crewfs")));
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("lock")).unwrap();
        assert!(
            matches!(judged(0o700), Problem(said) if said.contains("/p/.crewfs/lock is a symbolic link"))
        );
    }

    #[test]
    fn a_log_is_judged_by_its_first_bytes() {
        let judged = |header, length, snapshot| judge_log(Path::new("/p/log.db"), header, length, snapshot);
        assert!(matches!(judged(Ok(Ok(())), 1 << 20, false), Good(said) if said.ends_with("1.0 MiB")));
        assert!(matches!(judged(Ok(Ok(())), 1 << 30, false), Warning(said) if said.contains("no snapshot")));
        assert!(matches!(judged(Ok(Ok(())), 1 << 30, true), Good(_)));
        assert!(matches!(judged(Err(io::ErrorKind::NotFound.into()), 0, false), Good(_)));
        assert!(matches!(judged(Err(io::Error::from_raw_os_error(libc::EIO)), 0, false), Problem(_)));
        let newer = LogError::Newer { found: 9, known: 1 };
        assert!(
            matches!(judged(Ok(Err(newer)), 1, false), Problem(said) if said.contains("use a newer crewfs"))
        );
        let damaged = LogError::Damaged { seq: 0, why: "it rained".into() };
        assert!(matches!(judged(Ok(Err(damaged)), 1, false), Problem(said) if said.contains("backup")));
    }

    #[test]
    fn files_of_the_future_are_noticed() {
        let shown = Path::new("/p/.crewfs");
        assert_eq!((judge_ahead(shown, 0), judge_ahead(shown, -5_000)), (None, None));
        assert!(matches!(judge_ahead(shown, 7_500), Some(Warning(said)) if said.contains("7 s ahead")));
    }
}
