//! The filesystems that are compared: the disk's own, crewfs, and others that show a directory elsewhere.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};
use serde_json::Value;

use crate::common::Outcome;
use crate::common::mount::{self, Mount};
use crate::{guarded, rows};

/// The time limit of every mount, also if the benchmark dies.
const LIFETIME: Duration = Duration::from_secs(2 * 3_600);
const BUILD_LIMIT: Duration = Duration::from_secs(600);
/// mergerfs uses the kernel's caches only with these options.
const MERGERFS: &str = "cache.files=auto-full,cache.entry=3600,cache.negative_entry=3600,cache.attr=3600,\
                        cache.statfs=3600,cache.symlinks=true,cache.readdir=true,dropcacheonclose=false";

/// A filesystem to measure.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// The directory itself: the limit.
    Source,
    Crewfs,
    Bindfs,
    Mergerfs,
    /// fuser's own example of read passthrough to a file.
    Example,
}

impl Peer {
    /// All filesystems, the limit first.
    pub(crate) const ALL: [Self; 5] =
        [Self::Source, Self::Crewfs, Self::Bindfs, Self::Mergerfs, Self::Example];

    /// The name on the command line and in file names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Crewfs => "crewfs",
            Self::Bindfs => "bindfs",
            Self::Mergerfs => "mergerfs",
            Self::Example => "passthrough",
        }
    }

    /// The name in the table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Example => "fuser's `passthrough`",
            _ => self.name(),
        }
    }

    /// A remark for the reader of the table.
    pub(crate) fn note(self) -> Option<String> {
        let version = || {
            let said = guarded::output(Command::new(self.name()).arg("--version"), rows::LIMIT).ok()?;
            let line = String::from_utf8(said).ok()?.lines().next()?.to_owned();
            Some(line.rsplit(' ').next()?.to_owned())
        };
        match self {
            Self::Source | Self::Crewfs => None,
            Self::Bindfs => Some(format!("bindfs {} with its defaults.", version()?)),
            Self::Mergerfs => Some(format!("mergerfs {} with `{MERGERFS}`.", version()?)),
            Self::Example => Some(
                "fuser's `passthrough` example shows one file, read-only, which it opens as `/etc/profile`, so it can \
                 do the two rows about one file; the kernel caches its attributes for a second."
                    .to_owned(),
            ),
        }
    }

    /// Whether the filesystem shows the whole project, or only one file.
    pub(crate) fn has_a_tree(self) -> bool {
        self != Self::Example
    }

    /// The one file, for rows that need only one.
    pub(crate) fn one(self, top: &Path) -> PathBuf {
        top.join(if self == Self::Example { "passthrough" } else { "one" })
    }
}

/// A filesystem that can be used.
pub(crate) struct Place {
    pub(crate) peer: Peer,
    /// The top of the project as this filesystem shows it.
    pub(crate) top: PathBuf,
    pub(crate) mount: Option<Mount>,
}

impl Place {
    /// Mounts `project` in the directory of the run.
    pub(crate) fn open(peer: Peer, project: &Path, run: &Path) -> Outcome<Self> {
        let dir = run.join(peer.name());
        std::fs::create_dir_all(&dir)?;
        let top = dir.join("mount");
        let start = |program: &Path, args: &[OsString], there: &Path| {
            let ready = || Ok(there.exists());
            Mount::start(program, args, &top, &dir, LIFETIME, ready).map(Some)
        };
        let (from, to) = (project.as_os_str().to_owned(), top.as_os_str().to_owned());
        let mount = match peer {
            Peer::Source => return Ok(Self { peer, top: project.to_owned(), mount: None }),
            Peer::Crewfs => {
                std::fs::create_dir_all(&top)?;
                let ready = top.join("tasks/ready");
                Some(mount::crewfs(project, &top, &dir, LIFETIME, || Ok(ready.exists()))?)
            }
            Peer::Bindfs => start(Path::new("bindfs"), &["-f".into(), from, to], &top.join("tree"))?,
            Peer::Mergerfs => {
                let args = ["-f".into(), "-o".into(), MERGERFS.into(), from, to];
                start(Path::new("mergerfs"), &args, &top.join("tree"))?
            }
            Peer::Example => start(&build_example()?, &[to], &top.join("passthrough"))?,
        };
        Ok(Self { peer, top, mount })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.peer == Peer::Example && self.mount.is_some() {
            // A signal would end the example without unmounting; unmounting ends it with success.
            let _ = unmount(&self.top, UnmountFlags::empty());
        }
    }
}

/// Builds the example from cargo's sources of the fuser version that crewfs uses.
fn build_example() -> Outcome<PathBuf> {
    let mut metadata = rows::cargo();
    // Only the dependencies of this platform: the others may not have been fetched.
    let platform = format!("--filter-platform={}-unknown-linux-gnu", std::env::consts::ARCH);
    metadata.args(["metadata", "--offline", "--format-version", "1", &platform, "--manifest-path"]);
    metadata.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
    let metadata: Value = serde_json::from_slice(&guarded::output(&mut metadata, BUILD_LIMIT)?)?;
    let mut packages = metadata["packages"].as_array().into_iter().flatten();
    let fuser = packages.find(|package| package["name"] == "fuser").ok_or("cargo knows no package fuser")?;
    let manifest = fuser["manifest_path"].as_str().ok_or("cargo does not say where fuser is")?;
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuser");
    let mut build = rows::cargo();
    build.args(["build", "--release", "--locked", "--quiet", "--example", "passthrough", "--manifest-path"]);
    guarded::output(build.arg(manifest).arg("--target-dir").arg(&target), BUILD_LIMIT)?;
    Ok(target.join("release/examples/passthrough"))
}
