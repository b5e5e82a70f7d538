//! The tree and the desk without a mount: a stand-in for the kernel calls the trait through which they are served.

use crewfs::queue::{FileStamp, Manifest, Spec, TaskId, WorkerName};

mod claims;
#[allow(dead_code)] // The tests of the engine, for which it is written, use more of it.
#[path = "../core/fault.rs"]
mod fault;
mod kernel;
mod writes;

fn worker(name: &str) -> WorkerName {
    WorkerName::parse(name).unwrap()
}

fn publish(name: &str) -> crewfs::queue::Command {
    let manifest = Manifest::Spec(Spec::titled(name).into());
    crewfs::queue::Command::Publish {
        task: TaskId::parse(name).unwrap(),
        manifest,
        stamp: FileStamp::default(),
    }
}
