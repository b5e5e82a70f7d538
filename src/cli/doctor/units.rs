//! Checks the services of systemd: whether each configured project is served.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::finding::Finding::{self, Good, Problem, Warning};
use super::probe::ProbeProcess;
use super::system::configured_projects;
use crate::limits::DOCTOR_SILENT_MS;

/// Exists while systemd manages the machine.
const MANAGED: &str = "/run/systemd/system";

pub(super) fn findings() -> Vec<Finding> {
    let projects = configured_projects();
    if !Path::new(MANAGED).exists() {
        return match projects.is_empty() {
            true => Vec::new(),
            false => vec![Warning(format!(
                "systemd does not run here, so nothing mounts {} at start; mount by hand: crewfs mount --config FILE",
                projects.join(", ")
            ))],
        };
    }
    let mut list = Command::new("systemctl");
    list.args(["list-units", "--all", "--plain", "--no-legend", "--no-pager", "crewfs@*.service"]);
    let said = match ProbeProcess::start(list)
        .map(|query| query.answer(Duration::from_millis(DOCTOR_SILENT_MS)))
    {
        Ok(Some(output)) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        _ => {
            return vec![Warning(
                "systemctl does not tell how the services are; ask it: systemctl status 'crewfs@*'".into(),
            )];
        }
    };
    judge(&said, &projects)
}

/// Judge the list of units, one a line: name, whether it is loaded, state, detailed state.
fn judge(units: &str, projects: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut known = Vec::new();
    for line in units.lines() {
        let mut words = line.split_whitespace();
        let (Some(unit), Some(_), Some(state), Some(detail)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        let Some(name) = unit.strip_prefix("crewfs@").and_then(|name| name.strip_suffix(".service")) else {
            continue;
        };
        known.push(name);
        findings.push(match state {
            "active" => Good(format!("{unit} is running")),
            "failed" => Problem(format!(
                "{unit} has failed; see why: journalctl -u {unit} -n 30; then: systemctl restart {unit}"
            )),
            "activating" if detail == "auto-restart" => {
                Problem(format!("{unit} ends again and again; see why: journalctl -u {unit} -n 30"))
            }
            "activating" | "deactivating" | "reloading" => Warning(format!(
                "{unit} is {state}; look again in a moment, and if it stays so: journalctl -u {unit} -n 30"
            )),
            _ => Warning(format!("{unit} is not running ({state}); start it: systemctl start {unit}")),
        });
    }
    for name in projects.iter().filter(|name| !known.contains(&name.as_str())) {
        findings.push(Warning(format!(
            "crewfs@{name}.service is not running, so the project is not mounted at start; start it: systemctl enable --now \
             crewfs@{name}"
        )));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unit_is_judged_by_its_state_and_a_project_without_one_is_named() {
        let units = "crewfs@a.service loaded active running crewfs: a\n\
            crewfs@b.service loaded failed failed crewfs: b\n\
            crewfs@c.service loaded activating auto-restart crewfs: c\n\
            crewfs@d.service loaded inactive dead crewfs: d\n\
            crewfs@e.service loaded activating start crewfs: e\n\n";
        let findings = judge(units, &["a".into(), "f".into()]);
        assert!(matches!(&findings[0], Good(said) if said.contains("crewfs@a")));
        assert!(matches!(&findings[1], Problem(said) if said.contains("journalctl -u crewfs@b.service")));
        assert!(matches!(&findings[2], Problem(said) if said.contains("again and again")));
        assert!(matches!(&findings[3], Warning(said) if said.contains("systemctl start crewfs@d.service")));
        assert!(matches!(&findings[4], Warning(said) if said.contains("activating")));
        assert!(matches!(&findings[5], Warning(said) if said.contains("enable --now crewfs@f")));
        assert_eq!((findings.len(), judge("", &[])), (6, vec![]));
    }
}
