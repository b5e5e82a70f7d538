//! Mount options: `-o key=value,…` as in `mount(8)`, and one by one as in a file of settings (C72).
//!
//! Must never: ignore an unknown option.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, fstat};
use rustix::io::Errno;

use super::error::CliError;
use crate::fs::desk::Users;
use crate::fs::guard;
use crate::fs::identity::names;
use crate::fs::recorder::RecorderConfig;
use crate::limits::IGNORE_FILE_BYTES;
use crate::queue::{Budget, Rules, Span};
use crate::state_directory::plain;
use crate::users::uid_of;

/// The options of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    /// `state=DIR`
    pub(super) state: Option<PathBuf>,
    /// `tasks=NAME`
    pub(super) tasks: String,
    /// `lease=SPAN`
    lease: Option<Span>,
    /// `ageing=SPAN`, `claims_per_worker=N`, `lease_max=SPAN`
    pub(super) rules: Rules,
    /// `workers=NAME:NAME`
    pub(super) workers: Users,
    /// `log_bytes=SIZE`, `log_events=N`
    pub(super) budget: Budget,
    /// `idle_timeout=SPAN`
    pub(super) idle_timeout: Span,
    /// `file_grace=SPAN`
    pub(super) file_grace: Span,
    /// `remote_grace=SPAN`
    pub(super) remote_grace: Span,
    /// `allow_other`, `noallow_other`
    pub(super) allow_other: bool,
    /// `threads=N`
    pub(super) threads: usize,
    /// `lock_wait=SPAN`, `stale_window=SPAN`, `stale_writes=refuse`, `stale_writes=allow`
    guard: guard::Config,
    /// `unguarded=FILE`
    unguarded: Option<PathBuf>,
    /// `history_age=SPAN`, `history_size=SIZE`, `history_file=SIZE`; `None` with `history=off`
    pub(super) history: Option<RecorderConfig>,
    /// `operators=NAME:NAME`, `keys=USER:FILE`
    pub(super) names: names::Config,
}

const KNOWN: &str = "state=DIR, tasks=NAME, lease=SPAN, lease_max=SPAN, ageing=SPAN, claims_per_worker=N, workers=NAME:NAME, operators=NAME:NAME, keys=USER:FILE, log_bytes=SIZE, log_events=N, idle_timeout=SPAN, file_grace=SPAN, remote_grace=SPAN, allow_other, noallow_other, threads=N, lock_wait=SPAN, stale_window=SPAN, stale_writes=WORD, unguarded=FILE, history=WORD, history_age=SPAN, history_size=SIZE, history_file=SIZE";
/// The default lease.
const LEASE: Span = Span(30 * 60_000);
/// The longest wait for a lock.
const LOCK_WAIT_MAX: Span = Span(30_000);
/// Options that mount(8) and fstab(5) add, and that are so anyway, are for others, or have no meaning here.
const IGNORED: [&str; 24] = [
    "rw",
    "defaults",
    "auto",
    "noauto",
    "_netdev",
    "nofail",
    "nosuid",
    "nodev",
    "exec",
    "async",
    "user",
    "nouser",
    "users",
    "group",
    "owner",
    "atime",
    "noatime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "diratime",
    "nodiratime",
    "lazytime",
];

impl Options {
    /// The defaults, for a machine with this many cores, and for root or another user.
    pub(super) fn defaults(is_root: bool, cores: usize) -> Options {
        Options {
            state: None,
            tasks: "tasks".into(),
            lease: None,
            rules: Rules::default(),
            workers: Users::default(),
            budget: Budget::default(),
            idle_timeout: Span(10 * 60_000),
            file_grace: Span(3_000),
            remote_grace: Span(60_000),
            allow_other: is_root,
            threads: cores.clamp(4, 64),
            guard: guard::Config::default(),
            unguarded: None,
            history: Some(RecorderConfig::default()),
            names: names::Config::default(),
        }
    }

    /// How long a silent worker keeps a task that names no lease.
    pub(super) fn lease(&self) -> Span {
        self.lease.unwrap_or(LEASE.min(self.rules.lease_max))
    }

    /// The settings of the guard, with the rules of the `unguarded` file.
    pub(super) fn guard(&self) -> Result<guard::Config, CliError> {
        let unguarded = self.unguarded.as_deref().map(rules_of).transpose()?;
        Ok(guard::Config { unguarded, ..self.guard.clone() })
    }

    /// Check that this user can mount with these options.
    ///
    /// An ordinary user mounts by fusermount3, which runs as root. It must see the first mount to put the second one on it, and the kernel
    /// shows a user's mount to root only with `allow_other`.
    pub(super) fn check(&self, is_root: bool) -> Result<(), CliError> {
        let (lease, most) = (self.lease(), self.rules.lease_max);
        if lease > most {
            return Err(CliError::usage(format!(
                "lease={lease} is longer than the longest lease, which is {most}: choose a shorter one, or add lease_max={lease}"
            )));
        }
        if is_root || self.allow_other {
            return Ok(());
        }
        Err(CliError::failed(
            "an ordinary user can mount a project only for others too: add -o allow_other, and have root put the line \
             user_allow_other into /etc/fuse.conf; rights in the project stay as they are",
        ))
    }

    /// Apply a list like `lease=10m,allow_other`.
    pub(super) fn apply(self, list: &str) -> Result<Options, CliError> {
        let items = list.split(',').filter(|item| !item.is_empty());
        items
            .map(|item| item.split_once('=').map_or((item, None), |(key, value)| (key, Some(value))))
            .try_fold(self, |options, (key, value)| options.set(key, value))
    }

    /// Set one option.
    pub(super) fn set(mut self, key: &str, value: Option<&str>) -> Result<Options, CliError> {
        let item = value.map_or_else(|| key.to_owned(), |value| format!("{key}={value}"));
        let wrong =
            |expected: &str| CliError::usage(format!("the option {item:?} is wrong: {key} {expected}"));
        let span = || {
            let span = value.and_then(Span::parse);
            span.ok_or_else(|| wrong("takes a span of time such as 90s, 30m or 2h"))
        };
        let bytes = || {
            let bytes = value.and_then(size).filter(|size| *size >= 1);
            bytes.ok_or_else(|| wrong("takes a size such as 65536, 512K or 1M"))
        };
        let named = || {
            let names = value.ok_or_else(|| wrong("takes login names, with a colon between two"))?;
            users(names).map_err(|name| {
                wrong(&format!("names {name:?}, which is no user of this machine; users that are not in /etc/passwd have numbers"))
            })
        };
        // mount(8) passes it for a line of fstab.
        if key == "remount" {
            return Err(wrong(
                "cannot be: options stay as they are while it is mounted; for a tree that cannot be changed: mount -o remount,bind,ro PLACE",
            ));
        }
        match (key, value) {
            ("state", Some(path)) if Path::new(path).is_absolute() => self.state = Some(path.into()),
            ("state", _) => return Err(wrong("takes an absolute path, such as /var/lib/crewfs/project")),
            ("tasks", Some(name)) if is_plain_name(name) => self.tasks = name.into(),
            ("tasks", _) => return Err(wrong("takes the name of a directory, without / and not hidden")),
            ("lease", _) => {
                self.lease = Some(span()?);
                if self.lease() < Span(1_000) {
                    return Err(wrong("must be at least 1s"));
                }
            }
            ("lease_max", _) => {
                self.rules.lease_max = span()?;
                if self.rules.lease_max.0 < 1_000 {
                    return Err(wrong("must be at least 1s"));
                }
            }
            ("ageing", _) => {
                self.rules.ageing = span()?;
                if self.rules.ageing.0 < 1_000 {
                    return Err(wrong("must be at least 1s"));
                }
            }
            ("claims_per_worker", _) => {
                let number = value.and_then(|n| n.parse().ok()).filter(|n| *n >= 1);
                self.rules.claims_per_worker = Some(number.ok_or_else(|| wrong("takes a number from 1"))?);
            }
            ("workers", _) => self.workers = named()?,
            ("operators", _) => self.names.operators = Some(named()?),
            ("log_bytes", _) => self.budget.bytes = bytes()?,
            ("log_events", _) => {
                let number = value.and_then(|n| n.parse().ok()).filter(|n| *n >= 1);
                self.budget.events = number.ok_or_else(|| wrong("takes a number from 1"))?;
            }
            ("idle_timeout", _) => self.idle_timeout = span()?,
            ("file_grace", _) => self.file_grace = span()?,
            ("remote_grace", _) => self.remote_grace = span()?,
            ("lock_wait", _) => {
                self.guard.lock_wait = if value == Some("0") { Span(0) } else { span()? };
                if self.guard.lock_wait > LOCK_WAIT_MAX {
                    return Err(wrong("must be 30s at most: a call that waits cannot be interrupted"));
                }
            }
            ("stale_window", _) => self.guard.stale_window = span()?,
            ("stale_writes", Some("refuse")) => self.guard.refuse_stale = true,
            ("stale_writes", Some("allow")) => self.guard.refuse_stale = false,
            ("stale_writes", _) => return Err(wrong("takes refuse or allow")),
            ("unguarded", _) => {
                let file = value.map(PathBuf::from).filter(|file| file.is_absolute());
                self.unguarded =
                    Some(file.ok_or_else(|| wrong("takes the path of a file, from the root on"))?);
            }
            ("history", Some("off")) => self.history = None,
            ("history", Some("on")) => drop(self.history.get_or_insert_default()),
            ("history", _) => return Err(wrong("takes on or off")),
            ("history_age", _) => {
                self.history.get_or_insert_default().age = span()?;
            }
            ("history_size", _) => self.history.get_or_insert_default().bytes = bytes()?,
            ("history_file", _) => self.history.get_or_insert_default().file_bytes = bytes()?,
            ("keys", _) => {
                let keys = value.and_then(|value| value.split_once(':'));
                let keys = keys.and_then(|(user, file)| Some((uid_of(user)?, PathBuf::from(file))));
                let keys = keys.filter(|(_, file)| file.is_absolute()).ok_or_else(|| {
                    wrong("takes the user as whom remote workers log in, and the file of their keys: crew-demo:/etc/crewfs/demo.keys")
                })?;
                self.names.keys = Some(keys);
            }
            ("allow_other", None) => self.allow_other = true,
            ("noallow_other", None) => self.allow_other = false,
            ("threads", _) => {
                let number = value.and_then(|n| n.parse().ok()).filter(|n| (1..=64).contains(n));
                self.threads = number.ok_or_else(|| wrong("takes a number from 1 to 64"))?;
            }
            (key, value) if means_nothing(key, value) => {}
            _ => return Err(CliError::usage(format!("there is no option {item:?}; there are: {KNOWN}"))),
        }
        Ok(self)
    }
}

/// Whether an option is one of [`IGNORED`], or a note of fstab for a program: `x-systemd.automount`, `comment=WORDS`.
fn means_nothing(key: &str, value: Option<&str>) -> bool {
    match value {
        None if IGNORED.contains(&key) => true,
        // The user that may unmount it, as mount(8) passes it on.
        Some(_) if key == "user" || key == "comment" => true,
        _ => key.starts_with("x-") || key.starts_with("X-"),
    }
}

/// The users of a list like `alice:bob`.
///
/// # Errors
/// The first name that is no user's.
fn users(names: &str) -> Result<Users, String> {
    names.split(':').map(|name| uid_of(name).ok_or_else(|| name.to_owned())).collect()
}

/// Read the rules from a file that only root and this user can change.
fn rules_of(file: &Path) -> Result<Arc<str>, CliError> {
    let failed = |why: &str| {
        let shown = file.display();
        CliError::failed(format!(
            "the option unguarded={shown} cannot be used: {why}; name a file in the language of .gitignore that belongs to root or to you, and that no other user can write"
        ))
    };
    let failed_by = |error: io::Error| failed(&error.to_string());
    let opened = plain::look_at(CWD, file).map_err(|error| match error {
        Errno::INVAL | Errno::LOOP => failed("it is no regular file"),
        error => failed_by(error.into()),
    })?;
    let stat = fstat(&opened).map_err(|error| failed_by(error.into()))?;
    if ![0, plain::own()].contains(&stat.st_uid) || stat.st_mode & 0o022 != 0 {
        return Err(failed("other users can change it"));
    }
    let mut text = Vec::new();
    opened.take(IGNORE_FILE_BYTES + 1).read_to_end(&mut text).map_err(failed_by)?;
    if text.len() as u64 > IGNORE_FILE_BYTES {
        return Err(failed(&format!("it has more than {IGNORE_FILE_BYTES} bytes")));
    }
    Ok(String::from_utf8_lossy(&text).into())
}

/// A number of bytes, or of KiB (`K`), MiB (`M`) or GiB (`G`).
fn size(text: &str) -> Option<u64> {
    let units = [('K', 1 << 10), ('M', 1 << 20), ('G', 1 << 30)];
    let unit = units.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(*unit)?, *bytes)));
    let (number, unit) = unit.unwrap_or((text, 1));
    number.parse::<u64>().ok()?.checked_mul(unit)
}

fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && !name.starts_with('.') && !name.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_taken_from_a_file_that_others_cannot_change() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("rules");
        std::fs::write(&file, "target/\n").unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
        let guard = |file: &Path| {
            Options::defaults(true, 1).apply(&format!("unguarded={}", file.display())).unwrap().guard()
        };
        assert_eq!(guard(&file).unwrap().unguarded.as_deref(), Some("target/\n"));
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o664)).unwrap();
        assert!(guard(&file).unwrap_err().message.contains("other users can change it"));
        symlink("/etc/hostname", dir.path().join("link")).unwrap();
        for other in ["link", "missing", "."] {
            assert!(guard(&dir.path().join(other)).is_err(), "{other}");
        }
    }

    #[test]
    fn an_ordinary_user_is_told_what_it_takes() {
        let theirs = Options::defaults(false, 2);
        let refused = theirs.check(false).unwrap_err();
        assert_eq!(refused.code, 1);
        assert!(refused.message.contains("-o allow_other") && refused.message.contains("user_allow_other"));
        assert!(theirs.clone().apply("allow_other").unwrap().check(false).is_ok());
        assert!(theirs.check(true).is_ok() && Options::defaults(true, 2).check(true).is_ok());
    }

    #[test]
    fn no_lease_is_longer_than_the_longest() {
        let check = |list: &str| Options::defaults(true, 2).apply(list).unwrap().check(true);
        let refused = check("lease=48h").unwrap_err();
        assert!(refused.code == 2 && refused.message.contains("lease_max=2d"), "{}", refused.message);
        assert!(check("lease=48h,lease_max=2d").is_ok() && check("lease_max=10m,lease=10m").is_ok());
        let short = Options::defaults(true, 2).apply("lease_max=10m").unwrap();
        assert_eq!((short.lease(), short.check(true).is_ok()), (Span(600_000), true));
    }

    #[test]
    fn options_are_read_or_refused() {
        let defaults = Options::defaults(true, 2);
        let read = defaults.clone().apply("lease=90s,tasks=work,noallow_other,threads=3,rw,,").unwrap();
        assert_eq!(read.lease(), Span(90_000));
        assert_eq!(defaults.clone().apply("state=/s").unwrap().state.as_deref(), Some(Path::new("/s")));
        assert_eq!((read.tasks.as_str(), read.allow_other, read.threads), ("work", false, 3));
        let guarded = defaults.clone().apply("lock_wait=0,stale_window=5m,stale_writes=allow").unwrap().guard;
        assert_eq!((guarded.lock_wait, guarded.stale_window), (Span(0), Span(300_000)));
        assert!(!guarded.refuse_stale && defaults.guard.refuse_stale);
        let named = defaults.clone().apply("operators=root:7,keys=root:/etc/crewfs/demo.keys").unwrap().names;
        assert_eq!(named.operators, Some(Users::from([0, 7])));
        assert_eq!(named.keys, Some((0, "/etc/crewfs/demo.keys".into())));
        let rules = defaults.clone().apply("ageing=10m,claims_per_worker=2").unwrap().rules;
        assert_eq!(rules, Rules { ageing: Span(600_000), claims_per_worker: Some(2), ..Rules::default() });
        let named = defaults.clone().apply("workers=root:4321").unwrap().workers;
        assert_eq!(named, Users::from([0, 4321]));
        let budget = |list| defaults.clone().apply(list).unwrap().budget;
        assert_eq!(budget("log_bytes=3K,log_events=7"), Budget { bytes: 3_072, events: 7, owner: 0 });
        assert_eq!((budget("log_bytes=5").bytes, budget("log_bytes=2G").bytes), (5, 2 << 30));
        let fstab = "defaults,noatime,user=joe,nofail,comment=a crew,x-systemd.requires=srv.mount,X-mount.mkdir,x-gvfs-hide";
        assert_eq!(defaults.clone().apply(fstab).unwrap(), defaults);
        for bad in [
            "state",
            "state=",
            "state=a/b",
            "ro",
            "noexec",
            "suid",
            "dev",
            "sync",
            "comment",
            "noatime=1",
            "ageing=10ms",
            "ageing",
            "workers",
            "workers=",
            "workers=root:",
            "workers=root,no-user-has-this-name",
            "lease_max=10ms",
            "lease_max",
            "claims_per_worker=0",
            "claims_per_worker",
            "unguarded",
            "unguarded=rules",
            "log_bytes=0",
            "log_bytes=1m",
            "log_bytes=99999999999G",
            "log_events=1K",
            "lock_wait=1h",
            "lock_wait",
            "stale_window=x",
            "stale_writes=maybe",
            "leas=3m",
            "lease",
            "lease=3",
            "lease=10ms",
            "threads=0",
            "tasks=a/b",
            "tasks=",
            "tasks=.x",
            "rw=1",
            "operators",
            "operators=",
            "operators=no such user",
            "keys",
            "keys=/etc/crewfs/demo.keys",
            "keys=root:demo.keys",
            "keys=no such user:/k",
        ] {
            assert_eq!(defaults.clone().apply(bad).unwrap_err().code, 2, "{bad}");
        }
    }
}
