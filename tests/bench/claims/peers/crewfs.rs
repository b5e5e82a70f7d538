//! crewfs, used as agents use it: with open(2) and close(2) on a mounted project.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Client, LIFETIME, Outcome, Peer, System};
use crate::common::mount::{self, Mount};
use crate::race::{Point, Seat};

/// The two ways to claim.
#[derive(Clone, Copy)]
pub(crate) enum Crewfs {
    /// All clients create `claim/next`, then read the task's id from it.
    Next,
    /// Each client knows its ids beforehand, and creates `claim/<id>`.
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
        let (source, mountpoint) = (point.dir.join("source"), mountpoint(point));
        fs::create_dir_all(source.join("tasks"))?;
        fs::create_dir(&mountpoint)?;
        for id in point.ids() {
            fs::write(source.join(format!("tasks/{id}.md")), format!("# Task {id}\n"))?;
        }
        let ready = mountpoint.join("tasks/ready");
        let all_there = || Ok(entries(&ready).is_ok_and(|count| count == point.tasks));
        Ok(Box::new(Served(mount::crewfs(&source, &mountpoint, &point.dir, LIFETIME, all_there)?)))
    }

    fn client(&self, seat: &Seat) -> Outcome<Box<dyn Client>> {
        let desk = mountpoint(&seat.point).join("tasks");
        Ok(match self {
            Self::Next => Box::new(Competitor { next: desk.join("claim/next"), desk }),
            Self::ById => Box::new(Planned { ids: Box::new(seat.shard()), desk }),
        })
    }
}

fn mountpoint(point: &Point) -> PathBuf {
    point.dir.join("mount")
}

fn entries(dir: &Path) -> Outcome<usize> {
    Ok(fs::read_dir(dir)?.count())
}

/// `touch` without its utimensat: the creation alone claims.
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

/// A mounted project.
struct Served(Mount);

impl System for Served {
    fn completed(&self) -> Outcome<Option<usize>> {
        entries(&self.0.mountpoint.join("tasks/completed")).map(Some)
    }
}
