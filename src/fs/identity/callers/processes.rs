//! What is known of the processes of callers, for the guard.
//!
//! May assume: the thread that asks does not serve the kernel, except for the functions that say that they wait for nothing.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::mpsc::channel;

use super::{Caller, Callers};
use crate::fs::Request;
use crate::fs::identity::ancestry;
use crate::fs::identity::lookups::{Lane, LookupPromise};
use crate::fs::identity::nameless::Nameless;
use crate::fs::identity::process_watch::AnchorKind;
use crate::queue::WorkerName;

impl Callers {
    /// The worker of a process, even before its first request. For threads that do not serve the kernel: it waits for a look-up.
    pub fn caller_of(&self, process: u32) -> Option<Arc<Caller>> {
        let req = request_of(process)?;
        let found = self.lookups.wait(Lane::of(process, req.uid), move || ancestry::read(process))?;
        found.image?;
        let caller = self.caller(&req, found);
        let is_unknown = matches!(caller.nameless, Some(Nameless::Unknown(_)));
        (!is_unknown).then(|| Arc::new(caller))
    }

    /// The caller of a process that made a request recently, even if the process has changed its program since. Waits for nothing.
    pub fn known_of(&self, process: u32) -> Option<Arc<Caller>> {
        let known = self.known.lock();
        known.get(&process).map(|known| known.caller.clone()).filter(|caller| caller.process == process)
    }

    /// Read from each of these processes, and leave out those whose read is late. For threads that do not serve the kernel.
    pub fn look_at<T: Send + 'static>(
        &self,
        processes: impl IntoIterator<Item = u32>,
        look: impl Fn(u32) -> T + Clone + Send + 'static,
    ) -> Vec<(u32, T)> {
        let (sender, receiver) = channel();
        let mut missing = HashSet::new();
        for req in processes.into_iter().filter_map(request_of) {
            let (look, sender, process) = (look.clone(), sender.clone(), req.tid);
            let handler = move |_, found: Option<T>| {
                let _ = sender.send((process, found));
                Vec::new()
            };
            if self.lookups.ask(Lane::of(process, req.uid), move || look(process), handler)
                != LookupPromise::Refused
            {
                missing.insert(process);
            }
        }
        let mut all = Vec::new();
        while !missing.is_empty()
            && let Ok((process, found)) = receiver.recv()
        {
            if missing.remove(&process) {
                all.extend(found.map(|found| (process, found)));
            }
        }
        all
    }

    /// Read from one process. Waits no longer than a look-up of a caller does (C44).
    ///
    /// # Errors
    /// EACCES when that takes longer, ENOENT when the process is gone.
    pub fn look_now<T: Send + 'static>(
        &self,
        process: u32,
        look: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let req = request_of(process).ok_or(io::ErrorKind::NotFound)?;
        let found = self.lookups.wait(Lane::of(process, req.uid), look);
        found.ok_or_else(|| io::ErrorKind::PermissionDenied.into())
    }

    /// When the connection that a process serves began, in ticks, if the process has made a request.
    pub fn connection_began(&self, process: u32) -> Option<u64> {
        let known = self.known.lock();
        let caller = &known.get(&process)?.caller;
        let anchor = caller.anchor.as_ref().filter(|anchor| anchor.kind == AnchorKind::Connection)?;
        (caller.process == process).then_some(anchor.started)
    }

    /// The processes of a worker that made a request recently, and the anchors of those.
    pub fn processes_of(&self, worker: &WorkerName) -> (Vec<u32>, Vec<u32>) {
        let known = self.known.lock();
        let callers = known.values().map(|known| &known.caller);
        let theirs: Vec<_> = callers.filter(|caller| caller.actor.worker == *worker).collect();
        let processes = theirs.iter().map(|caller| caller.process).filter(|process| *process != 0);
        let anchors = theirs.iter().filter_map(|caller| Some(caller.anchor.as_ref()?.pid));
        (processes.collect(), anchors.collect())
    }

    /// Every process that made a request recently.
    pub fn processes(&self) -> Vec<u32> {
        let known = self.known.lock();
        let mut all: Vec<u32> = known.values().map(|known| known.caller.process).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// A request as this process would make it.
fn request_of(process: u32) -> Option<Request> {
    let uid = fs::metadata(format!("/proc/{process}")).ok()?.uid();
    Some(Request { tid: process, uid, gid: 0 })
}
