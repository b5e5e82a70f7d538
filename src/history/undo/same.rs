//! When two versions count as one.
//!
//! Must never: take two versions for one because neither is kept, where that would restore or remove something.

use crate::history::{KeptContent, Version, VersionKind};

/// Whether two versions have the same kind and content, and that content is known.
pub(super) fn are_same(one: Version, other: Version) -> bool {
    let is_kept = |version: Version| matches!(version.content, KeptContent::Kept(_));
    one.kind == other.kind
        && (one.kind == VersionKind::Directory || one.content == other.content && is_kept(one))
}

/// Whether two states of a path are the same, but for the owner.
pub(super) fn are_alike(one: Option<Version>, other: Option<Version>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => {
            let same_mode = one.mode == other.mode || one.kind == VersionKind::Symlink;
            (are_same(one, other) || seem_one(one, other)) && same_mode
        }
        _ => false,
    }
}

/// Whether two versions that are not kept seem to be one: kept nowhere, and of one length.
pub(super) fn seem_one(one: Version, other: Version) -> bool {
    one.kind == other.kind && one.content == other.content && !are_same(one, other)
}
