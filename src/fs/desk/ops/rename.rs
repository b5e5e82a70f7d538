//! Names of synthesized nodes: link(2), unlink(2) and rename(2).
//!
//! Must never: change a name on the disk before the command that belongs to it is on disk.

use std::ffi::OsStr;
use std::sync::Arc;

use crate::fs::desk::nodes::DeskNode;
use crate::fs::desk::{DeskCore, table};
use crate::fs::{Entry, Fault, FsError, Ino, Reply, Request};

impl DeskCore {
    pub(in crate::fs::desk) fn link_synthesized(
        self: &Arc<DeskCore>,
        req: &Request,
        ino: Ino,
        to: DeskNode,
        reply: Reply<Entry>,
    ) {
        let Some((caller, reply)) = self.begin(req, reply) else { return };
        let state = self.view.engine.state();
        let wished = self.view.nodes.get(ino).and_then(|from| {
            Ok((
                table::moving(&from, &to, &caller, (&state, self.view.eyes(req, &state)), true)?,
                from.kind(),
            ))
        });
        match wished {
            // The answer must have the kind of the linked node.
            Ok((command, kind)) => self.fulfil(caller, command, kind, reply),
            Err(error) => reply.send(Err(self.refused(&caller, error))),
        }
    }

    /// An ordinary file is moved or linked onto a synthesized name. For the caller that is another filesystem, so it copies the file. A
    /// claim of another worker is refused at once, before the caller removes it to make room.
    pub(in crate::fs::desk) fn brought_in<T>(&self, req: &Request, to: &DeskNode, reply: Reply<T>) {
        let Some((caller, reply)) = self.begin(req, reply) else { return };
        let error = match table::held_by_another(&self.view.engine.state(), &caller, to) {
            Ok(()) => FsError::Plain(Fault::OtherFilesystem),
            Err(held) => self.refused(&caller, held),
        };
        reply.send(Err(error));
    }

    pub(in crate::fs::desk) fn unlink_synthesized(
        self: &Arc<DeskCore>,
        req: &Request,
        parent: Ino,
        name: &OsStr,
        node: DeskNode,
        reply: Reply<()>,
    ) {
        let Some((caller, reply)) = self.begin(req, reply) else { return };
        if self.view.scratches.at(parent, name).is_some() {
            return reply.send(self.unlink_scratch(req, &caller, (parent, name)));
        }
        match table::removing(&node, &caller, &self.view.engine.state()) {
            Ok(command) => self.command(caller, command, reply),
            Err(error) => reply.send(Err(self.refused(&caller, error))),
        }
    }

    pub(in crate::fs::desk) fn rename_synthesized(
        self: &Arc<DeskCore>,
        req: &Request,
        from: (Ino, &OsStr, DeskNode),
        to: (Ino, &OsStr, DeskNode),
        flags: u32,
        reply: Reply<()>,
    ) {
        if flags & !libc::RENAME_NOREPLACE != 0 {
            return reply.send(Err(Fault::Invalid.into()));
        }
        let exclusive = flags & libc::RENAME_NOREPLACE != 0;
        let Some((caller, reply)) = self.begin(req, reply) else { return };
        if self.view.scratches.at(from.0, from.1).is_some() {
            return self.rename_scratch(req, caller, (from.0, from.1), to, exclusive, reply);
        }
        let state = self.view.engine.state();
        match table::moving(&from.2, &to.2, &caller, (&state, self.view.eyes(req, &state)), exclusive) {
            Ok(command) => self.command(caller, command, reply),
            Err(error) => reply.send(Err(self.refused(&caller, error))),
        }
    }
}
