//! The documents that people and their tools watch: `summary.json`, `dashboard.html` and `metrics.prom`.
//!
//! May assume: a state that stays as it is.
//! Must never: show two contents under one size and time (C1).
//!
//! These documents change by themselves, because they contain the time. So each is made on request, and kept until the queue changes
//! or a second has passed: an open that follows a `stat` finds the content that the `stat` described.

use std::sync::Arc;

use super::documents::SummaryView;
use super::nodes::Document;
use super::renderings::Rendering;
use super::timestamps::timestamp_of;
use super::view::View;
use super::{dashboard, documents, metrics};
use crate::fs::Timestamp;
use crate::limits::OVERVIEW_MS;
use crate::queue::{Eyes, Moment, Now, Span, State, Summary, SummaryInput};

impl View {
    /// One of these documents as an open shows it now, and since when.
    pub(super) fn overview(&self, document: Document, state: &State, eyes: &Eyes) -> (Arc<[u8]>, Timestamp) {
        let now = (self.engine.clock())();
        let unseen = if document == Document::Metrics { Vec::new() } else { state.unseen(eyes) };
        let mut renderings = self.overview.of(document).lock();
        if let Some(last) = renderings.find(&unseen)
            && last.seq >= state.tail()
            && now.instant.since(last.made) < Span(OVERVIEW_MS)
        {
            return (last.bytes.clone(), last.mtime);
        }
        let bytes: Arc<[u8]> = match document {
            Document::Metrics => metrics::metrics(self, state, now),
            _ => {
                let summary = self.summary(state, now, eyes);
                let summary = SummaryView::new(&summary, self.sentences());
                match document {
                    Document::Dashboard => dashboard::page(self, state, &summary, eyes),
                    _ => documents::summary(&summary),
                }
            }
        }
        .into();
        let moment = Moment { seq: state.tail(), at: now.wall.max(state.last_at()) };
        let mtime = timestamp_of(moment).max(self.opened);
        let (seq, made) = (state.tail(), now.instant);
        renderings.keep(Rendering { unseen, seq, made, bytes: bytes.clone(), mtime });
        (bytes, mtime)
    }

    pub(super) fn summary(&self, state: &State, now: Now, eyes: &Eyes) -> Summary {
        let roster = self.engine.roster();
        let names = documents::everybody(state, &self.engine);
        let heard = names.into_iter().map(|name| {
            let heard = roster.last_heard(&name);
            (name, heard)
        });
        let workers: Vec<_> = heard.collect();
        let sight = SummaryInput {
            now,
            default_lease: self.config.lease,
            eyes,
            workers: &workers,
            misnamed: &self.publisher.misnamed.all(),
            disk_full: !self.engine.has_space(),
            broken_log: self.engine.broken(),
        };
        Summary::of(state, &sight)
    }
}
