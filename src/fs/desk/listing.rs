//! Which names each synthesized directory lists.

use super::handles::ListingLine;
use super::nodes::{DeskDirectory, DeskNode};
use super::view::View;
use super::{documents, table};
use crate::fs::{FileKind, Ino, Request, Result};

impl View {
    /// Whether a node of the top exists at present. Cheaper than showing it.
    pub(super) fn is_listed(&self, node: &DeskNode, req: &Request) -> bool {
        match node {
            DeskNode::Next => self.best(&self.engine.state(), req).is_some(),
            DeskNode::Paused => self.engine.state().paused().is_some(),
            _ => true,
        }
    }

    /// Everything in a synthesized directory, in the order in which it is listed.
    pub(super) fn list(&self, parent: Ino, directory: &DeskNode, req: &Request) -> Result<Vec<ListingLine>> {
        let state = self.engine.state();
        let mut lines = Vec::new();
        let mut add = |node: DeskNode, name: &str| {
            lines.push(ListingLine { ino: self.nodes.shown(&node), kind: node.kind(), name: name.into() });
        };
        match directory {
            DeskNode::Directory(DeskDirectory::Workers) => {
                let mut names = documents::everybody(&state, &self.engine);
                let caller = self.callers.reader(req)?;
                if caller.is_worker && !names.contains(&caller.actor.worker) {
                    names.push(caller.actor.worker.clone());
                }
                add(DeskNode::WorkerSelf, "self");
                names.into_iter().for_each(|name| add(DeskNode::Worker(name.clone()), name.as_str()));
            }
            DeskNode::Directory(directory) => match directory.lists() {
                Some(listed) => {
                    state
                        .listed(listed)
                        .for_each(|id| add(DeskNode::Task(*directory, id.clone()), id.as_str()));
                }
                None => {
                    state.tasks().for_each(|(id, _)| add(DeskNode::Task(*directory, id.clone()), id.as_str()))
                }
            },
            DeskNode::Worker(name) => {
                for (file, kind) in table::WORKER {
                    if self.worker_file(name, kind, &state, req).is_ok() {
                        add(DeskNode::WorkerFile(name.clone(), kind), file);
                    }
                }
            }
            _ => {}
        }
        for (name, number) in self.scratches.names(parent) {
            lines.push(ListingLine {
                ino: self.nodes.shown(&DeskNode::Scratch(number)),
                kind: FileKind::File,
                name,
            });
        }
        Ok(lines)
    }
}
