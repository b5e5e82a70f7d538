//! A process that does what it is told, one line at a time, and answers each line with one.
//!
//! Must never: outlive the test that started it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, Stdio};

/// It lives as long as the test, or until its input ends.
pub(crate) struct Client {
    pub(crate) child: Child,
    answers: BufReader<ChildStdout>,
}

impl Client {
    pub(crate) fn of(mut command: Command) -> Client {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Client { child, answers }
    }

    /// Its next line; none when it has ended.
    pub(crate) fn answer(&mut self) -> Option<String> {
        let mut line = String::new();
        let length = self.answers.read_line(&mut line).unwrap();
        (length > 0).then(|| line.trim_end().to_string())
    }

    pub(crate) fn tell(&mut self, line: &str) {
        // What has ended gives no answer either.
        let _ = writeln!(self.child.stdin.as_mut().unwrap(), "{line}");
    }

    /// What it answers, or how it ended instead.
    pub(crate) fn ask(&mut self, line: &str) -> Result<String, String> {
        self.tell(line);
        self.answer().ok_or_else(|| {
            let status = self.child.wait().unwrap();
            match status.signal() {
                Some(signal) => format!("ended by signal {signal}"),
                None => format!("ended with {status}"),
            }
        })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
