//! What a change waits for before it is judged again (C51).

use std::sync::Arc;

use super::locks::LockHolder;
use crate::fs::Ino;
use crate::fs::identity::callers::Caller;
use crate::queue::Span;

/// Why a change waits, and for how long.
pub struct Patience(pub(super) WaitReason);

impl Patience {
    /// The caller, if it is known.
    pub(super) fn caller(&self) -> Option<Arc<Caller>> {
        match &self.0 {
            WaitReason::Held { caller, .. } | WaitReason::Full(caller) => Some(caller.clone()),
            WaitReason::Unknown(_) => None,
        }
    }

    /// The user of the caller, if the caller is known.
    pub(super) fn uid(&self) -> Option<u32> {
        self.caller().map(|caller| caller.actor.uid)
    }
}

/// What a change waits for.
#[derive(Clone)]
pub(super) enum WaitReason {
    /// Another worker holds the file.
    Held {
        /// The caller.
        caller: Arc<Caller>,
        /// The file.
        ino: Ino,
        /// The holder.
        rival: LockHolder,
        /// How long it may wait.
        span: Span,
    },
    /// The user of this caller has more locks than one user may have, and some of their holders may be done.
    Full(Arc<Caller>),
    /// The caller that stored through a mapping of this file is not known.
    Unknown(Ino),
}

impl WaitReason {
    /// Whether the caller must be found before the change can be judged.
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self, WaitReason::Unknown(_))
    }
}
