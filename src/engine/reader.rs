//! The thread that reads the log for callers, so that commits do not wait for long reads.
//!
//! May assume: every read ends. A read may wait for a commit.
//! Must never: change anything.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use crate::log::LogReader;

/// A read of the log and what to do with the result.
type LogQuery = Box<dyn FnOnce(&dyn LogReader) + Send>;

/// The thread, while it runs.
pub(super) struct ReaderThread(Mutex<Option<(Sender<LogQuery>, JoinHandle<()>)>>);

impl ReaderThread {
    /// Start the thread.
    pub(super) fn start(log: Arc<dyn LogReader>) -> io::Result<ReaderThread> {
        let (sender, queries) = channel::<LogQuery>();
        let thread = std::thread::Builder::new().name("reader".into());
        let thread = thread.spawn(move || queries.into_iter().for_each(|query| query(&*log)))?;
        Ok(ReaderThread(Mutex::new(Some((sender, thread)))))
    }

    /// Sends a query to the thread. If the thread has ended, the query and its reply are dropped, and the drop of the reply answers the
    /// kernel.
    pub(super) fn ask(&self, query: impl FnOnce(&dyn LogReader) + Send + 'static) {
        if let Some((sender, _)) = &*self.0.lock() {
            let _ = sender.send(Box::new(query));
        }
    }

    /// Answers all queries that were sent, and ends the thread.
    pub(super) fn stop(&self) {
        let Some((sender, thread)) = self.0.lock().take() else { return };
        drop(sender);
        if thread.join().is_err() {
            log::error!("the reader of the log ended by a panic");
        }
    }
}
