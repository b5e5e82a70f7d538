//! What is drawn, besides the choices of the user.

use super::model::Model;
use super::theme::Theme;
use crate::queue::{Span, Wall};

/// The content of one frame.
pub(super) struct Scene<'a> {
    pub(super) model: &'a Model,
    /// The place of the mount, as the user named it.
    pub(super) place: &'a str,
    /// The time on the machine that serves the mount.
    pub(super) now: Wall,
    /// How long the mount has not answered, if that is long.
    pub(super) silent: Option<Span>,
    /// The error of the last reading.
    pub(super) trouble: Option<&'a str>,
    /// Whether the mount has answered yet.
    pub(super) known: bool,
    pub(super) theme: Theme,
}
