//! A child process that reads commands, one a line, and answers each with one line.
//!
//! Must never: outlive the test that started it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, Stdio};

/// The process lives until the test drops it or its input ends.
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

    /// The next line of output; `None` after the process has ended.
    pub(crate) fn answer(&mut self) -> Option<String> {
        let mut line = String::new();
        let length = self.answers.read_line(&mut line).unwrap();
        (length > 0).then(|| line.trim_end().to_string())
    }

    pub(crate) fn tell(&mut self, line: &str) {
        // A process that has ended gives no answer, so a failed write is not reported here.
        let _ = writeln!(self.child.stdin.as_mut().unwrap(), "{line}");
    }

    /// The answer to a command, or how the process ended instead.
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
