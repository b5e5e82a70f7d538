//! What every part of the desk that answers a request has at hand: the queue, the callers, the guard, the files and the nodes.
//!
//! Must never: change the queue. Requests that change it go through [`super::ops`].

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::Config;
use super::nodes::Nodes;
use super::publish::Publisher;
use super::renderings::{Overview, Renderings};
use super::scratch::Scratches;
use super::sentences::Sentences;
use super::timestamps::{timestamp_at, timestamp_of};
use crate::engine::Engine;
use crate::fs::guard::Guard;
use crate::fs::identity::callers::{Caller, Callers};
use crate::fs::recorder::Recorder;
use crate::fs::{Request, Result, SessionInfo, Timestamp};
use crate::queue::{State, Wall, WorkerName};

/// The view of the desk.
pub(super) struct View {
    pub(super) engine: Arc<Engine>,
    pub(super) callers: Arc<Callers>,
    /// Knows which worker holds which file of the tree.
    pub(super) guard: Arc<Guard>,
    /// Knows what each task has changed; `None` with `-o history=off`.
    pub(super) recorder: Option<Arc<Recorder>>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) nodes: Nodes,
    pub(super) scratches: Scratches,
    pub(super) config: Config,
    /// When the desk was opened. No node is older.
    pub(super) opened: Timestamp,
    pub(super) opened_at: Wall,
    pub(super) overview: Overview,
    /// The session of the tree.
    pub(super) tree_session: OnceLock<Arc<SessionInfo>>,
    /// The session of the desk.
    pub(super) desk_session: OnceLock<Arc<SessionInfo>>,
    /// The newest `queue.json`, so that not every `stat` writes out thousands of tasks.
    pub(super) queue: Mutex<Renderings>,
    /// What `locks` of each worker last showed, and since when. No event marks the end of a lock.
    pub(super) locks: Mutex<HashMap<WorkerName, (Vec<u8>, Timestamp)>>,
}

impl View {
    pub(super) fn new(
        engine: Arc<Engine>,
        callers: Arc<Callers>,
        guard: Arc<Guard>,
        recorder: Option<Arc<Recorder>>,
        publisher: Arc<Publisher>,
        config: Config,
    ) -> View {
        let (nodes, scratches) = (Nodes::default(), Scratches::default());
        let opened_at = (engine.clock())().wall;
        let opened = timestamp_at(opened_at);
        View {
            engine,
            callers,
            guard,
            recorder,
            publisher,
            nodes,
            scratches,
            config,
            opened,
            opened_at,
            overview: Overview::default(),
            tree_session: OnceLock::new(),
            desk_session: OnceLock::new(),
            queue: Mutex::default(),
            locks: Mutex::default(),
        }
    }

    pub(super) fn sentences(&self) -> Sentences<'_> {
        Sentences(&self.config.tasks)
    }

    /// The caller.
    pub(super) fn caller(&self, req: &Request) -> Result<Arc<Caller>> {
        self.callers.identify(req)
    }

    /// The worker that reads; `None` for a caller without a proper name, which may read, too.
    pub(super) fn worker_of(&self, req: &Request) -> Option<String> {
        let caller = self.callers.identify(req).ok()?;
        Some(caller.actor.worker.as_str().to_owned())
    }

    /// Whether the caller just wrote a file that is not published yet. Such a caller waits.
    pub(super) fn is_settling(&self) -> bool {
        !self.publisher.settling.is_empty()
    }

    /// Waits until files that were just written are published.
    pub(super) fn settle(&self, req: &Request) {
        if self.is_settling()
            && let Ok(caller) = self.caller(req)
        {
            self.publisher.settling.wait(&caller.actor.worker);
        }
    }

    /// When anything on the desk changed last.
    pub(super) fn changed(&self, state: &State) -> Timestamp {
        timestamp_of(state.changed()).max(self.opened)
    }
}
