//! Checks what remote workers need: OpenSSH's server and sftp-server, and user namespaces to confine workers.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::Duration;

use super::finding::Finding::{self, Good, Warning};
use super::probe::{self, Probe, ProbeProcess};
use super::sshd;
use super::system::{number, program};
use crate::cli::error::CliError;
use crate::cli::sftp_server::SERVERS;
use crate::confine;
use crate::limits::DOCTOR_SILENT_MS;
use crate::sys;

/// An ordinary user that every system has, and that owns nothing.
const NOBODY: u32 = 65_534;
/// A directory that every system has. The probe confines itself to it.
const ANY: &str = "/var";
/// AppArmor's restriction of user namespaces in Ubuntu.
const APPARMOR: &str = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";
/// The limit of user namespaces.
const NAMESPACES_MAX: &str = "/proc/sys/user/max_user_namespaces";
/// Debian's own switch.
const DEBIAN: &str = "/proc/sys/kernel/unprivileged_userns_clone";

pub(super) fn findings() -> Vec<Finding> {
    let Some(sshd) = program("sshd") else {
        return vec![Good(
            "no sshd is installed; only workers on other machines need one: apt install openssh-server"
                .into(),
        )];
    };
    let mut findings = vec![sftp_server(), namespaces()];
    findings.extend(sshd::findings(&sshd));
    findings
}

fn sftp_server() -> Finding {
    match SERVERS.iter().find(|path| Path::new(path).is_file()) {
        Some(path) => Good(format!("{path} serves workers on other machines")),
        None => Warning(
            "OpenSSH's sftp-server is not installed, which workers on other machines need: apt install openssh-sftp-server"
                .into(),
        ),
    }
}

fn namespaces() -> Finding {
    let attempt = probe::command(Probe::Namespaces).and_then(|mut command| {
        if sys::is_root() {
            // Root may always have them.
            command.uid(NOBODY).gid(NOBODY);
        }
        ProbeProcess::start(command)
    });
    let tried = attempt.map(|query| query.answer(Duration::from_millis(DOCTOR_SILENT_MS)));
    let failed = match tried {
        Ok(Some(said)) if said.status.success() => None,
        Ok(Some(said)) => {
            Some(String::from_utf8_lossy(&said.stderr).trim().trim_start_matches("crewfs: ").to_string())
        }
        Ok(None) => Some("the attempt did not end".into()),
        Err(error) => Some(error.to_string()),
    };
    judge(failed.as_deref(), [APPARMOR, DEBIAN, NAMESPACES_MAX].map(number))
}

/// Judge why the probe failed, by three settings of the kernel: AppArmor's restriction, Debian's switch, and the limit.
fn judge(failed: Option<&str>, settings: [Option<u64>; 3]) -> Finding {
    let Some(why) = failed else {
        return Good(
            "an ordinary user may have namespaces: crewfs sftp-server --root keeps workers in the project"
                .into(),
        );
    };
    let mend = match settings {
        [Some(1..), _, _] => {
            "AppArmor forbids it; deploy.sh lets crewfs alone have them (/etc/apparmor.d/crewfs), and all users have them by: \
             sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        }
        [_, Some(0), _] => "allow it: sysctl kernel.unprivileged_userns_clone=1",
        [_, _, Some(0)] => "allow it: sysctl user.max_user_namespaces=10000",
        _ => "in a container, have it started with the right to make namespaces",
    };
    Warning(format!(
        "an ordinary user may not have namespaces ({why}), so crewfs sftp-server --root refuses workers on other machines; {mend}"
    ))
}

/// The child's part: an ordinary user confines itself to a directory.
pub(super) fn probe() -> Result<(), CliError> {
    let any = std::fs::File::open(ANY).map_err(CliError::failed)?;
    confine::to(&any, Path::new(ANY)).map_err(CliError::failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lock_on_namespaces_has_its_key() {
        assert!(matches!(judge(None, [Some(1), Some(0), Some(0)]), Good(_)));
        for (settings, mend) in [
            ([Some(1), Some(1), Some(5)], "apparmor_restrict_unprivileged_userns=0"),
            ([Some(0), Some(0), Some(5)], "unprivileged_userns_clone=1"),
            ([None, None, Some(0)], "max_user_namespaces=10000"),
            ([None, None, None], "container"),
        ] {
            let Warning(said) = judge(Some("EPERM"), settings) else { panic!("{settings:?}") };
            assert!(said.contains("(EPERM)") && said.contains(mend), "{said}");
        }
    }
}
