//! What people and their tools look at: `summary.json`, `dashboard.html` and `metrics.prom`.
//!
//! May assume: a state that stays as it is.
//! Must never: show two things under one size and time (C1).
//!
//! All of it moves by itself, the time above all. So each is made when somebody looks, and stands until the queue changes or
//! it is a second old: an open that follows a `stat` finds what that one told of.

use std::sync::Arc;

use parking_lot::Mutex;

use super::super::Timestamp;
use super::nodes::Document;
use super::show::{View, time};
use super::{dashboard, documents, metrics};
use crate::limits::OVERVIEW_MS;
use crate::queue::{Instant, Moment, Now, Seq, Sight, Span, State, Summary};

/// What was shown last.
#[derive(Default)]
pub(super) struct Overview {
    summary: Mutex<Option<Rendering>>,
    dashboard: Mutex<Option<Rendering>>,
    metrics: Mutex<Option<Rendering>>,
}

struct Rendering {
    seq: Seq,
    made: Instant,
    bytes: Arc<[u8]>,
    mtime: Timestamp,
}

impl Overview {
    fn of(&self, document: Document) -> &Mutex<Option<Rendering>> {
        match document {
            Document::Dashboard => &self.dashboard,
            Document::Metrics => &self.metrics,
            _ => &self.summary,
        }
    }
}

impl View {
    /// One of these documents as an open shows it now, and since when.
    pub(super) fn overview(&self, document: Document, state: &State) -> (Arc<[u8]>, Timestamp) {
        let now = (self.engine.clock())();
        let mut last = self.overview.of(document).lock();
        if let Some(last) = &*last
            && last.seq >= state.tail()
            && now.instant.since(last.made) < Span(OVERVIEW_MS)
        {
            return (last.bytes.clone(), last.mtime);
        }
        let bytes: Arc<[u8]> = match document {
            Document::Dashboard => dashboard::page(self, state, &self.summary(state, now)),
            Document::Metrics => metrics::metrics(self, state, now),
            _ => documents::summary(&self.summary(state, now)),
        }
        .into();
        let moment = Moment { seq: state.tail(), at: now.wall.max(state.last_at()) };
        let mtime = time(moment).max(self.opened);
        *last = Some(Rendering { seq: state.tail(), made: now.instant, bytes: bytes.clone(), mtime });
        (bytes, mtime)
    }

    pub(super) fn summary(&self, state: &State, now: Now) -> Summary {
        let roster = self.engine.roster();
        let names = documents::everybody(state, &self.engine);
        let heard = names.into_iter().map(|name| {
            let heard = roster.last_heard(&name);
            (name, heard)
        });
        let workers: Vec<_> = heard.collect();
        let (default_lease, tasks) = (self.config.lease, self.config.tasks.as_str());
        let sight = Sight {
            now,
            default_lease,
            workers: &workers,
            tasks,
            misnamed: &self.publisher.misnamed.all(),
            disk_full: !self.engine.has_space(),
            broken_log: self.engine.broken(),
        };
        Summary::of(state, &sight)
    }
}
