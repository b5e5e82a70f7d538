//! What callers may see of tasks whose files not every user may read (C18).
//!
//! May assume: the queue knows who may read the file of each task.
//! Must never: show a text of such a task, or one that follows from it, to a caller who may not read that file.

use std::os::fd::AsFd;

use serde::Serialize;
use serde_json::Value;

use super::super::permissions::{access_of, allow};
use super::super::rights::groups_of;
use super::super::{FsError, Request, Result};
use super::view::View;
use crate::queue::{Eyes, Manifest, Record, Refusal, State, TaskId, Wanted, WorkerName};

impl View {
    /// What a caller may see. While no text is private, the caller's groups are not read.
    pub(super) fn eyes(&self, req: &Request, state: &State) -> Eyes {
        if req.uid == 0 || req.uid == self.config.owner_uid {
            return Eyes::All;
        }
        if !state.has_private() {
            return Eyes::User { uid: req.uid, groups: Vec::new() };
        }
        match self.callers.reader(req) {
            Ok(caller) if caller.actor.operator => Eyes::All,
            _ => {
                Eyes::User { uid: req.uid, groups: [req.gid].into_iter().chain(groups_of(req.tid)).collect() }
            }
        }
    }

    /// Refuses the content of a task's file to a caller that may not read it.
    pub(super) fn may_read(&self, req: &Request, task: &TaskId, file: impl AsFd) -> Result<()> {
        let eyes = self.eyes(req, &self.engine.state());
        if eyes == Eyes::All || allow(&access_of(file)?, req, Wanted::Read) {
            return Ok(());
        }
        Err(self.withheld(req, task))
    }

    /// The refusal of a text. The worker can read why.
    pub(super) fn withheld(&self, req: &Request, task: &TaskId) -> FsError {
        match self.callers.reader(req) {
            Ok(caller) => {
                let (task, worker) = (task.clone(), caller.actor.worker.clone());
                let refusal = FsError::from(Refusal::Private { task, worker });
                self.callers.refused(&caller, &refusal);
                refusal
            }
            Err(error) => error,
        }
    }
}

/// An event without its texts.
#[derive(Serialize)]
struct Bare<'a> {
    seq: u64,
    at: String,
    event: &'a str,
    task: &'a TaskId,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<&'a WorkerName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'a WorkerName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
}

/// Removes texts that these eyes may not see from whole lines of `events.jsonl`. Spaces at the end keep each line as long as it is, so that
/// every reader finds it at the same place.
pub(super) fn hide_texts(lines: &mut [u8], state: &State, eyes: &Eyes) {
    if *eyes == Eyes::All || !state.has_private() {
        return;
    }
    for line in lines.split_inclusive_mut(|byte| *byte == b'\n') {
        let Some((end, text)) = line.split_last_mut() else { continue };
        if *end == b'\n' && has_text_for_others(text, state, eyes) {
            hide(text);
        }
    }
}

/// Whether a line is about a task whose text these eyes may not see. A line that cannot be parsed counts as one.
fn has_text_for_others(line: &[u8], state: &State, eyes: &Eyes) -> bool {
    #[derive(serde::Deserialize)]
    struct About {
        task: Option<TaskId>,
    }
    match serde_json::from_slice::<About>(line) {
        Ok(About { task }) => task.is_some_and(|task| !state.shows_history(&task, eyes)),
        Err(_) => true,
    }
}

fn hide(line: &mut [u8]) {
    let bare =
        serde_json::from_slice::<Record>(line).ok().and_then(|record| bare(&record)).unwrap_or_default();
    let bare = if bare.len() <= line.len() { bare } else { Vec::new() };
    let (shown, rest) = line.split_at_mut(bare.len());
    shown.copy_from_slice(&bare);
    rest.fill(b' ');
}

fn bare(record: &Record) -> Option<Vec<u8>> {
    use crate::queue::Event;
    let (mut worker, mut by, mut reason, mut title) = (None, None, None, None);
    match &record.event {
        Event::Published { manifest: Manifest::Spec(spec), .. } => title = Some(spec.title.as_str()),
        Event::Claimed { worker: holder, .. } => worker = Some(holder),
        Event::Completed { worker: holder, by: operator, .. }
        | Event::Failed { worker: holder, by: operator, .. } => {
            (worker, by) = (holder.as_ref(), operator.as_ref());
        }
        Event::Returned { worker: holder, reason: why, .. } => {
            (worker, reason) = (Some(holder), serde_json::to_value(why).ok());
        }
        Event::Retried { by: retrier, .. } | Event::Forgotten { by: retrier, .. } => by = Some(retrier),
        _ => {}
    }
    let (seq, at, event, task) =
        (record.seq, record.at.to_string(), record.event.name(), record.event.task()?);
    Some(crate::shown::json(&Bare { seq, at, event, task, worker, by, reason, title }).into_bytes())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::queue::{Access, Content, Event, FileStamp, Spec, Wall};

    #[test]
    fn texts_of_others_are_taken_out_and_lines_stay_where_they_are() {
        let (task, worker) = (TaskId::parse("t").unwrap(), WorkerName::parse("w1").unwrap());
        let mut spec = Spec::titled("Title");
        spec.context = vec!["secret".into()];
        let readers = Some(Arc::new(Access { uid: 5, gid: 5, mode: 0o600, acl: Vec::new() }));
        let stamp = FileStamp { ino: 1, size: 1, mtime_ns: 1, readers };
        let text = || Content::new(*b"secret \n and more");
        let events = [
            Event::Published {
                task: task.clone(),
                manifest: Manifest::Spec(spec.into()),
                stamp,
                cycle: vec![],
            },
            Event::Joined { worker: worker.clone(), uid: 5 },
            Event::Claimed { task: task.clone(), worker: worker.clone() },
            Event::Noted { task: task.clone(), text: Content::new("secret") },
            Event::Completed { task: task.clone(), worker: Some(worker), by: None, text: Some(text()) },
            Event::Reported { task, text: text() },
        ];
        let records = (1..).zip(events).map(|(seq, event)| Record { seq, at: Wall(seq as i64), event });
        let records: Vec<_> = records.collect();
        let state = State::replay(&records);
        let whole: String = records.iter().map(crate::log::line).collect();
        let shown = |eyes: &Eyes| {
            let mut lines = whole.clone().into_bytes();
            hide_texts(&mut lines, &state, eyes);
            String::from_utf8(lines).unwrap()
        };
        for all in [Eyes::All, Eyes::User { uid: 5, groups: vec![] }] {
            assert_eq!(shown(&all), whole);
        }
        let bare = shown(&Eyes::User { uid: 6, groups: vec![5] });
        assert!(!bare.contains("secret") && bare.contains("\"title\":\"Title\""), "{bare}");
        let ends = |text: &str| text.match_indices('\n').map(|(at, _)| at).collect::<Vec<_>>();
        assert_eq!(ends(&bare), ends(&whole));
        for (line, record) in bare.lines().zip(&records) {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!((&line["seq"], &line["event"]), (&record.seq.into(), &record.event.name().into()));
            assert_eq!(line["at"], serde_json::to_value(record).unwrap()["at"], "times are written alike");
        }
        assert_eq!(bare.lines().nth(1), whole.lines().nth(1));
        let mut broken = *b"not json\n";
        hide_texts(&mut broken, &state, &Eyes::User { uid: 6, groups: vec![] });
        assert_eq!(&broken, b"        \n");
    }
}
