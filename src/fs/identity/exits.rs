//! The exit codes of processes, as the kernel tells them to root: its process connector (`linux/cn_proc.h`), where a process's
//! descriptor does not keep them (Linux before 6.15).
//!
//! May assume: the kernel tells an exit a moment after the descriptor of the process shows its end, and both within the same
//! system call of that process.
//! Must never: be needed for anything but exit codes; or be woken for a process that is not watched: the kernel sorts those out,
//! by a filter on the socket.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink, recv, send, socket_with,
};

use crate::limits::WATCHED_EXITS;
use crate::sys;

/// The group of messages about processes, which is also their index and value (`CN_IDX_PROC`, `CN_VAL_PROC`).
const PROCESSES: u32 = 1;
/// The request to be told (`PROC_CN_MCAST_LISTEN`).
const LISTEN: u32 = 1;
/// The answer to a request (`PROC_EVENT_NONE`).
const ANSWER: u32 = 0;
/// A thread has ended (`PROC_EVENT_EXIT`).
const EXIT: u32 = 0x8000_0000;
/// The kind of a netlink message that carries others (`NLMSG_DONE`).
const DONE: u16 = 3;

/// The bytes of the header of netlink, and of the connector's own.
const NETLINK_HEADER: usize = 16;
const CONNECTOR_HEADER: usize = 20;
/// Where the parts of an event stand in a message: its kind, and what follows processor and time of it.
const KIND: usize = NETLINK_HEADER + CONNECTOR_HEADER;
const DETAILS: usize = KIND + 16;
/// Of an answer, its error; of an exit, process and status.
const ERROR: usize = DETAILS;
const PROCESS: usize = DETAILS + 4;
const STATUS: usize = DETAILS + 8;
/// Longer than any of these messages.
const MESSAGE_BYTES: usize = 256;

/// By what it is known how a process ended for which another one has waited.
pub enum ExitStatusSource {
    /// Its descriptor tells.
    Kept,
    /// The kernel tells this process alone.
    Heard(Arc<ProcessConnector>),
    /// Nothing does, for this reason.
    Untold(io::Error),
}

impl ExitStatusSource {
    /// What there is on this machine. To hear of exits takes `CAP_NET_ADMIN` and the first user, pid and network namespace of the machine.
    pub fn find() -> ExitStatusSource {
        if sys::exit_status_is_kept().unwrap_or(false) {
            return ExitStatusSource::Kept;
        }
        match ProcessConnector::open() {
            Ok(exits) => ExitStatusSource::Heard(Arc::new(exits)),
            Err(error) => ExitStatusSource::Untold(error),
        }
    }

    /// What hears of exits, if that is needed and possible.
    pub fn heard(&self) -> Option<Arc<ProcessConnector>> {
        match self {
            ExitStatusSource::Heard(exits) => Some(exits.clone()),
            ExitStatusSource::Kept | ExitStatusSource::Untold(_) => None,
        }
    }

    /// What tells, in a word, and else why nothing does.
    pub fn told(&self) -> (&'static str, Option<String>) {
        match self {
            ExitStatusSource::Kept => ("descriptor", None),
            ExitStatusSource::Heard(_) => ("connector", None),
            ExitStatusSource::Untold(error) => ("nothing", Some(error.to_string())),
        }
    }
}

/// What the kernel tells of how processes end.
pub struct ProcessConnector {
    socket: OwnedFd,
    watched: Mutex<HashMap<u32, Watched>>,
}

#[derive(Default)]
struct Watched {
    /// How many watches there are of it.
    watches: usize,
    /// Its status as wait(2) tells it: that of its last thread that ended.
    status: Option<i32>,
}

/// While it lives, it is heard how a process ends.
pub(super) struct ExitWatch {
    exits: Arc<ProcessConnector>,
    process: u32,
}

impl ProcessConnector {
    fn open() -> io::Result<ProcessConnector> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(netlink::CONNECTOR))?;
        bind(&socket, &SocketAddrNetlink::new(0, PROCESSES))?;
        send(&socket, &request(), SendFlags::empty())?;
        // The kernel answers before send(2) returns; in a namespace, not at all.
        let answer = loop {
            let message = receive(&socket)?.ok_or(io::ErrorKind::Unsupported)?;
            if message.word(KIND) == ANSWER {
                break message.word(ERROR);
            }
        };
        if answer != 0 {
            return Err(io::Error::from_raw_os_error(answer as i32));
        }
        let exits = ProcessConnector { socket, watched: Mutex::default() };
        exits.let_through(&HashMap::new())?;
        Ok(exits)
    }

    /// Readable when something is to be [heard](Exits::hear).
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Hear how this process ends, from now on.
    pub(super) fn watch(self: &Arc<ProcessConnector>, process: u32) -> ExitWatch {
        let mut watched = self.watched.lock();
        watched.entry(process).or_default().watches += 1;
        if watched[&process].watches == 1
            && let Err(error) = self.let_through(&watched)
        {
            log::warn!("it will not be heard how process {process} ends: {error}");
        }
        ExitWatch { exits: self.clone(), process }
    }

    /// Read what was told. It waits for nothing.
    pub(super) fn hear(&self) {
        loop {
            match receive(&self.socket) {
                Ok(Some(message)) if message.word(KIND) == EXIT => {
                    if let Some(watched) = self.watched.lock().get_mut(&message.word(PROCESS)) {
                        watched.status = Some(message.word(STATUS) as i32);
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(error) => return log::warn!("how processes ended was not heard: {error}"),
            }
        }
    }

    /// Have the kernel let through the exits of these processes only; of all, if they are too many to be named.
    fn let_through(&self, watched: &HashMap<u32, Watched>) -> io::Result<()> {
        let processes: Vec<u32> = watched.keys().copied().collect();
        let processes = if processes.len() > WATCHED_EXITS { None } else { Some((PROCESS, &*processes)) };
        sys::filter_messages(&self.socket, (KIND, EXIT), processes)
    }
}

impl ExitWatch {
    /// The status of the process as wait(2) tells it, if that was heard.
    pub(super) fn status(&self) -> Option<i32> {
        self.exits.watched.lock().get(&self.process)?.status
    }
}

impl Drop for ExitWatch {
    fn drop(&mut self) {
        let mut watched = self.exits.watched.lock();
        if let Some(known) = watched.get_mut(&self.process) {
            known.watches -= 1;
            if known.watches == 0 {
                // The filter goes on letting it through until the next one comes.
                watched.remove(&self.process);
            }
        }
    }
}

impl std::fmt::Debug for ExitWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Watch").field(&self.process).finish()
    }
}

/// A netlink message with a connector's message in it with the request.
fn request() -> Vec<u8> {
    let length = (KIND + size_of_val(&LISTEN)) as u32;
    let mut message = Vec::with_capacity(length as usize);
    message.extend(length.to_ne_bytes());
    message.extend(DONE.to_ne_bytes());
    // No flags, no sequence; the kernel knows who sends.
    message.resize(NETLINK_HEADER, 0);
    message.extend([PROCESSES, PROCESSES, 0, 0].map(u32::to_ne_bytes).concat());
    message.extend((size_of_val(&LISTEN) as u16).to_ne_bytes());
    message.resize(KIND, 0);
    message.extend(LISTEN.to_ne_bytes());
    message
}

/// One message of the kernel, with nothing behind its end.
struct Message([u8; MESSAGE_BYTES]);

impl Message {
    /// The number at this place. Past the end it is 0, which is neither an exit nor a process.
    fn word(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.0[at..at + 4].try_into().expect("four bytes"))
    }
}

/// The next message, if there is one.
fn receive(socket: &OwnedFd) -> io::Result<Option<Message>> {
    let mut message = Message([0; MESSAGE_BYTES]);
    loop {
        match recv(socket, &mut message.0, RecvFlags::empty()) {
            Ok(_) => return Ok(Some(message)),
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    /// What tells exits, if this process may hear it.
    fn exits() -> Option<Arc<ProcessConnector>> {
        match ProcessConnector::open() {
            Ok(exits) => Some(Arc::new(exits)),
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "exits are not told: {error}");
                eprintln!("skipped: the kernel tells exits to root alone, and in no namespace: {error}");
                None
            }
        }
    }

    /// A process that lives until it is waited for, which closes its input.
    fn shell(script: &str) -> Child {
        let script = format!("read -r line; {script}");
        Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap()
    }

    fn until_told(exits: &ProcessConnector, watch: &ExitWatch) -> i32 {
        loop {
            exits.hear();
            if let Some(status) = watch.status() {
                return status;
            }
            poll(&mut [PollFd::new(&exits.socket(), PollFlags::IN)], None).unwrap();
        }
    }

    #[test]
    fn an_exit_code_is_told_though_the_parent_was_faster() {
        let Some(exits) = exits() else { return };
        for (script, status) in [("exit 3", 3 << 8), ("kill -9 $$", 9), ("exit 0", 0)] {
            let mut child = shell(script);
            let watch = exits.watch(child.id());
            assert_eq!(watch.status(), None);
            child.wait().unwrap();
            assert_eq!(until_told(&exits, &watch), status, "{script}");
        }
    }

    #[test]
    fn only_what_is_watched_is_told() {
        let Some(exits) = exits() else { return };
        let children: Vec<Child> = (0..20).map(|_| shell("exit 5")).collect();
        let watches: Vec<ExitWatch> =
            children.iter().step_by(2).map(|child| exits.watch(child.id())).collect();
        let again = exits.watch(children[0].id());
        drop(again);
        for mut child in children {
            child.wait().unwrap();
        }
        watches.iter().for_each(|watch| assert_eq!(until_told(&exits, watch), 5 << 8));
        assert!(receive(&exits.socket).unwrap().is_none(), "no other is told");
        drop(watches);
        assert!(exits.watched.lock().is_empty());
    }
}
