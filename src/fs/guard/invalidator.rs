//! A thread that invalidates what the kernel has cached, so that no thread that owes the kernel an answer has to.
//!
//! May assume: an invalidation ends, because other threads serve what the kernel waits for meanwhile.
//! Must never: make a caller wait for room in the queue. An invalidation without room is skipped, which costs a worker one refused change.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use crate::fs::{Ino, Kernel};
use crate::limits::FORGETTING_QUEUE;

/// An invalidation to make.
enum Invalidation {
    AttributesOf(Vec<Ino>),
    Content(Ino, Box<dyn FnOnce() + Send>),
}

/// The queue of that thread. The thread ends when this is dropped.
pub(super) struct Invalidator {
    orders: SyncSender<Invalidation>,
    kernel: Arc<dyn Kernel>,
}

impl Invalidator {
    pub(super) fn start(kernel: Arc<dyn Kernel>) -> std::io::Result<Invalidator> {
        let (orders, receiver) = sync_channel(FORGETTING_QUEUE);
        let notified = kernel.clone();
        std::thread::Builder::new().name("forgetting".into()).spawn(move || {
            for order in receiver {
                match order {
                    Invalidation::AttributesOf(all) => {
                        all.into_iter().for_each(|ino| notified.forget_attributes(ino))
                    }
                    Invalidation::Content(ino, then) => {
                        notified.forget_content(ino);
                        then();
                    }
                }
            }
        })?;
        Ok(Invalidator { orders, kernel })
    }

    /// Invalidate the attributes of a file before this returns, so that every later open asks for them. Unlike with content, the kernel
    /// waits for nothing meanwhile.
    pub(super) fn attributes(&self, ino: Ino) {
        self.kernel.forget_attributes(ino);
    }

    /// Invalidate the attributes of many files, so that the next open of each asks for them.
    pub(super) fn attributes_of(&self, all: Vec<Ino>) {
        self.order(Invalidation::AttributesOf(all));
    }

    /// Invalidate the content of a file, so that the next read reaches the daemon. `then` is called after that, or if it is impossible.
    pub(super) fn content(&self, ino: Ino, then: impl FnOnce() + Send + 'static) {
        self.order(Invalidation::Content(ino, Box::new(then)));
    }

    fn order(&self, order: Invalidation) {
        if let Err(TrySendError::Full(order) | TrySendError::Disconnected(order)) =
            self.orders.try_send(order)
            && let Invalidation::Content(_, then) = order
        {
            then();
        }
    }
}
