//! A control group for one container. If two containers share a group, the systemd in each takes both for one machine: units of the
//! same name meet in the same group, and a unit that ends in one container takes the group from the other.
//!
//! Must never: leave a group behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where systemd tracks services: in the single hierarchy of current systems, or in the two of a hybrid system.
const TODAY: [(&str, &str); 1] = [("/sys/fs/cgroup", "0::")];
const BOTH: [(&str, &str); 2] =
    [("/sys/fs/cgroup/systemd", ":name=systemd:"), ("/sys/fs/cgroup/unified", "0::")];

/// The group, in each hierarchy. Dropping it removes the group, which must have no process any more.
pub(crate) struct Group(Vec<PathBuf>);

impl Group {
    /// A new group below that of this process.
    pub(crate) fn new(name: &str) -> Group {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let both = Path::new(BOTH[0].0).is_dir();
        let hierarchies = if both { &BOTH[..] } else { &TODAY[..] };
        let made = hierarchies.iter().filter_map(|(root, mark)| {
            let place = own.lines().find_map(|line| line.split_once(mark))?.1;
            let group = Path::new(root).join(place.trim_start_matches('/')).join(name);
            fs::create_dir(&group).unwrap_or_else(|error| panic!("{}: {error}", group.display()));
            Some(group)
        });
        Group(made.collect())
    }

    /// A command that enters the group and then executes this program.
    pub(crate) fn command(&self, program: &str) -> Command {
        const ENTER: &str =
            r#"while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs" || exit; shift; done; shift; exec "$@""#;
        let mut command = Command::new("sh");
        command.args(["-c", ENTER, "sh"]).args(&self.0).args(["--", program]);
        command
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.0.iter().for_each(|group| remove(group));
    }
}

/// Remove the groups below, then the group itself. Its files go with it.
fn remove(group: &Path) {
    for below in fs::read_dir(group).into_iter().flatten().flatten() {
        if below.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&below.path());
        }
    }
    if let Err(error) = fs::remove_dir(group) {
        eprintln!("{} stays: {error}", group.display());
    }
}
