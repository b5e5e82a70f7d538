//! The exit codes of processes, from the kernel's process connector (`linux/cn_proc.h`), which reports them to root. It serves kernels
//! that do not keep them in a process's descriptor (Linux before 6.15).
//!
//! May assume: the kernel reports an exit a moment after the descriptor of the process shows its end, and both within the same
//! system call of that process.
//! Must never: be needed for anything but exit codes; or wake for a process that is not watched. A filter on the socket makes the
//! kernel drop the reports of other processes.

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
/// The request to receive reports (`PROC_CN_MCAST_LISTEN`).
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
/// Offsets of an event in a message: its kind, and its details, which follow its processor and time.
const KIND: usize = NETLINK_HEADER + CONNECTOR_HEADER;
const DETAILS: usize = KIND + 16;
/// Offsets of the error in an answer, and of process and status in an exit.
const ERROR: usize = DETAILS;
const PROCESS: usize = DETAILS + 4;
const STATUS: usize = DETAILS + 8;
/// Longer than any of these messages.
const MESSAGE_BYTES: usize = 256;

/// The source of a process's exit status after its parent has waited for it.
pub enum ExitStatusSource {
    /// The descriptor of the process.
    Kept,
    /// The process connector; only this process receives its reports.
    Heard(Arc<ProcessConnector>),
    /// None, for this reason.
    Untold(io::Error),
}

impl ExitStatusSource {
    /// The source on this machine. The connector needs `CAP_NET_ADMIN` and the machine's first user, pid and network namespace.
    pub fn find() -> ExitStatusSource {
        if sys::exit_status_is_kept().unwrap_or(false) {
            return ExitStatusSource::Kept;
        }
        match ProcessConnector::open() {
            Ok(exits) => ExitStatusSource::Heard(Arc::new(exits)),
            Err(error) => ExitStatusSource::Untold(error),
        }
    }

    /// The process connector, if it is needed and available.
    pub fn heard(&self) -> Option<Arc<ProcessConnector>> {
        match self {
            ExitStatusSource::Heard(exits) => Some(exits.clone()),
            ExitStatusSource::Kept | ExitStatusSource::Untold(_) => None,
        }
    }

    /// The name of the source; if there is none, also the reason.
    pub fn told(&self) -> (&'static str, Option<String>) {
        match self {
            ExitStatusSource::Kept => ("descriptor", None),
            ExitStatusSource::Heard(_) => ("connector", None),
            ExitStatusSource::Untold(error) => ("nothing", Some(error.to_string())),
        }
    }
}

/// The kernel's reports of how processes end.
pub struct ProcessConnector {
    socket: OwnedFd,
    watched: Mutex<HashMap<u32, Watched>>,
}

#[derive(Default)]
struct Watched {
    /// The number of watches of this process.
    watches: usize,
    /// Its status as wait(2) gives it: that of its last thread that ended.
    status: Option<i32>,
}

/// While this lives, the exit of a process is recorded.
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
        // The kernel answers before send(2) returns; in a namespace it does not answer.
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
        exits.set_filter(&HashMap::new())?;
        Ok(exits)
    }

    /// Readable when there are reports for [`ProcessConnector::read_reports`].
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Record from now on how this process ends.
    pub(super) fn watch(self: &Arc<ProcessConnector>, process: u32) -> ExitWatch {
        let mut watched = self.watched.lock();
        watched.entry(process).or_default().watches += 1;
        if watched[&process].watches == 1
            && let Err(error) = self.set_filter(&watched)
        {
            log::warn!("it will not be heard how process {process} ends: {error}");
        }
        ExitWatch { exits: self.clone(), process }
    }

    /// Read the reports that are there. Waits for nothing.
    pub(super) fn read_reports(&self) {
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

    /// Make the kernel send the exits of these processes only; of all, if they are too many for the filter.
    fn set_filter(&self, watched: &HashMap<u32, Watched>) -> io::Result<()> {
        let processes: Vec<u32> = watched.keys().copied().collect();
        let processes = if processes.len() > WATCHED_EXITS { None } else { Some((PROCESS, &*processes)) };
        sys::filter_messages(&self.socket, (KIND, EXIT), processes)
    }
}

impl ExitWatch {
    /// The status of the process as wait(2) gives it, if it was reported.
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
                // The old filter still admits it until the next one is set.
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

/// A netlink message that contains the connector's message with the request.
fn request() -> Vec<u8> {
    let length = (KIND + size_of_val(&LISTEN)) as u32;
    let mut message = Vec::with_capacity(length as usize);
    message.extend(length.to_ne_bytes());
    message.extend(DONE.to_ne_bytes());
    // No flags, no sequence; the kernel fills in the sender.
    message.resize(NETLINK_HEADER, 0);
    message.extend([PROCESSES, PROCESSES, 0, 0].map(u32::to_ne_bytes).concat());
    message.extend((size_of_val(&LISTEN) as u16).to_ne_bytes());
    message.resize(KIND, 0);
    message.extend(LISTEN.to_ne_bytes());
    message
}

/// One message of the kernel, padded with zeros.
struct Message([u8; MESSAGE_BYTES]);

impl Message {
    /// The number at this offset. Past the end of the message it is 0, which is neither an exit nor a process.
    fn word(&self, offset: usize) -> u32 {
        u32::from_ne_bytes(self.0[offset..offset + 4].try_into().expect("four bytes"))
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

    /// The process connector, if this process may use it.
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

    /// A process that lives until the test waits for it, which closes its input.
    fn shell(script: &str) -> Child {
        let script = format!("read -r line; {script}");
        Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap()
    }

    fn until_reported(exits: &ProcessConnector, watch: &ExitWatch) -> i32 {
        loop {
            exits.read_reports();
            if let Some(status) = watch.status() {
                return status;
            }
            poll(&mut [PollFd::new(&exits.socket(), PollFlags::IN)], None).unwrap();
        }
    }

    #[test]
    fn an_exit_code_is_reported_though_the_parent_was_faster() {
        let Some(exits) = exits() else { return };
        for (script, status) in [("exit 3", 3 << 8), ("kill -9 $$", 9), ("exit 0", 0)] {
            let mut child = shell(script);
            let watch = exits.watch(child.id());
            assert_eq!(watch.status(), None);
            child.wait().unwrap();
            assert_eq!(until_reported(&exits, &watch), status, "{script}");
        }
    }

    #[test]
    fn only_exits_of_watched_processes_are_reported() {
        let Some(exits) = exits() else { return };
        let children: Vec<Child> = (0..20).map(|_| shell("exit 5")).collect();
        let watches: Vec<ExitWatch> =
            children.iter().step_by(2).map(|child| exits.watch(child.id())).collect();
        let again = exits.watch(children[0].id());
        drop(again);
        for mut child in children {
            child.wait().unwrap();
        }
        watches.iter().for_each(|watch| assert_eq!(until_reported(&exits, watch), 5 << 8));
        assert!(receive(&exits.socket).unwrap().is_none(), "no other is told");
        drop(watches);
        assert!(exits.watched.lock().is_empty());
    }
}
