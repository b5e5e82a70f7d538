//! Documents that are kept as they were shown last, so that not every stat(2) makes them anew.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::nodes::Document;
use crate::fs::Timestamp;
use crate::limits::RENDERINGS_KEPT;
use crate::queue::{Access, Instant, Seq};

/// The documents as they were shown last.
#[derive(Default)]
pub(super) struct Overview {
    summary: Mutex<Renderings>,
    dashboard: Mutex<Renderings>,
    metrics: Mutex<Renderings>,
}

/// A document as it was made for users who may not see some texts.
pub(super) struct Rendering {
    /// The rights of the texts that are left out.
    pub(super) unseen: Vec<Arc<Access>>,
    pub(super) seq: Seq,
    pub(super) made: Instant,
    pub(super) bytes: Arc<[u8]>,
    pub(super) mtime: Timestamp,
}

/// The last renderings of a document, each for other users.
#[derive(Default)]
pub(super) struct Renderings(VecDeque<Rendering>);

impl Renderings {
    pub(super) fn find(&self, unseen: &[Arc<Access>]) -> Option<&Rendering> {
        self.0.iter().find(|rendering| rendering.unseen == unseen)
    }

    pub(super) fn keep(&mut self, rendering: Rendering) {
        self.0.retain(|other| other.unseen != rendering.unseen && other.seq <= rendering.seq);
        self.0.push_back(rendering);
        if self.0.len() > RENDERINGS_KEPT {
            self.0.pop_front();
        }
    }
}

impl Overview {
    pub(super) fn of(&self, document: Document) -> &Mutex<Renderings> {
        match document {
            Document::Dashboard => &self.dashboard,
            Document::Metrics => &self.metrics,
            _ => &self.summary,
        }
    }
}
