//! `metrics.prom`: numbers for Prometheus and other readers of its text format.
//!
//! Must never: have a label with unbounded values, such as the name of a task or a worker.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use super::super::SessionInfo;
use super::documents;
use super::view::View;
use crate::engine::Histogram;
use crate::queue::{Now, State, TaskState};

/// All metrics as they are now.
pub(super) fn metrics(view: &View, state: &State, now: Now) -> Vec<u8> {
    let mut page = Page::default();
    about_the_queue(&mut page, view, state);
    about_the_log(&mut page, view, state);
    about_the_guard(&mut page, view);
    about_the_sessions(&mut page, view);
    page.family("crewfs_build_info", Type::Gauge, "Which crewfs this is. Always 1.");
    page.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    page.family("crewfs_start_time_seconds", Type::Gauge, "When this mount began, in seconds since 1970.");
    let started = view.opened;
    page.sample(&[], started.seconds as f64 + f64::from(started.nanos) / 1e9);
    page.family("crewfs_time_seconds", Type::Gauge, "When these metrics were made, in seconds since 1970.");
    page.sample(&[], now.wall.0 as f64 / 1e3);
    page.text.into_bytes()
}

fn about_the_queue(page: &mut Page, view: &View, state: &State) {
    page.family("crewfs_tasks", Type::Gauge, "Tasks, by the state that they are in.");
    for of in TaskState::ALL {
        page.sample(&[("state", &of.to_string())], state.count(of) as f64);
    }
    page.family(
        "crewfs_workers",
        Type::Gauge,
        "Workers who ever claimed or were heard of since the start, by status.",
    );
    let mut workers = [("working", 0), ("idle", 0), ("draining", 0)];
    for name in documents::everybody(state, &view.engine) {
        let status = documents::status_of(state, &name);
        workers.iter_mut().filter(|(known, _)| *known == status).for_each(|(_, count)| *count += 1);
    }
    for (status, count) in workers {
        page.sample(&[("status", status)], f64::from(count));
    }
    page.family("crewfs_paused", Type::Gauge, "1 while nobody may claim.");
    page.sample(&[], f64::from(u8::from(state.paused().is_some())));

    let counters = view.engine.counters();
    page.family(
        "crewfs_events_total",
        Type::Counter,
        "Events on disk since the start, by kind: claimed, completed, failed and so on.",
    );
    counters.events.all().for_each(|(kind, count)| page.sample(&[("event", kind)], count as f64));
    page.family(
        "crewfs_lost_claims_total",
        Type::Counter,
        "Claims that ended without the task being finished since the start, by reason.",
    );
    counters.lost_claims.all().for_each(|(reason, count)| page.sample(&[("reason", reason)], count as f64));
    page.family(
        "crewfs_refusals_total",
        Type::Counter,
        "What the queue refused since the start, by reason. What the kernel refuses by itself never gets here.",
    );
    counters.refusals.all().for_each(|(reason, count)| page.sample(&[("reason", reason)], count as f64));
    page.family(
        "crewfs_claim_duration_seconds",
        Type::Histogram,
        "Time from a claim being asked for to its being on disk, since the start.",
    );
    page.histogram(&counters.claim_micros, 1e-6);
}

fn about_the_log(page: &mut Page, view: &View, state: &State) {
    let engine = &view.engine;
    page.family(
        "crewfs_commit_events",
        Type::Histogram,
        "Commits of the event log since the start, by how many events they took along.",
    );
    page.histogram(&engine.counters().commit_events, 1.0);
    page.family(
        "crewfs_log_position",
        Type::Gauge,
        "The number of the last event since the beginning of the log.",
    );
    page.sample(&[], state.tail() as f64);
    page.family("crewfs_log_size_bytes", Type::Gauge, "The size of all events as lines, as in events.jsonl.");
    page.sample(&[], engine.log_bytes() as f64);
    page.family(
        "crewfs_log_works",
        Type::Gauge,
        "0 while the event log cannot be written, so that nothing can be changed.",
    );
    page.sample(&[], f64::from(u8::from(engine.broken().is_none())));
}

fn about_the_guard(page: &mut Page, view: &View) {
    let counters = view.guard.counters();
    page.family(
        "crewfs_refused_changes_total",
        Type::Counter,
        "Changes of the tree's files that were refused since the start: locked by another worker, stale, or owned by a claimed task.",
    );
    counters.refusals.all().for_each(|(reason, count)| page.sample(&[("reason", reason)], count as f64));
    page.family(
        "crewfs_waited_changes_total",
        Type::Counter,
        "Changes of the tree's files that waited for a lock since the start.",
    );
    page.sample(&[], counters.waited.load(Ordering::Relaxed) as f64);
    page.family(
        "crewfs_dropped_pages_total",
        Type::Counter,
        "How often the kernel was told to drop what it keeps of a file since the start, so that a read is noticed.",
    );
    page.sample(&[], counters.pages_dropped.load(Ordering::Relaxed) as f64);
}

fn about_the_sessions(page: &mut Page, view: &View) {
    page.family(
        "crewfs_fuse_requests_total",
        Type::Counter,
        "What the kernel asked since the start, by mount and kind of request.",
    );
    let sessions: [Option<&SessionInfo>; 2] =
        [&view.tree_session, &view.desk_session].map(|session| session.get().map(|terms| &**terms));
    for (session, terms) in ["tree", "desk"].into_iter().zip(sessions) {
        for (kind, count) in terms.into_iter().flat_map(SessionInfo::asked) {
            page.sample(&[("session", session), ("kind", kind)], count as f64);
        }
    }
}

#[derive(Clone, Copy)]
enum Type {
    Counter,
    Gauge,
    Histogram,
}

/// A text in the format, as far as it is written.
#[derive(Default)]
struct Page {
    text: String,
    name: &'static str,
}

impl Page {
    /// What follows are samples of this metric.
    fn family(&mut self, name: &'static str, kind: Type, help: &str) {
        let kind = match kind {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
        };
        self.name = name;
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.line("", labels, value);
    }

    /// Values and bounds are multiplied by `unit`.
    fn histogram(&mut self, histogram: &Histogram, unit: f64) {
        let (buckets, all, sum) = histogram.read();
        for (bound, count) in buckets {
            self.line("_bucket", &[("le", &number(bound as f64 * unit))], count as f64);
        }
        self.line("_bucket", &[("le", "+Inf")], all as f64);
        self.line("_sum", &[], sum as f64 * unit);
        self.line("_count", &[], all as f64);
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        self.text += self.name;
        self.text += suffix;
        for (n, (label, value)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{label}=\"{value}\"", if n == 0 { '{' } else { ',' });
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {}", number(value));
    }
}

/// Six decimals are enough for microseconds; what multiplying leaves behind them is noise.
fn number(value: f64) -> String {
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}
