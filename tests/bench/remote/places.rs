//! The ways that are compared: the project on the server's machine, and through sshfs in three ways.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::common::server::Server;
use crate::common::{Outcome, mount, wait};
use crate::{guarded, line};

/// The time limit of every process, also if the benchmark dies.
const LIFETIME: Duration = Duration::from_secs(2 * 3_600);
const LIMIT: Duration = Duration::from_secs(60);

/// A way to reach the project.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The mount of crewfs on the server's machine, without a network.
    Near,
    /// The mounts of `connect.sh`.
    Connected,
    /// One sshfs mount with its defaults, of the mount of crewfs.
    Defaults,
    /// One sshfs mount with its defaults, of the directory itself.
    Plain,
}

impl Way {
    pub(crate) const ALL: [Way; 4] = [Way::Near, Way::Connected, Way::Defaults, Way::Plain];

    /// The name in file names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Way::Near => "near",
            Way::Connected => "connected",
            Way::Defaults => "defaults",
            Way::Plain => "plain",
        }
    }

    /// The head of its column.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Way::Near => "on the server, ms",
            Way::Connected => "`connect.sh`",
            Way::Defaults => "sshfs with its defaults",
            Way::Plain => "sshfs of the directory, no crewfs",
        }
    }
}

/// The server: crewfs and an sshd, both for this run alone.
pub(crate) struct Site {
    _sshd: Server,
    _crewfs: mount::Mount,
    source: PathBuf,
    mounted: PathBuf,
    dir: PathBuf,
    port: u16,
}

impl Site {
    /// Serves the project in `source` over a network with this round trip.
    pub(crate) fn open(source: &Path, dir: &Path, round_trip: Duration) -> Outcome<Site> {
        let mounted = dir.join("mounted");
        fs::create_dir_all(&mounted)?;
        let ready = mounted.join("tasks/ready");
        let crewfs = mount::crewfs(source, &mounted, dir, LIFETIME, || Ok(ready.exists()))?;
        for key in ["host", "worker", "other"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.join(key));
            guarded::output(&mut keygen, LIMIT)?;
        }
        let public = |key: &str| fs::read_to_string(dir.join(key).with_extension("pub"));
        let worker =
            format!("{} sftp-server --worker bench --root {}", mount::program().display(), mounted.display());
        fs::write(
            dir.join("keys"),
            format!("restrict,command=\"{worker}\" {}{}", public("worker")?, public("other")?),
        )?;
        fs::write(dir.join("known"), format!("* {}", public("host")?))?;
        fs::create_dir_all("/run/sshd")?;
        let real = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let at = dir.display();
        fs::write(
            dir.join("sshd_config"),
            format!(
                "Port {real}\nListenAddress 127.0.0.1\nHostKey {at}/host\nPidFile none\nAuthorizedKeysFile {at}/keys\n\
                 StrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n\
                 Subsystem sftp /usr/lib/openssh/sftp-server\n"
            ),
        )?;
        let logs = dir.join("sshd");
        fs::create_dir_all(&logs)?;
        let config = dir.join("sshd_config");
        let mut sshd = Server::spawn(
            "/usr/sbin/sshd",
            ["-D".as_ref(), "-f".as_ref(), config.as_os_str()],
            &logs,
            LIFETIME,
        )?;
        sshd.wait_until(|| Ok(TcpStream::connect(("127.0.0.1", real)).is_ok()))?;
        let port = if round_trip.is_zero() { real } else { line::lengthened(real, round_trip)? };
        Ok(Site { _sshd: sshd, _crewfs: crewfs, source: source.into(), mounted, dir: dir.into(), port })
    }

    /// Reaches the project in this way.
    pub(crate) fn place(&self, way: Way) -> Outcome<Place> {
        let top = if way == Way::Near { self.mounted.clone() } else { self.dir.join(way.name()) };
        let known = format!("UserKnownHostsFile={}", self.dir.join("known").display());
        let from = if way == Way::Plain { &self.source } else { &self.mounted };
        let remote = format!("root@127.0.0.1:{}", from.display());
        let place = Place { way, top };
        match way {
            Way::Near => {}
            Way::Connected => {
                let mut connect = script("connect.sh");
                connect.args(["--port", &self.port.to_string(), "--identity"]).arg(self.dir.join("worker"));
                guarded::output(connect.args(["-o", &known, &remote]).arg(&place.top), LIMIT)?;
            }
            Way::Defaults | Way::Plain => {
                fs::create_dir_all(&place.top)?;
                let key = self.dir.join(if way == Way::Plain { "other" } else { "worker" });
                let options = format!("port={},IdentityFile={},{known}", self.port, key.display());
                let mut sshfs = Command::new("sshfs");
                guarded::output(sshfs.arg(remote).arg(&place.top).args(["-o", &options]), LIMIT)?;
            }
        }
        wait::check()?;
        Ok(place)
    }
}

/// The project, reached in one way. Dropping it disconnects.
pub(crate) struct Place {
    pub(crate) way: Way,
    pub(crate) top: PathBuf,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.way != Way::Near {
            let mut disconnect = script("disconnect.sh");
            if let Err(error) = guarded::output(disconnect.args(["--lazy", "--quiet"]).arg(&self.top), LIMIT)
            {
                eprintln!("remote: {} is left: {error}", self.top.display());
            }
            let _ = Command::new("chattr").args(["-i", "--"]).arg(&self.top).status();
        }
    }
}

fn script(name: &str) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("mount-scripts").join(name));
    // The key determines the name there.
    command.env_remove("CREWFS_WORKER");
    command
}
