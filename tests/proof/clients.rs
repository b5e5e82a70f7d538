//! Client processes: the test program started again, once for each worker. They start together, and each leaves a report.
//!
//! Must never: outlive the test that started them.

use std::fs::{self, File};
use std::io::{self, BufWriter, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::harness::{Mounted, Project};
use crate::process::{until, within};
use crate::random::{Random, number};

const NUMBER: &str = "CREWFS_PROOF_CLIENT";
const SEED: &str = "CREWFS_PROOF_CLIENT_SEED";
const PLACE: &str = "CREWFS_PROOF_CLIENT_FILES";

/// The name of a client as a worker.
pub(crate) fn worker(number: usize) -> String {
    format!("w{number:02}")
}

/// What a client process works with.
pub(crate) struct Client {
    pub(crate) worker: String,
    /// The desk of the mount.
    pub(crate) desk: OwnedFd,
    pub(crate) random: Random,
    report: BufWriter<File>,
}

impl Client {
    /// `None` if this process is not a client. In a client, this returns when all clients are ready.
    pub(crate) fn start() -> Option<Client> {
        let number = number(NUMBER)? as usize;
        let place = PathBuf::from(std::env::var_os(PLACE).unwrap());
        let desk =
            openat(CWD, "tasks", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let report = BufWriter::new(File::create(&place).unwrap());
        let random = Random::new(crate::random::number(SEED).unwrap());
        fs::write(place.with_extension("ready"), "").unwrap();
        io::stdin().read_to_end(&mut Vec::new()).unwrap();
        Some(Client { worker: worker(number), desk, random, report })
    }

    /// Append a line to the report.
    pub(crate) fn report(&mut self, line: impl std::fmt::Display) {
        writeln!(self.report, "{line}").unwrap();
    }

    /// Append a line to the report and flush it before this returns.
    pub(crate) fn report_now(&mut self, line: impl std::fmt::Display) {
        self.report(line);
        self.report.flush().unwrap();
    }
}

/// Client processes. Dropping them kills them and waits for their ends.
pub(crate) struct Clients {
    children: Vec<Child>,
    directory: PathBuf,
    start_line: Option<PipeWriter>,
}

impl Clients {
    /// Start this many clients, each of which runs the test of this name, and wait until all are ready.
    pub(crate) fn ready(
        project: &Project,
        mounted: &Mounted,
        test: &str,
        count: usize,
        seed: u64,
        environment: &[(&str, String)],
    ) -> Clients {
        let directory = tempfile::Builder::new().prefix("clients-").tempdir_in(project.dir()).unwrap().keep();
        let (waits, start_line) = io::pipe().unwrap();
        let mut clients = Clients { children: Vec::new(), directory, start_line: Some(start_line) };
        for number in 0..count {
            let child = Command::new(std::env::current_exe().unwrap())
                .args([test, "--exact", "--nocapture", "--test-threads=1"])
                .env(NUMBER, number.to_string())
                .env(SEED, seed.wrapping_add(number as u64).to_string())
                .env(PLACE, clients.file(number))
                .env("CREWFS_WORKER", worker(number))
                .envs(environment.iter().map(|(name, value)| (name, value)))
                .current_dir(mounted.path())
                .stdin(waits.try_clone().unwrap())
                .stdout(Stdio::null())
                .stderr(File::create(clients.file(number).with_extension("err")).unwrap())
                .spawn();
            clients.children.push(child.unwrap());
        }
        until("the clients are ready", || {
            (0..count).all(|number| clients.file(number).with_extension("ready").exists())
        });
        clients
    }

    fn file(&self, number: usize) -> PathBuf {
        self.directory.join(worker(number))
    }

    /// Let the clients start.
    pub(crate) fn go(&mut self) {
        self.start_line = None;
    }

    /// Assert that all clients exit with success within this time. Returns their reports.
    #[track_caller]
    pub(crate) fn reports(mut self, limit: Duration) -> Vec<String> {
        let said = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        let ended =
            within(limit, || self.children.iter_mut().all(|child| child.try_wait().unwrap().is_some()));
        assert!(ended, "the clients do not end within {limit:?}");
        let numbers = 0..self.children.len();
        for number in numbers.clone() {
            let status = self.children[number].wait().unwrap();
            let error = said(&self.file(number).with_extension("err"));
            assert!(status.success(), "{} ended with {status}:\n{error}", worker(number));
        }
        numbers.map(|number| said(&self.file(number))).collect()
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
        }
        for child in &mut self.children {
            let _ = child.wait();
        }
    }
}
