//! The same work on both sides: in a directory of the disk, and in a directory of the same disk reached through the mount.
//!
//! May assume: one worker does all of it, whichever users it runs as.
//! Must never: let a missing tool look like a passed test where everything has been installed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::harness::{Mounted, Project};
use crate::process::{Ran, run_within};

/// The outcome of each case of a suite, by the name of the case.
pub(crate) type Outcomes = BTreeMap<String, String>;

/// A known difference: the case, and the reason.
pub(crate) type Known = (&'static str, &'static str);

/// ext4, by statfs(2). The known differences apply to this filesystem.
const EXT4: i64 = 0xEF53;

/// Return from the test unless all these programs exist.
macro_rules! needs {
    ($($program:literal),+) => {
        if !crate::sides::all_there(&[$($program),+]) {
            return;
        }
    };
}
pub(crate) use needs;

/// The path of a program, as the shell would find it.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|directory| directory.join(program));
    found.into_iter().find(|file| file.is_file())
}

/// Whether these programs exist. Where everything should be installed, a missing one fails the test.
pub(crate) fn all_there(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().filter(|program| find(program).is_none()).collect();
    let said = format!("{missing:?} not found in PATH; tests/run.sh installs what the tests need");
    assert!(missing.is_empty() || std::env::var_os("CI").is_none(), "{said}");
    if !missing.is_empty() {
        eprintln!("skipped: {said}");
    }
    missing.is_empty()
}

/// One of the two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Disk,
    Mount,
}

/// A mounted project, a directory in it, and one beside it on the same disk.
pub(crate) struct Sides {
    // Dropped in this order: the mount first.
    pub(crate) mounted: Mounted,
    pub(crate) project: Project,
    limit: Duration,
}

impl Sides {
    /// Both sides, for a test with this time limit; `None` where mounting is not possible.
    pub(crate) fn new(limit: Duration) -> Option<Sides> {
        let project = Project::lasting(limit)?;
        let mounted = project.mount(&[]);
        let sides = Sides { mounted, project, limit };
        for side in [Side::Disk, Side::Mount] {
            fs::create_dir(sides.at(side)).unwrap();
            fs::set_permissions(sides.at(side), fs::Permissions::from_mode(0o755)).unwrap();
        }
        Some(sides)
    }

    /// The directory of a side. Their paths are equally long.
    pub(crate) fn at(&self, side: Side) -> PathBuf {
        match side {
            Side::Disk => self.project.dir().join("plain-disk"),
            Side::Mount => self.mounted.path().join("suite"),
        }
    }

    /// The directory of a side on the disk; a read here sees what was written to the disk.
    pub(crate) fn beneath(&self, side: Side) -> PathBuf {
        match side {
            Side::Disk => self.at(side),
            Side::Mount => self.project.behind().join("suite"),
        }
    }

    /// Run a program as the worker in the directory of a side.
    #[track_caller]
    pub(crate) fn run<A: AsRef<OsStr>>(
        &self,
        side: Side,
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = A>,
    ) -> Ran {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.at(side));
        self.run_command(command)
    }

    /// Run a command as the worker.
    #[track_caller]
    pub(crate) fn run_command(&self, mut command: Command) -> Ran {
        command.env("CREWFS_WORKER", "suite").env("LC_ALL", "C");
        run_within(self.limit, command)
    }

    /// Do the same on both sides, the disk first.
    pub(crate) fn both<T>(&self, mut work: impl FnMut(Side) -> T) -> (T, T) {
        (work(Side::Disk), work(Side::Mount))
    }

    /// Assert that exactly the cases that are known to differ do.
    #[track_caller]
    pub(crate) fn compare(&self, disk: &Outcomes, mount: &Outcomes, known: &[Known]) {
        let absent = String::from("absent");
        let all: BTreeMap<_, _> = disk.iter().chain(mount).collect();
        let differing: BTreeMap<&str, String> = all
            .into_keys()
            .map(|case| (case, disk.get(case).unwrap_or(&absent), mount.get(case).unwrap_or(&absent)))
            .filter(|(_, disk, mount)| disk != mount)
            .map(|(case, disk, mount)| (case.as_str(), format!("on the disk {disk}, mounted {mount}")))
            .collect();
        let new: Vec<_> =
            differing.iter().filter(|(case, _)| known.iter().all(|(name, _)| name != *case)).collect();
        assert!(new.is_empty(), "these differ, and nobody knows why: {new:#?}");
        if statfs_type(self.project.dir()) == EXT4 {
            let gone: Vec<_> = known.iter().filter(|(case, _)| !differing.contains_key(case)).collect();
            assert!(gone.is_empty(), "these no longer differ; say so here and in the documents: {gone:#?}");
        }
    }
}

fn statfs_type(place: &Path) -> i64 {
    rustix::fs::statfs(place).unwrap().f_type
}

/// Whether the random suites run longer.
pub(crate) fn long() -> bool {
    std::env::var("CREWFS_SUITES").is_ok_and(|chosen| chosen == "long")
}
