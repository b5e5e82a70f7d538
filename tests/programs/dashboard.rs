//! The dashboard in a real browser, opened as a file of the mount while workers work.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::browser::Browser;
use crate::harness::Mounted;
use crate::process::{until, within};
use crate::sides::needs;

/// The longest time until the browser shows a change: the page refreshes every three seconds.
const SOON: Duration = Duration::from_secs(30);

fn project() -> Option<crate::harness::Project> {
    crate::harness::Project::lasting(Duration::from_secs(110))
}

/// The numbers on the page, which `queue.json` has too.
fn shown(browser: &mut Browser) -> [String; 3] {
    ["#numbers div:nth-child(1) dd", "#numbers div:nth-child(2) dd + dd", "#bar"].map(|selector| {
        match selector {
            "#bar" => {
                browser.value("document.querySelector('#bar')?.ariaLabel").as_str().unwrap_or_default().into()
            }
            selector => browser.text(selector),
        }
    })
}

fn expected(mount: &Mounted) -> [String; 3] {
    let queue = mount.json("queue.json");
    let tasks = queue.as_object().unwrap();
    let count = |state: &str| tasks.values().filter(|task| task["status"] == state).count();
    let order = ["completed", "claimed", "ready", "blocked", "failed", "rejected"];
    let parts: Vec<String> = order
        .iter()
        .filter(|state| count(state) > 0)
        .map(|state| format!("{} {state}", count(state)))
        .collect();
    [
        format!("{} of {}", count("completed"), tasks.len()),
        format!("{} claimed, {} ready, {} blocked", count("claimed"), count("ready"), count("blocked")),
        parts.join(", "),
    ]
}

#[test]
fn the_page_shows_what_queue_json_says_and_goes_on_by_itself() {
    needs!("chromium");
    let Some(project) = project() else { return };
    for n in 0..40 {
        project.task(&format!("t{n:02}"), &format!("# Task {n}\n"));
    }
    project.task("evil", "---\ntitle: </script><img src=x onerror=\"window.taken=1\">\n---\n");
    project.task("turned", "---\ntitle: \"a\\u202Eb\\x9Bc\\U000E0041d\"\n---\n");
    project.task("waits", "---\nneeds: [nowhere]\n---\n");
    let mut mount = project.mount(&[]);
    let mut browser = Browser::start(project.dir());
    browser.resize(1280, 800);
    browser.open(&mount.desk("dashboard.html"));
    until("the page is there", || shown(&mut browser) == expected(&mount));
    assert_eq!(browser.text("#name"), "mount");
    assert!(browser.text("#stuck").contains("nowhere"), "{}", browser.text("#stuck"));

    let spelled = r"a\u{202e}b\u{9b}c\u{e0041}d";
    assert!(browser.text("#tasks").contains(spelled), "{}", browser.text("#tasks"));

    // A user filters and scrolls. The test does not touch the page afterwards.
    let words = "const f = document.querySelector('#filter'); f.value = 't0'; f.dispatchEvent(new Event('input')); f.focus()";
    browser.value(words);
    browser.value("window.here = 1; scrollTo(0, 333)");
    let rows = "document.querySelectorAll('#tasks tr').length";
    assert_eq!(browser.value(rows), 10);
    for (n, worker) in ["w1", "w2", "w1"].into_iter().enumerate() {
        let done = format!("touch tasks/claim/t0{n} && echo '<b>well</b> done' > tasks/completed/t0{n}");
        mount.sh(worker, &done).ok();
    }
    mount.sh("w2", "touch tasks/claim/next && echo 'half <i>of it</i>' > tasks/claim/next").ok();
    assert!(within(SOON, || shown(&mut browser) == expected(&mount)), "{:?}", shown(&mut browser));
    assert!(browser.text("#workers").contains("half <i>of it</i>"), "{}", browser.text("#workers"));
    assert!(browser.text("#events").contains("noted"), "{}", browser.text("#events"));
    assert_eq!(
        browser.value(
            "[window.here, scrollY, document.activeElement.id, document.querySelector('#filter').value]"
        ),
        serde_json::json!([1, 333, "filter", "t0"]),
        "it stayed as it was"
    );
    assert_eq!(browser.value(rows), 10);

    assert_eq!(
        browser.value("[window.taken === undefined, document.images.length]"),
        serde_json::json!([true, 0])
    );
    browser.resize(360, 740);
    let fits = "document.documentElement.scrollWidth <= innerWidth";
    until("the page fits on a phone", || browser.value(fits) == Value::Bool(true));
    assert_eq!(browser.complaints, [""; 0]);
    mount.stop();
    let lost = "document.querySelector('#contact').className";
    assert!(within(SOON, || browser.value(lost) == "lost"), "it says that nobody answers");
    assert_eq!(shown(&mut browser)[0], "3 of 43", "and still shows what it knows");
}

#[test]
fn five_thousand_tasks_stay_usable() {
    needs!("chromium");
    let Some(project) = project() else { return };
    for n in 0..5_000 {
        let text = format!("---\ntitle: Convert report {n} to the new form\n---\nDo it.\n");
        fs::write(project.tasks().join(format!("task-{n:04}.md")), text).unwrap();
    }
    let mut mount = project.mount(&[]);
    let mut browser = Browser::start(project.dir());
    let page = mount.desk("dashboard.html");
    let looked = |name: &str| {
        // After an event, each view of the queue is computed again at its next read.
        mount.sh("w1", "touch tasks/claim/next && rm tasks/claim/next").ok();
        let start = std::time::Instant::now();
        fs::metadata(mount.desk(name)).unwrap();
        start.elapsed()
    };
    let [queue, summary, made] = ["queue.json", "summary.json", "dashboard.html"].map(looked);
    let size = fs::metadata(&page).unwrap().len();
    eprintln!(
        "5000 tasks: queue.json is made in {queue:.1?}, the summary in {summary:.1?}, the page in {made:.1?}"
    );
    browser.open(&page);
    until("the page is there", || shown(&mut browser) == expected(&mount));
    until("it is loaded", || {
        browser.value("performance.getEntriesByType('navigation')[0].loadEventEnd > 0") == true
    });
    let took = |value: Value| value.as_f64().unwrap_or(f64::NAN);
    let load = took(browser.value("performance.getEntriesByType('navigation')[0].loadEventEnd"));
    let typed = took(browser.value(
        "(() => { const t = performance.now(), f = document.querySelector('#filter'); f.value = 'task-42';
         f.dispatchEvent(new Event('input')); document.body.offsetHeight; return performance.now() - t; })()",
    ));
    let found = "document.querySelector('#tasks-count').textContent";
    assert_eq!(browser.value(found), "100 of 5000");
    eprintln!("5000 tasks: {} KiB, there after {load:.0} ms, a filter acts in {typed:.0} ms", size / 1024);
    assert!(load < 10_000.0 && typed < 1_000.0, "{load} {typed}");
    assert!(size < 2 << 20, "{size}");
    assert_eq!(browser.complaints, [""; 0]);
    mount.stop();
}
