//! Another machine, as far as the network is concerned: a network namespace with a link to this one.
//!
//! May assume: root. Must never: change any network but its own.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::client::Worker;
use crate::process::run;

/// A network namespace. Dropping it removes it and its link.
pub(crate) struct Machine {
    name: String,
    /// The interface on this side of the link.
    near: String,
    /// The interface in the namespace.
    far: String,
    address: String,
}

/// Make another machine, or return from the test where that is not possible.
macro_rules! machine {
    () => {{
        crate::harness::as_root!();
        crate::sides::needs!("ip", "nsenter");
        crate::machine::Machine::new()
    }};
}
pub(crate) use machine;

impl Machine {
    pub(crate) fn new() -> Machine {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // The process id distinguishes the networks of tests that run at the same time.
        let net = format!("10.{}.{}.", process >> 8 & 0xff, process & 0xff);
        let machine = Machine {
            name: format!("crewfs-{process}-{count}"),
            near: format!("cf{process:x}n{count}"),
            far: format!("cf{process:x}f{count}"),
            address: format!("{net}{}", 4 * count + 1),
        };
        let Machine { name, near, far, address } = &machine;
        ip(&["netns", "add", name]);
        ip(&["link", "add", near, "type", "veth", "peer", "name", far, "netns", name]);
        ip(&["address", "add", &format!("{address}/30"), "dev", near]);
        ip(&["link", "set", near, "up"]);
        ip(&["-n", name, "address", "add", &format!("{net}{}/30", 4 * count + 2), "dev", far]);
        ip(&["-n", name, "link", "set", far, "up"]);
        machine
    }

    /// The worker, moved to this machine.
    pub(crate) fn with(&self, worker: &Worker) -> Worker {
        let enter = vec!["nsenter".into(), format!("--net=/run/netns/{}", self.name), "--".into()];
        Worker {
            remote: worker.remote.replace("@127.0.0.1:", &format!("@{}:", self.address)),
            enter,
            ..worker.clone()
        }
    }

    /// Take the link down at the namespace's end, or up again. This side gets no notice.
    pub(crate) fn cable(&self, state: &str) {
        ip(&["-n", &self.name, "link", "set", &self.far, state]);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Removing one end of a link removes the other.
        for what in [["link", "del", &self.near], ["netns", "del", &self.name]] {
            let _ = Command::new("ip").args(what).stderr(Stdio::null()).status();
        }
    }
}

fn ip(arguments: &[&str]) {
    let mut command = Command::new("ip");
    command.args(arguments);
    run(command).ok();
}
