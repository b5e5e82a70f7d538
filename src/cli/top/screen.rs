//! Draws the screen into a frame of any size.
//!
//! Must never: ask the mount, or change a choice of the user. It only sets how many lines of a list fit.

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span as Text};
use ratatui::widgets::{Sparkline, Widget};

use super::model::{SummaryDocument, TaskStatus, ago};
use super::scene::Scene;
use super::theme::Theme;
use super::ui::{Pane, Ui};
use super::{header, popup};

/// The width from which on there are two columns of panes, and charts.
const WIDE: u16 = 140;
/// The height from which on there is room for charts.
const HIGH: u16 = 36;
/// The lines above the panes: place, counts, bar, pace.
const HEAD: u16 = 4;
const CHART: u16 = 5;

/// Draw everything.
pub(super) fn draw(frame: &mut Frame, scene: &Scene, ui: &mut Ui) {
    let area = frame.area();
    let wide = area.width >= WIDE && area.height >= HIGH;
    let charts = if wide && scene.model.summary.is_some() { CHART } else { 0 };
    let parts =
        [Constraint::Length(HEAD), Constraint::Length(charts), Constraint::Min(0), Constraint::Length(1)];
    let [head, chart, body, foot] = Layout::vertical(parts).areas(area);
    let buf = frame.buffer_mut();
    header::draw(buf, head, scene);
    if let Some(summary) = scene.model.summary.as_ref().filter(|_| charts > 0) {
        draw_charts(buf, chart, scene, summary);
    }
    if !scene.known {
        let dots = if scene.theme.unicode { "…" } else { "..." };
        buf.set_line(1, body.y, &Line::from(format!("reading {}{dots}", scene.place)), body.width);
    } else if wide {
        let [left, right] = two(body);
        stack(buf, left, scene, ui, &[Pane::Workers, Pane::Tasks]);
        stack(buf, right, scene, ui, &[Pane::Stuck, Pane::Events]);
    } else {
        stack(buf, body, scene, ui, &[Pane::Workers, Pane::Tasks, Pane::Stuck, Pane::Events]);
    }
    draw_foot(buf, foot, scene, ui);
    popup::draw(frame, scene, ui);
}

/// The two columns of a wide screen.
fn two(area: Rect) -> [Rect; 2] {
    Layout::horizontal([Constraint::Percentage(58), Constraint::Percentage(42)]).spacing(1).areas(area)
}

fn draw_charts(buf: &mut Buffer, area: Rect, scene: &Scene, summary: &SummaryDocument) {
    let [left, right] = two(area);
    let theme = scene.theme;
    let most = summary.throughput.by_minute.iter().max().copied().unwrap_or_default();
    let title = format!("Completed each minute of the last hour (at most {most})");
    chart(buf, left, theme, &title, &summary.throughput.by_minute, TaskStatus::Completed);
    let burn = &summary.burn_down;
    let most = burn.open.iter().max().copied().unwrap_or_default();
    let title = format!("Open tasks since {} ago (at most {most})", ago(burn.from, scene.now));
    chart(buf, right, theme, &title, &burn.open, TaskStatus::Ready);
}

fn chart(buf: &mut Buffer, area: Rect, theme: Theme, title: &str, numbers: &[u64], state: TaskStatus) {
    rule(buf, area, theme, title, "", false);
    let inner =
        Rect { x: area.x + 1, y: area.y + 1, width: area.width.saturating_sub(2), height: area.height - 1 };
    // Few numbers are drawn wider, so that they fill the width.
    let width = usize::from(inner.width);
    let wide = (0..width).filter_map(|x| numbers.get(x * numbers.len() / width).copied());
    Sparkline::default()
        .data(wide.collect::<Vec<u64>>())
        .bar_set(theme.bars())
        .style(theme.state(state))
        .render(inner, buf);
}

/// Draw panes above each other. The focused one gets the spare room.
fn stack(buf: &mut Buffer, area: Rect, scene: &Scene, ui: &mut Ui, panes: &[Pane]) {
    let lines: Vec<(Pane, usize)> =
        panes.iter().map(|pane| (*pane, ui.list(*pane).rows.len().max(1))).collect();
    let mut top = area.y;
    for (pane, height) in heights(&lines, ui.focus, usize::from(area.height)) {
        draw_pane(buf, Rect { y: top, height, ..area }, scene, ui, pane);
        top += height;
    }
}

/// The lines of a pane besides its list: the title and the column heads.
fn frame_lines(pane: Pane) -> usize {
    match pane {
        Pane::Workers | Pane::Tasks => 2,
        Pane::Stuck | Pane::Events => 1,
    }
}

/// The height of each pane. If not all fit, unfocused ones are left out, the last first.
fn heights(lines: &[(Pane, usize)], focus: Pane, room: usize) -> Vec<(Pane, u16)> {
    let mut panes = lines.to_vec();
    // There are more tasks than anything else. Another pane needs more room than usual when it is focused.
    let least = |pane: Pane, lines: usize| {
        lines.min(match pane {
            _ if pane == focus => 4,
            Pane::Workers if focus == Pane::Tasks => 4,
            Pane::Tasks => 3,
            _ => 2,
        })
    };
    let needed = |panes: &[(Pane, usize)]| -> usize {
        panes.iter().map(|(pane, lines)| frame_lines(*pane) + least(*pane, *lines)).sum()
    };
    while needed(&panes) > room && panes.len() > 1 {
        let last = panes.iter().rposition(|(pane, _)| *pane != focus).unwrap_or(0);
        panes.remove(last);
    }
    let mut heights: Vec<usize> =
        panes.iter().map(|(pane, lines)| frame_lines(*pane) + least(*pane, *lines)).collect();
    let mut spare = room.saturating_sub(heights.iter().sum());
    let share = [focus, Pane::Workers, Pane::Stuck, Pane::Tasks, Pane::Events];
    for pane in share {
        if let Some(n) = panes.iter().position(|(there, _)| *there == pane) {
            // Workers and stuck entries leave half of the room to the panes below.
            let most =
                if pane == focus || pane == Pane::Tasks || pane == Pane::Events { room } else { room / 2 };
            let wanted = (frame_lines(pane) + panes[n].1).min(most);
            let more = wanted.saturating_sub(heights[n]).min(spare);
            heights[n] += more;
            spare -= more;
        }
    }
    let fits = |height: usize| u16::try_from(height.min(room)).unwrap_or(u16::MAX);
    panes.iter().zip(heights).map(|((pane, _), height)| (*pane, fits(height))).collect()
}

/// Draw a title in a line across the pane.
fn rule(buf: &mut Buffer, area: Rect, theme: Theme, title: &str, right: &str, focused: bool) {
    let style = if focused { theme.focus() } else { theme.strong() };
    let lead = if focused { theme.pointer() } else { theme.rule() };
    let width = usize::from(area.width);
    let title = theme.cut(title, width.saturating_sub(4));
    let used = 4 + Text::raw(&title).width() + if right.is_empty() { 0 } else { right.len() + 3 };
    let mut line = Line::from(vec![
        Text::styled(theme.rule(), theme.faint()),
        Text::styled(lead, if focused { style } else { theme.faint() }),
        Text::styled(format!(" {title} "), style),
        Text::styled(theme.rule().repeat(width.saturating_sub(used + 1)), theme.faint()),
    ]);
    if !right.is_empty() {
        line.push_span(Text::styled(format!(" {right} {}", theme.rule()), theme.faint()));
    }
    buf.set_line(area.x, area.y, &line, area.width);
}

/// A column of a table. The last one takes the room that is left.
struct Column {
    head: &'static str,
    width: usize,
    /// Whether it holds numbers.
    right: bool,
    /// How wide a pane must be to show it.
    from: usize,
}

type Cell = (String, Style);

fn draw_pane(buf: &mut Buffer, area: Rect, scene: &Scene, ui: &mut Ui, pane: Pane) {
    if area.height == 0 {
        return;
    }
    let (theme, focused) = (scene.theme, ui.focus == pane);
    let order = ui.order(pane).map_or(String::new(), |order| format!("by {order}"));
    rule(buf, area, theme, &title(scene, ui, pane), &order, focused);
    let columns = columns(scene, pane, usize::from(area.width));
    let mut y = area.y + 1;
    if frame_lines(pane) == 2 && area.height > 1 {
        let heads = columns.iter().map(|column| (column.head.to_string(), theme.faint())).collect();
        put_row(buf, Rect { y, height: 1, ..area }, theme, &columns, heads, None);
        y += 1;
    }
    let fit = usize::from(area.bottom().saturating_sub(y));
    let list = &mut ui.lists[pane as usize];
    let window = list.window(fit);
    let (top, at) = (window.start, list.at);
    let rows: Vec<usize> = list.rows[window].to_vec();
    if rows.is_empty() && fit > 0 {
        let nothing = Line::styled(nothing(scene, ui, pane), theme.faint());
        buf.set_line(area.x + 2, y, &nothing, area.width.saturating_sub(2));
    }
    for (n, row) in rows.into_iter().enumerate() {
        let chosen = (focused && top + n == at).then(|| theme.chosen());
        put_row(buf, Rect { y, height: 1, ..area }, theme, &columns, cells(scene, pane, row), chosen);
        y += 1;
    }
}

fn put_row(
    buf: &mut Buffer,
    area: Rect,
    theme: Theme,
    columns: &[Column],
    cells: Vec<Cell>,
    chosen: Option<Style>,
) {
    let mut line = Line::from(Text::raw(if chosen.is_some() { theme.pointer() } else { " " }));
    let all = usize::from(area.width);
    let mut shown = columns.iter().zip(cells).filter(|(column, _)| column.from <= all).peekable();
    while let Some((column, (text, style))) = shown.next() {
        let room = all.saturating_sub(line.width() + 2);
        let last = shown.peek().is_none();
        let width = if last { room } else { column.width };
        line.push_span(if line.spans.len() == 1 { " " } else { "  " });
        line.push_span(Text::styled(theme.fit(&text, width, column.right), style));
    }
    buf.set_line(area.x, area.y, &line, area.width);
    if let Some(style) = chosen {
        buf.set_style(area, style);
    }
}

fn title(scene: &Scene, ui: &Ui, pane: Pane) -> String {
    let (model, shown) = (scene.model, ui.list(pane).rows.len());
    let of = |all: usize| if shown == all { all.to_string() } else { format!("{shown} of {all}") };
    match pane {
        Pane::Tasks => format!("Tasks {}", of(model.tasks.len())),
        Pane::Workers => {
            let draining = match model.workers_that("draining") {
                0 => String::new(),
                n => format!(", {n} draining"),
            };
            let (working, idle) = (model.workers_that("working"), model.workers_that("idle"));
            format!("Workers {}: {working} working, {idle} idle{draining}", of(model.workers.len()))
        }
        Pane::Stuck => match &model.summary {
            Some(summary) => format!("Stuck {}", of(summary.stuck.len() + summary.stuck_more as usize)),
            None => "Stuck".into(),
        },
        Pane::Events => "Events".into(),
    }
}

fn nothing(scene: &Scene, ui: &Ui, pane: Pane) -> &'static str {
    match pane {
        _ if !ui.filter.is_empty() => "nothing matches the filter",
        Pane::Tasks => "no tasks",
        Pane::Workers => "no workers yet",
        Pane::Stuck if scene.model.summary.is_none() => "this mount does not tell: it has no summary.json",
        Pane::Stuck => "nothing is stuck",
        Pane::Events => "nothing has happened",
    }
}

fn columns(scene: &Scene, pane: Pane, width: usize) -> Vec<Column> {
    let model = scene.model;
    let widest =
        |names: &mut dyn Iterator<Item = usize>| names.max().unwrap_or_default().clamp(6, (width / 5).max(6));
    let id = widest(&mut model.tasks.iter().map(|task| task.id.len()));
    let worker = widest(&mut model.workers.iter().map(|worker| worker.name.len()));
    let text = |head, width| Column { head, width, right: false, from: 0 };
    let number = |head, width| Column { head, width, right: true, from: 0 };
    match pane {
        Pane::Tasks => vec![
            text("TASK", id),
            text("STATE", 9),
            Column { from: 100, ..text("PRIORITY", 10) },
            Column { from: 60, ..text("WORKER", worker) },
            Column { from: 60, ..number("SINCE", 5) },
            text("TITLE", 0),
        ],
        Pane::Workers => vec![
            text("WORKER", worker),
            Column { from: 60, ..text("STATUS", 8) },
            text("TASK", id),
            number("SILENT", 6),
            Column { from: 60, ..number("DONE", 5) },
            Column { from: 100, ..number("FAILED", 6) },
            text("NOTE", 0),
        ],
        Pane::Stuck => {
            vec![text("", 11), text("", id), Column { from: 60, ..number("", 5) }, text("", 0)]
        }
        Pane::Events => vec![number("", 5), text("", 0)],
    }
}

fn cells(scene: &Scene, pane: Pane, row: usize) -> Vec<Cell> {
    let (model, theme, now) = (scene.model, scene.theme, scene.now);
    let plain = Style::new();
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    match pane {
        Pane::Tasks => {
            let task = &model.tasks[row];
            vec![
                (task.id.clone(), plain),
                (task.status.name().into(), theme.state(task.status)),
                (task.priority.clone(), plain),
                (text(&task.worker), plain),
                (ago(task.changed, now), plain),
                // Instruction files have headings like "Task: …". The prefix is redundant in a list of tasks.
                (task.title.trim_start_matches("Task: ").into(), plain),
            ]
        }
        Pane::Workers => {
            let worker = &model.workers[row];
            let stuck = model.summary.iter().flat_map(|summary| &summary.stuck);
            let silent = stuck
                .filter(|stuck| stuck.kind == "lease")
                .any(|stuck| stuck.worker.as_ref() == Some(&worker.name));
            let status = match worker.status.as_str() {
                "working" => theme.state(TaskStatus::Claimed),
                "draining" => theme.state(TaskStatus::Blocked),
                _ => theme.faint(),
            };
            vec![
                (worker.name.clone(), plain),
                (worker.status.clone(), status),
                (text(&worker.task), plain),
                (ago(worker.last_heard, now), if silent { theme.alarm() } else { plain }),
                (worker.completed.to_string(), plain),
                (worker.failed.to_string(), plain),
                (worker.note.clone().unwrap_or_default(), plain),
            ]
        }
        Pane::Stuck => {
            let Some(stuck) = model.summary.as_ref().map(|summary| &summary.stuck[row]) else {
                return Vec::new();
            };
            let about = stuck.task.as_ref().or(stuck.worker.as_ref()).cloned();
            let holds_up = match stuck.holds_up {
                0 => String::new(),
                n => format!("holds up {n}: "),
            };
            vec![
                (stuck.kind.replace('_', " "), theme.alarm()),
                (text(&about), plain),
                (ago(stuck.since, now), plain),
                (format!("{holds_up}{}", stuck.why), plain),
            ]
        }
        Pane::Events => {
            let event = &model.events[row];
            vec![(ago(Some(event.at), now), theme.faint()), (event.text.clone(), plain)]
        }
    }
}

fn draw_foot(buf: &mut Buffer, area: Rect, scene: &Scene, ui: &Ui) {
    let theme = scene.theme;
    let line = if let Some(trouble) = scene.trouble {
        Line::styled(theme.cut(trouble, usize::from(area.width)), theme.alarm())
    } else if ui.typing {
        Line::from(vec![
            Text::styled("filter: ", theme.focus()),
            Text::raw(&ui.filter),
            Text::styled(" ", theme.chosen()),
            Text::styled("   Enter keeps it, Esc clears it", theme.faint()),
        ])
    } else {
        let mut keys = Line::default();
        for (key, does) in [
            ("q", "quit"),
            ("Tab", "pane"),
            ("/", "filter"),
            ("s", "sort"),
            ("Enter", "details"),
            ("?", "help"),
        ] {
            keys.push_span(Text::styled(key, theme.focus()));
            keys.push_span(format!(" {does}   "));
        }
        if !ui.filter.is_empty() {
            keys.push_span(Text::styled(format!("filter: {}", ui.filter), theme.strong()));
        }
        keys
    };
    buf.set_line(area.x + 1, area.y, &line, area.width.saturating_sub(1));
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::{KeyCode, KeyEvent};

    use super::*;
    use crate::cli::top::model::{Model, MountUpdate};
    use crate::queue::{Now, Span};

    const UNICODE: Theme = Theme { unicode: true, colour: true };
    const PLAIN: Theme = Theme { unicode: false, colour: false };

    /// Forty tasks in all states, three workers, and a summary of them.
    fn model() -> Model {
        let state = |n: usize| match n {
            0..20 => "completed",
            20..23 => "claimed",
            23..35 => "ready",
            35..38 => "blocked",
            38 => "failed",
            _ => "rejected",
        };
        let task = |n: usize| {
            let worker = if n < 23 { format!("\"worker-{}\"", n % 3) } else { "null".into() };
            let status = state(n);
            format!(
                r#"  "task-{n:02}": {{"status":"{status}","worker":{worker},"title":"Task: Büro {n}","priority":"high","changed":"2026-01-01T00:00:00.000Z"}}"#
            )
        };
        let worker = |n: usize| {
            format!(
                r#"  "worker-{n}": {{"status":"working","task":"task-2{n}","note":"half\u001b done","completed":7,"last_heard":"2026-01-01T00:00:50.000Z"}}"#
            )
        };
        let object = |lines: Vec<String>| Some(format!("{{\n{}\n}}\n", lines.join(",\n")));
        let summary = r#"{"at":"2026-01-01T00:01:00.000Z","throughput":{"by_minute":[0,1,2,4,8],"per_hour":240},
            "remaining":16,"held_up":2,"eta":"2026-01-01T00:05:00.000Z",
            "burn_down":{"from":"2025-12-31T23:01:00.000Z","open":[40,30,20,18]},
            "stuck":[{"kind":"failed","task":"task-38","worker":"worker-1","since":"2026-01-01T00:00:00.000Z",
                      "why":"the tests do not build","holds_up":2,"next":"mv tasks/failed/task-38 tasks/ready/"},
                     {"kind":"lease","task":"task-20","worker":"worker-2","since":"2026-01-01T00:00:00.000Z","why":"silent"}]}"#;
        let event = r#"{"seq":1,"at":"2026-01-01T00:00:55.000Z","event":"claimed","task":"task-20","worker":"worker-2"}"#;
        let mut model = Model::default();
        let answer = MountUpdate {
            queue: object((0..40).map(task).collect()),
            workers: object((0..3).map(worker).collect()),
            summary: Some(summary.into()),
            events: Some(event.into()),
        };
        model.update(answer, Now::default()).unwrap();
        model
    }

    fn scene(model: &Model, theme: Theme) -> Scene<'_> {
        let now = model.time(Now::default());
        Scene { model, place: "/srv/project", now, silent: None, trouble: None, known: true, theme }
    }

    /// The lines of a screen of this size, after these keys.
    fn screen(scene: &Scene, keys: &[KeyCode], width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let mut ui = Ui::new();
        ui.arrange(scene.model);
        terminal.draw(|frame| draw(frame, scene, &mut ui)).unwrap();
        for key in keys {
            ui.press(KeyEvent::from(*key), scene.model);
        }
        terminal.draw(|frame| draw(frame, scene, &mut ui)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(line).map(|line| line.trim_end().to_string()).collect()
    }

    #[track_caller]
    fn has(screen: &[String], part: &str) {
        assert!(screen.iter().any(|line| line.contains(part)), "{part:?} is not in\n{}", screen.join("\n"));
    }

    #[test]
    fn a_small_terminal_shows_everything_that_matters() {
        let model = model();
        let shown = screen(&scene(&model, UNICODE), &[], 80, 24);
        assert_eq!(shown[0], " crewfs top  /srv/project");
        assert_eq!(
            shown[1],
            " █ 20 completed  ▓ 3 claimed  ▒ 12 ready  ░ 3 blocked  × 1 failed  ! 1 rejected"
        );
        assert!(shown[2].starts_with(" ████") && shown[2].ends_with("××!!"), "{}", shown[2]);
        assert_eq!(shown[2].chars().count(), 79);
        assert_eq!(shown[3], " 20 of 40 done, 50 %   4.0 a minute  ▁▂▄█   16 to go, about 4m   2 held up");
        has(&shown, "── Workers 3: 3 working, 0 idle ─");
        has(&shown, "  worker-0  working   task-20     10s      7  half  done");
        has(&shown, "─▸ Tasks 40 ─");
        has(&shown, "▸ task-20  claimed    worker-2    60s  Büro 20");
        has(&shown, "  failed       task-38    60s  holds up 2: the tests do not build");
        has(&shown, "     5s  worker-2 claimed task-20");
        assert!(shown[23].starts_with(" q quit   Tab pane   / filter"), "{}", shown[23]);
    }

    #[test]
    fn a_large_terminal_shows_charts_and_two_columns() {
        let model = model();
        let shown = screen(&scene(&model, UNICODE), &[], 200, 60);
        has(&shown, "── Completed each minute of the last hour (at most 8) ─");
        has(&shown, "── Open tasks since 60m ago (at most 40) ─");
        has(&shown, "PRIORITY");
        let both = shown.iter().any(|line| line.contains("Workers 3") && line.contains("Stuck 2"));
        assert!(both, "{}", shown.join("\n"));
        for n in 0..40 {
            has(&shown, &format!("task-{n:02}"));
        }
    }

    #[test]
    fn any_terminal_is_enough() {
        let model = model();
        let shown = screen(&scene(&model, PLAIN), &[], 80, 24);
        assert!(shown.concat().is_ascii(), "{}", shown.join("\n"));
        assert!(shown[2].starts_with(" ####") && shown[2].ends_with("xx!!"), "{}", shown[2]);
        has(&shown, "B?ro 20");
        has(&screen(&scene(&model, PLAIN), &[KeyCode::Enter], 80, 24), "+ Task task-20 ---");
        for (width, height) in [(1, 1), (3, 2), (10, 5), (20, 8), (40, 12), (139, 50), (141, 20), (300, 100)]
        {
            for theme in [PLAIN, UNICODE] {
                for key in
                    [KeyCode::Tab, KeyCode::Enter, KeyCode::Char('?'), KeyCode::Char('/'), KeyCode::End]
                {
                    let shown = screen(&scene(&model, theme), &[key], width, height);
                    assert_eq!(shown.len(), usize::from(height));
                }
            }
        }
        let empty = Model::default();
        let shown = screen(&scene(&empty, UNICODE), &[KeyCode::Enter, KeyCode::End], 80, 24);
        has(&shown, "no tasks yet");
        has(&shown, "this mount does not tell");
    }

    #[test]
    fn the_pane_with_the_keys_gets_the_room() {
        let model = model();
        let rows = |keys: &[KeyCode], part: &str| {
            let shown = screen(&scene(&model, UNICODE), keys, 80, 24);
            shown.iter().filter(|line| line.contains(part)).count()
        };
        assert!(rows(&[], "  ready ") + rows(&[], "  claimed ") >= 6);
        has(&screen(&scene(&model, UNICODE), &[KeyCode::Tab], 80, 24), "─▸ Workers 3");
        let shown = screen(&scene(&model, UNICODE), &[KeyCode::End], 80, 24);
        has(&shown, "▸ task-19  completed");
        let mut filter: Vec<KeyCode> = "/failed".chars().map(KeyCode::Char).collect();
        has(&screen(&scene(&model, UNICODE), &filter, 80, 24), "filter: failed");
        filter.push(KeyCode::Enter);
        let shown = screen(&scene(&model, UNICODE), &filter, 80, 24);
        has(&shown, "─▸ Tasks 1 of 40 ─");
        has(&shown, "nothing matches the filter");
    }

    #[test]
    fn details_tell_all_and_what_to_do() {
        let model = model();
        let stuck = [KeyCode::Tab, KeyCode::Tab, KeyCode::Enter];
        let shown = screen(&scene(&model, UNICODE), &stuck, 80, 24);
        has(&shown, "╭ Stuck ─");
        has(&shown, "next      mv tasks/failed/task-38 tasks/ready/");
        has(&shown, "holds up  2 blocked tasks");
        has(&shown, "priority  high");
        let shown = screen(&scene(&model, UNICODE), &[KeyCode::Tab, KeyCode::Enter], 80, 24);
        has(&shown, "│ last_heard  2026-01-01T00:00:50.000Z");
    }

    #[test]
    fn a_mount_that_does_not_answer_is_seen() {
        let model = model();
        let silent = Scene { silent: Some(Span(7_900)), ..scene(&model, UNICODE) };
        assert!(screen(&silent, &[], 80, 24)[0].ends_with("no answer for 7s"));
        let trouble =
            Scene { trouble: Some("queue.json cannot be read: it rains"), ..scene(&model, UNICODE) };
        has(&screen(&trouble, &[], 80, 24), "queue.json cannot be read: it rains");
        let empty = Model::default();
        let unknown = Scene { known: false, silent: Some(Span(4_000)), ..scene(&empty, UNICODE) };
        let shown = screen(&unknown, &[KeyCode::Enter], 80, 24);
        assert!(shown[0].ends_with("no answer for 4s"), "{}", shown[0]);
        has(&shown, "reading /srv/project…");
    }

    #[test]
    fn five_thousand_tasks_are_drawn_as_fast_as_forty() {
        let task = |n: usize| format!(r#"  "task-{n}": {{"status":"ready","title":"T {n}"}}"#);
        let queue = format!("{{\n{}\n}}\n", (0..5_000).map(task).collect::<Vec<_>>().join(",\n"));
        let mut model = Model::default();
        model.update(MountUpdate { queue: Some(queue), ..MountUpdate::default() }, Now::default()).unwrap();
        let shown = screen(&scene(&model, UNICODE), &[KeyCode::End, KeyCode::PageUp], 200, 60);
        has(&shown, "Tasks 5000");
        // Only visible rows are made: a screen has no more rows than lines.
        assert!(shown.iter().filter(|line| line.contains("ready")).count() <= 60);
    }
}
