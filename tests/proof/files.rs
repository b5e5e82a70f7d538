//! The file of a task is edited, moved, removed and restored in every way that editors and git use, while two workers and an operator
//! use the queue. A model that shares no code with the program predicts the state after each step (C14, C16, C28).
//!
//! The seeds of the steps are fixed; `CREWFS_PROOF_SEED` chooses another one, `CREWFS_FILES_STEPS` sets more steps.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::files_model::{Content, DEP, IDS, Model, OPERATOR, Phase, other_name};
use crate::harness::{Mounted, Project, project};
use crate::lines::Client;
use crate::process::{until, within};
use crate::random::{Random, number};

const SEEDS: [u64; 3] = [1, 2, 3];
const STEPS: u64 = 400;
/// No task is withdrawn before the test ends the grace.
const LONG_GRACE: &str = "file_grace=1h";
const NO_GRACE: &str = "file_grace=1ms";

/// Executes commands, one a line, and answers each with `ok` or the name of an error.
const CLIENT: &str = r#"
import errno, os, sys
def put(path, text, flags):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o644)
    try:
        if text: os.write(fd, text.encode())
    finally: os.close(fd)
def do(what, path, other=''):
    if what == 'write': put(path, other.replace('|', '\n'), os.O_TRUNC)
    elif what == 'replace': put(path + '.new', other.replace('|', '\n'), os.O_TRUNC); os.rename(path + '.new', path)
    elif what == 'link': put(path + '.new', other.replace('|', '\n'), os.O_TRUNC); os.link(path + '.new', path); os.unlink(path + '.new')
    elif what == 'make': put(path, '', os.O_EXCL)
    elif what == 'rename': os.rename(path, other)
    elif what == 'unlink': os.unlink(path)
    elif what == 'unlinked': os.unlink(path); put(path, other.replace('|', '\n'), os.O_EXCL)
for line in sys.stdin:
    try: do(*line.rstrip('\n').split('\t')); print('ok', flush=True)
    except OSError as error: print(errno.errorcode[error.errno], flush=True)
"#;

impl Client {
    fn start(worker: &str) -> Client {
        // The operator's shell has no ancestors outside the test, so that no agent program that runs the tests gives it a worker name.
        const ORPHAN: &str = r#"exec 3<&0; sh -c 'while read -r _ _ _ parent _ < /proc/self/stat; [ "$parent" = "$0" ]; do :; done
            exec python3 -c "$1" <&3' $$ "$1" &"#;
        let mut command = Command::new(if worker == OPERATOR { "sh" } else { "python3" });
        match worker {
            OPERATOR => command.args(["-c", ORPHAN, "operator", CLIENT]).env_remove("CREWFS_WORKER"),
            name => command.args(["-c", CLIENT]).env("CREWFS_WORKER", name),
        };
        Client::of(command)
    }

    /// A shell whose descriptor 3 is the file.
    fn writer(mounted: &Mounted, open: &str) -> Client {
        let mut command = Command::new("bash");
        command.args([
            "-c",
            "eval \"$1\" && echo ok; while read -r step; do eval \"$step\"; echo ok; done",
            "",
            open,
        ]);
        command.env("CREWFS_WORKER", "scribe").current_dir(mounted.path());
        let mut writer = Client::of(command);
        assert_eq!(writer.answer().as_deref(), Some("ok"), "{open}");
        writer
    }

    fn end(mut self, code: u32) {
        self.tell(&format!("exit {code}"));
        until("the writer ends", || self.child.try_wait().unwrap().is_some());
    }
}

struct Run {
    mounted: Option<Mounted>,
    project: Project,
    clients: BTreeMap<&'static str, Client>,
    /// By file number: the writer, and whether it writes the new content before it closes the file.
    writers: BTreeMap<usize, (Client, bool)>,
    model: Model,
    random: Random,
    steps: Vec<String>,
}

impl Run {
    fn mounted(&self) -> &Mounted {
        self.mounted.as_ref().unwrap()
    }

    fn file(&self, name: &str) -> String {
        self.mounted().desk(name).display().to_string()
    }

    /// Let a client execute a command, and assert that the answer is the one that the model predicts.
    fn ask(&mut self, who: &'static str, words: &[&str], expected: &str) {
        let told = self.clients.get_mut(who).unwrap().ask(&words.join("\t"));
        let told = told.unwrap_or_else(|how| panic!("{who} {how}\n{}", self.history()));
        self.steps.push(format!(
            "{who}: {} -> {told}",
            words.join(" ").replace(&*self.mounted().tasks().display().to_string(), "")
        ));
        assert_eq!(told, expected, "the model says otherwise\n{}", self.history());
    }

    fn history(&self) -> String {
        let from = self.steps.len().saturating_sub(40);
        format!("{}\n{:?}", self.steps[from..].join("\n"), self.model)
    }

    /// The differences between the mount and the model.
    fn differences(&mut self) -> Vec<String> {
        let queue = self.mounted().json("queue.json");
        let mut found = Vec::new();
        let ids: BTreeSet<String> =
            queue.as_object().unwrap().keys().cloned().chain(self.model.ids()).collect();
        for id in ids {
            let told = &queue[&id];
            let Some(expected) = self.model.expected(&id) else {
                found.push(format!("{id} should not be: {told}"));
                continue;
            };
            for (key, value) in expected {
                if told[key] != value {
                    found.push(format!("{id}: {key} is {}, not {value}", told[key]));
                }
            }
            if found.is_empty() && !told.is_null() {
                let lost = told["lost_claims"].as_array().map_or(0, Vec::len);
                found.extend(self.model.remember(&id, &told["published"], lost));
            }
        }
        found
    }

    fn agree(&mut self) {
        let mut found = Vec::new();
        let agree = within(std::time::Duration::from_secs(10), || {
            found = self.differences();
            found.is_empty()
        });
        assert!(agree, "{}\n{found:#?}", self.history());
        for id in IDS {
            let Some(Value::String(state)) = self.model.expected(id).map(|e| e["status"].clone()) else {
                continue;
            };
            let directory = if state == "claimed" { "claim" } else { &state };
            assert!(
                self.mounted().desk(directory).join(id).exists(),
                "{id} is not in {directory}\n{}",
                self.history()
            );
        }
    }

    fn close_all(&mut self) {
        for (file, (writer, _)) in std::mem::take(&mut self.writers) {
            self.steps.push(format!("file {file} is closed"));
            writer.end(0);
            self.model.closed(file, false, false);
        }
        self.agree();
    }

    fn mount_again(&mut self, kill: bool, beneath: bool, option: &str) {
        self.steps.push(format!("mounted again: kill {kill}, {option}"));
        let mut mounted = self.mounted.take().unwrap();
        if kill {
            mounted.kill9()
        } else {
            mounted.stop()
        }
        drop(mounted);
        self.model.asleep = true;
        if beneath {
            (0..1 + self.random.below(3)).for_each(|_| self.beneath());
        }
        self.mounted = Some(self.project.mount(&[option]));
        self.model.asleep = false;
        self.model.look();
    }

    fn text(&mut self) -> (String, Content) {
        self.model.new_text(self.random.once_in(6))
    }

    /// Make a change beneath the mount.
    fn beneath(&mut self) {
        let id = self.random.one_of(&IDS);
        let (text, content) = self.text();
        let (file, aside) =
            (self.project.tasks().join(format!("{id}.md")), self.project.tasks().join(other_name(id)));
        let text = text.replace('|', "\n");
        let what = self.random.below(5);
        self.steps.push(format!("beneath: {what} {id} {content:?}"));
        match what {
            0 if self.model.is_quiet(id) => {
                fs::write(file, text).unwrap();
                self.model.write(id, content);
            }
            1 if self.model.may_move(id) && self.model.has(id) => {
                fs::rename(file, aside).unwrap();
                self.model.aside(id);
            }
            2 if self.model.has_aside(id) => {
                fs::rename(aside, file).unwrap();
                self.model.back(id);
            }
            3 if self.model.has(id) => {
                fs::remove_file(file).unwrap();
                self.model.unlink(id);
            }
            _ => {
                self.project.task(id, &text);
                self.model.replace(id, content);
            }
        }
    }

    fn step(&mut self) {
        let id = self.random.one_of(&IDS);
        let who = self.random.one_of(&["w1", "w2", OPERATOR]);
        let (name, aside) = (self.file(&format!("{id}.md")), self.file(&other_name(id)));
        let taken = if self.model.may_take_away(id, who) { "ok" } else { "EBUSY" };
        match self.random.below(34) {
            0 | 1 => {
                let (text, content) = self.text();
                self.ask(who, &["write", &name, &text], "ok");
                self.model.write(id, content);
            }
            2 | 3 => {
                let (text, content) = self.text();
                self.ask(who, &["replace", &name, &text], "ok");
                self.model.replace(id, content);
            }
            4 if !self.model.has(id) => {
                let (text, content) = self.text();
                self.ask(who, &["link", &name, &text], "ok");
                self.model.replace(id, content);
            }
            5 | 6 if self.model.has(id) && self.model.may_move(id) => {
                self.ask(who, &["rename", &name, &aside], taken);
                if taken == "ok" {
                    self.model.aside(id);
                }
            }
            7 | 8 if self.model.has_aside(id) => {
                self.ask(who, &["rename", &aside, &name], "ok");
                self.model.back(id);
            }
            9 if self.model.has(id) => {
                self.ask(who, &["unlink", &name], taken);
                if taken == "ok" {
                    self.model.unlink(id);
                }
            }
            10 if self.model.has(id) => {
                let (text, content) = self.text();
                self.ask(who, &["unlinked", &name, &text], taken);
                if taken == "ok" {
                    self.model.unlink(id);
                    self.model.replace(id, content);
                }
            }
            11 if self.model.has(id) && self.model.may_move(id) => {
                let to = self.random.one_of(&IDS);
                if to != id {
                    self.ask(who, &["rename", &name, &self.file(&format!("{to}.md"))], taken);
                    if taken == "ok" {
                        self.model.rename(id, to);
                    }
                }
            }
            12..=15 => self.open_writer(id),
            16..=18 if !self.writers.is_empty() => self.close_writer(),
            19..=22 => {
                let text = self.random.once_in(3);
                let expected = self.model.claim(id, who, text);
                let what = if text { "write" } else { "make" };
                self.ask(
                    who,
                    &[what, &self.file(&format!("claim/{id}")), if text { "note" } else { "" }],
                    expected,
                );
            }
            23..=25 => {
                let phase = if self.random.once_in(3) { Phase::Failed } else { Phase::Completed };
                let text = format!("by {who}, {}", self.steps.len());
                let expected = self.model.finish(id, who, phase, &text);
                let entry = self.file(&format!("{}/{id}", phase.directory()));
                self.ask(who, &["write", &entry, &text], expected);
            }
            26 => {
                let expected = self.model.release(id, who);
                self.ask(who, &["unlink", &self.file(&format!("claim/{id}"))], expected);
            }
            27 | 28 => {
                let phase = if self.random.once_in(3) { Phase::Failed } else { Phase::Completed };
                let (from, to) = (format!("{}/{id}", phase.directory()), format!("ready/{id}"));
                let expected = self.model.retry(id, phase);
                self.ask(who, &["rename", &self.file(&from), &self.file(&to)], expected);
            }
            29 => {
                let phase = if self.random.once_in(3) { Phase::Failed } else { Phase::Completed };
                let expected = self.model.forget(id, who, phase);
                self.ask(who, &["unlink", &self.file(&format!("{}/{id}", phase.directory()))], expected);
            }
            30 | 31 => self.beneath(),
            32 if self.random.once_in(3) => {
                self.close_all();
                let (kill, beneath) = (self.random.once_in(2), self.random.once_in(2));
                self.mount_again(kill, beneath, LONG_GRACE);
            }
            33 if self.random.once_in(3) => {
                // The grace has ended.
                self.close_all();
                self.mount_again(false, false, NO_GRACE);
                self.model.expire();
                self.agree();
                self.mount_again(self.steps.len().is_multiple_of(2), true, LONG_GRACE);
            }
            _ => return,
        }
        self.agree();
    }

    fn open_writer(&mut self, id: &str) {
        if self.model.file(id).is_some_and(|file| self.writers.contains_key(&file)) || self.writers.len() > 1
        {
            return;
        }
        let (text, content) = self.text();
        let has = self.model.has(id);
        let (how, wrote) = match self.random.below(4) {
            0 => (format!("exec 3>> tasks/{id}.md; echo more >&3"), true),
            1 if has => (format!("exec 3<> tasks/{id}.md"), false),
            2 if has => (format!("exec 3>> tasks/{id}.md"), false),
            _ => (format!("exec 3> tasks/{id}.md; printf -- '{}' >&3", text.replace('|', "\\n")), true),
        };
        self.steps.push(format!("opened: {how}"));
        let writer = Client::writer(self.mounted(), &how);
        let content = if how.contains(">>") || how.contains("<>") { None } else { Some(content) };
        let file = self.model.opened(id, content);
        self.writers.insert(file, (writer, wrote));
    }

    fn close_writer(&mut self) {
        let files: Vec<usize> = self.writers.keys().copied().collect();
        let file = self.random.one_of(&files);
        let (mut writer, wrote) = self.writers.remove(&file).unwrap();
        let kill = self.random.once_in(2);
        // A killed writer tears a file only under a task's name; without such a name there is no task to report it.
        let kill = kill && self.model.is_named(file);
        self.steps.push(format!("closed: file {file}, kill {kill}, wrote {wrote}"));
        if kill {
            writer.child.kill().unwrap();
            writer.child.wait().unwrap();
        } else {
            writer.end(self.random.below(2) as u32 * 3);
        }
        self.model.closed(file, kill, wrote);
    }
}

fn run(seed: u64) {
    let project = project!();
    println!("CREWFS_PROOF_SEED={seed}");
    let mut model = Model::default();
    for id in IDS {
        let (text, content) = model.new_text(false);
        project.task(id, &text.replace('|', "\n"));
        model.replace(id, content);
    }
    project.task(DEP, &format!("---\nneeds: [{}]\n---\n", IDS[0]));
    let mounted = Some(project.mount(&[LONG_GRACE]));
    let clients = ["w1", "w2", OPERATOR].into_iter().map(|who| (who, Client::start(who))).collect();
    let (writers, random, steps) = (BTreeMap::new(), Random::new(seed), Vec::new());
    let mut run = Run { mounted, project, clients, writers, model, random, steps };
    run.agree();
    let count = number("CREWFS_FILES_STEPS").unwrap_or(STEPS);
    (0..count).for_each(|_| run.step());
    run.close_all();
    run.mount_again(true, false, LONG_GRACE);
    run.agree();
    println!("seed {seed}: {} steps", run.steps.len());
    run.mounted.take().unwrap().stop();
}

#[test]
fn c14_tasks_are_what_the_model_says_whatever_becomes_of_their_files() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: this test needs root");
    }
    match number("CREWFS_PROOF_SEED") {
        Some(seed) => run(seed),
        None => SEEDS.into_iter().for_each(run),
    }
}
