//! The state of the mount as plain text, for scripts and where there is no terminal.
//!
//! Must never: have more than `TOP_PLAIN_LINES` lines of one sort. `queue.json` has all.

use std::fmt::Write;

use super::header::speed;
use super::model::{Model, TaskStatus, ago, short};
use super::ui::{Pane, Ui};
use crate::limits::TOP_PLAIN_LINES;
use crate::queue::{Span, Wall};

/// What the screen shows, without completed tasks.
pub(super) fn text(model: &Model, place: &str, now: Wall) -> String {
    let mut ui = Ui::new();
    ui.arrange(model);
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(out, "crewfs {place}");
    let counts = TaskStatus::ALL.map(|state| (state, model.count(state)));
    let counts = counts.iter().filter(|(state, count)| *state != TaskStatus::Unknown || *count > 0);
    let counts: Vec<String> = counts.map(|(state, count)| format!("{count} {}", state.name())).collect();
    let _ = writeln!(out, "tasks: {} ({})", model.tasks.len(), counts.join(", "));
    if let Some(summary) = &model.summary {
        if let Some(since) = summary.paused {
            let _ = writeln!(out, "paused: for {}", ago(Some(since), now));
        }
        if let Some(per_hour) = summary.throughput.per_hour {
            let _ = writeln!(out, "pace: {}", speed(per_hour));
        }
        let eta = summary.eta.map(|eta| Span(eta.0.saturating_sub(now.0).max(0).unsigned_abs()));
        let eta = eta.map_or(String::new(), |eta| format!(", about {}", short(eta)));
        let _ = writeln!(out, "to go: {}{eta}, {} held up", summary.remaining, summary.held_up);
    }
    let workers = &ui.list(Pane::Workers).rows;
    section(&mut out, "workers", workers.len(), workers.iter().map(|row| worker(model, *row, now)));
    let open = |row: &&usize| model.tasks[**row].status != TaskStatus::Completed;
    let tasks: Vec<&usize> = ui.list(Pane::Tasks).rows.iter().filter(open).collect();
    section(
        &mut out,
        "tasks not completed",
        tasks.len(),
        tasks.into_iter().map(|row| task(model, *row, now)),
    );
    if let Some(summary) = &model.summary {
        let count = summary.stuck.len() + summary.stuck_more as usize;
        let lines = summary.stuck.iter().map(|stuck| {
            let about = stuck.task.as_ref().or(stuck.worker.as_ref()).map_or("-", String::as_str);
            let next = stuck.next.as_ref().map_or(String::new(), |next| format!("; next: {next}"));
            format!("{}  {about}  {}{next}", stuck.kind.replace('_', " "), stuck.why)
        });
        section(&mut out, "stuck", count, lines);
    }
    let lines =
        model.events.iter().take(10).map(|event| format!("{} ago  {}", ago(Some(event.at), now), event.text));
    section(&mut out, "last events", model.events.len().min(10), lines);
    out
}

fn section(out: &mut String, title: &str, count: usize, lines: impl Iterator<Item = String>) {
    let _ = writeln!(out, "\n{title}: {count}");
    let mut said = 0;
    for line in lines.take(TOP_PLAIN_LINES) {
        let _ = writeln!(out, "  {}", line.trim_end());
        said += 1;
    }
    if count > said {
        let _ = writeln!(out, "  and {} more", count - said);
    }
}

fn worker(model: &Model, row: usize, now: Wall) -> String {
    let worker = &model.workers[row];
    format!(
        "{}  {}  {}  silent {}  done {}  {}",
        worker.name,
        worker.status,
        worker.task.as_deref().unwrap_or("-"),
        ago(worker.last_heard, now),
        worker.completed,
        worker.note.as_deref().unwrap_or_default()
    )
}

fn task(model: &Model, row: usize, now: Wall) -> String {
    let task = &model.tasks[row];
    let worker = task.worker.as_deref().unwrap_or("-");
    format!("{}  {}  {worker}  since {}  {}", task.id, task.status.name(), ago(task.changed, now), task.title)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::model::MountUpdate;
    use crate::queue::Now;

    #[test]
    fn it_tells_what_is_not_completed_and_how_much_is_left_out() {
        let mut model = Model::default();
        let task = |n: usize| format!("\"t{n:03}\": {{\"status\":\"ready\",\"title\":\"T\\u0007\"}}");
        let mut queue: Vec<String> = (0..TOP_PLAIN_LINES + 5).map(task).collect();
        queue.push("\"done\": {\"status\":\"completed\"}".into());
        let summary = r#"{"remaining":3,"throughput":{"per_hour":240},"stuck":[{"kind":"failed","task":"x","why":"no","next":"mv it"}],"stuck_more":4}"#;
        let workers = r#"{"w1":{"status":"working","task":"t001","note":"half\tdone","completed":2}}"#;
        let answer = MountUpdate {
            queue: Some(format!("{{{}}}", queue.join(","))),
            summary: Some(summary.into()),
            workers: Some(workers.into()),
            events: None,
        };
        model.update(answer, Now::default()).unwrap();
        let said = text(&model, "here", Wall(0));
        for line in [
            "crewfs here".to_string(),
            format!(
                "tasks: {0} (1 completed, 0 claimed, {1} ready, 0 blocked, 0 failed, 0 rejected)",
                queue.len(),
                queue.len() - 1
            ),
            "pace: 4.0 a minute".into(),
            "to go: 3, 0 held up".into(),
            "  w1  working  t001  silent -  done 2  half done".into(),
            "  t000  ready  -  since -  T".into(),
            "  and 5 more".into(),
            "stuck: 5".into(),
            "  failed  x  no; next: mv it".into(),
            "  and 4 more".into(),
            "last events: 0".into(),
        ] {
            assert!(said.lines().any(|there| there == line), "{line:?} is missing in\n{said}");
        }
        assert!(!said.contains("done  completed") && !said.contains('\u{7}'), "{said}");
    }
}
