//! `dashboard.html`: one page for people, with everything in it.
use super::show::View;
use crate::queue::{State, Summary};
pub(super) fn page(_view: &View, _state: &State, _summary: &Summary) -> Vec<u8> {
    Vec::new()
}
