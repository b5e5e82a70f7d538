//! A headless browser, controlled through its debugging pipe.
//!
//! Must never: leave a process behind.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::process::{LIMIT, run, within};

/// A browser that shows one page.
pub(crate) struct Browser {
    child: Child,
    orders: File,
    answers: BufReader<File>,
    asked: u64,
    session: String,
    /// The errors that the page has reported.
    pub(crate) complaints: Vec<String>,
}

impl Browser {
    /// Start a browser. It keeps its files below `room`.
    pub(crate) fn start(room: &Path) -> Browser {
        let (orders, answers) = (room.join("browser.orders"), room.join("browser.answers"));
        let mut make = Command::new("mkfifo");
        make.args([&orders, &answers]);
        run(make).ok();
        // It reads commands from descriptor 3 and answers on 4. The time limit applies if the test does not end it.
        let script = r#"exec timeout -k 5 120 chromium --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage \
            --no-first-run --disable-background-networking --user-data-dir="$2" --remote-debugging-pipe about:blank 3<"$0" 4>"$1""#;
        let mut command = Command::new("sh");
        command.args(["-c", script]).args([&orders, &answers, &room.join("browser")]);
        command.env_remove("CREWFS_WORKER").env("HOME", room);
        let silent =
            || Stdio::from(File::options().create(true).append(true).open(room.join("browser.log")).unwrap());
        let child = command.stdin(Stdio::null()).stdout(silent()).stderr(silent()).spawn().unwrap();
        let orders = File::options().write(true).open(orders).unwrap();
        let answers = BufReader::new(File::open(answers).unwrap());
        let mut browser =
            Browser { child, orders, answers, asked: 0, session: String::new(), complaints: Vec::new() };
        let target = browser.ask("Target.createTarget", json!({ "url": "about:blank" }));
        let attached =
            browser.ask("Target.attachToTarget", json!({ "targetId": target["targetId"], "flatten": true }));
        browser.session = attached["sessionId"].as_str().unwrap().into();
        for domain in ["Page", "Runtime", "Log"] {
            browser.ask(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Call a method, and wait for the answer.
    pub(crate) fn ask(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        let mut order = json!({ "id": self.asked, "method": method, "params": params });
        if !self.session.is_empty() {
            order["sessionId"] = self.session.as_str().into();
        }
        self.orders.write_all(format!("{order}\0").as_bytes()).unwrap();
        loop {
            let mut answer = Vec::new();
            self.answers.read_until(0, &mut answer).unwrap();
            assert_eq!(answer.pop(), Some(0), "the browser ended");
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            if answer["id"] == self.asked {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            let said = ["Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"];
            if said.iter().any(|said| answer["method"] == *said) {
                self.complaints.push(answer.to_string());
            }
        }
    }

    /// Open a file, as a user does.
    pub(crate) fn open(&mut self, file: &Path) {
        self.ask("Page.navigate", json!({ "url": format!("file://{}", file.display()) }));
    }

    /// Set the size of the window.
    pub(crate) fn resize(&mut self, width: u32, height: u32) {
        let metrics =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.ask("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// The value of an expression in the page; null if it fails.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        self.ask("Runtime.evaluate", params)["result"]["value"].clone()
    }

    /// The text of the element that a selector finds.
    pub(crate) fn text(&mut self, selector: &str) -> String {
        let text = self.value(&format!("document.querySelector({selector:?})?.innerText"));
        text.as_str().unwrap_or_default().to_string()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.orders.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        if !within(LIMIT, || self.child.try_wait().is_ok_and(|ended| ended.is_some())) {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        }
        let _ = self.child.wait();
    }
}
