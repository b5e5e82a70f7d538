//! The interface of a system that is measured, and the list of the systems.

mod beanstalkd;
mod crewfs;
mod disk;
pub(crate) mod group_commit;
mod json_file;
mod redis;
mod sqlite;

use std::time::Duration;

pub(crate) use crate::common::Outcome;
use crate::race::{Point, Seat};

/// The time limit of a server: longer than any point takes.
const LIFETIME: Duration = Duration::from_secs(180);

/// A system that hands out tasks.
pub(crate) trait Peer {
    /// Its name on the command line.
    fn name(&self) -> &'static str;
    /// Its name in the table.
    fn title(&self) -> &'static str;
    /// Starts the system in `point.dir` without earlier state, with all tasks ready. Dropping the returned value stops it.
    fn start(&self, point: &Point) -> Outcome<Box<dyn System>>;
    /// Makes a client. Runs in the client's own process.
    fn client(&self, seat: &Seat) -> Outcome<Box<dyn Client>>;
}

/// A system that runs until it is dropped.
pub(crate) trait System {
    /// The number of tasks that the system has completed. The clients' reports are checked against it. `None` where the system does not
    /// count.
    fn completed(&self) -> Outcome<Option<usize>>;
}

/// The two steps of a cycle. Each is on disk when it returns, unless the row says otherwise.
pub(crate) trait Client {
    /// Claims a task; `None` when there are no more.
    fn claim(&mut self) -> Outcome<Option<String>>;
    /// Completes the task that was claimed last.
    fn complete(&mut self, task: &str) -> Outcome<()>;
}

/// Every system, in the order of the table.
pub(crate) fn all() -> Vec<Box<dyn Peer>> {
    vec![
        Box::new(crewfs::Crewfs::Next),
        Box::new(crewfs::Crewfs::ById),
        Box::new(redis::Redis),
        Box::new(beanstalkd::Beanstalkd::Reserve),
        Box::new(beanstalkd::Beanstalkd::ReserveAndBury),
        Box::new(sqlite::Sqlite),
        Box::new(json_file::JsonFile),
        Box::new(group_commit::GroupCommit),
        Box::new(disk::WriteAndSync),
        Box::new(disk::CreateWithoutSync),
    ]
}

/// The names of all systems.
pub(crate) fn names() -> Vec<&'static str> {
    all().iter().map(|peer| peer.name()).collect()
}

/// The system with this name.
pub(crate) fn find(name: &str) -> Outcome<Box<dyn Peer>> {
    all()
        .into_iter()
        .find(|peer| peer.name() == name)
        .ok_or_else(|| format!("no peer is called {name}").into())
}
