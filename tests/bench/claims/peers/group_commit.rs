//! The limit of group commit: a server that keeps no queue, and makes one sync for all clients that wait.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};

use super::disk::Pages;
use super::{Client, LIFETIME, Outcome, Peer, System};
use crate::race::{Point, Seat};
use crate::server::Server;
use crate::socket::connect;

/// Two commits a cycle, requested over a Unix socket. This program serves them in a separate process.
pub(crate) struct GroupCommit;

impl Peer for GroupCommit {
    fn name(&self) -> &'static str {
        "group-commit"
    }

    fn title(&self) -> &'static str {
        "limit: 2 × group commit over a Unix socket, no queue"
    }

    fn start(&self, point: &Point) -> Outcome<Box<dyn System>> {
        let args = ["group-commit".as_ref(), point.dir.as_os_str()];
        let mut server = Server::spawn(std::env::current_exe()?, args, &point.dir, LIFETIME)?;
        server.wait_until(|| Ok(connect(&socket(&point.dir))?.is_some()))?;
        Ok(Box::new(server))
    }

    fn client(&self, seat: &Seat) -> Outcome<Box<dyn Client>> {
        Ok(Box::new(UnixStream::connect(socket(&seat.point.dir))?))
    }
}

impl System for Server {
    fn completed(&self) -> Outcome<Option<usize>> {
        Ok(None)
    }
}

/// One byte is the request, one byte the answer.
impl Client for UnixStream {
    fn claim(&mut self) -> Outcome<Option<String>> {
        self.complete("")?;
        Ok(Some(String::new()))
    }

    fn complete(&mut self, _task: &str) -> Outcome<()> {
        self.write_all(b"?")?;
        Ok(self.read_exact(&mut [0])?)
    }
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("socket")
}

/// Serves until it is killed. A batch is all clients that asked during the sync before. It costs one page, as a log with short records
/// would.
pub(crate) fn serve(dir: &Path) -> Outcome<()> {
    let mut pages = Pages::create(&dir.join("log"))?;
    let listener = UnixListener::bind(socket(dir))?;
    let mut askers: Vec<Asker> = Vec::new();
    loop {
        let mut watched = vec![PollFd::new(&listener, PollFlags::IN)];
        watched.extend(askers.iter().map(|asker| PollFd::new(&asker.stream, PollFlags::IN)));
        poll(&mut watched, None)?;
        let has_news: Vec<bool> = watched.iter().map(|fd| !fd.revents().is_empty()).collect();

        let mut news = has_news[1..].iter();
        askers.retain_mut(|asker| {
            asker.waits = news.next() == Some(&true);
            // A readable stream without data means that the client has gone.
            !asker.waits || matches!(asker.stream.read(&mut [0]), Ok(1))
        });
        if askers.iter().any(|asker| asker.waits) {
            pages.write()?;
        }
        for asker in askers.iter_mut().filter(|asker| asker.waits) {
            // The next round notices a client that left while it waited.
            let _ = asker.stream.write_all(b"!");
        }
        if has_news[0] {
            askers.push(Asker { stream: listener.accept()?.0, waits: false });
        }
    }
}

/// A connected client, and whether it waits for the next sync.
struct Asker {
    stream: UnixStream,
    waits: bool,
}
