//! `crewfs top`: a live view of a mount in a terminal. It reads only the mount's files, so it works over sshfs too.
//!
//! May assume: a terminal, except with `--once`.
//! Must never: change anything, wait for the mount in the process that has the terminal, or leave the terminal in raw mode, however it
//! ends.

mod feed;
mod header;
mod model;
mod popup;
mod report;
mod scene;
mod screen;
mod theme;
mod ui;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::time::Duration;

use clap::Args;
use ratatui::crossterm::event;

use super::error::CliError;
use super::out;
use crate::clock::{self, Clock};
use crate::limits::{TOP_ONCE_MS, TOP_SILENT_MS};
use crate::queue::{Now, Span};
use feed::FeedMessage;
use model::Model;
use scene::Scene;
use theme::Theme;
use ui::{KeyAction, Ui};

#[derive(Args)]
pub(super) struct Arguments {
    /// Where a project is mounted, or its tasks directory; locally, or with sshfs from another machine.
    mountpoint: PathBuf,
    /// How often to read the mount.
    #[arg(long, value_name = "SPAN", default_value = "1s", value_parser = interval)]
    interval: Span,
    /// Print what there is now as plain text, and end.
    #[arg(long)]
    once: bool,
    /// Read the mount for another crewfs top, which says when.
    #[arg(long, hide = true)]
    feed: bool,
}

/// The shortest interval.
const SHORTEST: Span = Span(100);
/// How long a signal or a new message may wait while no key is pressed.
const BEAT: Duration = Duration::from_millis(50);

/// Keys that may wait.
const KEYS_WAITING: usize = 64;

fn interval(text: &str) -> Result<Span, String> {
    let span = Span::parse(text).ok_or("a span of time such as 1s, 500ms or 1m is wanted")?;
    if span < SHORTEST { Err(format!("at least {SHORTEST}")) } else { Ok(span) }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    let clock = clock::system();
    // By name only, because touching the mount may block.
    let place = std::path::absolute(&arguments.mountpoint).map_err(CliError::failed)?;
    if arguments.feed {
        return feed::serve(&place, &clock);
    }
    let terminal = out::is_terminal() && io::stdin().is_terminal();
    if !terminal && !arguments.once {
        return Err(CliError::usage("top needs a terminal; for one look as plain text: crewfs top --once"));
    }
    let messages = feed::start(&place, arguments.interval.to_std(), clock.clone())?;
    let shown = place.display().to_string();
    if arguments.once { once(&messages, &shown, &clock) } else { live(&messages, &shown, &clock) }
}

/// Print what one reading shows.
fn once(messages: &Receiver<FeedMessage>, place: &str, clock: &Clock) -> Result<(), CliError> {
    let limit = Span(TOP_ONCE_MS);
    let update = match messages.recv_timeout(limit.to_std()) {
        Ok(FeedMessage::Update(update)) => update,
        Ok(FeedMessage::Trouble(why)) => return Err(CliError::failed(why)),
        Ok(FeedMessage::Ended(failure)) => return Err(failure),
        Err(RecvTimeoutError::Timeout) => {
            return Err(CliError::failed(format!(
                "{place} gives no answer within {limit}; is its daemon, or the network, alive?"
            )));
        }
        Err(RecvTimeoutError::Disconnected) => return Err(feed_ended()),
    };
    let mut model = Model::default();
    let now = clock();
    model.update(update, now).map_err(CliError::failed)?;
    out::write(report::text(&model, place, model.time(now)).as_bytes());
    Ok(())
}

fn feed_ended() -> CliError {
    CliError::failed("the process that reads the mount ended")
}

/// Restores the terminal when it is dropped, also after a panic.
struct TerminalGuard(ratatui::DefaultTerminal);

impl TerminalGuard {
    fn take() -> io::Result<TerminalGuard> {
        // Its hook restores the terminal before a panic is printed.
        ratatui::try_init().map(TerminalGuard)
    }
}

impl Drop for TerminalGuard {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = ratatui::try_restore();
        let _ = self.0.show_cursor();
    }
}

/// Show the mount until the user quits.
fn live(messages: &Receiver<FeedMessage>, place: &str, clock: &Clock) -> Result<(), CliError> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register(signal, stop.clone()).map_err(CliError::failed)?;
    }
    let mut terminal =
        TerminalGuard::take().map_err(|error| CliError::failed(format!("the terminal: {error}")))?;
    let mut top = Top::new(place, Theme::of(|name| std::env::var_os(name)), clock());
    let (pressed, mut drawn) = (terminal_events(), None);
    while !stop.load(Ordering::Acquire) {
        let now = clock();
        match messages.try_recv() {
            Ok(message) => top.receive(message, now)?,
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Err(feed_ended()),
        }
        // Ages change once a second.
        let second = now.instant.0 / 1000;
        if top.changed || drawn != Some(second) {
            terminal.0.draw(|frame| top.draw(frame, now)).map_err(terminal_failed)?;
            (top.changed, drawn) = (false, Some(second));
        }
        match pressed.recv_timeout(BEAT) {
            Ok(event::Event::Key(key)) if key.kind != event::KeyEventKind::Release => {
                match top.ui.press(key, &top.model) {
                    KeyAction::Quit => return Ok(()),
                    KeyAction::Redraw => top.changed = true,
                    KeyAction::Nothing => {}
                }
            }
            Ok(event::Event::Resize(..)) => top.changed = true,
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(CliError::failed("the terminal is gone")),
        }
    }
    Ok(())
}

/// Keys and new sizes, read by a thread that may be left behind: when the terminal goes away, crossterm waits for the next key for
/// ever.
fn terminal_events() -> Receiver<event::Event> {
    let (sender, receiver) = sync_channel(KEYS_WAITING);
    std::thread::spawn(move || while event::read().is_ok_and(|event| sender.send(event).is_ok()) {});
    receiver
}

fn terminal_failed(error: io::Error) -> CliError {
    CliError::failed(format!("the terminal: {error}"))
}

/// What was read, and the choices of the user.
struct Top<'a> {
    place: &'a str,
    theme: Theme,
    model: Model,
    ui: Ui,
    /// When the mount last answered, or the start.
    answered: Now,
    known: bool,
    trouble: Option<String>,
    /// Whether there is something new to draw.
    changed: bool,
}

impl<'a> Top<'a> {
    fn new(place: &'a str, theme: Theme, now: Now) -> Top<'a> {
        Top {
            place,
            theme,
            model: Model::default(),
            ui: Ui::new(),
            answered: now,
            known: false,
            trouble: None,
            changed: true,
        }
    }

    /// Take in a message of the feed.
    fn receive(&mut self, message: FeedMessage, now: Now) -> Result<(), CliError> {
        self.trouble = match message {
            FeedMessage::Update(update) => {
                (self.answered, self.known) = (now, true);
                self.model.update(update, now).err()
            }
            FeedMessage::Trouble(why) => Some(why),
            FeedMessage::Ended(failure) => return Err(failure),
        };
        self.ui.arrange(&self.model);
        self.changed = true;
        Ok(())
    }

    fn draw(&mut self, frame: &mut ratatui::Frame, now: Now) {
        let silent = now.instant.since(self.answered.instant);
        let scene = Scene {
            model: &self.model,
            place: self.place,
            now: self.model.time(now),
            silent: (silent >= Span(TOP_SILENT_MS)).then_some(silent),
            trouble: self.trouble.as_deref(),
            known: self.known,
            theme: self.theme,
        };
        screen::draw(frame, &scene, &mut self.ui);
    }
}
