//! The name of a caller: the result of its look-up, and the users that names belong to (C40, C41, C45).
//!
//! Must never: give a caller a name that belongs to another user.

use std::sync::Arc;

use super::{Caller, Callers, TOO_MUCH};
use crate::fs::identity::ancestry::{Ancestry, AnchorProcess, NameSource};
use crate::fs::identity::nameless::Nameless;
use crate::fs::identity::names;
use crate::fs::identity::process_watch::Anchor;
use crate::fs::{Request, Result};
use crate::queue::{Actor, Refusal, State, WorkerName};

impl Callers {
    /// Refuse another user's name: a name belongs to the uid that used it first (C41), unless it is reserved for a user (C45).
    pub(super) fn check_name(&self, state: &State, actor: &Actor) -> Result<()> {
        let reserved = self.names.owner(&actor.worker, (self.engine.clock())().instant);
        let owner = reserved.or_else(|| Some(state.worker(actor.worker.as_str())?.uid));
        match owner {
            Some(owner) if owner != actor.uid && actor.uid != 0 => {
                let worker = actor.worker.clone();
                Err(Refusal::NameTaken { worker, owner }.into())
            }
            _ => Ok(()),
        }
    }

    /// The caller that results from a look-up.
    pub(super) fn caller(&self, req: &Request, found: Ancestry) -> Caller {
        let Ancestry { process, is_sftp, tree_program, name, anchor, .. } = found;
        let anchor = anchor.and_then(|AnchorProcess { pid, started, program, kind }| {
            Anchor::new(pid, started, program, kind)
        });
        let worker = match name {
            NameSource::Given(worker) => Some(worker),
            NameSource::Program(agent, pid) => self.generated(req, agent, pid),
            NameSource::Invalid(given) => {
                let why = format!(
                    "CREWFS_WORKER is {given:?}, which is no worker name: use letters, digits, '.', '_' and '-'"
                );
                return self.without_name(req, process, is_sftp, Nameless::Misnamed(why.into()));
            }
            NameSource::TooMuch => {
                return self.without_name(req, process, is_sftp, Nameless::Unknown(TOO_MUCH));
            }
            NameSource::Login => None,
        };
        match worker {
            Some(worker) => {
                let actor = Actor { worker, uid: req.uid, operator: false };
                Caller { actor, is_worker: true, process, is_sftp, anchor, nameless: None, tree_program }
            }
            None => Caller { is_sftp, anchor, tree_program, ..(*self.by_login(req, process)).clone() },
        }
    }

    /// The name of an agent that was given none. It is another one if a user has reserved the first, or used it before the pid was reused.
    pub(super) fn generated(&self, req: &Request, agent: &str, pid: u32) -> Option<WorkerName> {
        let state = self.engine.state();
        let taken = |name: &WorkerName| {
            let known = state.worker(name.as_str()).map(|worker| worker.uid);
            let known = known.or_else(|| Some(self.engine.roster().get(name.as_str())?.uid));
            known.is_some_and(|uid| uid != req.uid)
        };
        names::of_program(agent, pid)
            .filter(|name| !taken(name))
            .or_else(|| names::of_program_of(agent, pid, req.uid))
    }

    pub(super) fn without_name(&self, req: &Request, process: u32, is_sftp: bool, why: Nameless) -> Caller {
        let actor = Actor { worker: self.login(req.uid), uid: req.uid, operator: false };
        Caller {
            actor,
            is_worker: false,
            process,
            is_sftp,
            anchor: None,
            nameless: Some(why),
            tree_program: None,
        }
    }

    /// The caller under the login name of its user.
    pub(super) fn by_login(&self, req: &Request, process: u32) -> Arc<Caller> {
        let operator = self.names.is_operator(req.uid, self.owner);
        let actor = Actor { worker: self.login(req.uid), uid: req.uid, operator };
        let nameless = None;
        Arc::new(Caller {
            actor,
            is_worker: false,
            process,
            is_sftp: false,
            anchor: None,
            nameless,
            tree_program: None,
        })
    }

    /// An unknown caller.
    pub(super) fn unknown(&self, req: &Request, why: &'static str) -> Arc<Caller> {
        Arc::new(self.without_name(req, 0, false, Nameless::Unknown(why)))
    }

    pub(super) fn login(&self, uid: u32) -> WorkerName {
        self.names.login(uid, (self.engine.clock())().instant)
    }
}
