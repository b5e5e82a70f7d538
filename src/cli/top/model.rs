//! The documents of the desk, parsed: tasks, workers, events, and the summary.
//!
//! May assume: the documents of a desk. Missing or unknown members are no error, because another version may serve the mount.
//! Must never: touch a file, read a clock, or pass on control characters in texts of agents.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::limits::TOP_EVENTS;
use crate::queue::{Now, Span, Wall};
use crate::shown;

/// The states of a task, in the order in which the bar and the counts show them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(from = "String")]
pub(super) enum TaskStatus {
    Completed,
    Claimed,
    Ready,
    Blocked,
    Failed,
    Rejected,
    #[default]
    Unknown,
}

impl TaskStatus {
    pub(super) const ALL: [TaskStatus; 7] = [
        TaskStatus::Completed,
        TaskStatus::Claimed,
        TaskStatus::Ready,
        TaskStatus::Blocked,
        TaskStatus::Failed,
        TaskStatus::Rejected,
        TaskStatus::Unknown,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            TaskStatus::Completed => "completed",
            TaskStatus::Claimed => "claimed",
            TaskStatus::Ready => "ready",
            TaskStatus::Blocked => "blocked",
            TaskStatus::Failed => "failed",
            TaskStatus::Rejected => "rejected",
            TaskStatus::Unknown => "unknown",
        }
    }
}

impl From<String> for TaskStatus {
    fn from(name: String) -> TaskStatus {
        TaskStatus::ALL.into_iter().find(|state| state.name() == name).unwrap_or_default()
    }
}

/// A task of `queue.json`, as far as lists show it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct TaskEntry {
    #[serde(skip)]
    pub(super) id: String,
    pub(super) status: TaskStatus,
    pub(super) worker: Option<String>,
    pub(super) title: String,
    pub(super) priority: String,
    pub(super) published: Option<Wall>,
    pub(super) changed: Option<Wall>,
    pub(super) note: Option<String>,
}

/// A worker of `workers.json`, as far as lists show it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct WorkerEntry {
    #[serde(skip)]
    pub(super) name: String,
    pub(super) status: String,
    pub(super) task: Option<String>,
    pub(super) note: Option<String>,
    pub(super) completed: u64,
    pub(super) failed: u64,
    pub(super) last_heard: Option<Wall>,
}

/// An entry of the summary's list of what is stuck.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct StuckEntry {
    pub(super) kind: String,
    pub(super) task: Option<String>,
    pub(super) worker: Option<String>,
    pub(super) since: Option<Wall>,
    pub(super) why: String,
    pub(super) holds_up: u64,
    pub(super) next: Option<String>,
}

impl StuckEntry {
    /// Identifies the entry.
    pub(super) fn key(&self) -> String {
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        // For misnamed files only the message says which file it is.
        let why = if self.kind == "misnamed" { self.why.as_str() } else { "" };
        format!("{} {} {}{why}", self.kind, part(&self.task), part(&self.worker))
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ThroughputChart {
    pub(super) by_minute: Vec<u64>,
    pub(super) per_hour: Option<f64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct BurnDownChart {
    pub(super) from: Option<Wall>,
    pub(super) open: Vec<u64>,
}

/// `summary.json`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct SummaryDocument {
    pub(super) at: Option<Wall>,
    pub(super) paused: Option<Wall>,
    pub(super) throughput: ThroughputChart,
    pub(super) remaining: u64,
    pub(super) held_up: u64,
    pub(super) eta: Option<Wall>,
    pub(super) burn_down: BurnDownChart,
    pub(super) stuck: Vec<StuckEntry>,
    pub(super) stuck_more: u64,
}

/// An event as a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EventEntry {
    pub(super) seq: u64,
    pub(super) at: Wall,
    pub(super) task: Option<String>,
    pub(super) text: String,
}

/// The documents of one reading. One that is `None` has not changed.
#[derive(Debug, Default)]
pub(super) struct MountUpdate {
    pub(super) queue: Option<String>,
    pub(super) workers: Option<String>,
    pub(super) summary: Option<String>,
    /// New lines of `events.jsonl`.
    pub(super) events: Option<String>,
}

/// Everything that was read of the mount.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// In the order of their ids.
    pub(super) tasks: Vec<TaskEntry>,
    /// In the order of their names.
    pub(super) workers: Vec<WorkerEntry>,
    /// Absent where the mount has none.
    pub(super) summary: Option<SummaryDocument>,
    /// The latest first.
    pub(super) events: Vec<EventEntry>,
    queue_text: String,
    workers_text: String,
    /// The latest time in a summary, and when it was read.
    told: Option<(Wall, Now)>,
}

impl Model {
    /// Take in the documents of one reading.
    pub(super) fn update(&mut self, answer: MountUpdate, now: Now) -> Result<(), String> {
        if let Some(text) = answer.queue {
            let tasks: BTreeMap<String, TaskEntry> = understood("queue.json", &text)?;
            self.tasks = tasks.into_iter().map(|(id, task)| task.named(id)).collect();
            self.queue_text = text;
        }
        if let Some(text) = answer.workers {
            let workers: BTreeMap<String, WorkerEntry> = understood("workers.json", &text)?;
            self.workers = workers.into_iter().map(|(name, worker)| worker.named(name)).collect();
            self.workers_text = text;
        }
        if let Some(text) = answer.summary {
            let mut summary: SummaryDocument = understood("summary.json", &text)?;
            for stuck in &mut summary.stuck {
                stuck.why = clean(&stuck.why);
                stuck.next = stuck.next.as_deref().map(clean);
            }
            self.told = summary.at.map(|at| (at, now));
            self.summary = Some(summary);
        }
        if let Some(lines) = answer.events {
            let mut events: Vec<EventEntry> = lines.lines().rev().filter_map(event).collect();
            events.append(&mut self.events);
            events.truncate(TOP_EVENTS);
            self.events = events;
        }
        Ok(())
    }

    /// The time on the machine that serves the mount. This machine may have another.
    pub(super) fn time(&self, now: Now) -> Wall {
        match self.told {
            Some((told, then)) => Wall(told.0.saturating_add_unsigned(now.instant.since(then.instant).0)),
            None => now.wall,
        }
    }

    /// How many tasks are in a state.
    pub(super) fn count(&self, state: TaskStatus) -> usize {
        self.tasks.iter().filter(|task| task.status == state).count()
    }

    /// How many workers have this status.
    pub(super) fn workers_that(&self, status: &str) -> usize {
        self.workers.iter().filter(|worker| worker.status == status).count()
    }

    /// All members of a task: names and values.
    pub(super) fn task_details(&self, id: &str) -> Option<Vec<(String, String)>> {
        details(&self.queue_text, id)
    }

    /// All members of a worker.
    pub(super) fn worker_details(&self, name: &str) -> Option<Vec<(String, String)>> {
        details(&self.workers_text, name)
    }
}

impl TaskEntry {
    fn named(self, id: String) -> TaskEntry {
        TaskEntry { id, title: clean(&self.title), note: self.note.as_deref().map(clean), ..self }
    }
}

impl WorkerEntry {
    fn named(self, name: String) -> WorkerEntry {
        WorkerEntry { name, note: self.note.as_deref().map(clean), ..self }
    }
}

fn understood<T: DeserializeOwned>(name: &str, text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| format!("{name} cannot be understood: {error}"))
}

/// A member of a document that has one member a line.
fn details(document: &str, name: &str) -> Option<Vec<(String, String)>> {
    let begins = format!("  {}: ", Value::from(name));
    let line = document.lines().find_map(|line| line.strip_prefix(&begins))?;
    let members: serde_json::Map<String, Value> = serde_json::from_str(line.trim_end_matches(',')).ok()?;
    let mut found = Vec::new();
    // The map is sorted by name. The most important members go first.
    for first in ["status", "title", "why", "worker", "task", "priority", "note"] {
        found.extend(members.get(first).map(|value| (first.to_string(), shown(value))));
    }
    let rest = members.iter().filter(|(name, _)| !found.iter().any(|(there, _)| there == *name));
    let rest: Vec<_> = rest.map(|(name, value)| (name.clone(), shown(value))).collect();
    found.extend(rest);
    Some(found)
}

/// A value as text. Each item of a list is a line.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.lines().map(clean).collect::<Vec<_>>().join("\n"),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join("\n"),
        Value::Object(members) => members.values().map(shown).collect::<Vec<_>>().join("  "),
        other => other.to_string(),
    }
}

/// One line of text without control characters.
pub(super) fn clean(text: &str) -> String {
    text.trim().chars().map(|c| if shown::steers(c) { ' ' } else { c }).collect()
}

/// A span in one unit, rounded down.
pub(super) fn short(Span(ms): Span) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..100 => format!("{seconds}s"),
        100..6_000 => format!("{}m", seconds / 60),
        6_000..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// How long ago, or `-` if the time is unknown.
pub(super) fn ago(at: Option<Wall>, now: Wall) -> String {
    at.map_or("-".into(), |at| short(Span(now.0.saturating_sub(at.0).max(0).unsigned_abs())))
}

/// A line of the event log.
#[derive(Deserialize)]
struct LogLine {
    seq: u64,
    at: Wall,
    event: String,
    task: Option<String>,
    worker: Option<String>,
    by: Option<String>,
    text: Option<Value>,
    reason: Option<Value>,
    paused: Option<bool>,
    draining: Option<bool>,
}

fn event(line: &str) -> Option<EventEntry> {
    let line: LogLine = serde_json::from_str(line).ok()?;
    let text = clean(&sentence(&line));
    Some(EventEntry { seq: line.seq, at: line.at, task: line.task, text })
}

fn sentence(line: &LogLine) -> String {
    let task = line.task.as_deref().unwrap_or_default();
    let by = line.by.as_deref().unwrap_or("an operator");
    let worker = line.worker.as_deref().unwrap_or("a worker");
    let text = || match &line.text {
        Some(Value::String(text)) => text.lines().next().unwrap_or_default().to_string(),
        Some(Value::Object(beside)) => {
            beside.get("head").and_then(Value::as_str).unwrap_or_default().to_string()
        }
        _ => String::new(),
    };
    match line.event.as_str() {
        "published" => format!("{task} was published"),
        "file_opened" => format!("{task} is being written"),
        "file_missing" => format!("the file of {task} is gone"),
        "withdrawn" => format!("{task} was withdrawn"),
        "forgotten" => format!("{by} removed the record of {task}"),
        "claimed" => format!("{worker} claimed {task}"),
        "noted" => format!("{task}: {}", text()),
        "completed" if line.worker.is_none() => format!("{by} completed {task}"),
        "completed" => format!("{worker} completed {task}"),
        "failed" if line.worker.is_none() && line.by.is_none() && !text().is_empty() => {
            format!("{task} failed: {}", text())
        }
        "failed" if line.worker.is_none() => format!("{by} gave {task} up"),
        "failed" => format!("{worker} gave {task} up"),
        "reported" => format!("{task}, result: {}", text()),
        "returned" => returned(line, task, worker),
        "retried" => format!("{by} wants {task} done again"),
        "joined" => format!("{worker} joined"),
        "drained" if line.draining == Some(false) => format!("{worker} may claim again"),
        "drained" => format!("{worker} drains"),
        "paused" if line.paused == Some(false) => format!("{by} let the queue go on"),
        "paused" => format!("{by} paused the queue"),
        "cycle_broken" => format!("{task} needs itself no more"),
        other => [worker_or_nothing(line), other.replace('_', " ").as_str(), task].join(" "),
    }
}

fn worker_or_nothing(line: &LogLine) -> &str {
    line.worker.as_deref().unwrap_or_default()
}

fn returned(line: &LogLine, task: &str, worker: &str) -> String {
    let reason = line.reason.as_ref().unwrap_or(&Value::Null);
    match reason["kind"].as_str() {
        Some("given_back") => format!("{worker} gave {task} back"),
        Some("taken_away") => {
            format!("{} took {task} away from {worker}", reason["by"].as_str().unwrap_or("an operator"))
        }
        Some("lease_expired") => {
            let silent = short(Span(reason["silent"].as_u64().unwrap_or_default()));
            format!("{worker} lost {task}: silent for {silent}")
        }
        Some(other) => format!("{worker} lost {task}: {}", other.replace('_', " ")),
        None => format!("{worker} lost {task}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Instant;

    fn at(ms: i64) -> Now {
        Now { wall: Wall(ms), instant: Instant(ms.unsigned_abs()) }
    }

    fn answer(queue: &str) -> MountUpdate {
        MountUpdate { queue: Some(queue.into()), ..MountUpdate::default() }
    }

    #[test]
    fn a_queue_of_another_version_is_understood() {
        let mut model = Model::default();
        let queue = "{\n  \"a\": {\"status\":\"ready\",\"worker\":null,\"title\":\"A\\u001b[31m\",\"colour\":[1]},\n  \
                     \"b\": {\"status\":\"asleep\"}\n}\n";
        model.update(answer(queue), at(0)).unwrap();
        assert_eq!((model.count(TaskStatus::Ready), model.count(TaskStatus::Unknown)), (1, 1));
        assert_eq!(model.tasks[0].title, "A [31m");
        let details = model.task_details("a").unwrap();
        assert_eq!(details[0], ("status".to_string(), "ready".to_string()));
        assert!(details.contains(&("colour".to_string(), "1".to_string())));
        assert!(model.task_details("c").is_none());
        assert!(model.update(answer("{\"a\": "), at(0)).unwrap_err().contains("queue.json"));
        assert_eq!(model.tasks.len(), 2, "what was known stays");
    }

    #[test]
    fn events_are_sentences_latest_first() {
        let mut model = Model::default();
        let lines = [
            r#"{"seq":1,"at":"2026-01-01T00:00:00.000Z","event":"published","task":"a","manifest":{}}"#,
            r#"{"seq":2,"at":"2026-01-01T00:00:00.000Z","event":"claimed","task":"a","worker":"w1"}"#,
            r#"{"seq":3,"at":"2026-01-01T00:00:00.000Z","event":"returned","task":"a","worker":"w1","reason":{"kind":"lease_expired","silent":61000}}"#,
            r#"{"seq":4,"at":"2026-01-01T00:00:00.000Z","event":"time_passed"}"#,
            r#"{"seq":5,"at":"2026-01-01T00:00:00.000Z","event":"reported","task":"a","text":"one\ntwo"}"#,
            "half a li",
        ];
        let events =
            |lines: &[&str]| MountUpdate { events: Some(lines.join("\n")), ..MountUpdate::default() };
        model.update(events(&lines[..2]), at(0)).unwrap();
        model.update(events(&lines[2..]), at(0)).unwrap();
        let said: Vec<&str> = model.events.iter().map(|event| event.text.as_str()).collect();
        assert_eq!(
            said,
            ["a, result: one", "time passed", "w1 lost a: silent for 61s", "w1 claimed a", "a was published"]
        );
        assert_eq!(model.events[0].seq, 5);
    }

    #[test]
    fn the_time_is_that_of_the_mount() {
        let mut model = Model::default();
        assert_eq!(model.time(at(7)), Wall(7));
        let summary = r#"{"at":"1970-01-01T01:00:00.000Z","stuck":[{"kind":"failed","task":"a","why":"no\ndisk"}],"new":1}"#;
        model
            .update(MountUpdate { summary: Some(summary.into()), ..MountUpdate::default() }, at(1000))
            .unwrap();
        assert_eq!(model.time(at(3000)), Wall(3_602_000));
        let stuck = &model.summary.as_ref().unwrap().stuck[0];
        assert_eq!((stuck.key().as_str(), stuck.why.as_str()), ("failed a ", "no disk"));
    }

    #[test]
    fn spans_are_short() {
        for (seconds, text) in
            [(0, "0s"), (99, "99s"), (100, "1m"), (5_999, "99m"), (6_000, "1h"), (200_000, "2d")]
        {
            assert_eq!(short(Span(seconds * 1000)), text);
        }
        assert_eq!(ago(Some(Wall(5_000)), Wall(2_000)), "0s", "a clock that is behind");
        assert_eq!(ago(None, Wall(0)), "-");
    }
}
