//! Checks the settings of sshd for remote workers: a worker must not be able to choose its name, and a dead connection must end soon.
//!
//! May assume: a file crewfs-NAME.conf for each project with remote workers, with `Match User`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::finding::Finding::{self, Good, Problem, Warning};
use super::keys;
use super::probe::ProbeProcess;
use crate::cli::settings::DIRECTORY;
use crate::limits::DOCTOR_SILENT_MS;
use crate::sys;

/// The directory of the settings of projects.
const SETTINGS: &str = "/etc/ssh/sshd_config.d";
/// How long a dead connection may keep a worker's locks, in seconds.
const DEAD_MAX: u64 = 60;
/// Variables that decide the name of a worker, or what its forced command runs.
const DANGEROUS: [&str; 9] = [
    "CREWFS_WORKER",
    "CREWFS_TASKS",
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "LD_AUDIT",
    "BASH_ENV",
    "ENV",
    "PATH",
    "GCONV_PATH",
];
/// Switches that allow a connection more than the transfer of files, and the settings that turn them off.
const SWITCHES: [(&str, &str); 9] = [
    ("allowtcpforwarding", "AllowTcpForwarding no"),
    ("allowstreamlocalforwarding", "AllowStreamLocalForwarding no"),
    ("allowagentforwarding", "AllowAgentForwarding no"),
    ("x11forwarding", "X11Forwarding no"),
    ("permittunnel", "PermitTunnel no"),
    ("permittty", "PermitTTY no"),
    ("permituserrc", "PermitUserRC no"),
    ("passwordauthentication", "PasswordAuthentication no"),
    ("kbdinteractiveauthentication", "KbdInteractiveAuthentication no"),
];

pub(super) fn findings(sshd: &Path) -> Vec<Finding> {
    let projects = projects();
    if projects.is_empty() {
        return vec![Good(format!(
            "{SETTINGS} has no crewfs-NAME.conf: there are no workers on other machines"
        ))];
    }
    if !sys::is_root() {
        return vec![Warning(
            "what sshd does for workers on other machines, only root can see: sudo crewfs doctor".into(),
        )];
    }
    projects.into_iter().flat_map(|(name, user)| project(sshd, &name, &user)).collect()
}

/// The projects with remote workers, and the user that these log in as.
fn projects() -> Vec<(String, String)> {
    let entries = fs::read_dir(SETTINGS).into_iter().flatten().flatten();
    let mut projects: Vec<(String, String)> = entries
        .filter_map(|entry| {
            let file = entry.file_name();
            let name = file.to_str()?.strip_prefix("crewfs-")?.strip_suffix(".conf")?;
            Some((name.to_string(), user(&fs::read_to_string(entry.path()).ok()?)?))
        })
        .collect();
    projects.sort();
    projects
}

/// The user in a drop-in file.
fn user(drop_in: &str) -> Option<String> {
    drop_in.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let is_match =
            words.next()?.eq_ignore_ascii_case("match") && words.next()?.eq_ignore_ascii_case("user");
        is_match.then(|| words.next().map(str::to_string))?
    })
}

fn project(sshd: &Path, name: &str, user: &str) -> Vec<Finding> {
    let mut command = Command::new(sshd);
    command.args(["-T", "-C", &format!("user={user},host=localhost,addr=127.0.0.1")]);
    let said = match ProbeProcess::start(command)
        .map(|query| query.answer(Duration::from_millis(DOCTOR_SILENT_MS)))
    {
        Ok(Some(output)) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        Ok(Some(output)) => {
            return vec![Problem(format!(
                "sshd cannot read its settings: {}; mend them, and try: {} -t",
                String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; "),
                sshd.display()
            ))];
        }
        _ => return vec![Warning(format!("sshd does not tell its settings; ask it: {} -T", sshd.display()))],
    };
    let file = format!("{DIRECTORY}/{name}.keys");
    let mut findings = judge(name, user, &said, &file);
    findings.extend(keys::findings(Path::new(&file)));
    findings
}

/// Judge the output of `sshd -T` for a user whose keys belong into `file`.
fn judge(name: &str, user: &str, settings: &str, file: &str) -> Vec<Finding> {
    let drop_in = format!("{SETTINGS}/crewfs-{name}.conf");
    let all = |key: &str| {
        let lines = settings.lines().filter_map(|line| line.split_once(' '));
        lines.filter(|(word, _)| word.eq_ignore_ascii_case(key)).map(|(_, value)| value).collect::<Vec<_>>()
    };
    let one = |key: &str| all(key).first().copied().unwrap_or_default();
    let mut findings = Vec::new();
    let mend = format!("below Match User {user} in {drop_in}, and then: systemctl reload ssh");

    let only_here = all("authorizedkeysfile").join(" ") == file;
    if !only_here || ["authorizedkeyscommand", "trustedusercakeys"].iter().any(|key| one(key) != "none") {
        findings.push(Problem(format!(
            "sshd takes keys of {user} not from {file} alone, so who a worker is can be decided elsewhere; put \
             AuthorizedKeysFile {file}, AuthorizedKeysCommand none and TrustedUserCAKeys none {mend}"
        )));
    }
    let let_in: Vec<&str> = all("acceptenv")
        .iter()
        .flat_map(|list| list.split_whitespace())
        .filter(|p| is_dangerous(p))
        .collect();
    if !let_in.is_empty() {
        findings.push(Problem(format!(
            "sshd lets {user} send the variables {}, which decide who a worker is and what is run for it; take them out of \
             AcceptEnv in /etc/ssh/sshd_config and {SETTINGS}, and then: systemctl reload ssh",
            let_in.join(" ")
        )));
    }
    if one("permituserenvironment") != "no" {
        findings.push(Problem(format!(
            "sshd reads variables that {user} has written (PermitUserEnvironment {}); put PermitUserEnvironment no into \
             /etc/ssh/sshd_config, and then: systemctl reload ssh",
            one("permituserenvironment")
        )));
    }
    // DisableForwarding turns all forwarding off, whatever the others say.
    let off = |key: &str| one("disableforwarding") == "yes" && key.contains("forwarding");
    let on: Vec<&str> = SWITCHES
        .iter()
        .filter(|(key, _)| one(key) != "no" && !off(key))
        .map(|(_, setting)| *setting)
        .collect();
    if !on.is_empty() {
        findings.push(Warning(format!(
            "sshd lets {user} do more than transfer files; put {} {mend}",
            on.join(", ")
        )));
    }
    let number = |key: &str| one(key).parse::<u64>().unwrap_or_default();
    let (interval, count) = (number("clientaliveinterval"), number("clientalivecountmax"));
    match interval * count {
        0 => findings.push(Warning(format!(
            "sshd never notices that a connection of {user} is dead, and its locks stay; put ClientAliveInterval 5 and \
             ClientAliveCountMax 2 {mend}"
        ))),
        seconds if seconds > DEAD_MAX => findings.push(Warning(format!(
            "sshd notices only after {seconds} s that a connection of {user} is dead, and its locks stay for so long; put \
             ClientAliveInterval 5 and ClientAliveCountMax 2 {mend}"
        ))),
        _ => {}
    }
    if findings.is_empty() {
        findings.push(Good(format!(
            "sshd lets {user}, whom workers of {name} log in as, transfer files and nothing else"
        )));
    }
    findings
}

/// Whether a pattern of AcceptEnv matches a dangerous variable.
fn is_dangerous(pattern: &str) -> bool {
    let family = ["CREWFS_", "LD_"].iter().any(|family| pattern.starts_with(family));
    family || DANGEROUS.iter().any(|name| matches(pattern.as_bytes(), name.as_bytes()))
}

/// Whether a name matches a pattern with `*` and `?`.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => matches(rest, name) || (!name.is_empty() && matches(pattern, &name[1..])),
        (Some((b'?', rest)), Some((_, others))) => matches(rest, others),
        (Some((a, rest)), Some((b, others))) => a == b && matches(rest, others),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The output of `sshd -T` for a user that may only transfer files.
    const TIGHT: &str = "port 22\nclientaliveinterval 5\nclientalivecountmax 2\npermituserenvironment no\nacceptenv LANG\n\
        acceptenv LC_*\nallowtcpforwarding no\nallowstreamlocalforwarding no\nallowagentforwarding no\nx11forwarding no\n\
        permittunnel no\npermittty no\npermituserrc no\ntrustedusercakeys none\npasswordauthentication no\n\
        kbdinteractiveauthentication no\nauthorizedkeysfile /etc/crewfs/p.keys\nauthorizedkeyscommand none\ndisableforwarding no\n";

    fn judged(from: &str, to: &str) -> Vec<Finding> {
        assert!(TIGHT.contains(from));
        judge("p", "crew-p", &TIGHT.replace(from, to), "/etc/crewfs/p.keys")
    }

    #[test]
    fn each_loose_setting_is_named_with_its_mend() {
        assert!(matches!(judged("port 22", "port 22")[..], [Good(_)]));
        let file = "authorizedkeysfile /etc/crewfs/p.keys";
        for (from, to, mend) in [
            (file, "authorizedkeysfile .ssh/authorized_keys", "AuthorizedKeysFile /etc/crewfs/p.keys"),
            (file, "authorizedkeysfile /etc/crewfs/p.keys .ssh/authorized_keys", "AuthorizedKeysFile"),
            ("command none", "command /usr/bin/keys", "AuthorizedKeysCommand none"),
            ("cakeys none", "cakeys /etc/ssh/ca.pub", "TrustedUserCAKeys none"),
            ("acceptenv LANG", "acceptenv LANG CREWFS_*", "variables CREWFS_*"),
            ("acceptenv LANG", "acceptenv *", "variables *,"),
            ("permituserenvironment no", "permituserenvironment LANG", "PermitUserEnvironment no"),
        ] {
            assert!(matches!(&judged(from, to)[..], [Problem(said)] if said.contains(mend)), "{to}");
        }
        for (from, to, mend) in [
            (
                "allowtcpforwarding no",
                "allowtcpforwarding local",
                "put AllowTcpForwarding no below Match User crew-p",
            ),
            ("permittty no", "permittty yes", "PermitTTY no"),
            ("interval 5", "interval 0", "never notices"),
            ("interval 5", "interval 60", "after 120 s"),
        ] {
            assert!(matches!(&judged(from, to)[..], [Warning(said)] if said.contains(mend)), "{to}");
        }
        let all_off = "allowtcpforwarding yes\ndisableforwarding yes\n";
        assert!(matches!(judged("allowtcpforwarding no\n", all_off)[..], [Good(_)]));
    }

    #[test]
    fn patterns_let_in_what_they_match() {
        for pattern in ["*", "CREWFS_*", "CREWFS_X", "LD_*", "?REWFS_WORKER", "*WORKER", "BASH_*", "P*"] {
            assert!(is_dangerous(pattern), "{pattern}");
        }
        for pattern in ["LANG", "LC_*", "TZ", "COLORTERM", "GIT_*"] {
            assert!(!is_dangerous(pattern), "{pattern}");
        }
    }

    #[test]
    fn the_user_of_a_drop_in_is_found() {
        assert_eq!(user("# crew\nMatch User crew-p\n  PermitTTY no\n"), Some("crew-p".into()));
        assert_eq!((user("match user a"), user("Match Group a\n")), (Some("a".into()), None));
    }
}
