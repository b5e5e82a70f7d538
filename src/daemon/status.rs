//! What the daemon says of itself in the attribute that shows what is in force.

use std::sync::{Arc, Weak};

use serde_json::{Map, Value, json};

use super::config::Config;
use super::error::{StartError, cannot};
use super::project_lock::Project;
use crate::engine::Engine;
use crate::fs::desk::Desk;
use crate::fs::files::Files;
use crate::fs::identity::exits::ExitStatusSource;
use crate::state_directory::InodeId;

/// The daemon's part of what is in force: where the state is, and whether the state directory and the tasks directory are at their
/// places.
pub(super) fn status(
    config: &Config,
    project: &Project,
    engine: &Arc<Engine>,
    tasks: Arc<Files>,
    endings: &ExitStatusSource,
    desk: Weak<Desk>,
) -> Result<impl Fn() -> Map<String, Value> + Send + Sync + use<>, StartError> {
    let (endings_by, endings_why) = endings.told();
    let root = project.root().try_clone().map_err(|e| cannot("a descriptor cannot be copied", e))?;
    let (state, engine, name) = (project.state().clone(), engine.clone(), config.tasks.clone());
    Ok(move || {
        let tasks_in_place = match (InodeId::at(&root, &*name), InodeId::of(tasks.root())) {
            (Ok(there), Ok(served)) => there == served,
            _ => false,
        };
        let status = json!({
            "state": {
                "directory": state.shown(),
                "in_place": state.is_in_place(),
                "restored": state.restored(),
                "broken": engine.broken(),
            },
            "tasks": { "name": name, "in_place": tasks_in_place, "replaced": tasks.replaced() },
            "create_waits": desk.upgrade().is_some_and(|desk| desk.create_waits()),
            "endings": { "by": endings_by, "why": endings_why },
        });
        match status {
            Value::Object(status) => status,
            _ => Map::new(),
        }
    })
}
