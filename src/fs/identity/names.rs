//! Names that are reserved for a user before their first use, and the operators (C45, C46).
//!
//! May assume: `/etc/passwd` and the file of keys are root's.
//! Must never: let a user have the login name of another, or the name of a key.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::process::AGENTS;
use crate::limits::{NAMES_BELIEVED_MS, NAMES_FILE_BYTES};
use crate::queue::{Instant, Span, WorkerName};

const USERS: &str = "/etc/passwd";

/// The mount options about names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// The only operators, by uid. If not set, root and the user that mounted are operators.
    pub operators: Option<BTreeSet<u32>>,
    /// The uid under which workers on other machines log in, and the file of their keys, each with the name that it fixes.
    pub keys: Option<(u32, PathBuf)>,
}

/// The reserved names.
#[derive(Debug, Default)]
pub(super) struct Names {
    config: Config,
    users: Mutex<Cached<Vec<(String, u32)>>>,
    keys: Mutex<Cached<HashSet<String>>>,
}

/// The parsed content of a file. It is read again when the file has changed.
#[derive(Debug, Default)]
struct Cached<T> {
    checked_at: Option<Instant>,
    version: Option<(u64, i64, i64, u64)>,
    content: T,
}

impl<T: Default> Cached<T> {
    fn of(&mut self, file: &Path, now: Instant, parse: impl FnOnce(&str) -> T) -> &T {
        if self.checked_at.is_none_or(|checked_at| now.since(checked_at) >= Span(NAMES_BELIEVED_MS)) {
            self.checked_at = Some(now);
            let metadata = fs::metadata(file)
                .ok()
                .filter(|metadata| metadata.is_file() && metadata.len() <= NAMES_FILE_BYTES);
            let version = metadata.map(|file| (file.ino(), file.mtime(), file.mtime_nsec(), file.len()));
            if version != std::mem::replace(&mut self.version, version) {
                let text = version.and_then(|_| fs::read(file).ok()).unwrap_or_default();
                self.content = parse(&String::from_utf8_lossy(&text));
            }
        }
        &self.content
    }
}

impl Names {
    pub(super) fn new(config: Config) -> Names {
        Names { config, ..Names::default() }
    }

    /// Whether this user is an operator when it has no worker name.
    pub(super) fn is_operator(&self, uid: u32, owner: u32) -> bool {
        match &self.config.operators {
            Some(operators) => operators.contains(&uid),
            None => uid == 0 || uid == owner,
        }
    }

    /// The user for whom a name is reserved, even if another user used it first; `None` if any user may have it.
    pub(super) fn owner(&self, name: &WorkerName, now: Instant) -> Option<u32> {
        let name = name.as_str();
        let of_key = || {
            let (uid, file) = self.config.keys.as_ref()?;
            self.keys.lock().of(file, now, names_of_keys).contains(name).then_some(*uid)
        };
        let of_user = || {
            let mut users = self.users.lock();
            let users = users.of(Path::new(USERS), now, users_in);
            users.iter().find(|(login, _)| login == name).map(|(_, uid)| *uid)
        };
        of_key().or_else(of_user).or_else(|| uid_in(name))
    }

    /// The login name of a uid, or `uid-N` if it has none that is a valid worker name.
    pub(super) fn login(&self, uid: u32, now: Instant) -> WorkerName {
        let mut users = self.users.lock();
        let users = users.of(Path::new(USERS), now, users_in);
        let name = users.iter().find(|(login, id)| *id == uid && WorkerName::parse(login).is_some());
        let name = name.and_then(|(login, _)| WorkerName::parse(login));
        name.unwrap_or_else(|| WorkerName::parse(&format!("uid-{uid}")).expect("letters and digits"))
    }
}

/// The name of an agent program that was given none, from its pid. It is used if no other user has that name.
pub(super) fn of_program(agent: &str, pid: u32) -> Option<WorkerName> {
    WorkerName::parse(&format!("{agent}-{pid}"))
}

/// The name of such a program if another user has the first name. No other user can have this one.
pub(super) fn of_program_of(agent: &str, pid: u32, uid: u32) -> Option<WorkerName> {
    WorkerName::parse(&format!("{agent}-{pid}.{uid}"))
}

/// The uid that is part of a name: `uid-7`, and `claude-4711.7`.
fn uid_in(name: &str) -> Option<u32> {
    let digits = |text: &str| -> Option<u32> {
        text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
    };
    if let Some(uid) = name.strip_prefix("uid-") {
        return digits(uid);
    }
    let (program, uid) = name.rsplit_once('.')?;
    let (agent, pid) = program.rsplit_once('-')?;
    digits(pid).filter(|_| AGENTS.contains(&agent))?;
    digits(uid)
}

fn users_in(text: &str) -> Vec<(String, u32)> {
    let user = |line: &str| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        Some((name.to_owned(), id.parse().ok()?))
    };
    text.lines().filter_map(user).collect()
}

/// The names that the forced commands of keys fix.
fn names_of_keys(text: &str) -> HashSet<String> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let name = |line: &str| {
        let (_, after) = line.split_once("sftp-server ")?;
        let (_, after) = after.split_once("--worker")?;
        let after = after.trim_start_matches([' ', '=']);
        let name = after.split([' ', '"']).next()?;
        Some(name.trim_matches(['\'', '\\']).to_owned())
    };
    lines.filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> WorkerName {
        WorkerName::parse(text).unwrap()
    }

    #[test]
    fn names_of_users_say_whose_they_are() {
        let names = Names::default();
        let owner = |text: &str| names.owner(&name(text), Instant(0));
        assert_eq!((names.login(0, Instant(0)).as_str(), owner("root")), ("root", Some(0)));
        assert_eq!(names.login(4_000_000_000, Instant(0)).as_str(), "uid-4000000000");
        for (text, uid) in
            [("uid-7", Some(7)), ("claude-12.1001", Some(1001)), ("claude-12", None), ("w.7", None)]
        {
            assert_eq!(owner(text), uid, "{text}");
        }
        for free in ["w1", "uid-x", "uid-", "my-12.7", "claude-x.7", "claude-12.x"] {
            assert_eq!(owner(free), None, "{free}");
        }
    }

    #[test]
    fn names_of_keys_are_those_of_the_file_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("keys");
        fs::write(&file, "# crewfs sftp-server --worker none\nrestrict,command=\"crewfs sftp-server --worker far-1 --root '/p'\" ssh-ed25519 A far-1\n").unwrap();
        let names = Names::new(Config { keys: Some((77, file.clone())), ..Config::default() });
        let owner = |text: &str, at| names.owner(&name(text), Instant(at));
        assert_eq!((owner("far-1", 0), owner("none", 0), owner("far-2", 0)), (Some(77), None, None));
        fs::write(&file, "command=\"crewfs sftp-server --worker=far-2\" ssh-ed25519 A far-2\n").unwrap();
        let later = NAMES_BELIEVED_MS;
        assert_eq!((owner("far-1", later), owner("far-2", later)), (None, Some(77)));
    }

    #[test]
    fn operators_are_the_configured_ones_or_root_and_the_mounter() {
        let names = Names::new(Config { operators: Some(BTreeSet::from([5])), ..Config::default() });
        assert!(names.is_operator(5, 1) && !names.is_operator(0, 1) && !names.is_operator(1, 1));
        let names = Names::default();
        assert!(names.is_operator(0, 1) && names.is_operator(1, 1) && !names.is_operator(5, 1));
    }
}
