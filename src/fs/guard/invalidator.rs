//! A thread that tells the kernel what to forget, so that no thread that owes it an answer has to.
//!
//! May assume: telling ends, because what the kernel waits for meanwhile is served by others.
//! Must never: make a caller wait for room: what cannot be told now is left out, and costs a worker one refused change.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use crate::fs::{Ino, Kernel};
use crate::limits::FORGETTING_QUEUE;

/// What is to be forgotten.
enum Invalidation {
    AttributesOf(Vec<Ino>),
    Content(Ino, Box<dyn FnOnce() + Send>),
}

/// The way to that thread. It ends when this is dropped.
pub(super) struct Invalidator {
    orders: SyncSender<Invalidation>,
    kernel: Arc<dyn Kernel>,
}

impl Invalidator {
    pub(super) fn start(kernel: Arc<dyn Kernel>) -> std::io::Result<Invalidator> {
        let (orders, receiver) = sync_channel(FORGETTING_QUEUE);
        let teller = kernel.clone();
        std::thread::Builder::new().name("forgetting".into()).spawn(move || {
            for order in receiver {
                match order {
                    Invalidation::AttributesOf(all) => {
                        all.into_iter().for_each(|ino| teller.forget_attributes(ino))
                    }
                    Invalidation::Content(ino, then) => {
                        teller.forget_content(ino);
                        then();
                    }
                }
            }
        })?;
        Ok(Invalidator { orders, kernel })
    }

    /// The attributes of a file, before this returns: whoever was answered after that is seen when opening it. The kernel
    /// waits for nothing meanwhile, unlike with content.
    pub(super) fn attributes(&self, ino: Ino) {
        self.kernel.forget_attributes(ino);
    }

    /// The attributes of many files, so that whoever opens them asks for them, and is seen.
    pub(super) fn attributes_of(&self, all: Vec<Ino>) {
        self.order(Invalidation::AttributesOf(all));
    }

    /// The content of a file, so that whoever reads it asks for it; `then` is called when that is so, or cannot be.
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
