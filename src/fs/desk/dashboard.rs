//! `dashboard.html`: one self-contained page for people. Its template is `dashboard.html` beside this file.
//!
//! Must never: put a user's text into the page other than as JSON that cannot end the script element that holds it; grow with the number
//! of tasks beyond a bound.

use serde::Serialize;
use serde_json::Value;

use super::documents::{self, SummaryView};
use super::sentences::Sentences;
use super::view::View;
use crate::limits::{
    DASHBOARD_GRAIN, DASHBOARD_SPARE, TASKS_ON_THE_DASHBOARD, TEXT_ON_THE_DASHBOARD, WORKERS_ON_THE_DASHBOARD,
};
use crate::queue::{Eyes, Phase, Record, State, Task, TaskId, TaskState, Wall};
use crate::shown;

/// The page, with `{{summary}}` and `{{crew}}` where the data go.
const PAGE: &str = include_str!("dashboard.html");

/// What the page shows besides the summary.
#[derive(Serialize)]
struct DashboardExtras<'a> {
    workers: Vec<WorkerRow<'a>>,
    workers_more: usize,
    tasks: Vec<Row<'a>>,
    tasks_more: usize,
    events: Vec<RefusalRow>,
}

/// A task: id, state, worker, title, note or reason, and when it was published and changed, in milliseconds.
type Row<'a> = (&'a TaskId, TaskState, Option<&'a str>, String, String, i64, i64);

#[derive(Serialize)]
struct WorkerRow<'a> {
    worker: String,
    status: &'static str,
    task: Option<&'a TaskId>,
    note: String,
    completed: u64,
    failed: u64,
    heard: Option<Wall>,
}

#[derive(Serialize)]
struct RefusalRow {
    at: Wall,
    event: &'static str,
    task: Option<TaskId>,
    by: String,
    text: String,
}

/// The whole page.
pub(super) fn page(view: &View, state: &State, summary: &SummaryView<'_>, eyes: &Eyes) -> Vec<u8> {
    let (tasks, tasks_more) = tasks(state, eyes, view.sentences());
    let (workers, workers_more) = workers(view, state, eyes);
    let told = |record: &Record| {
        let told = told(record);
        match told.task.as_ref().is_none_or(|task| state.shows_history(task, eyes)) {
            true => told,
            false => RefusalRow { text: String::new(), ..told },
        }
    };
    let events = view.engine.recent().iter().rev().map(told).collect();
    filled(summary, &DashboardExtras { workers, workers_more, tasks, tasks_more, events })
}

fn filled(summary: &impl Serialize, crew: &impl Serialize) -> Vec<u8> {
    let mut page = Vec::with_capacity(PAGE.len() * 4);
    let mut rest = PAGE;
    for (mark, json) in [("{{summary}}", embedded(summary)), ("{{crew}}", embedded(crew))] {
        let (before, after) = rest.split_once(mark).expect("the page has both marks");
        page.extend_from_slice(before.as_bytes());
        page.extend_from_slice(json.as_bytes());
        rest = after;
    }
    page.extend_from_slice(rest.as_bytes());
    // A browser asks for the size first and reads that much later. Blank lines at the end usually keep the size the same; if not, only
    // they are cut off.
    let size = (page.len() + DASHBOARD_SPARE).next_multiple_of(DASHBOARD_GRAIN);
    page.resize(size, b'\n');
    page
}

/// JSON that can stand in a script element: nothing in it ends that, or begins a comment.
fn embedded(value: &impl Serialize) -> String {
    shown::json(value).replace('<', "\\u003c")
}

/// The tasks that are shown, and how many others there are: open tasks first, then those that changed last.
fn tasks<'a>(state: &'a State, eyes: &Eyes, sentences: Sentences<'_>) -> (Vec<Row<'a>>, usize) {
    let of = |listed| state.listed(listed).filter_map(|id| Some((id, &**state.task(id.as_str())?)));
    let open =
        [TaskState::Claimed, TaskState::Rejected, TaskState::Failed, TaskState::Ready, TaskState::Blocked];
    let mut shown: Vec<_> = open.into_iter().flat_map(of).take(TASKS_ON_THE_DASHBOARD).collect();
    let mut done: Vec<_> = of(TaskState::Completed).collect();
    done.sort_unstable_by_key(|(_, task)| std::cmp::Reverse(task.changed.seq));
    shown.extend(done);
    shown.truncate(TASKS_ON_THE_DASHBOARD);
    let more = state.len() - shown.len();
    (shown.into_iter().map(|(id, task)| row(state, id, task, eyes, sentences)).collect(), more)
}

fn row<'a>(
    state: &'a State,
    id: &'a TaskId,
    task: &'a Task,
    eyes: &Eyes,
    sentences: Sentences<'_>,
) -> Row<'a> {
    let why = || state.why(task, None, eyes).map_or_else(String::new, |why| sentences.why(&why));
    let (worker, says) = match &task.phase {
        Phase::Claimed(claim) => {
            let note = claim.note.as_ref().map(|note| note.text.clone());
            (Some(&claim.worker), note.unwrap_or_default())
        }
        Phase::Completed(finish) => {
            (finish.worker.as_ref(), finish.text.as_ref().map_or_else(String::new, |text| text.head.clone()))
        }
        Phase::Failed(finish) => (finish.worker.as_ref(), why()),
        Phase::Open | Phase::Rejected(_) => (None, why()),
    };
    let says = if state.shows(id, task, eyes) { says } else { String::new() };
    let (published, changed) = (task.published.at.0, task.changed.at.0);
    let worker = worker.map(|worker| worker.as_str());
    (id, state.state_of(task), worker, cut(&task.spec.title), cut(&says), published, changed)
}

/// The workers that are shown: those with a task first, then those that were heard of last.
fn workers<'a>(view: &View, state: &'a State, eyes: &Eyes) -> (Vec<WorkerRow<'a>>, usize) {
    let roster = view.engine.roster();
    let mut workers: Vec<_> = documents::everybody(state, &view.engine)
        .into_iter()
        .map(|name| {
            let known = state.worker(name.as_str());
            let task = known.and_then(|worker| worker.claims.last());
            WorkerRow {
                status: documents::status_of(state, &name),
                task,
                note: documents::note_of(state, &name, eyes).map_or_else(String::new, cut),
                completed: known.map_or(0, |worker| worker.completed),
                failed: known.map_or(0, |worker| worker.failed),
                heard: roster.get(name.as_str()).map(|presence| presence.last_heard_wall()),
                worker: name.to_string(),
            }
        })
        .collect();
    workers.sort_by_key(|worker| {
        (worker.task.is_none(), worker.task.is_none().then_some(std::cmp::Reverse(worker.heard)))
    });
    let more = workers.len().saturating_sub(WORKERS_ON_THE_DASHBOARD);
    workers.truncate(WORKERS_ON_THE_DASHBOARD);
    (workers, more)
}

/// One event, reduced to the fields that all events share.
fn told(record: &Record) -> RefusalRow {
    let event = serde_json::to_value(&record.event).unwrap_or_default();
    let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default();
    let by =
        [text("worker"), text("by")].into_iter().find(|by| !by.is_empty()).unwrap_or_default().to_string();
    let reason = event.get("reason").and_then(|reason| reason.get("kind")).and_then(Value::as_str);
    let text = reason.map_or_else(|| text("text").to_string(), |reason| reason.replace('_', " "));
    let text = cut(text.lines().next().unwrap_or_default());
    RefusalRow { at: record.at, event: record.event.name(), task: record.event.task().cloned(), by, text }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(TEXT_ON_THE_DASHBOARD) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_agents_write_ends_the_script_that_holds_it() {
        let evil = "</script><img src=x onerror=alert(1)><!-- {{crew}} \u{2028}";
        let page = filled(&evil, &[evil]);
        let page = String::from_utf8(page).unwrap();
        assert!(!page.contains("<img"), "it is there as markup");
        assert_eq!(page.matches("</script>").count(), PAGE.matches("</script>").count());
        let (_, rest) = page.split_once("id=\"crew\">").unwrap();
        let (json, _) = rest.split_once("</script>").unwrap();
        assert_eq!(serde_json::from_str::<Vec<String>>(json).unwrap(), [evil]);
    }

    #[test]
    fn the_size_seldom_changes_and_the_end_is_blank() {
        let page = filled(&"", &"");
        assert_eq!(page.len() % DASHBOARD_GRAIN, 0);
        assert!(page[page.len() - DASHBOARD_SPARE..].iter().all(|byte| *byte == b'\n'));
        assert_eq!(page.len(), filled(&"", &"a little more").len());
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        let long = "é".repeat(TEXT_ON_THE_DASHBOARD + 1);
        assert_eq!(cut(&long).chars().count(), TEXT_ON_THE_DASHBOARD + 1);
    }
}
