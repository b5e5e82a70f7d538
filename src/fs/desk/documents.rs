//! What reading a synthesized node shows: every document, from the state alone.
//!
//! May assume: a state that stays as it is.
//! Must never: show a value that changes by itself. A document changes only with the state, or with a sign of life of a worker, so
//! that its size and time are known without reading it (C1).

use std::borrow::Cow;

use serde::Serialize;
use serde_json::json;

use super::sentences::Sentences;
use crate::engine::{Engine, Heartbeat};
use crate::queue::{
    Eyes, FileState, Loss, Lost, Priority, Span, Standing, State, StuckKind, Summary, Task, TaskId,
    TaskState, Wall, WorkerName, lease,
};
use crate::shown;

/// A task as `status/<id>`, `claim/<id>` and `queue.json` show it. `status` and `worker` are always present.
#[derive(Serialize)]
struct TaskView<'a> {
    status: TaskState,
    worker: Option<&'a WorkerName>,
    title: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    private: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    why: String,
    priority: Priority,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'static str>,
    published: Wall,
    changed: Wall,
    #[serde(skip_serializing_if = "Option::is_none")]
    claimed: Option<Wall>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished: Option<Wall>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_by: Option<&'a WorkerName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_bytes: Option<u64>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    needs: &'a [TaskId],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    waits_for: Vec<&'a TaskId>,
    attempts: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lost_claims: Vec<LossView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<Wall>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    overdue: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_before: Option<Wall>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    requires: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    owns: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    context: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    warnings: Cow<'a, [String]>,
}

#[derive(Serialize)]
struct LossView<'a> {
    worker: &'a WorkerName,
    at: Wall,
    reason: String,
}

/// `caller`: the worker that reads it, if it is made for one. Texts that only readers of the task's file may see are left out where
/// these eyes may not read it.
fn view<'a>(
    state: &'a State,
    id: &TaskId,
    task: &'a Task,
    caller: Option<&str>,
    eyes: &Eyes,
    sentences: Sentences<'_>,
) -> TaskView<'a> {
    let view = whole_view(state, task, caller, eyes, sentences);
    if state.shows(id, task, eyes) {
        return view;
    }
    TaskView {
        private: true,
        why: String::new(),
        note: None,
        result: None,
        result_bytes: None,
        needs: &[],
        waits_for: Vec::new(),
        requires: &[],
        owns: &[],
        context: &[],
        warnings: Cow::Borrowed(&[]),
        ..view
    }
}

fn whole_view<'a>(
    state: &'a State,
    task: &'a Task,
    caller: Option<&str>,
    eyes: &Eyes,
    sentences: Sentences<'_>,
) -> TaskView<'a> {
    let (claim, finish) = (task.claim(), task.finish());
    let spec = &task.spec;
    let loss =
        |loss: &'a Loss| LossView { worker: &loss.worker, at: loss.at, reason: loss.reason.to_string() };
    let lease = lease::named(state, task);
    let why = state.why(task, caller, eyes);
    TaskView {
        status: state.state_of(task),
        worker: claim.map(|c| &c.worker).or_else(|| finish.and_then(|f| f.worker.as_ref())),
        title: &spec.title,
        private: false,
        why: why.map_or_else(String::new, |why| sentences.why(&why)),
        priority: spec.priority,
        file: match task.file {
            FileState::Present => None,
            FileState::Open(_) => Some("being written"),
            FileState::Missing(_) => Some("missing"),
        },
        published: task.published.at,
        changed: task.changed.at,
        claimed: claim.map(|c| c.since.at),
        epoch: claim.map(|c| c.epoch()),
        note: claim.and_then(|c| c.note.as_ref()).map(|note| note.text.as_str()),
        finished: finish.map(|f| f.when.at),
        finished_by: finish.and_then(|f| f.by.as_ref()),
        result: finish.and_then(|f| f.text.as_ref()).map(|text| text.head.as_str()),
        result_bytes: finish.and_then(|f| f.text.as_ref()).map(|text| text.size),
        needs: &spec.needs,
        waits_for: task.unmet.iter().collect(),
        attempts: spec.attempts,
        lost_claims: task.losses.iter().map(loss).collect(),
        lease: lease.map(|lease| lease.granted.to_string()),
        deadline: task.deadline(),
        overdue: task.is_unfinished() && task.deadline().is_some_and(|wall| wall <= state.last_at()),
        not_before: task.not_before(),
        requires: &spec.requires,
        owns: &spec.owns,
        context: &spec.context,
        warnings: match lease.and_then(|lease| sentences.cut_lease(lease)) {
            Some(cut) => spec.warnings.iter().cloned().chain([cut]).collect(),
            None => Cow::Borrowed(&spec.warnings),
        },
    }
}

/// `status/<id>`, and `claim/<id>`: one JSON object, the id first.
pub(super) fn task(
    state: &State,
    id: &TaskId,
    task: &Task,
    caller: Option<&str>,
    eyes: &Eyes,
    sentences: Sentences<'_>,
) -> Vec<u8> {
    #[derive(Serialize)]
    struct Named<'a> {
        task: &'a TaskId,
        #[serde(flatten)]
        view: TaskView<'a>,
    }
    pretty(&Named { task: id, view: view(state, id, task, caller, eyes, sentences) })
}

/// `queue.json`: an object of all tasks, one a line.
pub(super) fn queue(state: &State, eyes: &Eyes, sentences: Sentences<'_>) -> Vec<u8> {
    object(state.tasks().map(|(id, task)| (id.as_str(), view(state, id, task, None, eyes, sentences))))
}

/// `summary.json`: an object with one member a line.
pub(super) fn summary(summary: &SummaryView<'_>) -> Vec<u8> {
    let members = serde_json::to_value(summary).expect("string keys and plain values");
    object(members.as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), value)))
}

/// The summary with what is stuck in words.
#[derive(Serialize)]
pub(super) struct SummaryView<'a> {
    #[serde(flatten)]
    summary: &'a Summary,
    stuck: Vec<StuckView<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    stuck_more: usize,
}

#[derive(Serialize)]
struct StuckView<'a> {
    kind: StuckKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<&'a TaskId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<&'a WorkerName>,
    since: Wall,
    why: String,
    #[serde(skip_serializing_if = "is_zero")]
    holds_up: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

impl<'a> SummaryView<'a> {
    pub(super) fn new(summary: &'a Summary, sentences: Sentences<'_>) -> SummaryView<'a> {
        let stuck = summary.stuck.iter().map(|stuck| StuckView {
            kind: stuck.reason.kind(),
            task: stuck.task.as_ref(),
            worker: stuck.worker.as_ref(),
            since: stuck.since,
            why: sentences.stuck(stuck),
            holds_up: stuck.holds_up,
            next: sentences.next(stuck),
        });
        SummaryView { summary, stuck: stuck.collect(), stuck_more: summary.stuck_more }
    }
}

/// A worker as `workers/<name>/status` and `workers.json` show it.
#[derive(Serialize)]
struct WorkerView<'a> {
    status: &'static str,
    task: Option<&'a TaskId>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    claims: &'a [TaskId],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    capabilities: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
    completed: u64,
    failed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    joined: Option<Wall>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_heard: Option<Wall>,
}

/// What a worker does: `working`, `idle` or `draining`.
pub(super) fn status_of(state: &State, name: &WorkerName) -> &'static str {
    let holds = state.worker(name.as_str()).is_some_and(|worker| !worker.claims.is_empty());
    match (state.is_draining(name.as_str()), holds) {
        (true, _) => "draining",
        (false, true) => "working",
        (false, false) => "idle",
    }
}

fn worker_view<'a>(
    state: &'a State,
    name: &WorkerName,
    presence: Option<&Heartbeat>,
    eyes: &Eyes,
) -> WorkerView<'a> {
    let worker = state.worker(name.as_str());
    let claims = worker.map_or(&[][..], |w| &w.claims);
    let task = claims.last();
    WorkerView {
        status: status_of(state, name),
        task,
        claims,
        capabilities: state.capabilities(name.as_str()),
        note: note_of(state, name, eyes),
        completed: worker.map_or(0, |w| w.completed),
        failed: worker.map_or(0, |w| w.failed),
        joined: worker.map(|w| w.joined.at),
        last_heard: presence.map(Heartbeat::last_heard_wall),
    }
}

/// `workers/<name>/status`.
pub(super) fn worker(state: &State, engine: &Engine, name: &WorkerName, eyes: &Eyes) -> Vec<u8> {
    #[derive(Serialize)]
    struct Named<'a> {
        worker: &'a WorkerName,
        #[serde(flatten)]
        view: WorkerView<'a>,
    }
    let presence = engine.roster().get(name.as_str());
    let view = worker_view(state, name, presence.as_deref(), eyes);
    pretty(&Named { worker: name, view })
}

/// Every worker that ever claimed a task, or was heard of lately, by name.
pub(super) fn everybody(state: &State, engine: &Engine) -> Vec<WorkerName> {
    let mut names: Vec<WorkerName> = state.workers().map(|(name, _)| name.clone()).collect();
    names.extend(engine.roster().all().into_iter().map(|presence| presence.name.clone()));
    names.sort();
    names.dedup();
    names
}

/// `workers.json`: an object of all workers, one a line.
pub(super) fn workers(state: &State, engine: &Engine, eyes: &Eyes) -> Vec<u8> {
    let names = everybody(state, engine);
    object(names.iter().map(|name| {
        let presence = engine.roster().get(name.as_str());
        (name.as_str(), worker_view(state, name, presence.as_deref(), eyes))
    }))
}

/// `workers/<name>/why`: the newest of the last refusal, the last lost claim, and the withdrawal of instructions of a claimed task; and
/// whether it depends on the state.
pub(super) fn worker_why(
    state: &State,
    refusal: Option<(Wall, String)>,
    name: &WorkerName,
    sentences: Sentences<'_>,
) -> (Vec<u8>, bool) {
    let worker = state.worker(name.as_str());
    let lost = worker.and_then(|worker| worker.lost.as_ref()).map(|Lost { task, at, reason }| {
        let now = match state.task(task.as_str()) {
            Some(found) => state.standing(found),
            None => Standing::Withdrawn,
        };
        (*at, sentences.lost_claim(task, reason, &now))
    });
    let claims = worker.map_or(&[][..], |worker| &worker.claims);
    let without_file = claims.iter().filter_map(|id| {
        let task = state.task(id.as_str())?;
        let withdrawn = State::withdrawn_since(task)?;
        Some((withdrawn, sentences.works_without_instructions(id, withdrawn)))
    });
    let of_state = lost.into_iter().chain(without_file).max_by_key(|(at, _)| *at);
    let of_state = of_state.filter(|(at, _)| refusal.as_ref().is_none_or(|(refused, _)| refused < at));
    let depends = of_state.is_some();
    let line =
        of_state.or(refusal).map_or_else(String::new, |(at, why)| format!("{at} {}\n", shown::line(&why)));
    (line.into_bytes(), depends)
}

/// The text of the progress note of a worker's youngest claim, if it is for these eyes.
pub(super) fn note_of<'a>(state: &'a State, name: &WorkerName, eyes: &Eyes) -> Option<&'a str> {
    let id = state.worker(name.as_str())?.claims.last()?;
    let task = state.task(id.as_str()).filter(|task| state.shows(id, task, eyes))?;
    Some(task.claim()?.note.as_ref()?.text.as_str())
}

/// `workers/<name>/note`: the progress note of its youngest claim.
pub(super) fn note(state: &State, name: &WorkerName, eyes: &Eyes) -> Vec<u8> {
    note_of(state, name, eyes).map_or_else(Vec::new, |text| format!("{text}\n").into_bytes())
}

/// `workers/<name>/capabilities`: its words on one line.
pub(super) fn capabilities(state: &State, name: &WorkerName) -> Vec<u8> {
    let mut words = state.capabilities(name.as_str()).join(" ");
    if !words.is_empty() {
        words.push('\n');
    }
    words.into_bytes()
}

/// `workers/<name>/locks`: one path a line.
pub(super) fn lines(paths: &[String]) -> Vec<u8> {
    paths.iter().map(|path| shown::line(path) + "\n").collect::<String>().into_bytes()
}

/// `workers/<name>/should-stop` (C60): nothing, or one line that tells the worker what to do next.
///
/// Agent programs take the line as the answer of a stop hook (C61). Gemini refuses commands with `$( )` or backticks in it.
/// `idle` is how long the worker has held nothing, and `limit` how long it may.
pub(super) fn should_stop(
    state: &State,
    tasks: &str,
    name: &WorkerName,
    (idle, limit): (Span, Span),
    eyes: &Eyes,
) -> Vec<u8> {
    let worker = state.worker(name.as_str());
    let draining = state.is_draining(name.as_str());
    let claimable = state.paused().is_none() && !draining;
    let held = worker.and_then(|w| w.claims.last());
    let gone = held.and_then(|id| state.task(id.as_str())).is_some_and(|task| task.file_is_missing());
    let reason = if let Some(task) = held.filter(|_| gone) {
        format!(
            "You hold {task}, but its instructions were withdrawn: {tasks}/{task}.md is gone. Finish it if you know what \
             it asked for: echo 'what you did' > {tasks}/completed/{task}. Else give it back: rm {tasks}/claim/{task}"
        )
    } else if let Some(task) = held {
        format!(
            "You hold {task}. Read {tasks}/workers/self/task, do what it says, then finish with: \
             echo 'what you did' > {tasks}/completed/{task}"
        )
    } else if let Some(task) = state.best_for(Some(name.as_str()), eyes).filter(|_| claimable) {
        format!(
            "{task} is ready. Claim it with: touch {tasks}/claim/next and then read {tasks}/workers/self/task"
        )
    } else if !draining && idle < limit {
        format!("No task is ready yet. Wait a little, then look again: sleep 15; ls {tasks}/ready")
    } else {
        return Vec::new();
    };
    (shown::json(&json!({"decision": "block", "reason": reason})) + "\n").into_bytes()
}

fn pretty(value: &impl Serialize) -> Vec<u8> {
    (shown::pretty_json(value) + "\n").into_bytes()
}

/// A JSON object with one member a line, so that `grep` finds whole members.
fn object<'a>(members: impl Iterator<Item = (&'a str, impl Serialize)>) -> Vec<u8> {
    let mut text = String::from("{");
    for (n, (key, value)) in members.enumerate() {
        text += if n == 0 { "\n  " } else { ",\n  " };
        text += &shown::json(&key);
        text += ": ";
        text += &shown::json(&value);
    }
    text += "\n}\n";
    text.into_bytes()
}
