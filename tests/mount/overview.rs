//! The overview for people and their tools: `summary.json`, `metrics.prom`, and the content of `dashboard.html`. A browser checks how the
//! page looks and moves (`tests/programs`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{Mounted, project};
use crate::process::until;

const ALL: [&str; 3] = ["summary.json", "dashboard.html", "metrics.prom"];

/// A crew that has done some of everything.
fn crew(mount: &Mounted) {
    let tasks = mount.tasks();
    let write = |id: &str, head: &str| fs::write(tasks.join(format!("{id}.md")), head).unwrap();
    write("a", "# A\n");
    write("b", "---\ntitle: </script><img src=x onerror=document.title='taken'>\n---\n");
    write("c", "---\nneeds: [b]\n---\n");
    write("d", "---\nneeds: [ghost]\n---\n");
    write("e", "# E\n");
    write("bad", "---\npriority: soon\n---\n");
    mount.sh("w1", "touch tasks/claim/a && echo done > tasks/completed/a").ok();
    mount.sh("w2", "touch tasks/claim/b && echo 'no <b>compiler</b>' > tasks/failed/b").ok();
    mount.sh("w1", "touch tasks/claim/e && echo half > tasks/claim/e").ok();
    mount.sh("w2", ": > tasks/claim/e").refused("exists");
    mount.sh("w2", "touch tasks/claim/c").refused("busy");
}

#[test]
fn the_summary_says_what_queue_json_says_and_what_is_stuck() {
    let project = project!();
    let mut mount = project.mount(&[]);
    assert_eq!(mount.json("summary.json")["tasks"]["total"], 0);
    crew(&mount);
    let (summary, queue) = (mount.json("summary.json"), mount.json("queue.json"));
    assert_eq!(summary["tasks"], counted(&queue));
    assert_eq!((&summary["remaining"], &summary["held_up"]), (&1.into(), &2.into()));
    assert_eq!(summary["workers"]["working"], 1);
    let stuck: Vec<[&str; 2]> = summary["stuck"].as_array().unwrap().iter().map(what).collect();
    assert_eq!(stuck, [["rejected", "bad"], ["missing", "ghost"], ["failed", "b"]]);
    assert_eq!(summary["stuck"][2]["why"], "no <b>compiler</b>");
    assert_eq!(summary["stuck"][2]["next"], "mv tasks/failed/b tasks/ready/");
    let again = mount.operator("mv tasks/failed/b tasks/ready/ && cat tasks/summary.json").ok();
    assert!(again.contains("\"held_up\": 1,\n"), "{again}");
    mount.stop();
}

fn what(stuck: &Value) -> [&str; 2] {
    ["kind", "task"].map(|name| stuck[name].as_str().unwrap_or_default())
}

/// The number of tasks of `queue.json` in each state, in the summary's form.
fn counted(queue: &Value) -> Value {
    let tasks = queue.as_object().unwrap();
    let states = ["ready", "blocked", "claimed", "completed", "failed", "rejected"];
    let count = |state: &str| tasks.values().filter(|task| task["status"] == state).count();
    let mut counted: BTreeMap<&str, usize> = states.into_iter().map(|state| (state, count(state))).collect();
    counted.insert("total", tasks.len());
    serde_json::to_value(counted).unwrap()
}

#[test]
fn c1_c2_what_moves_by_itself_has_a_true_size_and_time_and_reading_changes_nothing() {
    let project = project!();
    let mut mount = project.mount(&[]);
    crew(&mount);
    let events = mount.read("events.jsonl");
    for name in ALL {
        let path = mount.desk(name);
        let stat = || {
            let stat = fs::metadata(&path).unwrap();
            (stat.len(), (stat.mtime(), stat.mtime_nsec()))
        };
        let mut last: Option<(Vec<u8>, (i64, i64))> = None;
        let mut compared = 0;
        until(&format!("{name} was made anew three times"), || {
            let (size, time) = stat();
            let bytes = fs::read(&path).unwrap();
            // If the document changed between the calls, the next look decides.
            if stat() != (size, time) {
                return false;
            }
            assert_eq!(size, bytes.len() as u64, "{name}");
            if let Some((before, when)) = &last {
                assert_eq!(*before == bytes, *when == time, "{name}: its time moves when its content does");
                compared += usize::from(*when != time);
            }
            last = Some((bytes, time));
            compared == 3
        });
        mount.sh("w1", &format!("echo x > tasks/{name}")).refused("Permission denied");
        mount.sh("w1", &format!("rm -f tasks/{name}")).refused("not permitted");
    }
    assert_eq!(mount.read("events.jsonl"), events);
    mount.stop();
}

#[test]
fn what_agents_write_is_data_on_the_dashboard_and_the_numbers_are_those_of_the_summary() {
    let project = project!();
    let mut mount = project.mount(&[]);
    crew(&mount);
    let page = mount.read("dashboard.html");
    assert!(!page.contains("<img") && !page.contains("<b>"), "it stands there as markup");
    assert!(!page.contains("http:") && !page.contains("https:"), "nothing is fetched from anywhere");
    let data = |id: &str| -> Value {
        let (_, rest) = page.split_once(&format!("<script type=\"application/json\" id=\"{id}\">")).unwrap();
        serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
    };
    assert_eq!(data("summary")["tasks"], counted(&mount.json("queue.json")));
    let crew = data("crew");
    let titles: Vec<&str> =
        crew["tasks"].as_array().unwrap().iter().filter_map(|task| task[3].as_str()).collect();
    assert!(titles.contains(&"</script><img src=x onerror=document.title='taken'>"), "{titles:?}");
    assert_eq!(crew["workers"][0]["note"], "half");
    assert_eq!(crew["events"][0]["event"], "noted", "{}", crew["events"]);
    mount.stop();
}

#[test]
fn the_last_events_are_there_after_a_restart() {
    let project = project!();
    let mut mount = project.mount(&[]);
    crew(&mount);
    mount.stop();
    let mut mount = project.mount(&[]);
    let page = mount.read("dashboard.html");
    assert!(page.contains(r#""event":"noted","task":"e","#), "the last events are not there");
    mount.stop();
}

/// One metric of the text.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    /// By the name with its suffix, and the labels.
    samples: BTreeMap<(String, Vec<(String, String)>), f64>,
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Parses the text format of Prometheus strictly: every metric has HELP and TYPE once, in this order, before its samples. Its samples
/// stand together, no sample occurs twice, and every line is complete.
fn parsed(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n'));
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let (mut helped, mut current) = (String::new(), String::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, said) = help.split_once(' ').unwrap();
            assert!(is_name(name) && said.ends_with('.') && !said.contains('\\'), "{line}");
            helped = name.to_string();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, helped, "{line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            let new = families.insert(name.into(), Family { kind: kind.into(), ..Family::default() });
            assert!(new.is_none(), "{name} is there twice");
            current = name.to_string();
        } else {
            let (what, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) =
                what.strip_suffix('}').map_or((what, ""), |what| what.split_once('{').unwrap());
            let labels: Vec<(String, String)> =
                labels.split(',').filter(|label| !label.is_empty()).map(label).collect();
            let family = families.get_mut(&current).unwrap();
            let suffix = name.strip_prefix(&current).unwrap_or_else(|| panic!("{line} is not of {current}"));
            let suffixes: &[&str] =
                if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.contains(&suffix), "{line}");
            let twice = family.samples.insert((name.into(), labels), value.parse().unwrap());
            assert!(twice.is_none(), "{line} is there twice");
        }
    }
    families
}

fn label(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap();
    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap();
    assert!(is_name(name) && !value.contains(['"', '\\']), "{text}");
    (name.into(), value.into())
}

#[test]
fn metrics_are_well_formed_and_count_what_happened() {
    let project = project!();
    let mut mount = project.mount(&[]);
    crew(&mount);
    let text = mount.read("metrics.prom");
    let families = parsed(&text);
    let value = |name: &str, labels: &[(&str, &str)]| {
        let labels = labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let family = families.iter().find(|(family, _)| name.starts_with(*family)).unwrap().1;
        *family.samples.get(&(name.to_string(), labels)).unwrap_or_else(|| panic!("no {name} in\n{text}"))
    };
    for (state, count) in counted(&mount.json("queue.json")).as_object().unwrap() {
        if state != "total" {
            assert_eq!(value("crewfs_tasks", &[("state", state)]), count.as_f64().unwrap(), "{state}");
        }
    }
    let events = mount.read("events.jsonl");
    let kinds: BTreeSet<String> =
        families["crewfs_events_total"].samples.keys().map(|(_, labels)| labels[0].1.clone()).collect();
    for kind in kinds {
        let logged = events.lines().filter(|line| line.contains(&format!(r#""event":"{kind}""#))).count();
        assert_eq!(value("crewfs_events_total", &[("event", &kind)]), logged as f64, "{kind}");
    }
    assert_eq!(value("crewfs_log_size_bytes", &[]), events.len() as f64);
    assert_eq!(value("crewfs_log_position", &[]), events.lines().count() as f64);
    assert_eq!(value("crewfs_refusals_total", &[("reason", "held")]), 1.0);
    assert_eq!(value("crewfs_refusals_total", &[("reason", "blocked")]), 1.0);
    assert_eq!(value("crewfs_claim_duration_seconds_count", &[]), 3.0);
    assert!(value("crewfs_claim_duration_seconds_sum", &[]) > 0.0);
    assert_eq!(value("crewfs_commit_events_sum", &[]), events.lines().count() as f64);
    assert_eq!(value("crewfs_workers", &[("status", "working")]), 1.0);
    assert!(value("crewfs_fuse_requests_total", &[("session", "desk"), ("kind", "create")]) >= 3.0);
    assert!(value("crewfs_fuse_requests_total", &[("session", "tree"), ("kind", "lookup")]) > 0.0);
    for (name, family) in families.iter().filter(|(_, family)| family.kind == "histogram") {
        let buckets = family.samples.iter().filter(|((sample, _), _)| sample.ends_with("_bucket"));
        let bound = |labels: &[(String, String)]| labels[0].1.parse::<f64>().unwrap();
        let mut buckets: Vec<(f64, f64)> =
            buckets.map(|((_, labels), count)| (bound(labels), *count)).collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(buckets.is_sorted_by(|a, b| a.1 <= b.1), "{name}: {buckets:?}");
        let last = buckets.last().unwrap();
        assert_eq!((last.0, last.1), (f64::INFINITY, value(&format!("{name}_count"), &[])));
    }
    promtool(&text);

    mount.sh("w1", "echo one > shared").ok();
    mount.sh("w2", "echo two > shared").refused("busy");
    // No event records a refused change. It shows within a second.
    until("the refused change is counted", || {
        let families = parsed(&mount.read("metrics.prom"));
        families["crewfs_refused_changes_total"].samples.values().sum::<f64>() == 1.0
    });
    mount.stop();
}

/// Prometheus' own check of the text, where its tool is installed.
fn promtool(text: &str) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut tool) = command.spawn() else {
        return eprintln!(
            "promtool was not asked: it is not installed (it is in Debian's package prometheus)"
        );
    };
    tool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = tool.wait_with_output().unwrap();
    assert!(said.status.success() && said.stderr.is_empty(), "{}", String::from_utf8_lossy(&said.stderr));
}
