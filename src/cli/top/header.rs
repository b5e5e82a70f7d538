//! The lines above the panes: the place, the number of tasks by state, all tasks as one bar, and the pace.
//!
//! Must never: leave out an alarm for lack of room.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Color;
use ratatui::text::{Line, Span as Text};

use super::model::{TaskStatus, ago, short};
use super::scene::Scene;
use crate::queue::Span;

/// Draw the four lines.
pub(super) fn draw(buf: &mut Buffer, area: Rect, scene: &Scene) {
    let (theme, model) = (scene.theme, scene.model);
    let mut row = area.rows();
    let mut put = |line: Line| {
        if let Some(area) = row.next() {
            buf.set_line(area.x + 1, area.y, &line, area.width.saturating_sub(1));
        }
    };
    let state = match (scene.silent, model.summary.as_ref().and_then(|summary| summary.paused)) {
        (Some(silent), _) => Text::styled(format!("no answer for {} ", short(silent)), theme.alarm()),
        (None, Some(since)) => {
            let since = ago(Some(since), scene.now);
            Text::styled(format!("paused for {since} "), theme.coloured(Color::Yellow).patch(theme.strong()))
        }
        (None, None) => Text::raw(""),
    };
    let room = usize::from(area.width).saturating_sub(state.width() + "crewfs top  ".len() + 2);
    let place = theme.fit(scene.place, room, false);
    put(Line::from(vec![
        Text::styled("crewfs top  ", theme.focus()),
        Text::styled(place, theme.strong()),
        " ".into(),
        state,
    ]));
    put(counts(scene, usize::from(area.width).saturating_sub(1)));
    put(bar(scene, usize::from(area.width).saturating_sub(2)));
    put(pace(scene, usize::from(area.width).saturating_sub(2)));
}

/// The number of tasks by state. Shorter where there is less room.
fn counts(scene: &Scene, width: usize) -> Line<'static> {
    let always = |state| {
        matches!(state, TaskStatus::Completed | TaskStatus::Claimed | TaskStatus::Ready | TaskStatus::Blocked)
    };
    let mut line = Line::default();
    for (gap, done) in [("   ", "completed"), ("  ", "completed"), (" ", "done")] {
        line = Line::default();
        for state in TaskStatus::ALL {
            let count = scene.model.count(state);
            if count == 0 && !always(state) {
                continue;
            }
            let name = if state == TaskStatus::Completed { done } else { state.name() };
            let gap = if line.spans.is_empty() { "" } else { gap };
            line.push_span(gap);
            line.push_span(Text::styled(scene.theme.mark(state), scene.theme.state(state)));
            line.push_span(Text::styled(format!(" {count}"), scene.theme.strong()));
            line.push_span(format!(" {name}"));
        }
        if line.width() <= width {
            break;
        }
    }
    line
}

/// All tasks as one bar. A state with a task has at least one column.
fn bar(scene: &Scene, width: usize) -> Line<'static> {
    let counts = TaskStatus::ALL.map(|state| scene.model.count(state));
    let spans = TaskStatus::ALL.into_iter().zip(shares(&counts, width));
    spans
        .map(|(state, n)| Text::styled(scene.theme.mark(state).repeat(n), scene.theme.state(state)))
        .collect()
}

/// Divide the columns by the counts. A count above 0 gets at least one column, at the cost of the largest.
fn shares(counts: &[usize], width: usize) -> Vec<usize> {
    let total: usize = counts.iter().sum();
    if total == 0 || width < counts.len() {
        return vec![0; counts.len()];
    }
    let share = |count: &usize| ((count * width + total / 2) / total).max(usize::from(*count > 0));
    let mut shares: Vec<usize> = counts.iter().map(share).collect();
    loop {
        let sum: usize = shares.iter().sum();
        let Some(largest) = (0..shares.len()).max_by_key(|n| shares[*n]).filter(|_| sum != width) else {
            return shares;
        };
        shares[largest] = if sum > width { shares[largest] - 1 } else { shares[largest] + 1 };
    }
}

/// How many tasks are done, how fast, and how long the rest will take.
fn pace(scene: &Scene, width: usize) -> Line<'static> {
    let (theme, model) = (scene.theme, scene.model);
    let (done, total) = (model.count(TaskStatus::Completed), model.tasks.len());
    let mut line = Line::from(match (done * 100).checked_div(total) {
        Some(percent) => Text::styled(format!("{done} of {total} done, {percent} %"), theme.strong()),
        None => Text::styled("no tasks yet: write tasks/<id>.md", theme.faint()),
    });
    let Some(summary) = &model.summary else { return line };
    let speed = summary.throughput.per_hour.map(|per_hour| format!("   {}", speed(per_hour)));
    let to_go = match summary.eta {
        Some(eta) => {
            let left = short(Span(eta.0.saturating_sub(scene.now.0).max(0).unsigned_abs()));
            format!("   {} to go, about {left}", summary.remaining)
        }
        None if summary.remaining > 0 => format!("   {} to go", summary.remaining),
        None => String::new(),
    };
    let held_up = match summary.held_up {
        0 => String::new(),
        n => format!("   {n} held up"),
    };
    if let Some(speed) = speed {
        // As many of the last minutes as fit.
        let used = line.width() + speed.len() + to_go.len() + held_up.len() + 1;
        let minutes = theme.sparks(&summary.throughput.by_minute, width.saturating_sub(used).min(60));
        line.push_span(speed);
        line.push_span(" ");
        line.push_span(Text::styled(minutes, theme.state(TaskStatus::Completed)));
    }
    line.push_span(to_go);
    line.push_span(Text::styled(held_up, theme.alarm()));
    line
}

/// A pace in the unit that gives a readable number.
pub(super) fn speed(per_hour: f64) -> String {
    if per_hour >= 120.0 {
        format!("{:.1} a minute", per_hour / 60.0)
    } else {
        format!("{per_hour:.1} an hour")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_full_and_forgets_nobody() {
        assert_eq!(shares(&[1_000, 1, 0, 1], 10), [8, 1, 0, 1]);
        assert_eq!(shares(&[1, 1, 1], 10).iter().sum::<usize>(), 10);
        assert_eq!(shares(&[0, 0], 10), [0, 0]);
        assert_eq!(shares(&[5, 5, 5], 2), [0, 0, 0], "too narrow");
    }

    #[test]
    fn a_pace_is_a_number_to_read() {
        assert_eq!(speed(14.25), "14.2 an hour");
        assert_eq!(speed(150.0), "2.5 a minute");
    }
}
