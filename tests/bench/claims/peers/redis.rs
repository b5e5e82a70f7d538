//! Redis: lists in memory, with an append-only file that is synced before any answer is sent.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use super::{Client, LIFETIME, Outcome, Peer, System};
use crate::race::{Point, Seat};
use crate::server::Server;
use crate::socket::connect;

/// The reliable queue of Redis's own documentation: a task moves from one list to another.
pub(crate) struct Redis;

impl Peer for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn title(&self) -> &'static str {
        "Redis, LMOVE, then LREM + SADD in MULTI"
    }

    fn start(&self, point: &Point) -> Outcome<Box<dyn System>> {
        let socket = socket(point);
        let (path, dir) = (socket.to_string_lossy(), point.dir.to_string_lossy());
        let mut args = vec!["--port", "0", "--unixsocket", &path, "--dir", &dir, "--save", ""];
        args.extend(["--appendonly", "yes", "--appendfsync", "always"]);
        let mut server = Server::spawn("redis-server", args, &point.dir, LIFETIME)?;
        let mut stream = None;
        server.wait_until(|| {
            stream = connect(&socket)?;
            Ok(stream.is_some())
        })?;
        let mut connection = Connection(BufReader::new(stream.ok_or("no connection")?));
        let ids: Vec<String> = point.ids().collect();
        let mut push = vec!["RPUSH", "ready"];
        push.extend(ids.iter().map(String::as_str));
        connection.send(&[&push])?;
        connection.number()?;
        Ok(Box::new(Running { _server: server, socket }))
    }

    fn client(&self, seat: &Seat) -> Outcome<Box<dyn Client>> {
        Ok(Box::new(Connection(BufReader::new(UnixStream::connect(socket(&seat.point))?))))
    }
}

fn socket(point: &Point) -> PathBuf {
    point.dir.join("socket")
}

struct Running {
    _server: Server,
    socket: PathBuf,
}

impl System for Running {
    fn completed(&self) -> Outcome<Option<usize>> {
        let mut connection = Connection(BufReader::new(UnixStream::connect(&self.socket)?));
        connection.send(&[&["SCARD", "completed"]])?;
        Ok(Some(usize::try_from(connection.number()?)?))
    }
}

/// The part of the protocol that four commands need.
struct Connection(BufReader<UnixStream>);

impl Connection {
    /// Sends commands in one write; each is answered in turn.
    fn send(&mut self, commands: &[&[&str]]) -> Outcome<()> {
        let mut request = Vec::new();
        for words in commands {
            write!(request, "*{}\r\n", words.len())?;
            for word in *words {
                write!(request, "${}\r\n{word}\r\n", word.len())?;
            }
        }
        Ok(self.0.get_mut().write_all(&request)?)
    }

    /// Reads a line of the given kind: `+` status, `:` number, `$` length of a text, `*` length of a list.
    fn line(&mut self, kind: char) -> Outcome<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        match line.trim_end().strip_prefix(kind) {
            Some(rest) => Ok(rest.to_owned()),
            None => Err(format!("Redis answered {line:?} where a {kind} was expected").into()),
        }
    }

    fn number(&mut self) -> Outcome<i64> {
        Ok(self.line(':')?.parse()?)
    }
}

impl Client for Connection {
    fn claim(&mut self) -> Outcome<Option<String>> {
        self.send(&[&["LMOVE", "ready", "claimed", "LEFT", "RIGHT"]])?;
        // A length of -1 means no value.
        let Ok(length) = usize::try_from(self.line('$')?.parse::<i64>()?) else {
            return Ok(None);
        };
        let mut text = vec![0; length + 2];
        self.0.read_exact(&mut text)?;
        text.truncate(length);
        Ok(Some(String::from_utf8(text)?))
    }

    fn complete(&mut self, task: &str) -> Outcome<()> {
        self.send(&[&["MULTI"], &["LREM", "claimed", "1", task], &["SADD", "completed", task], &["EXEC"]])?;
        for _ in ["OK", "QUEUED", "QUEUED"] {
            self.line('+')?;
        }
        self.line('*')?;
        match (self.number()?, self.number()?) {
            (1, 1) => Ok(()),
            changed => Err(format!("completing {task} in Redis changed {changed:?} entries").into()),
        }
    }
}
