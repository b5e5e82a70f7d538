//! What a system must offer to be measured, and the list of those that do.

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

/// How long a server may run: longer than any point takes.
const LIFETIME: Duration = Duration::from_secs(180);

/// A system that hands out tasks.
pub(crate) trait Peer {
    /// Its name on the command line.
    fn name(&self) -> &'static str;
    /// Its name in the table.
    fn title(&self) -> &'static str;
    /// Starts the system afresh in `point.dir`, with all the tasks ready. Dropping what is returned stops it.
    fn start(&self, point: &Point) -> Outcome<Box<dyn System>>;
    /// Becomes a client. Runs in the client's own process.
    fn client(&self, seat: &Seat) -> Outcome<Box<dyn Client>>;
}

/// A system that runs until it is dropped.
pub(crate) trait System {
    /// How many tasks it knows to be completed: what the clients say is checked against it.
    /// `None` where nothing is counted.
    fn completed(&self) -> Outcome<Option<usize>>;
}

/// The two steps of a cycle. Each is on disk when it returns, unless the row says otherwise.
pub(crate) trait Client {
    /// Takes a task; `None` when there are no more.
    fn claim(&mut self) -> Outcome<Option<String>>;
    /// Completes the task that was taken last.
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

/// The system of that name.
pub(crate) fn find(name: &str) -> Outcome<Box<dyn Peer>> {
    all()
        .into_iter()
        .find(|peer| peer.name() == name)
        .ok_or_else(|| format!("no peer is called {name}").into())
}
