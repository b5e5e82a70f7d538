//! beanstalkd: a work queue, with a binlog that is synced at every write.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::{Client, LIFETIME, Outcome, Peer, System};
use crate::race::{Point, Seat};
use crate::server::Server;
use crate::socket::connect;

/// Seconds until a reserved job is offered again: longer than any point takes.
const TIME_TO_RUN: u32 = 3600;

/// Two ways to claim, because beanstalkd does not write the usual one to the disk.
#[derive(Clone, Copy)]
pub(crate) enum Beanstalkd {
    /// Reserve and delete: after a crash, a reserved job is ready again.
    Reserve,
    /// Reserve, bury and delete: the binlog records a buried job, which makes the claim durable.
    ReserveAndBury,
}

impl Peer for Beanstalkd {
    fn name(&self) -> &'static str {
        match self {
            Self::Reserve => "beanstalkd",
            Self::ReserveAndBury => "beanstalkd-bury",
        }
    }

    fn title(&self) -> &'static str {
        match self {
            Self::Reserve => "beanstalkd, reserve (not durable) + delete",
            Self::ReserveAndBury => "beanstalkd, reserve + bury + delete",
        }
    }

    fn start(&self, point: &Point) -> Outcome<Box<dyn System>> {
        let binlog = point.dir.join("binlog");
        std::fs::create_dir(&binlog)?;
        {
            // Loaded without syncs, then restarted on the same binlog for the measurement.
            let (_loader, mut connection) = serve(point, &binlog, &["-F"])?;
            for id in point.ids() {
                connection.ask(&format!("put 0 0 {TIME_TO_RUN} {}\r\n{id}", id.len()), "INSERTED ")?;
            }
        }
        let (server, _) = serve(point, &binlog, &["-f", "0"])?;
        Ok(Box::new(Running { _server: server, socket: socket(point) }))
    }

    fn client(&self, seat: &Seat) -> Outcome<Box<dyn Client>> {
        let stream = UnixStream::connect(socket(&seat.point))?;
        let bury = matches!(self, Self::ReserveAndBury);
        Ok(Box::new(Worker { connection: Connection::new(stream), bury, job: 0 }))
    }
}

fn socket(point: &Point) -> PathBuf {
    point.dir.join("socket")
}

fn serve(point: &Point, binlog: &Path, sync: &[&str]) -> Outcome<(Server, Connection)> {
    let socket = socket(point);
    let listen = format!("unix:{}", socket.display());
    let binlog = binlog.to_string_lossy();
    let mut args = vec!["-l", &listen, "-b", &binlog];
    args.extend(sync);
    let mut server = Server::spawn("beanstalkd", args, &point.dir, LIFETIME)?;
    let mut stream = None;
    server.wait_until(|| {
        stream = connect(&socket)?;
        Ok(stream.is_some())
    })?;
    Ok((server, Connection::new(stream.ok_or("no connection")?)))
}

/// The text protocol: one line in each direction.
struct Connection(BufReader<UnixStream>);

impl Connection {
    fn new(stream: UnixStream) -> Self {
        Self(BufReader::new(stream))
    }

    fn send(&mut self, command: &str) -> Outcome<String> {
        self.0.get_mut().write_all(format!("{command}\r\n").as_bytes())?;
        let mut answer = String::new();
        self.0.read_line(&mut answer)?;
        Ok(answer.trim_end().to_owned())
    }

    /// Sends a command that has one expected answer, and returns the rest of that answer.
    fn ask(&mut self, command: &str, expected: &str) -> Outcome<String> {
        let answer = self.send(command)?;
        match answer.strip_prefix(expected) {
            Some(rest) => Ok(rest.to_owned()),
            None => Err(format!("beanstalkd answered {command:?} with {answer:?}").into()),
        }
    }

    /// Reads the data that follows a line, and its end of line.
    fn data(&mut self, length: &str) -> Outcome<String> {
        let mut data = vec![0; length.parse::<usize>()? + 2];
        self.0.read_exact(&mut data)?;
        Ok(String::from_utf8(data)?.trim_end().to_owned())
    }
}

struct Running {
    _server: Server,
    socket: PathBuf,
}

impl System for Running {
    fn completed(&self) -> Outcome<Option<usize>> {
        let mut connection = Connection::new(UnixStream::connect(&self.socket)?);
        let length = connection.ask("stats", "OK ")?;
        let stats = connection.data(&length)?;
        let deleted =
            stats.lines().find_map(|line| line.strip_prefix("cmd-delete: ")).ok_or("no count of deletes")?;
        Ok(Some(deleted.parse()?))
    }
}

struct Worker {
    connection: Connection,
    bury: bool,
    job: u64,
}

impl Client for Worker {
    fn claim(&mut self) -> Outcome<Option<String>> {
        let answer = self.connection.send("reserve-with-timeout 0")?;
        if answer == "TIMED_OUT" {
            return Ok(None);
        }
        let (job, length) = answer
            .strip_prefix("RESERVED ")
            .and_then(|rest| rest.split_once(' '))
            .ok_or_else(|| format!("beanstalkd answered a reserve with {answer:?}"))?;
        self.job = job.parse()?;
        let task = self.connection.data(length)?;
        if self.bury {
            self.connection.ask(&format!("bury {} 0", self.job), "BURIED")?;
        }
        Ok(Some(task))
    }

    fn complete(&mut self, _task: &str) -> Outcome<()> {
        self.connection.ask(&format!("delete {}", self.job), "DELETED").map(drop)
    }
}
