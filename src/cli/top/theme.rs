//! Characters and colours, as far as the terminal has them, and text cut to its column.
//!
//! Must never: show a character that the locale lacks, or convey anything by colour alone.

use std::ffi::OsString;

use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::{bar, border};
use ratatui::text::Span;

use super::model::TaskStatus;

/// What the terminal supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Theme {
    pub(super) unicode: bool,
    pub(super) colour: bool,
}

/// Bars in ASCII.
const PLAIN_BARS: bar::Set<'static> = bar::Set {
    full: "#",
    seven_eighths: "#",
    three_quarters: "#",
    five_eighths: "=",
    half: "=",
    three_eighths: "-",
    one_quarter: "-",
    one_eighth: ".",
    empty: " ",
};
/// A border in ASCII.
const PLAIN_BORDER: border::Set<'static> = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

impl Theme {
    /// The theme for the environment of the terminal.
    pub(super) fn of(variable: impl Fn(&str) -> Option<OsString>) -> Theme {
        let text = |name: &str| {
            variable(name).filter(|value| !value.is_empty()).map(|v| v.to_string_lossy().into_owned())
        };
        let locale = text("LC_ALL").or_else(|| text("LC_CTYPE")).or_else(|| text("LANG")).unwrap_or_default();
        let locale = locale.to_ascii_lowercase();
        let terminal = text("TERM").unwrap_or_default();
        let plain = matches!(terminal.as_str(), "" | "dumb" | "linux" | "vt100" | "vt220");
        Theme {
            unicode: (locale.contains("utf-8") || locale.contains("utf8")) && !plain,
            colour: text("NO_COLOR").is_none() && terminal != "dumb" && !terminal.starts_with("vt"),
        }
    }

    /// The character of a state in the bar.
    pub(super) fn mark(self, state: TaskStatus) -> &'static str {
        let (unicode, plain) = match state {
            TaskStatus::Completed => ("█", "#"),
            TaskStatus::Claimed => ("▓", "="),
            TaskStatus::Ready => ("▒", "-"),
            TaskStatus::Blocked => ("░", "."),
            TaskStatus::Failed => ("×", "x"),
            TaskStatus::Rejected => ("!", "!"),
            TaskStatus::Unknown => ("?", "?"),
        };
        if self.unicode { unicode } else { plain }
    }

    pub(super) fn state(self, state: TaskStatus) -> Style {
        self.coloured(match state {
            TaskStatus::Completed => Color::Green,
            TaskStatus::Claimed => Color::Yellow,
            TaskStatus::Ready => Color::Cyan,
            TaskStatus::Blocked => Color::Blue,
            TaskStatus::Failed => Color::Red,
            TaskStatus::Rejected => Color::Magenta,
            TaskStatus::Unknown => Color::Reset,
        })
    }

    pub(super) fn coloured(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    /// Entries that need attention.
    pub(super) fn alarm(self) -> Style {
        self.coloured(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// Less important text.
    pub(super) fn faint(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    pub(super) fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// The focused pane.
    pub(super) fn focus(self) -> Style {
        self.coloured(Color::Cyan).add_modifier(Modifier::BOLD)
    }

    /// The selected line.
    pub(super) fn chosen(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    pub(super) fn rule(self) -> &'static str {
        if self.unicode { "─" } else { "-" }
    }

    /// The mark before the selected line and before the title of its pane.
    pub(super) fn pointer(self) -> &'static str {
        if self.unicode { "▸" } else { ">" }
    }

    pub(super) fn bars(self) -> bar::Set<'static> {
        if self.unicode { bar::NINE_LEVELS } else { PLAIN_BARS }
    }

    pub(super) fn border(self) -> border::Set<'static> {
        if self.unicode { border::ROUNDED } else { PLAIN_BORDER }
    }

    /// The last `width` numbers as a line of small bars.
    pub(super) fn sparks(self, numbers: &[u64], width: usize) -> String {
        let numbers = &numbers[numbers.len().saturating_sub(width)..];
        let most = numbers.iter().copied().max().unwrap_or_default().max(1);
        let set = self.bars();
        let levels = [
            set.empty,
            set.one_eighth,
            set.one_quarter,
            set.three_eighths,
            set.half,
            set.five_eighths,
            set.three_quarters,
            set.seven_eighths,
            set.full,
        ];
        numbers.iter().map(|number| levels[(number * 8).div_ceil(most).min(8) as usize]).collect()
    }

    /// Cut a text to `width` columns.
    pub(super) fn cut(self, text: &str, width: usize) -> String {
        let (more, mut fits, mut columns) = (if self.unicode { "…" } else { "~" }, String::new(), 0);
        let mut before_more = 0;
        for c in text.chars() {
            let c = if self.unicode || c.is_ascii() { c } else { '?' };
            columns += Span::raw(c.to_string()).width();
            if columns > width {
                fits.truncate(before_more);
                fits.push_str(if width > 0 { more } else { "" });
                return fits;
            }
            fits.push(c);
            if columns < width {
                before_more = fits.len();
            }
        }
        fits
    }

    /// Cut or pad a text to `width` columns.
    pub(super) fn fit(self, text: &str, width: usize, right: bool) -> String {
        let text = self.cut(text, width);
        let room = " ".repeat(width.saturating_sub(Span::raw(&text).width()));
        if right { room + &text } else { text + &room }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn theme_of(variables: &[(&str, &str)]) -> Theme {
        Theme::of(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn the_locale_decides_which_characters_there_are() {
        assert!(theme_of(&[("TERM", "xterm"), ("LANG", "de_DE.UTF-8")]).unicode);
        assert!(!theme_of(&[("TERM", "xterm"), ("LANG", "de_DE.UTF-8"), ("LC_ALL", "C")]).unicode);
        assert!(!theme_of(&[("TERM", "linux"), ("LANG", "C.UTF-8")]).unicode);
        assert!(!theme_of(&[]).unicode);
        assert!(theme_of(&[("TERM", "xterm"), ("LC_CTYPE", "en_US.utf8")]).colour);
        assert!(!theme_of(&[("TERM", "xterm"), ("NO_COLOR", "1")]).colour);
    }

    #[test]
    fn texts_fit_their_columns() {
        let unicode = Theme { unicode: true, colour: true };
        let plain = Theme { unicode: false, colour: false };
        for (text, width, fits) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("日本語", 5, "日本…"),
            ("日本", 4, "日本"),
            ("ab", 0, ""),
        ] {
            assert_eq!(unicode.cut(text, width), fits, "{text} in {width}");
        }
        assert_eq!(plain.cut("Bücher lesen", 8), "B?cher ~");
        assert_eq!(unicode.fit("7", 3, true), "  7");
        assert_eq!(unicode.fit("日", 3, false), "日 ");
        assert_eq!(plain.sparks(&[9, 0, 1, 8], 3), " .#");
    }
}
