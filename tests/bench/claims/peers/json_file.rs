//! A JSON file under a lock: the usual way for scripts that share a queue.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Client, Outcome, Peer, System};
use crate::race::{Point, Seat};

/// Every step reads and writes the whole file, so its length matters.
const TASKS: usize = 1000;

/// flock, read, change, write a temporary file, fsync, rename.
pub(crate) struct JsonFile;

impl Peer for JsonFile {
    fn name(&self) -> &'static str {
        "json"
    }

    fn title(&self) -> &'static str {
        "`task-queue.json` under flock, 1,000 tasks"
    }

    fn start(&self, point: &Point) -> Outcome<Box<dyn System>> {
        let task = |id: String| json!({ "id": id, "title": format!("Task {id}"), "status": "ready", "worker": null });
        let tasks: Vec<Value> = point.ids().take(TASKS).map(task).collect();
        let queue = Queue::open(&point.dir, String::new())?;
        queue.replace(&tasks)?;
        Ok(Box::new(queue))
    }

    fn client(&self, seat: &Seat) -> Outcome<Box<dyn Client>> {
        Ok(Box::new(Queue::open(&seat.point.dir, seat.worker())?))
    }
}

struct Queue {
    path: PathBuf,
    temporary: PathBuf,
    /// Separate from the queue file, because every change replaces the queue file.
    lock: File,
    worker: String,
}

impl Queue {
    fn open(dir: &Path, worker: String) -> Outcome<Self> {
        let lock = File::options().create(true).append(true).open(dir.join("task-queue.lock"))?;
        let (path, temporary) = (dir.join("task-queue.json"), dir.join("task-queue.json.tmp"));
        Ok(Self { path, temporary, lock, worker })
    }

    fn read(&self) -> Outcome<Vec<Value>> {
        Ok(serde_json::from_slice(&fs::read(&self.path)?)?)
    }

    /// The directory is not synced, as is usual: after a crash, the previous version may be back.
    fn replace(&self, tasks: &[Value]) -> Outcome<()> {
        let mut file = File::create(&self.temporary)?;
        file.write_all(&serde_json::to_vec(tasks)?)?;
        file.sync_all()?;
        Ok(fs::rename(&self.temporary, &self.path)?)
    }

    /// Gives the first task that fits a new status, under the lock.
    fn change(&self, fits: impl Fn(&Value) -> bool, status: &str) -> Outcome<Option<String>> {
        self.lock.lock()?;
        let mut tasks = self.read()?;
        let found = tasks.iter_mut().find(|task| fits(task)).map(|task| {
            task["status"] = status.into();
            task["worker"] = self.worker.as_str().into();
            task["id"].as_str().unwrap_or_default().to_owned()
        });
        if found.is_some() {
            self.replace(&tasks)?;
        }
        self.lock.unlock()?;
        Ok(found)
    }
}

impl Client for Queue {
    fn claim(&mut self) -> Outcome<Option<String>> {
        self.change(|task| task["status"] == "ready", "claimed")
    }

    fn complete(&mut self, id: &str) -> Outcome<()> {
        let mine =
            |task: &Value| task["id"] == id && task["status"] == "claimed" && task["worker"] == *self.worker;
        self.change(mine, "completed")?.map(drop).ok_or_else(|| format!("{id} is not claimed by us").into())
    }
}

impl System for Queue {
    fn completed(&self) -> Outcome<Option<usize>> {
        Ok(Some(self.read()?.iter().filter(|task| task["status"] == "completed").count()))
    }
}
