//! The model of tasks and their files, as the contract describes them: files with contents, and tasks that examine them.
//!
//! Must never: use the program's own mechanisms. The model has no events, no stamps and no clock.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

pub(crate) const IDS: [&str; 4] = ["t0", "t1", "t2", "t3"];
/// A task that needs the first of [`IDS`].
pub(crate) const DEP: &str = "dep";
pub(crate) const OPERATOR: &str = "operator";

/// The name of a task's file after it was moved aside.
pub(crate) fn other_name(id: &str) -> String {
    format!("{id}.md~")
}

/// The content of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    Title(String),
    /// Not a valid task.
    Wrong,
    /// Left by a killed writer.
    Torn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    Claimed,
    Completed,
    Failed,
}

impl Phase {
    pub(crate) fn directory(self) -> &'static str {
        if self == Phase::Failed { "failed" } else { "completed" }
    }
}

#[derive(Debug)]
struct Task {
    phase: Phase,
    worker: Option<&'static str>,
    result: Option<String>,
    /// The content that the file had when it was last whole.
    newest: Content,
    /// The title at the time of the claim.
    in_force: Option<String>,
    ousted: BTreeSet<&'static str>,
    lost: usize,
    published: Option<Value>,
}

#[derive(Debug)]
struct File {
    content: Content,
    open: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    tasks: BTreeMap<String, Task>,
    files: Vec<File>,
    /// From a task id, or a name aside, to a file number.
    names: BTreeMap<String, usize>,
    /// Completed tasks that have no record.
    met: BTreeSet<String>,
    texts: usize,
    /// Nothing is mounted, so the model examines no file.
    pub(crate) asleep: bool,
}

impl Model {
    /// A new text, which differs in length from all texts before.
    pub(crate) fn new_text(&mut self, wrong: bool) -> (String, Content) {
        self.texts += 1;
        let title = format!("v{}", self.texts);
        let priority = if wrong { "soon" } else { "high" };
        let text = format!("---|title: {title}|priority: {priority}|---|{}|", "x".repeat(self.texts));
        (text, if wrong { Content::Wrong } else { Content::Title(title) })
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        self.tasks.keys().cloned().chain([DEP.to_string()]).collect()
    }

    pub(crate) fn has(&self, id: &str) -> bool {
        self.names.contains_key(id)
    }

    pub(crate) fn has_aside(&self, id: &str) -> bool {
        self.names.contains_key(&other_name(id))
    }

    pub(crate) fn file(&self, id: &str) -> Option<usize> {
        self.names.get(id).copied()
    }

    pub(crate) fn is_named(&self, file: usize) -> bool {
        IDS.iter().any(|id| self.file(id) == Some(file))
    }

    /// Whether no process has the task's file open.
    pub(crate) fn is_quiet(&self, id: &str) -> bool {
        self.file(id).is_none_or(|file| !self.files[file].open)
    }

    /// Whether a move of the task's file has one clear meaning. Content left by a killed writer is recognised by its place.
    pub(crate) fn may_move(&self, id: &str) -> bool {
        self.file(id).is_none_or(|file| self.files[file].content != Content::Torn)
    }

    pub(crate) fn may_take_away(&self, id: &str, who: &str) -> bool {
        let Some(task) = self.tasks.get(id) else { return true };
        task.phase != Phase::Claimed || who == OPERATOR || task.worker == Some(who)
    }

    /// Each task examines its file.
    pub(crate) fn look(&mut self) {
        if self.asleep {
            return;
        }
        for id in IDS {
            let Some(file) = self.names.get(id).map(|file| &self.files[*file]) else { continue };
            if file.open && !self.tasks.contains_key(id) {
                continue;
            }
            let task = self.tasks.entry(id.to_string()).or_insert_with(|| Task {
                phase: Phase::Open,
                worker: None,
                result: None,
                newest: file.content.clone(),
                in_force: None,
                ousted: BTreeSet::new(),
                lost: 0,
                published: None,
            });
            self.met.remove(id);
            if !file.open {
                task.newest = file.content.clone();
            }
        }
        for task in self.tasks.values_mut().filter(|task| task.phase == Phase::Open) {
            if let Content::Title(title) = &task.newest {
                task.in_force = Some(title.clone());
            }
        }
    }

    pub(crate) fn write(&mut self, id: &str, content: Content) {
        match self.file(id) {
            Some(file) => self.files[file].content = content,
            None => return self.replace(id, content),
        }
        self.look();
    }

    pub(crate) fn replace(&mut self, id: &str, content: Content) {
        self.files.push(File { content, open: false });
        self.names.insert(id.to_string(), self.files.len() - 1);
        self.look();
    }

    pub(crate) fn aside(&mut self, id: &str) {
        self.rename(id, &other_name(id));
    }

    pub(crate) fn back(&mut self, id: &str) {
        self.rename(&other_name(id), id);
    }

    pub(crate) fn rename(&mut self, from: &str, to: &str) {
        let file = self.names.remove(from).unwrap();
        self.names.insert(to.to_string(), file);
        self.look();
    }

    pub(crate) fn unlink(&mut self, id: &str) {
        self.names.remove(id);
    }

    /// A file is opened for writing; it will have this content when it is closed.
    pub(crate) fn opened(&mut self, id: &str, content: Option<Content>) -> usize {
        let file = self.file(id).unwrap_or_else(|| {
            // A file that is created by an append contains only the appended text.
            self.files.push(File { content: Content::Title(id.to_string()), open: true });
            self.files.len() - 1
        });
        self.names.insert(id.to_string(), file);
        self.files[file].open = true;
        if let Some(content) = content {
            self.files[file].content = content;
        }
        // Text appended after the title of a whole file does not change the title.
        self.look();
        file
    }

    pub(crate) fn closed(&mut self, file: usize, killed: bool, wrote: bool) {
        self.files[file].open = false;
        if killed && wrote {
            self.files[file].content = Content::Torn;
        }
        self.look();
    }

    /// The grace has ended.
    pub(crate) fn expire(&mut self) {
        let names = &self.names;
        self.tasks.retain(|id, task| task.phase != Phase::Open || names.contains_key(id));
    }

    fn state(&self, id: &str) -> &'static str {
        let task = &self.tasks[id];
        match task.phase {
            Phase::Claimed => "claimed",
            Phase::Completed => "completed",
            Phase::Failed => "failed",
            Phase::Open if !matches!(task.newest, Content::Title(_)) => "rejected",
            Phase::Open if self.file_state(id).is_none() => "ready",
            Phase::Open => "blocked",
        }
    }

    fn file_state(&self, id: &str) -> Option<&'static str> {
        match self.file(id) {
            None => Some("missing"),
            Some(file) if self.files[file].open => Some("being written"),
            Some(_) => None,
        }
    }

    /// The fields that the mount shows of a task.
    pub(crate) fn expected(&self, id: &str) -> Option<BTreeMap<&'static str, Value>> {
        if id == DEP {
            let first = IDS[0];
            let met = match self.tasks.get(first) {
                Some(task) => task.phase == Phase::Completed,
                None => self.met.contains(first),
            };
            return Some(BTreeMap::from([("status", json!(if met { "ready" } else { "blocked" }))]));
        }
        let task = self.tasks.get(id)?;
        let state = self.state(id);
        let mut told = BTreeMap::from([
            ("status", json!(state)),
            ("worker", json!(task.worker.filter(|who| *who != OPERATOR || task.phase == Phase::Claimed))),
            ("file", json!(self.file_state(id))),
            ("result", json!(task.result)),
        ]);
        if task.worker == Some(OPERATOR) {
            told.remove("worker");
        }
        if let Some(title) = task.in_force.as_ref().filter(|_| state != "rejected") {
            told.insert("title", json!(title));
        }
        Some(told)
    }

    /// Check the fields of a task that stay the same for as long as it exists.
    pub(crate) fn remember(&mut self, id: &str, published: &Value, lost: usize) -> Option<String> {
        let task = self.tasks.get_mut(id)?;
        let first = task.published.get_or_insert_with(|| published.clone());
        if first != published {
            return Some(format!("{id}: published {first} and now {published}"));
        }
        let kept = task.lost.min(crewfs::limits::LOSSES_KEPT);
        (kept != lost).then(|| format!("{id}: {lost} lost claims, not {kept}"))
    }

    pub(crate) fn claim(&mut self, id: &str, who: &'static str, text: bool) -> &'static str {
        if !self.tasks.contains_key(id) {
            return "ENOENT";
        }
        let state = self.state(id);
        let task = self.tasks.get_mut(id).unwrap();
        match state {
            "claimed" if text && (task.worker == Some(who) || who == OPERATOR) => "ok",
            "claimed" => "EEXIST",
            "blocked" => "EBUSY",
            "ready" if text && task.ousted.contains(who) => "EACCES",
            "ready" => {
                task.ousted.remove(who);
                (task.phase, task.worker) = (Phase::Claimed, Some(who));
                "ok"
            }
            _ => "ENOENT",
        }
    }

    fn lose(&mut self, id: &str, by_itself: bool) {
        let task = self.tasks.get_mut(id).unwrap();
        let holder = task.worker.take().unwrap();
        task.lost += 1;
        task.phase = Phase::Open;
        if !by_itself {
            task.ousted.insert(holder);
        }
    }

    pub(crate) fn release(&mut self, id: &str, who: &'static str) -> &'static str {
        match self.tasks.get(id) {
            Some(task) if task.phase == Phase::Claimed && (task.worker == Some(who) || who == OPERATOR) => {
                let by_itself = task.worker == Some(who);
                self.lose(id, by_itself);
                self.look();
                "ok"
            }
            Some(task) if task.phase == Phase::Claimed => "EACCES",
            _ => "ENOENT",
        }
    }

    pub(crate) fn finish(&mut self, id: &str, who: &'static str, phase: Phase, text: &str) -> &'static str {
        let Some(task) = self.tasks.get(id) else { return "ENOENT" };
        let mine = task.worker == Some(who);
        match task.phase {
            Phase::Claimed if mine => {}
            Phase::Claimed if who == OPERATOR => {
                self.lose(id, false);
                self.look();
            }
            Phase::Open if who == OPERATOR => {}
            Phase::Completed | Phase::Failed if task.phase == phase && (mine || who == OPERATOR) => {
                self.tasks.get_mut(id).unwrap().result = Some(text.to_string());
                return "ok";
            }
            _ => return "EACCES",
        }
        let task = self.tasks.get_mut(id).unwrap();
        let worker = task.worker.or((who == OPERATOR).then_some(OPERATOR));
        (task.phase, task.worker, task.result) = (phase, worker, Some(text.to_string()));
        "ok"
    }

    pub(crate) fn retry(&mut self, id: &str, phase: Phase) -> &'static str {
        let has = self.has(id);
        match self.tasks.get_mut(id) {
            Some(task) if task.phase == phase && has => {
                (task.phase, task.worker, task.result, task.lost) = (Phase::Open, None, None, 0);
                self.look();
                "ok"
            }
            _ => "ENOENT",
        }
    }

    pub(crate) fn forget(&mut self, id: &str, who: &str, phase: Phase) -> &'static str {
        match self.tasks.get(id) {
            Some(task) if task.phase == phase => {}
            _ => return "ENOENT",
        }
        if who != OPERATOR {
            return "EACCES";
        }
        if self.has(id) {
            return "EPERM";
        }
        self.tasks.remove(id);
        if phase == Phase::Completed {
            self.met.insert(id.to_string());
        }
        "ok"
    }
}
