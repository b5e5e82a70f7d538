//! Which users may change the queue (C17).
//!
//! May assume: nothing of the caller but its request; the rights of the directory of tasks are those on the disk.
//! Must never: let a change through unasked, or refuse root, operators and the user that mounted.

use std::collections::BTreeSet;

use super::super::identity::callers::Caller;
use super::super::permissions::{access_of, allow};
use super::super::{Request, Result};
use super::view::View;
use crate::queue::{Refusal, Wanted};

impl View {
    /// Refuses a change of the queue by a caller that may not write in the directory of tasks and is not named in an option.
    pub(super) fn may_change(&self, req: &Request, caller: &Caller) -> Result<()> {
        let (owner, named) = (self.config.owner_uid, &self.config.workers);
        if caller.actor.operator || req.uid == 0 || req.uid == owner || named.contains(&req.uid) {
            return Ok(());
        }
        let directory = access_of(self.publisher.directory());
        match directory.is_ok_and(|directory| allow(&directory, req, Wanted::Write)) {
            true => Ok(()),
            false => Err(Refusal::NoMember { uid: req.uid }.into()),
        }
    }
}

/// Users by number.
pub type Users = BTreeSet<u32>;
