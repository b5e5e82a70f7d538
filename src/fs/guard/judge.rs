//! The judgement: from a changing request to a verdict.
//!
//! May assume: what the guard itself assumes.
//! Must never: make the change, or record it. The guard does that afterwards.

use std::path::PathBuf;
use std::sync::Arc;

use super::gitignore::makes_rules;
use super::locks::{ChangingProcess, LockHolder, Mode};
use super::owned::{Reach, owner_of};
use super::patience::{Patience, WaitReason};
use super::refusal::GuardRefusal;
use super::versions::LastChange;
use super::{Change, EntryName, Guard, LOCK_ATTRIBUTE, Orphan, Verdict};
use crate::fs::identity::callers::Caller;
use crate::fs::recorder::Touched;
use crate::fs::{FileKind, FsError, Ino, Request, Result, SetAttr};
use crate::limits::{DIRECTORY_WAIT_MS, MAKING_MS, OPENING_MS, WRITE_SHOWN_MS};
use crate::queue::{Instant, Span, WorkerName};

/// The set-user-id and set-group-id bits of a mode.
const SET_ID_BITS: u16 = 0o6000;

/// The permission to make a change, with what the guard records once the change is made.
#[derive(Default)]
pub struct Grant {
    /// The caller that makes it; `None` if the caller is not known.
    pub(super) by: Option<Arc<Caller>>,
    /// The files whose content changes, or whose name leads to other content afterwards.
    pub(super) changed: [Option<Ino>; 2],
    /// Whether these files keep their earlier content, which the caller may not have read.
    pub(super) blind: bool,
    /// Whether the change creates a file.
    pub(super) makes: bool,
    /// What the creator may do to the file through its new descriptor; `None` if the descriptor is read-only.
    pub(super) opens: Option<Mode>,
    /// The file that loses its last name.
    pub(super) gone: Option<Ino>,
    /// The path of that file for messages, if it was guarded.
    pub(super) orphan: Option<String>,
    /// The file that gets another name.
    pub(super) moved: Option<Ino>,
    /// The file whose only name is an exempt one afterwards.
    pub(super) freed: Option<Ino>,
    /// Whether other files may be exempt afterwards.
    pub(super) rules: bool,
    /// What the change does to guarded paths.
    pub(super) touched: Vec<Touched>,
}

impl Grant {
    /// The permission to write pages of a file that an unknown process has stored.
    pub(super) fn of_unknown(ino: Ino) -> Grant {
        Grant { touched: vec![Touched::Node(ino)], ..Grant::default() }
    }
}

/// The effect of a change on one existing file.
struct Touch {
    ino: Ino,
    mode: Mode,
    /// Whether the present content is lost.
    overwrites: bool,
}

impl Touch {
    fn overwriting(ino: Ino) -> Touch {
        Touch { ino, mode: Mode::Change, overwrites: true }
    }

    /// The file gets another name or other attributes.
    fn marking(ino: Ino) -> Touch {
        Touch { ino, mode: Mode::Mark, overwrites: false }
    }
}

/// The effects of a change on guarded files.
#[derive(Default)]
struct Touches {
    files: Vec<Touch>,
    /// The file whose content is changed, guarded or not.
    content: Option<Ino>,
    grant: Grant,
    /// Whether the request is part of an open that has not returned.
    opens: bool,
}

impl Guard {
    /// Whether this caller may make a change now.
    pub fn judge(&self, req: &Request, change: &Change) -> Verdict {
        if let Err(error) = self.policy.permits(change) {
            return Verdict::Refused(error);
        }
        match change {
            Change::WriteMapped { ino } if !self.guards(*ino, self.exempt.file(*ino).exempt) => {
                Verdict::Granted(Grant::default())
            }
            Change::WriteMapped { ino } => self.judge_mapped(*ino),
            _ => {
                let caller = match self.acting(req) {
                    Ok(caller) => caller,
                    Err(error) => {
                        self.callers.refused_unknown(req, &error);
                        return Verdict::Refused(error);
                    }
                };
                if !self.changes_nothing(change) {
                    return self.judge_for(&caller, change);
                }
                // A connection that truncates a file will write it next, even if the file is empty already. From now on, older
                // connections of the same worker may not write it.
                let empties = if let Change::Truncate { ino, .. } = change { Some(*ino) } else { None };
                match empties.filter(|_| caller.is_sftp).map(|ino| self.check_connections(&caller, ino)) {
                    Some(Err(error)) => self.refuse(&caller, change, error),
                    _ => Verdict::Granted(Grant::default()),
                }
            }
        }
    }

    /// Whether a change sets a file or directory to its present state. The disk executes the request and may set times, but no other worker
    /// loses anything by it, so the guard counts it as no change. The kernel keeps the file locked, so the state cannot change meanwhile.
    fn changes_nothing(&self, change: &Change) -> bool {
        match change {
            Change::Truncate { ino, size, .. } => {
                self.files.getattr(*ino).is_ok_and(|attr| attr.size == *size)
            }
            Change::SetAttr { ino, change } if change.atime.is_none() && change.mtime.is_none() => {
                let SetAttr { mode, uid, gid, .. } = *change;
                self.files.getattr(*ino).is_ok_and(|attr| {
                    // chown(2) clears set-id bits, even if the owner stays the same.
                    let clears_bits = mode.is_none() && attr.perm & SET_ID_BITS != 0;
                    mode.is_none_or(|mode| mode & 0o7777 == u32::from(attr.perm))
                        && uid.is_none_or(|uid| uid == attr.uid)
                        && gid.is_none_or(|gid| gid == attr.gid)
                        && !clears_bits
                })
            }
            _ => false,
        }
    }

    /// Judge a write of pages that a process stored through a mapping.
    pub(super) fn judge_mapped(&self, ino: Ino) -> Verdict {
        match self.known_mapper(ino) {
            Some(Some(caller)) => self.judge_for(&caller, &Change::WriteMapped { ino }),
            // No process has the file open or mapped any more. The process that stored into it is gone, so the pages are written.
            Some(None) => Verdict::Granted(Grant::of_unknown(ino)),
            None => Verdict::Wait(Patience(WaitReason::Unknown(ino))),
        }
    }

    /// Judge a change of a known caller.
    pub(super) fn judge_for(&self, caller: &Arc<Caller>, change: &Change) -> Verdict {
        self.check(caller, change).unwrap_or_else(|error| self.refuse(caller, change, error))
    }

    fn refuse(&self, caller: &Caller, change: &Change, error: FsError) -> Verdict {
        if let FsError::Guard(refusal) = &error {
            self.counters.refusals.count(refusal);
        }
        self.callers.refused(caller, &error);
        self.table.lock().changes.refused(&caller.actor.worker, (self.clock)().instant);
        if let Change::Write { ino, .. } = change {
            self.refused_write_shown(*ino, &caller.actor.worker, (self.clock)().instant);
        }
        Verdict::Refused(error)
    }

    /// Record that a write of this worker is refused. It was made at `requested`; other workers could read it from a little before then.
    pub(super) fn refused_write_shown(&self, ino: Ino, refused: &WorkerName, requested: Instant) {
        let since = Instant(requested.0.saturating_sub(WRITE_SHOWN_MS));
        let holders = self.table.lock().locks.holders(ino).to_vec();
        let writing = holders.iter().find(|holder| self.is_writing(ino, holder));
        let now = (self.clock)().instant;
        let writing = writing.map(|holder| &holder.worker);
        self.table.lock().changes.refused_write_shown(ino, refused, writing, since, now);
    }

    /// Whether a connection may still write a file. It may not if a younger connection of the same worker has changed the file. If this
    /// is the younger one, the older ones may not write the file from now on.
    fn check_connections(&self, caller: &Caller, ino: Ino) -> Result<()> {
        let (fenced, others) = {
            let table = self.table.lock();
            let holders = table.locks.holders(ino).iter();
            let mine = holders.filter(|holder| holder.worker == caller.actor.worker);
            let others = mine.flat_map(|holder| &holder.processes).filter(|other| **other != caller.process);
            (table.fences.is_fenced(ino, caller.process), others.copied().collect::<Vec<u32>>())
        };
        if fenced && !self.has_open(caller.process, ino) {
            self.table.lock().fences.lower(ino, caller.process);
        } else if fenced {
            let (path, worker) = (self.shown(ino), caller.actor.worker.clone());
            return Err(GuardRefusal::Superseded { path, worker }.into());
        }
        let began = caller.anchor.as_ref().map(|connection| connection.started);
        for other in others {
            let older = self
                .callers
                .connection_began(other)
                .is_some_and(|other| began.is_some_and(|began| other < began));
            if older && self.has_open(other, ino) {
                self.table.lock().fences.raise(ino, other);
            }
        }
        Ok(())
    }

    /// Whether a process of a holder has the file open for writing.
    fn is_writing(&self, ino: Ino, holder: &LockHolder) -> bool {
        holder.processes.iter().any(|process| self.has_open(*process, ino))
    }

    fn check(&self, caller: &Arc<Caller>, change: &Change) -> Result<Verdict> {
        self.check_owners(caller, change)?;
        let Touches { files, content, mut grant, opens } = self.touches(change)?;
        if caller.is_sftp {
            files
                .iter()
                .filter(|touch| content == Some(touch.ino))
                .try_for_each(|touch| self.check_connections(caller, touch.ino))?;
        }

        let (worker, uid, now) = (&caller.actor.worker, caller.actor.uid, (self.clock)());
        let mut table = self.table.lock();
        if let Change::CopyFileRange { from, .. } = change {
            table.changes.mark_read(from.ino, worker, now.instant);
        }
        if let Some(orphan) = content.and_then(|ino| table.orphans.get(&ino))
            && orphan.by != *worker
            && self.config.refuse_stale
        {
            let Orphan { path, by, at } = orphan;
            return Err(GuardRefusal::Gone { path: path.clone(), by: by.clone(), at: *at }.into());
        }
        for touch in &files {
            table.changes.used_by(touch.ino, worker);
            let unread = table.changes.unread(touch.ino, worker, now.instant);
            if touch.overwrites
                && self.config.refuse_stale
                && !caller.actor.operator
                && let Some(unread) = unread
            {
                let unread = unread.clone();
                let held = table.locks.rival(touch.ino, worker, touch.mode).cloned();
                drop(table);
                return Err(self.stale_refusal(touch.ino, worker, &unread, held.as_ref()).into());
            }
            if let Some(rival) = table.locks.rival(touch.ino, worker, touch.mode) {
                let rival = rival.clone();
                drop(table);
                // The rival may only seem to hold the file, because its open may not have returned. That is known soon.
                let opening = rival.opening.since(now.instant);
                let opening = match (rival.made && touch.mode == Mode::Append, opening) {
                    // A worker that appends gives the creator time to close the new file, as touch(1) does.
                    (true, Span(left)) => Span(left + MAKING_MS),
                    (false, Span(0)) => Span(0),
                    (false, Span(left)) => Span(left + OPENING_MS),
                };
                let (caller, span) = (caller.clone(), self.patience(caller, change).max(opening));
                return Ok(Verdict::Wait(Patience(WaitReason::Held { caller, ino: touch.ino, rival, span })));
            }
        }
        let one_more = grant.makes && grant.opens.is_some()
            || files.iter().any(|touch| !table.locks.holds(touch.ino, worker));
        if one_more && table.locks.is_full(uid) {
            drop(table);
            self.sweeper.request(uid);
            return Ok(Verdict::Wait(Patience(WaitReason::Full(caller.clone()))));
        }
        for touch in &files {
            table.locks.take(touch.ino, worker, touch.mode, ChangingProcess::of(caller), opens, now);
        }
        if table.locks.is_due(uid) {
            self.sweeper.request(uid);
        }
        grant.by = Some(caller.clone());
        Ok(Verdict::Granted(grant))
    }

    fn patience(&self, caller: &Caller, change: &Change) -> Span {
        // The written data is in the kernel's cache already, where every worker reads it until it is refused, and the page may be
        // locked. So a write waits only for one scan of the holder.
        if caller.is_sftp || matches!(change, Change::Write { .. }) {
            Span(0)
        } else if change.locks_directories() {
            self.config.lock_wait.min(Span(DIRECTORY_WAIT_MS))
        } else {
            self.config.lock_wait
        }
    }

    /// The effects of a change on guarded files.
    fn touches(&self, change: &Change) -> Result<Touches> {
        let mut touches = Touches::default();
        match change {
            Change::Write { ino, append } => {
                let mode = if *append { Mode::Append } else { Mode::Change };
                touches.grant.blind = *append;
                self.content(&mut touches, Touch { ino: *ino, mode, overwrites: !append });
            }
            Change::WriteMapped { ino } | Change::Fallocate { ino } => {
                self.content(&mut touches, Touch::overwriting(*ino));
            }
            Change::CopyFileRange { to, .. } => self.content(&mut touches, Touch::overwriting(to.ino)),
            Change::Truncate { ino, size, opens } => {
                touches.opens = *opens && *size == 0;
                self.content(&mut touches, Touch::overwriting(*ino));
            }
            Change::SetAttr { ino, change } => {
                self.attributes(&mut touches, *ino);
                if !touches.files.is_empty() {
                    let SetAttr { mode, uid, gid, .. } = *change;
                    let is_version = mode.is_some() || uid.is_some() || gid.is_some();
                    let touched = if is_version { Touched::Node(*ino) } else { Touched::Times(*ino) };
                    touches.grant.touched.push(touched);
                }
            }
            Change::Link { ino, to } => {
                self.attributes(&mut touches, *ino);
                self.entry(&mut touches, to, false, false);
            }
            Change::Xattr { ino, name } => {
                if name.as_encoded_bytes().starts_with(b"user.crewfs.") {
                    return Err(GuardRefusal::OwnAttribute { like: LOCK_ATTRIBUTE }.into());
                }
                self.attributes(&mut touches, *ino);
            }
            Change::Create { at, .. } | Change::Mknod(at) => {
                touches.grant.makes = self.entry(&mut touches, at, false, false);
                touches.grant.rules = makes_rules(&at.name);
                if let Change::Create { flags, .. } = change {
                    touches.grant.opens = opened_for(*flags);
                }
            }
            Change::Mkdir(at) | Change::Symlink(at) | Change::Rmdir(at) => {
                touches.grant.rules = makes_rules(&at.name);
                self.entry(&mut touches, at, !matches!(change, Change::Symlink(_)), false);
            }
            Change::Unlink(at) => {
                touches.grant.rules = makes_rules(&at.name);
                self.entry(&mut touches, at, false, true);
                if let Some(file) = self.victim(at)? {
                    touches.grant.gone = file.last.then_some(file.ino);
                    if file.guarded {
                        touches.grant.orphan = file.last.then(|| self.shown(file.ino));
                        touches.files.push(Touch { overwrites: file.last, ..Touch::marking(file.ino) });
                    }
                }
            }
            Change::Rename { from, to, exchange } => self.renaming(&mut touches, from, to, *exchange)?,
        }
        Ok(touches)
    }

    fn content(&self, touches: &mut Touches, touch: Touch) {
        let ino = touch.ino;
        touches.content = Some(ino);
        let verdict = self.exempt.file(ino);
        touches.grant.rules = verdict.makes_rules;
        if self.guards(ino, verdict.exempt) {
            touches.files.push(touch);
            touches.grant.changed[0] = Some(ino);
            touches.grant.touched.push(Touched::Node(ino));
        }
    }

    fn attributes(&self, touches: &mut Touches, ino: Ino) {
        if matches!(self.files.kind(ino), Ok(FileKind::File))
            && self.guards(ino, self.exempt.file(ino).exempt)
        {
            touches.files.push(Touch::marking(ino));
        }
    }

    fn renaming(
        &self,
        touches: &mut Touches,
        from: &EntryName,
        to: &EntryName,
        exchange: bool,
    ) -> Result<()> {
        if self.is_directory(from) || exchange && self.is_directory(to) {
            let place = |at: &EntryName| (at.parent, at.name.clone());
            touches.grant.touched.push(Touched::Directory { from: place(from), to: place(to) });
        } else {
            self.entry(touches, from, false, false);
            self.entry(touches, to, false, !exchange);
        }
        let grant = &mut touches.grant;
        grant.rules = makes_rules(&from.name) || makes_rules(&to.name);
        let (mover, victim) = (self.victim(from)?, self.victim(to)?);
        // A directory that moves takes its rules along.
        grant.rules |= mover.is_none() && self.is_directory(from) || exchange && victim.is_none();
        if let (Some(mover), Some(victim)) = (&mover, &victim)
            && mover.ino == victim.ino
        {
            return Ok(());
        }
        grant.blind = true;
        if let Some(file) = mover {
            grant.moved = Some(file.ino);
            if !self.exempt.name(to.parent, &to.name, false) {
                grant.changed[0] = Some(file.ino);
            } else if file.last {
                grant.freed = Some(file.ino);
            }
            if file.guarded {
                touches.files.push(Touch::marking(file.ino));
            }
        }
        if let Some(file) = victim {
            if exchange && !self.exempt.name(from.parent, &from.name, false) {
                grant.changed[1] = Some(file.ino);
            } else if !exchange && file.last {
                grant.gone = Some(file.ino);
            }
            if file.guarded {
                touches.grant.orphan = touches.grant.gone.map(|ino| self.shown(ino));
                touches.files.push(Touch::overwriting(file.ino));
            }
        }
        Ok(())
    }

    /// A name is made, replaced or removed. Returns whether it is guarded.
    fn entry(&self, touches: &mut Touches, at: &EntryName, is_directory: bool, removes: bool) -> bool {
        let guarded = !self.exempt.name(at.parent, &at.name, is_directory);
        if guarded {
            let (parent, name) = (at.parent, at.name.clone());
            touches.grant.touched.push(Touched::Entry { parent, name, removes });
        }
        guarded
    }

    /// The regular file at a name.
    fn victim(&self, at: &EntryName) -> Result<Option<Victim>> {
        let Some(found) = self.files.found_at(at.parent, &at.name)? else { return Ok(None) };
        let Some(ino) = found.ino.filter(|_| found.kind == FileKind::File) else { return Ok(None) };
        let guarded = self.guards(ino, self.exempt.name(at.parent, &at.name, false));
        Ok(Some(Victim { ino, last: found.links <= 1, guarded }))
    }

    /// Whether a file is guarded. `exempt` is whether its name is exempt. A file with several names that was guarded when a worker
    /// changed it stays guarded under all of them. Otherwise a link in an ignored directory would bypass the guard.
    fn guards(&self, ino: Ino, exempt: bool) -> bool {
        if !exempt {
            return true;
        }
        let now = (self.clock)().instant;
        let noted = {
            let table = self.table.lock();
            !table.locks.holders(ino).is_empty() || table.changes.recent(ino, now).is_some()
        };
        noted && self.files.getattr(ino).is_ok_and(|attr| attr.nlink > 1)
    }

    fn is_directory(&self, at: &EntryName) -> bool {
        let found = self.files.found_at(at.parent, &at.name);
        matches!(found, Ok(Some(found)) if found.kind == FileKind::Directory)
    }

    /// Refuse a change of a file that belongs to a task which another worker has claimed.
    fn check_owners(&self, caller: &Caller, change: &Change) -> Result<()> {
        let owners = self.owned.owners();
        if owners.is_empty() {
            return Ok(());
        }
        let check = |path: Option<PathBuf>, reach: Reach| {
            // A file without a name belongs to no task.
            let Some(path) = path else { return Ok(()) };
            match owner_of(&owners, &path, reach, Some(&caller.actor)) {
                Some(owner) => {
                    let (task, worker) = (owner.task.clone(), owner.worker.clone());
                    let path = path.display().to_string();
                    Err(GuardRefusal::Owned { path, task, worker, since: owner.since }.into())
                }
                None => Ok(()),
            }
        };
        let node = |ino: Ino| {
            let is_directory = matches!(self.files.kind(ino), Ok(FileKind::Directory));
            check(self.files.path(ino), if is_directory { Reach::Directory } else { Reach::File })
        };
        let name = |at: &EntryName, reach: Reach| {
            check(self.files.path(at.parent).map(|dir| dir.join(&at.name)), reach)
        };
        match change {
            Change::Write { ino, .. }
            | Change::WriteMapped { ino }
            | Change::Truncate { ino, .. }
            | Change::SetAttr { ino, .. }
            | Change::Xattr { ino, .. }
            | Change::Fallocate { ino } => node(*ino),
            Change::CopyFileRange { to, .. } => node(to.ino),
            Change::Create { at, .. } | Change::Mknod(at) | Change::Symlink(at) | Change::Unlink(at) => {
                name(at, Reach::File)
            }
            Change::Mkdir(at) | Change::Rmdir(at) => name(at, Reach::Directory),
            Change::Link { ino, to } => node(*ino).and_then(|()| name(to, Reach::File)),
            Change::Rename { from, to, .. } => {
                let reach = |at: &EntryName| if self.is_directory(at) { Reach::Whole } else { Reach::File };
                let mover = reach(from);
                name(from, mover)?;
                // A directory takes all its files along to the new place.
                name(to, if mover == Reach::Whole { mover } else { reach(to) })
            }
        }
    }

    fn stale_refusal(
        &self,
        ino: Ino,
        worker: &WorkerName,
        unread: &LastChange,
        held: Option<&LockHolder>,
    ) -> GuardRefusal {
        // The next read must reach the daemon, or the next change would be refused again.
        if let Some(invalidator) = self.invalidator.get() {
            invalidator.attributes(ino);
        }
        self.drop_pages(ino, || {});
        let path = self.shown(ino);
        let (by, at) = (unread.by.clone(), unread.at);
        match held.filter(|holder| self.is_writing(ino, holder)) {
            Some(LockHolder { worker: holder, since, .. }) => {
                GuardRefusal::HeldAndChanged { path, holder: holder.clone(), since: *since, by, at }
            }
            None if by == *worker => GuardRefusal::ShowedRefused { path },
            None => GuardRefusal::Changed { path, by, at },
        }
    }

    /// The refusal of a change that has waited long enough.
    pub(super) fn held_refusal(&self, caller: Option<&Caller>, ino: Ino, holder: &LockHolder) -> FsError {
        let (path, worker) = (self.shown(ino), holder.worker.clone());
        let refusal = GuardRefusal::Held { path, holder: worker, since: holder.since };
        self.counters.refusals.count(&refusal);
        let error = FsError::from(refusal);
        if let Some(caller) = caller {
            self.callers.refused(caller, &error);
            self.table.lock().changes.refused(&caller.actor.worker, (self.clock)().instant);
        }
        error
    }
}

/// What a descriptor with these open flags permits; `None` if it is read-only.
fn opened_for(flags: i32) -> Option<Mode> {
    match flags & libc::O_ACCMODE {
        libc::O_RDONLY => None,
        _ if flags & libc::O_APPEND != 0 => Some(Mode::Append),
        _ => Some(Mode::Change),
    }
}

/// A regular file that is at a name.
struct Victim {
    ino: Ino,
    /// Whether it has no other name.
    last: bool,
    guarded: bool,
}
