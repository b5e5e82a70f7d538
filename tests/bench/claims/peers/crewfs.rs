//! crewfs, used as agents use it: with open(2) and close(2) on a mounted project.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{Client, Outcome, Peer, System};
use crate::race::{Point, Seat};
use crate::server::Server;

/// The two ways to claim.
#[derive(Clone, Copy)]
pub(crate) enum Crewfs {
    /// All clients create `claim/next`, then read there which task it was.
    Next,
    /// Each client knows its ids beforehand and creates `claim/<id>`.
    ById,
}

impl Peer for Crewfs {
    fn name(&self) -> &'static str {
        match self {
            Self::Next => "crewfs-next",
            Self::ById => "crewfs-id",
        }
    }

    fn title(&self) -> &'static str {
        match self {
            Self::Next => "crewfs, `claim/next`",
            Self::ById => "crewfs, `claim/<id>`",
        }
    }

    fn start(&self, point: &Point) -> Outcome<Box<dyn System>> {
        let program = program();
        if !program.is_file() {
            return Err(format!("{} is not built; CREWFS_BIN names another", program.display()).into());
        }
        let (source, mountpoint) = (point.dir.join("source"), mountpoint(point));
        fs::create_dir_all(source.join("tasks"))?;
        fs::create_dir(&mountpoint)?;
        for id in point.ids() {
            fs::write(source.join(format!("tasks/{id}.md")), format!("# Task {id}\n"))?;
        }
        let args: [OsString; 4] = ["mount".into(), source.into(), mountpoint.clone().into(), "-f".into()];
        let mut mount = Mount { server: Server::spawn(program, args, &point.dir)?, mountpoint };
        let ready = mount.mountpoint.join("tasks/ready");
        mount.server.wait_until(|| Ok(entries(&ready).is_ok_and(|count| count == point.tasks)))?;
        Ok(Box::new(mount))
    }

    fn client(&self, seat: &Seat) -> Outcome<Box<dyn Client>> {
        let desk = mountpoint(&seat.point).join("tasks");
        Ok(match self {
            Self::Next => Box::new(Competitor { next: desk.join("claim/next"), desk }),
            Self::ById => Box::new(Planned { ids: Box::new(seat.shard()), desk }),
        })
    }
}

/// The binary under test: the one that was asked for, or the one that cargo built beside this benchmark.
fn program() -> PathBuf {
    let built = option_env!("CARGO_BIN_EXE_crewfs").unwrap_or("target/release/crewfs");
    std::env::var_os("CREWFS_BIN").unwrap_or_else(|| built.into()).into()
}

fn mountpoint(point: &Point) -> PathBuf {
    point.dir.join("mount")
}

fn entries(dir: &Path) -> Outcome<usize> {
    Ok(fs::read_dir(dir)?.count())
}

/// `touch`, without its utimensat: the creation is the whole request.
fn create(path: &Path) -> Outcome<bool> {
    match OpenOptions::new().write(true).create(true).truncate(false).open(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(format!("{}: {error}", path.display()).into()),
    }
}

fn complete(desk: &Path, task: &str) -> Outcome<()> {
    let path = desk.join("completed").join(task);
    if create(&path)? { Ok(()) } else { Err(format!("{}: refused, no such task", path.display()).into()) }
}

struct Competitor {
    desk: PathBuf,
    next: PathBuf,
}

impl Client for Competitor {
    fn claim(&mut self) -> Outcome<Option<String>> {
        if !create(&self.next)? {
            return Ok(None);
        }
        let status: Value = serde_json::from_slice(&fs::read(&self.next)?)?;
        let task = status["task"].as_str().ok_or_else(|| format!("claim/next names no task: {status}"))?;
        Ok(Some(task.to_owned()))
    }

    fn complete(&mut self, task: &str) -> Outcome<()> {
        complete(&self.desk, task)
    }
}

struct Planned {
    desk: PathBuf,
    ids: Box<dyn Iterator<Item = String>>,
}

impl Client for Planned {
    fn claim(&mut self) -> Outcome<Option<String>> {
        let Some(id) = self.ids.next() else {
            return Ok(None);
        };
        let path = self.desk.join("claim").join(&id);
        if create(&path)? { Ok(Some(id)) } else { Err(format!("{}: no such task", path.display()).into()) }
    }

    fn complete(&mut self, task: &str) -> Outcome<()> {
        complete(&self.desk, task)
    }
}

/// A mounted project. Dropping it leaves neither the process nor a mount.
struct Mount {
    server: Server,
    mountpoint: PathBuf,
}

impl System for Mount {
    fn completed(&self) -> Outcome<Option<usize>> {
        entries(&self.mountpoint.join("tasks/completed")).map(Some)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // The daemon unmounts when it ends well. Only after its end can nothing hang on it any more.
        self.server.stop();
        for options in [&[][..], &["-l"][..]] {
            for mount in mounts_in(&self.mountpoint) {
                eprintln!("claims: {mount} was left mounted");
                let _ = Command::new("timeout")
                    .args(["--kill-after", "5", "10", "umount"])
                    .args(options)
                    .arg(mount)
                    .stderr(Stdio::null())
                    .status();
            }
        }
    }
}

/// What is mounted at `path` and below, the innermost first.
fn mounts_in(path: &Path) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    // The kernel writes a blank as an octal escape.
    let mut found: Vec<String> = places.map(|place| place.replace("\\040", " ")).collect();
    found.retain(|place| Path::new(place).starts_with(path));
    found.reverse();
    found
}
