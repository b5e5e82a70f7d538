//! The state of the user interface, and how keys change it: focus, selection, filter, order and popup.
//!
//! May assume: the screen sets how many lines fit (`page`).
//! Must never: change the mount, or draw.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::model::{Model, TaskEntry, TaskStatus, WorkerEntry};

/// The panes, in the order of Tab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pane {
    Tasks,
    Workers,
    Stuck,
    Events,
}

impl Pane {
    pub(super) const ALL: [Pane; 4] = [Pane::Tasks, Pane::Workers, Pane::Stuck, Pane::Events];

    fn step(self, by: usize) -> Pane {
        Pane::ALL[(self as usize + by) % Pane::ALL.len()]
    }
}

/// What the popup shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Popup {
    Help,
    Task(String),
    Worker(String),
    /// A stuck entry, by its key.
    Stuck(String),
}

/// The orders of tasks.
const TASK_ORDERS: [&str; 4] = ["state", "last change", "age", "name"];
/// The orders of workers.
const WORKER_ORDERS: [&str; 4] = ["status", "name", "silence", "tasks done"];

/// The list of one pane.
#[derive(Debug, Default)]
pub(super) struct List {
    /// Indexes into the model that pass the filter, in order.
    pub(super) rows: Vec<usize>,
    /// The selected line.
    pub(super) at: usize,
    /// The first visible line.
    pub(super) top: usize,
    /// How many lines were visible last.
    pub(super) page: usize,
    /// The key of the selected entry. `None` until the user moves; until then the first line stays selected.
    key: Option<String>,
}

/// The choices of the user.
#[derive(Debug)]
pub(super) struct Ui {
    pub(super) focus: Pane,
    pub(super) lists: [List; 4],
    pub(super) popup: Option<Popup>,
    /// The first visible line of the popup.
    pub(super) scroll: usize,
    pub(super) filter: String,
    /// Whether keys go into the filter.
    pub(super) typing: bool,
    task_order: usize,
    worker_order: usize,
}

/// What the program does after a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum KeyAction {
    Nothing,
    Redraw,
    Quit,
}

impl Ui {
    pub(super) fn new() -> Ui {
        Ui {
            focus: Pane::Tasks,
            lists: Default::default(),
            popup: None,
            scroll: 0,
            filter: String::new(),
            typing: false,
            task_order: 0,
            worker_order: 0,
        }
    }

    pub(super) fn list(&self, pane: Pane) -> &List {
        &self.lists[pane as usize]
    }

    /// The order of a pane, if the user can choose it.
    pub(super) fn order(&self, pane: Pane) -> Option<&'static str> {
        match pane {
            Pane::Tasks => Some(TASK_ORDERS[self.task_order]),
            Pane::Workers => Some(WORKER_ORDERS[self.worker_order]),
            Pane::Stuck | Pane::Events => None,
        }
    }

    /// Handle a key.
    pub(super) fn press(&mut self, key: KeyEvent, model: &Model) -> KeyAction {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => KeyAction::Quit,
                KeyCode::Char('l') => KeyAction::Redraw,
                _ => KeyAction::Nothing,
            };
        }
        if self.typing {
            self.type_filter(key.code, model);
        } else if self.popup.is_some() {
            self.press_popup(key.code);
        } else {
            return self.press_list(key.code, model);
        }
        KeyAction::Redraw
    }

    fn type_filter(&mut self, code: KeyCode, model: &Model) {
        match code {
            KeyCode::Char(c) => self.filter.push(c),
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Esc => {
                self.filter.clear();
                self.typing = false;
            }
            KeyCode::Enter | KeyCode::Tab | KeyCode::Up | KeyCode::Down => self.typing = false,
            _ => {}
        }
        self.arrange(model);
    }

    fn press_popup(&mut self, code: KeyCode) {
        match code {
            KeyCode::Down | KeyCode::Char('j') => self.scroll += 1,
            KeyCode::Up | KeyCode::Char('k') => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::PageDown | KeyCode::Char(' ') => self.scroll += 10,
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(10),
            KeyCode::Home | KeyCode::Char('g') => self.scroll = 0,
            KeyCode::Esc | KeyCode::Enter | KeyCode::Char('q' | '?') => self.popup = None,
            _ => {}
        }
    }

    fn press_list(&mut self, code: KeyCode, model: &Model) -> KeyAction {
        let page = self.list(self.focus).page.max(1) as isize;
        match code {
            KeyCode::Char('q') => return KeyAction::Quit,
            KeyCode::Esc if self.filter.is_empty() => return KeyAction::Nothing,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Tab => self.focus = self.focus.step(1),
            KeyCode::BackTab => self.focus = self.focus.step(Pane::ALL.len() - 1),
            KeyCode::Down | KeyCode::Char('j') => self.go(1, model),
            KeyCode::Up | KeyCode::Char('k') => self.go(-1, model),
            KeyCode::PageDown | KeyCode::Char(' ') => self.go(page, model),
            KeyCode::PageUp => self.go(-page, model),
            KeyCode::Home | KeyCode::Char('g') => self.go(isize::MIN, model),
            KeyCode::End | KeyCode::Char('G') => self.go(isize::MAX, model),
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('?') => self.show(Some(Popup::Help)),
            KeyCode::Enter => self.show(self.chosen(model)),
            KeyCode::Char('s') => match self.focus {
                Pane::Tasks => self.task_order = (self.task_order + 1) % TASK_ORDERS.len(),
                Pane::Workers => self.worker_order = (self.worker_order + 1) % WORKER_ORDERS.len(),
                Pane::Stuck | Pane::Events => {}
            },
            _ => return KeyAction::Nothing,
        }
        self.arrange(model);
        KeyAction::Redraw
    }

    fn show(&mut self, popup: Option<Popup>) {
        (self.popup, self.scroll) = (popup, 0);
    }

    /// The popup of the selected entry.
    fn chosen(&self, model: &Model) -> Option<Popup> {
        let list = self.list(self.focus);
        let row = *list.rows.get(list.at)?;
        match self.focus {
            Pane::Tasks => Some(Popup::Task(model.tasks[row].id.clone())),
            Pane::Workers => Some(Popup::Worker(model.workers[row].name.clone())),
            Pane::Stuck => Some(Popup::Stuck(key(model, Pane::Stuck, row))),
            Pane::Events => model.events[row].task.clone().map(Popup::Task),
        }
    }

    fn go(&mut self, by: isize, model: &Model) {
        let pane = self.focus;
        let list = &mut self.lists[pane as usize];
        list.at = list.at.saturating_add_signed(by).min(list.rows.len().saturating_sub(1));
        list.key = list.rows.get(list.at).map(|row| key(model, pane, *row));
    }

    /// Filter and sort again, after the model or the choices have changed.
    pub(super) fn arrange(&mut self, model: &Model) {
        let words: Vec<String> = self.filter.split_whitespace().map(str::to_lowercase).collect();
        let passes = |texts: &[&str]| {
            words.iter().all(|word| texts.iter().any(|text| text.to_lowercase().contains(word)))
        };
        for pane in Pane::ALL {
            let mut rows: Vec<usize> = (0..length(model, pane)).collect();
            if !words.is_empty() {
                rows.retain(|row| passes(&texts(model, pane, *row)));
            }
            match pane {
                Pane::Tasks => sort_tasks(&model.tasks, &mut rows, TASK_ORDERS[self.task_order]),
                Pane::Workers => sort_workers(&model.workers, &mut rows, WORKER_ORDERS[self.worker_order]),
                Pane::Stuck | Pane::Events => {}
            }
            let list = &mut self.lists[pane as usize];
            list.at = match &list.key {
                None => 0,
                Some(chosen) => {
                    rows.iter().position(|row| key(model, pane, *row) == *chosen).unwrap_or(list.at)
                }
            };
            list.at = list.at.min(rows.len().saturating_sub(1));
            list.rows = rows;
        }
    }
}

impl List {
    /// The visible lines if `fit` lines fit: as before, unless the selected one would not be visible.
    pub(super) fn window(&mut self, fit: usize) -> std::ops::Range<usize> {
        self.page = fit;
        self.top = self.top.min(self.rows.len().saturating_sub(fit)).min(self.at);
        if self.at >= self.top + fit {
            self.top = self.at + 1 - fit.min(self.at + 1);
        }
        self.top..(self.top + fit).min(self.rows.len())
    }
}

fn length(model: &Model, pane: Pane) -> usize {
    match pane {
        Pane::Tasks => model.tasks.len(),
        Pane::Workers => model.workers.len(),
        Pane::Stuck => model.summary.as_ref().map_or(0, |summary| summary.stuck.len()),
        Pane::Events => model.events.len(),
    }
}

/// Identifies an entry within its pane.
fn key(model: &Model, pane: Pane, row: usize) -> String {
    match pane {
        Pane::Tasks => model.tasks[row].id.clone(),
        Pane::Workers => model.workers[row].name.clone(),
        Pane::Stuck => model.summary.as_ref().map_or_else(String::new, |summary| summary.stuck[row].key()),
        Pane::Events => model.events[row].seq.to_string(),
    }
}

/// The texts that the filter searches.
fn texts(model: &Model, pane: Pane, row: usize) -> Vec<&str> {
    fn text(text: &Option<String>) -> &str {
        text.as_deref().unwrap_or_default()
    }
    match pane {
        Pane::Tasks => {
            let task = &model.tasks[row];
            vec![
                &task.id,
                &task.title,
                task.status.name(),
                &task.priority,
                text(&task.worker),
                text(&task.note),
            ]
        }
        Pane::Workers => {
            let worker = &model.workers[row];
            vec![&worker.name, &worker.status, text(&worker.task), text(&worker.note)]
        }
        Pane::Stuck => model.summary.as_ref().map_or_else(Vec::new, |summary| {
            let stuck = &summary.stuck[row];
            vec![&stuck.kind, text(&stuck.task), text(&stuck.worker), &stuck.why]
        }),
        Pane::Events => vec![&model.events[row].text],
    }
}

fn sort_tasks(tasks: &[TaskEntry], rows: &mut [usize], order: &str) {
    let task = |row: &usize| &tasks[*row];
    let newest = |row: &usize| std::cmp::Reverse(task(row).changed);
    match order {
        "last change" => rows.sort_by_key(newest),
        "age" => rows.sort_by_key(|row| task(row).published),
        "name" => {}
        _ => rows.sort_by_cached_key(|row| {
            let task = task(row);
            let line = (urgency(&task.priority), task.published);
            match task.status {
                TaskStatus::Claimed => (0, 0, task.changed, None),
                TaskStatus::Ready => (1, line.0, line.1, None),
                TaskStatus::Blocked => (2, line.0, line.1, None),
                TaskStatus::Unknown => (3, line.0, line.1, None),
                TaskStatus::Rejected => (4, 0, None, Some(newest(row))),
                TaskStatus::Failed => (5, 0, None, Some(newest(row))),
                TaskStatus::Completed => (6, 0, None, Some(newest(row))),
            }
        }),
    }
}

fn urgency(priority: &str) -> usize {
    ["critical", "high", "normal", "low", "background"].iter().position(|name| *name == priority).unwrap_or(2)
}

fn sort_workers(workers: &[WorkerEntry], rows: &mut [usize], order: &str) {
    let worker = |row: &usize| &workers[*row];
    match order {
        "status" => rows.sort_by_key(|row| match worker(row).status.as_str() {
            "working" => 0,
            "draining" => 1,
            _ => 2,
        }),
        "silence" => rows.sort_by_key(|row| worker(row).last_heard),
        "tasks done" => rows.sort_by_key(|row| std::cmp::Reverse(worker(row).completed)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::model::MountUpdate;
    use crate::queue::Now;

    fn model() -> Model {
        let mut model = Model::default();
        let queue = r#"{
            "a": {"status":"completed","title":"Old","changed":"2026-01-01T00:00:01.000Z"},
            "b": {"status":"ready","priority":"low","title":"Low"},
            "c": {"status":"ready","priority":"P0","title":"Never mind"},
            "d": {"status":"claimed","worker":"w1","title":"Work"},
            "e": {"status":"completed","title":"New","changed":"2026-01-01T00:00:02.000Z"},
            "f": {"status":"ready","priority":"high","title":"High"}
        }"#;
        let answer = MountUpdate { queue: Some(queue.into()), ..MountUpdate::default() };
        model.update(answer, Now::default()).unwrap();
        model
    }

    fn press(ui: &mut Ui, model: &Model, codes: &[KeyCode]) -> KeyAction {
        codes.iter().fold(KeyAction::Nothing, |_, code| ui.press(KeyEvent::from(*code), model))
    }

    fn tasks(ui: &Ui, model: &Model) -> String {
        ui.list(Pane::Tasks).rows.iter().map(|row| model.tasks[*row].id.as_str()).collect()
    }

    #[test]
    fn tasks_are_sorted_and_the_chosen_one_stays_chosen() {
        let (mut ui, model) = (Ui::new(), model());
        ui.arrange(&model);
        assert_eq!(tasks(&ui, &model), "dfcbea");
        press(&mut ui, &model, &[KeyCode::Char('j'), KeyCode::Down, KeyCode::Char('k')]);
        assert_eq!(ui.chosen(&model), Some(Popup::Task("f".into())));
        press(&mut ui, &model, &[KeyCode::Char('s')]);
        assert_eq!((tasks(&ui, &model).as_str(), ui.order(Pane::Tasks)), ("eabcdf", Some("last change")));
        assert_eq!(ui.chosen(&model), Some(Popup::Task("f".into())));
        press(&mut ui, &model, &[KeyCode::Home, KeyCode::Enter]);
        assert_eq!(ui.popup, Some(Popup::Task("e".into())));
        press(&mut ui, &model, &[KeyCode::Esc]);
        assert_eq!(ui.popup, None);
        press(&mut ui, &model, &[KeyCode::End]);
        assert_eq!(ui.list(Pane::Tasks).at, 5);
        assert_eq!(press(&mut ui, &model, &[KeyCode::Char('q')]), KeyAction::Quit);
    }

    #[test]
    fn the_filter_asks_for_all_words_and_is_cleared_by_esc() {
        let (mut ui, model) = (Ui::new(), model());
        let typed = |text: &str| text.chars().map(KeyCode::Char).collect::<Vec<_>>();
        press(&mut ui, &model, &typed("/READY h"));
        assert_eq!(tasks(&ui, &model), "f");
        press(&mut ui, &model, &[KeyCode::Backspace, KeyCode::Backspace, KeyCode::Enter]);
        assert_eq!((tasks(&ui, &model).as_str(), ui.typing), ("fcb", false));
        press(&mut ui, &model, &typed("/zq"));
        assert_eq!((tasks(&ui, &model).as_str(), ui.chosen(&model)), ("", None), "q is a letter here");
        press(&mut ui, &model, &[KeyCode::Esc]);
        assert_eq!((ui.filter.as_str(), tasks(&ui, &model).len()), ("", 6));
        let control = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        ui.typing = true;
        assert_eq!(ui.press(control, &model), KeyAction::Quit);
    }

    #[test]
    fn tab_goes_round_both_ways() {
        let (mut ui, model) = (Ui::new(), model());
        press(&mut ui, &model, &[KeyCode::BackTab]);
        assert_eq!(ui.focus, Pane::Events);
        assert_eq!(ui.order(Pane::Events), None);
        press(&mut ui, &model, &[KeyCode::Tab, KeyCode::Tab, KeyCode::Enter, KeyCode::Char('?')]);
        assert_eq!((ui.focus, ui.popup.as_ref()), (Pane::Workers, Some(&Popup::Help)));
    }

    #[test]
    fn the_window_follows_the_chosen_line() {
        let mut list = List { rows: (0..10).collect(), ..List::default() };
        assert_eq!(list.window(4), 0..4);
        list.at = 7;
        assert_eq!(list.window(4), 4..8);
        list.at = 5;
        assert_eq!(list.window(4), 4..8);
        assert_eq!(list.window(20), 0..10);
        list.rows.truncate(2);
        list.at = 1;
        assert_eq!(list.window(1), 1..2);
        assert!(list.window(0).is_empty());
        list.rows.clear();
        list.at = 0;
        assert_eq!(list.window(3), 0..0);
    }
}
