//! Changes of the tree: a worker must read another worker's change before it changes the file (C54).

use crewfs::fs::{Filesystem, Ino, ROOT};
use crewfs::log::MemoryLog;

use crate::fault::Control;
use crate::kernel::{Machine, Process};

fn machine(text: &str) -> Machine {
    Machine::new(&Control::new(MemoryLog::default()), &[("a.rs", text)])
}

impl Machine {
    fn write(&self, by: &Process, ino: Ino, offset: u64, text: &str) -> Result<u32, i32> {
        let flags = libc::O_WRONLY;
        let write = self.ask(by, |req, reply| {
            self.tree.write(req, ino, 0, offset, text.as_bytes(), flags, false, reply);
        });
        write.get().map_err(|error| error.errno())
    }

    /// open(2) and read(2) of a file whose pages are not cached: LOOKUP, GETATTR, READ.
    fn read(&self, by: &Process, name: &str) -> String {
        let ino = self.lookup(&*self.tree, by, ROOT, name).unwrap().attr.ino;
        self.ask(by, |req, reply| self.tree.getattr(req, ino, None, reply)).get().unwrap();
        let read = self.ask(by, |req, reply| self.tree.read(req, ino, 0, 0, 4096, libc::O_RDONLY, reply));
        String::from_utf8(read.get().unwrap()).unwrap()
    }
}

#[test]
fn a_change_of_what_another_worker_wrote_needs_a_read_first() {
    let machine = machine("old\n");
    let (w1, w2) = (Process::of("w1"), Process::of("w2"));
    let ino = machine.lookup(&*machine.tree, &w1, ROOT, "a.rs").unwrap().attr.ino;
    assert_eq!(machine.write(&w1, ino, 0, "one\n"), Ok(4));
    let refused = machine.write(&w2, ino, 0, "two\n").unwrap_err();
    assert!(
        [libc::EACCES, libc::EPERM, libc::ESTALE, libc::EBUSY, libc::EAGAIN].contains(&refused),
        "{refused}"
    );
    assert_eq!(std::fs::read_to_string(machine.project.path().join("a.rs")).unwrap(), "one\n");
    // The worker that made the change goes on.
    assert_eq!(machine.write(&w1, ino, 0, "uno\n"), Ok(4));
}

#[test]
fn a_worker_that_has_not_read_a_change_gets_the_content_from_the_disk() {
    let machine = machine("old\n");
    let (w1, w2) = (Process::of("w1"), Process::of("w2"));
    assert_eq!(machine.read(&w2, "a.rs"), "old\n");
    let ino = machine.lookup(&*machine.tree, &w1, ROOT, "a.rs").unwrap().attr.ino;
    assert_eq!(machine.write(&w1, ino, 0, "one\n"), Ok(4));
    machine.forgotten.0.lock().clear();
    // The open requests the attributes, which are cached for no time. The tree drops the kernel's pages before it answers.
    assert_eq!(machine.read(&w2, "a.rs"), "one\n");
    assert!(machine.forgotten.0.lock().contains(&("content", ino)));
}
