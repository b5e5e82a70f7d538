//! The core under load and with faults: the queue, the log and the engine, without a filesystem.

use std::sync::Arc;

use crewfs::queue::{Actor, ClaimForm, Command, Ending, Eyes, FileStamp, Manifest, Spec, TaskId, WorkerName};
use crewfs::state_directory::StateDirectory;

mod against_model;
mod budget;
mod crash;
mod engine;
mod fairness;
mod fault;
mod full_disk;
mod lease;
mod model;
mod overwritten;
mod scale;

fn task(name: &str) -> TaskId {
    TaskId::parse(name).unwrap()
}

fn worker(name: &str) -> WorkerName {
    WorkerName::parse(name).unwrap()
}

fn actor(name: &str) -> Actor {
    Actor { worker: worker(name), uid: 1_000, operator: false }
}

fn publish(name: &str) -> Command {
    publish_spec(name, Spec::titled(name))
}

fn publish_spec(name: &str, spec: Spec) -> Command {
    Command::Publish { task: task(name), manifest: Manifest::Spec(spec.into()), stamp: FileStamp::default() }
}

fn claim_next(by: &str) -> Command {
    Command::ClaimNext { by: actor(by), form: ClaimForm::Any, eyes: Eyes::All }
}

fn complete(name: &str, by: &str) -> Command {
    Command::Finish {
        task: task(name),
        by: actor(by),
        ending: Ending::Completed,
        text: None,
        exclusive: false,
    }
}

/// A directory for the test, locked as a state directory.
fn directory() -> (tempfile::TempDir, Arc<StateDirectory>) {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDirectory::at(dir.path(), false).unwrap();
    (dir, Arc::new(state))
}
