//! The server's side: a Unix user for the project, keys with forced commands, and an sshd of the test's own.
//!
//! May assume: root. Must never: touch the system's sshd or its configuration, or leave the user or one of its processes behind.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::{Worker, processes};
use crate::harness::{Mounted, Project};
use crate::process::{run, until};

/// useradd(8) and userdel(8) lock the user database and do not wait for each other.
static USERS: Mutex<()> = Mutex::new(());

/// Start a server, or return from the test where that is not possible.
macro_rules! server {
    ($project:expr, $mounted:expr $(, $setting:expr)*) => {{
        crate::harness::as_root!();
        crate::sides::needs!("sshd", "sshfs", "ssh-keygen", "useradd");
        crate::server::Server::start(&$project, &$mounted, &[$($setting),*])
    }};
}
pub(crate) use server;

/// A system user for one test.
pub(crate) struct User {
    pub(crate) name: String,
    uid: u32,
    gid: u32,
}

impl User {
    /// A new user with this home directory, which is not created.
    pub(crate) fn new(home: &Path) -> User {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("crewfs-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut add = Command::new("useradd");
        // A password that cannot match; "!" would lock the user for sshd too.
        add.args(["--system", "--user-group", "--no-create-home", "--shell", "/bin/sh", "--password", "*"]);
        add.arg("--home-dir").arg(home).arg(&name);
        {
            let _alone = USERS.lock().unwrap();
            run(add).ok();
        }
        let id = |what: &str| {
            let mut id = Command::new("id");
            id.args([what, name.as_str()]);
            run(id).ok().trim().parse().unwrap()
        };
        User { uid: id("-u"), gid: id("-g"), name }
    }

    /// Make the user the owner of a file or directory.
    pub(crate) fn own(&self, path: impl AsRef<Path>) {
        chown(path, Some(self.uid), Some(self.gid)).unwrap();
    }

    /// The processes that run as this user.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        // sftp-server makes itself undumpable, so that its files in /proc belong to root.
        let line = format!("\nUid:\t{0}\t{0}\t{0}\t{0}\n", self.uid);
        processes(|pid| {
            fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| status.contains(&line))
        })
    }
}

impl Drop for User {
    fn drop(&mut self) {
        until("nothing runs as the user of the test", || {
            let left = self.processes();
            for pid in &left {
                let _ = kill_process(*pid, Signal::KILL);
            }
            left.is_empty()
        });
        let _alone = USERS.lock().unwrap();
        let _ = Command::new("userdel").arg(&self.name).stderr(Stdio::null()).status();
    }
}

/// An sshd that admits workers to one project.
pub(crate) struct Server {
    dir: PathBuf,
    root: PathBuf,
    program: PathBuf,
    pub(crate) port: u16,
    sshd: Child,
    pub(crate) user: User,
}

impl Server {
    /// Admit workers to a mount. `settings` are lines of sshd's configuration; they override the recommended ones.
    pub(crate) fn start(project: &Project, mounted: &Mounted, settings: &[&str]) -> Server {
        let dir = project.dir().join("server");
        fs::create_dir(&dir).unwrap();
        // The worst home directory: one that workers can write to.
        let user = User::new(mounted.path());
        for place in [project.behind(), project.tasks()] {
            user.own(place);
        }
        // The user may lack access to the directory where the program was built.
        let program = dir.join("crewfs");
        fs::copy(env!("CARGO_BIN_EXE_crewfs"), &program).unwrap();
        make_key(&dir.join("host"));
        fs::write(dir.join("keys"), "").unwrap();
        fs::create_dir_all("/run/sshd").unwrap();
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let mut config = settings.join("\n");
        let at = dir.display();
        write!(
            config,
            "\nPort {port}\nListenAddress 0.0.0.0\nHostKey {at}/host\nPidFile none\nAuthorizedKeysFile {at}/keys
UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nStrictModes no\nMaxStartups 100
Subsystem sftp /usr/lib/openssh/sftp-server\nClientAliveInterval 5\nClientAliveCountMax 2\nDisableForwarding yes
PermitTTY no\nPermitUserRC no\n"
        )
        .unwrap();
        fs::write(dir.join("config"), config).unwrap();
        let sshd = spawn_sshd(&dir);
        let server = Server { root: mounted.path().to_path_buf(), program, port, sshd, user, dir };
        server.wait_until_it_listens();
        server
    }

    fn wait_until_it_listens(&self) {
        until("sshd listens", || std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    /// A file of the project that the workers may change.
    pub(crate) fn file(&self, project: &Project, name: &str, text: &str) {
        let place = project.behind().join(name);
        let unfinished = project.behind().join(format!(".{name}.new"));
        fs::write(&unfinished, text).unwrap();
        self.user.own(&unfinished);
        fs::rename(unfinished, place).unwrap();
    }

    /// sshd's log so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// A client with a key that the server does not admit.
    pub(crate) fn stranger(&self) -> Worker {
        self.with_key("stranger")
    }

    /// A worker with a key of its own, made and admitted as the documents describe.
    pub(crate) fn worker(&self, name: &str) -> Worker {
        let worker = self.with_key(name);
        let public = fs::read_to_string(worker.key.with_extension("pub")).unwrap();
        let (program, root) = (self.program.display(), self.root.display());
        let command = format!("{program} sftp-server --worker {name} --root {root}");
        let line = format!("restrict,command=\"{command}\" {public}");
        let keys = self.dir.join("keys");
        let so_far = fs::read_to_string(&keys).unwrap();
        fs::write(keys, so_far + &line).unwrap();
        worker
    }

    fn with_key(&self, name: &str) -> Worker {
        let key = self.dir.join(format!("key of {name}"));
        make_key(&key);
        let host = fs::read_to_string(self.dir.join("host.pub")).unwrap();
        let known = self.dir.join("known_hosts");
        fs::write(&known, format!("* {host}")).unwrap();
        Worker {
            name: name.into(),
            key,
            known,
            port: self.port,
            remote: format!("{}@127.0.0.1:{}", self.user.name, self.root.display()),
            enter: Vec::new(),
        }
    }

    /// The processes that serve SFTP, for any worker.
    pub(crate) fn sftp_servers(&self) -> Vec<Pid> {
        let called = |pid: &Pid| fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero()));
        let mut all = self.user.processes();
        all.retain(|pid| called(pid).is_ok_and(|name| name.trim() == "sftp-server"));
        all
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- what sshd said ---\n{}", self.log());
        }
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
    }
}

fn spawn_sshd(dir: &Path) -> Child {
    // sshd starts itself again for each connection, so its path must be absolute.
    let mut sshd = Command::new(crate::sides::find("sshd").unwrap());
    sshd.args(["-D", "-f"]).arg(dir.join("config")).arg("-E").arg(dir.join("log"));
    sshd.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn make_key(path: &Path) {
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path);
    run(keygen).ok();
}
