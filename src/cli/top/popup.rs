//! The window above the panes: all details of one entry, or the help.
//!
//! Must never: draw more lines than fit. The rest is scrolled.

use ratatui::Frame;
use ratatui::layout::{Constraint, Flex, Layout, Rect};
use ratatui::text::{Line, Span as Text};
use ratatui::widgets::{Block, Clear, Widget};

use super::model::{StuckEntry, ago};
use super::scene::Scene;
use super::theme::Theme;
use super::ui::{Popup, Ui};

/// The width that is still easy to read.
const WIDEST: u16 = 100;

const HELP: [(&str, &str); 11] = [
    ("q, Ctrl-C", "quit; nothing of the mount changes by any key"),
    ("Tab, Shift-Tab", "the next pane, the one before; the pane with the keys gets more room"),
    ("arrows, j k", "move; also PgUp, PgDn, Home, End, g and G"),
    ("Enter", "everything about the chosen task or worker"),
    ("/", "show only lines that hold these words; Esc shows all again"),
    ("s", "sort tasks or workers in another way"),
    ("", ""),
    ("SINCE", "since the task last changed"),
    ("SILENT", "since the worker was last heard of; red when half of its lease is over"),
    ("about", "when all that can be done is done, at the pace of the last hour"),
    ("held up", "blocked tasks that wait for what failed, is rejected or missing"),
];

/// Draw the popup, if there is one.
pub(super) fn draw(frame: &mut Frame, scene: &Scene, ui: &mut Ui) {
    let Some(popup) = &ui.popup else { return };
    let (title, members) = content(scene, popup);
    let theme = scene.theme;
    let area = frame.area();
    let width = area.width.saturating_sub(4).min(WIDEST);
    let lines = lines(theme, &members, usize::from(width.saturating_sub(4)));
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX).min(area.height.saturating_sub(2));
    let area = centred(area, width, height);
    let fit = usize::from(height.saturating_sub(2));
    ui.scroll = ui.scroll.min(lines.len().saturating_sub(fit));
    let more = if lines.len() > fit {
        format!(" {}-{} of {} ", ui.scroll + 1, ui.scroll + fit, lines.len())
    } else {
        String::new()
    };
    let title = theme.cut(&title, usize::from(width.saturating_sub(6)));
    let block = Block::bordered()
        .border_set(theme.border())
        .border_style(theme.focus())
        .title(Line::styled(format!(" {title} "), theme.focus()))
        .title_bottom(Line::from(" Esc closes "))
        .title_bottom(Line::from(more).right_aligned());
    let inner = block.inner(area);
    let buf = frame.buffer_mut();
    Clear.render(area, buf);
    block.render(area, buf);
    for (row, line) in inner.rows().zip(lines.iter().skip(ui.scroll)) {
        buf.set_line(row.x + 1, row.y, line, row.width.saturating_sub(1));
    }
}

fn centred(area: Rect, width: u16, height: u16) -> Rect {
    let [area] = Layout::horizontal([Constraint::Length(width)]).flex(Flex::Center).areas(area);
    let [area] = Layout::vertical([Constraint::Length(height)]).flex(Flex::Center).areas(area);
    area
}

type Members = Vec<(String, String)>;

fn content(scene: &Scene, popup: &Popup) -> (String, Members) {
    let gone = |what: &str| vec![(String::new(), format!("there is no such {what} any more"))];
    match popup {
        Popup::Help => ("Help".into(), HELP.map(|(key, does)| (key.to_string(), does.to_string())).to_vec()),
        Popup::Task(id) => {
            (format!("Task {id}"), scene.model.task_details(id).unwrap_or_else(|| gone("task")))
        }
        Popup::Worker(name) => {
            (format!("Worker {name}"), scene.model.worker_details(name).unwrap_or_else(|| gone("worker")))
        }
        Popup::Stuck(key) => {
            let all = scene.model.summary.iter().flat_map(|summary| &summary.stuck);
            match all.into_iter().find(|stuck| stuck.key() == *key) {
                Some(stuck) => ("Stuck".into(), stuck_members(scene, stuck)),
                None => ("Stuck".into(), vec![(String::new(), "it is not stuck any more".into())]),
            }
        }
    }
}

fn stuck_members(scene: &Scene, stuck: &StuckEntry) -> Members {
    let mut members = vec![
        ("what".to_string(), stuck.kind.replace('_', " ")),
        ("why".to_string(), stuck.why.clone()),
        ("since".to_string(), format!("{} ago", ago(stuck.since, scene.now))),
    ];
    let more = [("next", &stuck.next), ("task", &stuck.task), ("worker", &stuck.worker)];
    for (name, value) in more {
        members.extend(value.clone().map(|value| (name.to_string(), value)));
    }
    if stuck.holds_up > 0 {
        members.push(("holds up".into(), format!("{} blocked tasks", stuck.holds_up)));
    }
    if let Some(task) = stuck.task.as_deref().and_then(|id| scene.model.task_details(id)) {
        members.push(Default::default());
        members.extend(task);
    }
    members
}

/// Names on the left, values on the right, broken at white space.
fn lines(theme: Theme, members: &Members, width: usize) -> Vec<Line<'static>> {
    let names = members.iter().map(|(name, _)| name.len()).max().unwrap_or_default().min(width / 3);
    let room = width.saturating_sub(names + 2).max(1);
    let mut lines = Vec::new();
    for (name, value) in members {
        let broken: Vec<String> = value.lines().flat_map(|line| wrap(theme, line, room)).collect();
        for (n, text) in broken.iter().map(String::as_str).chain(broken.is_empty().then_some("")).enumerate()
        {
            let name = theme.fit(if n == 0 { name } else { "" }, names, false);
            lines.push(Line::from(vec![
                Text::styled(name, theme.faint()),
                Text::raw("  "),
                Text::raw(text.to_string()),
            ]));
        }
    }
    lines
}

/// Wrap a line at `width` columns. A longer word continues in the next line.
fn wrap(theme: Theme, line: &str, width: usize) -> Vec<String> {
    let columns = |text: &str| Text::raw(text).width();
    let (mut lines, mut current) = (Vec::new(), String::new());
    for word in line.split_whitespace() {
        let gap = usize::from(!current.is_empty());
        if columns(&current) + gap + columns(word) > width && !current.is_empty() {
            lines.push(std::mem::take(&mut current));
        }
        if !current.is_empty() {
            current.push(' ');
        }
        for c in theme.cut(word, usize::MAX).chars() {
            if columns(&current) + columns(c.encode_utf8(&mut [0; 4])) > width {
                lines.push(std::mem::take(&mut current));
            }
            current.push(c);
        }
    }
    lines.push(current);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_at_white_space_or_where_they_must() {
        let theme = Theme { unicode: true, colour: false };
        assert_eq!(wrap(theme, "one two  three", 7), ["one two", "three"]);
        assert_eq!(wrap(theme, "abcdefgh ij", 3), ["abc", "def", "gh", "ij"]);
        assert_eq!(wrap(theme, "日本語", 4), ["日本", "語"]);
        assert_eq!(wrap(theme, "", 4), [""]);
        let plain = Theme { unicode: false, ..theme };
        assert_eq!(wrap(plain, "für", 4), ["f?r"]);
    }

    #[test]
    fn names_stand_once_beside_their_values() {
        let theme = Theme { unicode: false, colour: false };
        let members = vec![("why".to_string(), "a b".to_string()), ("note".to_string(), "x\ny".to_string())];
        let text: Vec<String> = lines(theme, &members, 20).iter().map(Line::to_string).collect();
        assert_eq!(text, ["why   a b", "note  x", "      y"]);
    }
}
