//! A new user follows the setup guide from its first command to its last, on a server and on a worker's machine. The two machines share
//! only a network link. Each command is typed as it is on the page, and must print the output below it.

use std::fs;

use crate::machine::{Machine, machine};

const PAGE: &str = include_str!("../../docs/setup-guide.md");
/// The value of `SERVER` on the page.
const SERVER: &str = "server.example";
/// The user on the worker's machine.
const USER: &str = "agent";

/// Makes as much of the result of `mount-scripts/package.sh` as the page needs. It lies on the disk, because other directories of a
/// machine are in memory.
pub(crate) const TARBALL: &str = "
mkdir /srv/.made; cd /srv/.made; name=crewfs-0-$(uname -m)-linux; scripts=/opt/crewfs/mount-scripts
mkdir -p $name/bin $name/sbin $name/lib/systemd/system $name/share/crewfs
cp /opt/crewfs/crewfs $name/bin
cp $scripts/mount.crewfs $name/sbin
cp $scripts/umount.crewfs $name/sbin/umount.fuse.crewfs
cp $scripts/crewfs@.service $name/lib/systemd/system
cp -r $scripts $scripts/tarball/install.sh $scripts/debian/postinst $scripts/debian/prerm $name/share/crewfs
ln -s share/crewfs/install.sh $name
tar -cf $name.tar.gz $name
rm -r $name
ln -s /srv/.made/$name.tar.gz ~";

/// A block of commands, and the output that the page shows for them.
struct Step {
    /// The heading above, which names the machine and whether root types the commands.
    at: &'static str,
    commands: &'static str,
    prints: &'static str,
}

fn steps() -> Vec<Step> {
    let sections = PAGE.split("\n## ").skip(1).map(|section| section.split_once('\n').unwrap());
    let steps = sections.flat_map(|(at, text)| {
        text.split("```sh\n").skip(1).map(move |block| {
            let (commands, rest) = block.split_once("```").unwrap();
            let below = rest.trim_start().strip_prefix("```text\n");
            Step { at, commands, prints: below.map_or("", |below| below.split("```").next().unwrap()) }
        })
    });
    let steps: Vec<Step> = steps.collect();
    let below = steps.iter().filter(|step| !step.prints.is_empty()).count();
    assert_eq!(below, PAGE.matches("```text").count(), "each output stands right below its command");
    steps
}

/// The number of commands in a block. A here-document belongs to its command.
fn count(commands: &str) -> usize {
    let mut lines = commands.lines();
    let mut count = 0;
    while let Some(line) = lines.next() {
        count += 1;
        if let Some((_, end)) = line.split_once("<<") {
            lines.find(|line| *line == end.trim_matches('\'')).unwrap();
        }
    }
    count
}

/// Whether a text matches the page, where `…` stands for any text.
fn fits(page: &str, text: &str) -> bool {
    let Some((first, rest)) = page.split_once('…') else { return page == text };
    let Some(text) = text.strip_prefix(first) else { return false };
    (0..=text.len()).filter(|at| text.is_char_boundary(*at)).any(|at| fits(rest, &text[at..]))
}

/// The commands to type. A line with `…` is replaced by the line of this form that was printed before.
fn typed(commands: &str, printed: &str) -> String {
    let line = |line: &str| match line.contains('…') {
        true => printed.lines().map(str::trim).find(|printed| fits(line, printed)).map(String::from),
        false => Some(line.to_string()),
    };
    let lines =
        commands.lines().map(|on_page| line(on_page).unwrap_or_else(|| panic!("{on_page:?} in {printed}")));
    lines.collect::<Vec<_>>().join("\n")
}

/// A user's terminal on one machine.
struct Seat<'a> {
    machine: &'a Machine,
    user: &'static str,
}

impl Seat<'_> {
    /// Type commands in a shell that starts in the directory of the last one. Returns the output.
    #[track_caller]
    fn types(&self, commands: &str) -> String {
        let script =
            format!("set -e\ncd \"$(cat ~/.where 2>/dev/null || pwd)\"\n{commands}\npwd >~/.where\n");
        fs::write(self.machine.srv().join(".typed"), script).unwrap();
        let mut ran = self.machine.run(&format!("runuser -l {} -c '. /srv/.typed' 2>&1", self.user));
        ran.what = commands.to_string();
        ran.ok()
    }
}

#[test]
fn the_guide_leads_from_nothing_to_a_worker_on_another_machine() {
    let (server, other) = (machine!(Booted), machine!(Bare));
    server.join("10.99.0.1/30", &other, "10.99.0.2/30");
    server.ok(&format!("hostname {SERVER}"));
    // Stands for a name service.
    other.ok(&format!("echo '10.99.0.1 {SERVER}' >>/etc/hosts; useradd -m {USER}"));
    // The server gets the tarball with the program under test; the other machine gets its scripts.
    server.ok(TARBALL);
    other.ok(&format!("cd ~{USER}; cp -r /opt/crewfs/mount-scripts .; chown -R {USER}: ."));
    let root = Seat { machine: &server, user: "root" };
    let (other_root, worker) = (Seat { machine: &other, user: "root" }, Seat { machine: &other, user: USER });

    let (mut printed, mut on_server, mut on_other) = (String::new(), 0, 0);
    for Step { at, commands, prints } in steps() {
        let (seat, counter) = match at.split_once(':').unwrap().0 {
            "On the server" => (&root, &mut on_server),
            "On the worker's machine, as root" => (&other_root, &mut on_other),
            "On the worker's machine" => (&worker, &mut on_other),
            _ => panic!("who does this: {at}"),
        };
        *counter += count(commands);
        if commands.contains("add-worker.sh") {
            // The values that the reader carries from one machine to the other.
            let key = worker.types("cat ~/.ssh/worker-1.pub");
            fs::write(server.srv().join("worker-1.pub"), key).unwrap();
            root.types("mv /srv/worker-1.pub .");
        }
        if commands.starts_with("cat /srv/demo/tasks/completed/") {
            // sshfs reports a result as written before the server has it.
            server.until("test -s /srv/demo/tasks/completed/login");
        }
        let said = seat.types(&typed(&commands.replace("SERVER", SERVER), &printed));
        assert!(
            fits(&prints.replace("SERVER", SERVER), &said),
            "{commands}\nprinted\n{said}and on the page it is\n{prints}"
        );
        printed += &said;
    }
    let counted = format!("{on_server} commands on the server and {on_other} on the worker's machine");
    assert!(PAGE.contains(&counted), "the page does not say that it takes {counted}");
    // No mount is left, and the result is that worker's.
    assert_eq!(other.run("findmnt -n -t fuse.sshfs").stdout, "");
    let status = server.ok("cat /srv/demo/tasks/status/login");
    assert!(status.contains("\"worker\": \"worker-1\"") && status.contains("completed"), "{status}");
}
