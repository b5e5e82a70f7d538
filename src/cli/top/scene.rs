//! What the screen shows, besides the choices of the user.

use super::model::Model;
use super::theme::Theme;
use crate::queue::{Span, Wall};

/// What is drawn, besides what the user chose.
pub(super) struct Scene<'a> {
    pub(super) model: &'a Model,
    /// Where the mount is, as it was asked for.
    pub(super) place: &'a str,
    /// What time it is where the mount is served.
    pub(super) now: Wall,
    /// For how long it has not answered, when that is long.
    pub(super) silent: Option<Span>,
    /// What went wrong with the last theme.
    pub(super) trouble: Option<&'a str>,
    /// Whether it has answered at all.
    pub(super) known: bool,
    pub(super) theme: Theme,
}
