//! A log that fails on demand, and that a test can read while an engine uses it.

use std::collections::VecDeque;
use std::sync::Arc;

use crewfs::log::{Log, LogError, LogReader, Tail};
use crewfs::queue::{Event, Record, Seq};
use parking_lot::{Condvar, Mutex};

/// The fault of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An I/O error; nothing is written.
    Before,
    /// An I/O error, although everything is written.
    After,
    /// The disk is full.
    Full,
    /// Another writer appends first.
    Race,
}

#[derive(Default)]
struct Plan {
    faults: VecDeque<Fault>,
    /// Every append gets this fault until the test resets it.
    always: Option<Fault>,
    reopen_fails: bool,
    /// Appends wait until this is false.
    held: bool,
    /// Reads beside the writer wait until this is false. `reads_waiting` counts them.
    reads_held: bool,
    reads_waiting: usize,
    /// The number of events of each batch that reached the disk, failed batches included.
    batches: Vec<usize>,
    /// The positions after which events were read.
    reads: Vec<Seq>,
}

/// The test's end of a [`FaultLog`].
#[derive(Clone)]
pub struct Control {
    log: Arc<Mutex<Box<dyn Log>>>,
    plan: Arc<(Mutex<Plan>, Condvar)>,
}

impl Control {
    pub fn new(log: impl Log + 'static) -> Control {
        Control { log: Arc::new(Mutex::new(Box::new(log))), plan: Arc::default() }
    }

    /// The log for one engine. A second log stands for a restart on the same disk.
    pub fn log(&self) -> Box<dyn Log> {
        let tail = self.log.lock().tail();
        Box::new(FaultLog { control: self.clone(), failed: false, tail })
    }

    pub fn fail_next(&self, faults: &[Fault]) {
        self.plan.0.lock().faults.extend(faults);
    }

    pub fn fail_always(&self, fault: Option<Fault>) {
        self.plan.0.lock().always = fault;
    }

    pub fn reopen_fails(&self, fails: bool) {
        self.plan.0.lock().reopen_fails = fails;
    }

    /// Make appends wait, or let them go on.
    pub fn hold(&self, held: bool) {
        self.plan.0.lock().held = held;
        self.plan.1.notify_all();
    }

    /// Make reads beside the writer wait, or let them go on.
    pub fn hold_reads(&self, held: bool) {
        self.plan.0.lock().reads_held = held;
        self.plan.1.notify_all();
    }

    /// Wait until a read beside the writer waits.
    pub fn await_held_read(&self) {
        let mut plan = self.plan.0.lock();
        while plan.reads_waiting == 0 {
            self.plan.1.wait(&mut plan);
        }
    }

    /// Wait until this many batches have reached the disk.
    pub fn await_batches(&self, count: usize) {
        let mut plan = self.plan.0.lock();
        while plan.batches.len() < count {
            self.plan.1.wait(&mut plan);
        }
    }

    pub fn batches(&self) -> Vec<usize> {
        self.plan.0.lock().batches.clone()
    }

    pub fn reads(&self) -> Vec<Seq> {
        self.plan.0.lock().reads.clone()
    }

    /// All records of the log.
    pub fn records(&self) -> Vec<Record> {
        self.log.lock().read(0, usize::MAX >> 1).unwrap()
    }

    /// Append an event, as another writer does.
    pub fn append_first(&self, event: Event) {
        let mut log = self.log.lock();
        let seq = log.tail().seq;
        log.append(seq, &[Record { seq: seq + 1, at: Default::default(), event }]).unwrap();
    }

    /// Replace this log by another one without the engine's knowledge.
    pub fn replace(&self, log: impl Log + 'static) {
        *self.log.lock() = Box::new(log);
    }
}

struct FaultLog {
    control: Control,
    /// As the trait demands: after an error, every call fails until the log is reopened.
    failed: bool,
    tail: Tail,
}

impl FaultLog {
    fn check(&self) -> Result<(), LogError> {
        if self.failed { Err(LogError::Io("still broken".into())) } else { Ok(()) }
    }

    /// Wait while appends are held; then return the fault of this append.
    fn fault(&self, events: usize) -> Option<Fault> {
        let (plan, changed) = &*self.control.plan;
        let mut plan = plan.lock();
        plan.batches.push(events);
        changed.notify_all();
        while plan.held {
            changed.wait(&mut plan);
        }
        plan.faults.pop_front().or(plan.always)
    }
}

impl Log for FaultLog {
    fn tail(&self) -> Tail {
        self.tail
    }

    fn append(&mut self, expected: Seq, batch: &[Record]) -> Result<Tail, LogError> {
        self.check()?;
        let fault = self.fault(batch.len());
        let mut log = self.control.log.lock();
        let appended = match fault {
            Some(Fault::Before) => Err(LogError::Io("before".into())),
            Some(Fault::After) => log.append(expected, batch).and(Err(LogError::Io("after".into()))),
            Some(Fault::Full) => return Err(LogError::Full),
            Some(Fault::Race) => {
                let event = Event::Joined { worker: crate::worker("rival"), uid: 1 };
                let at = batch.first().map_or_else(Default::default, |record| record.at);
                log.append(expected, &[Record { seq: expected + 1, at, event }])?;
                log.append(expected, batch)
            }
            None => log.append(expected, batch),
        };
        match appended {
            Ok(tail) => self.tail = tail,
            Err(LogError::Conflict { tail, .. }) => self.tail = tail,
            Err(_) => self.failed = true,
        }
        appended
    }

    fn read(&mut self, after: Seq, limit: usize) -> Result<Vec<Record>, LogError> {
        self.check()?;
        self.control.plan.0.lock().reads.push(after);
        let mut log = self.control.log.lock();
        let records = log.read(after, limit)?;
        // Another engine may have appended since the conflict that named the tail. This read has seen that.
        if records.last().is_some_and(|last| last.seq > self.tail.seq) {
            self.tail = log.tail();
        }
        Ok(records)
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        Arc::new(FaultReader(self.control.clone()))
    }

    fn texts(&mut self, after: Seq, limit: usize) -> Result<Vec<Seq>, LogError> {
        self.check()?;
        self.control.log.lock().texts(after, limit)
    }

    fn drop_texts(&mut self, of: &[Seq]) -> Result<(), LogError> {
        self.check()?;
        self.control.log.lock().drop_texts(of)
    }

    fn reopen(&mut self) -> Result<Tail, LogError> {
        if self.control.plan.0.lock().reopen_fails {
            return Err(LogError::Io("cannot be opened".into()));
        }
        let mut log = self.control.log.lock();
        self.tail = log.reopen()?;
        self.failed = false;
        Ok(self.tail)
    }

    fn idle(&mut self) -> Result<(), LogError> {
        self.check()?;
        self.control.log.lock().idle()
    }
}

/// Reads the log that the control has at the time of the read.
struct FaultReader(Control);

impl FaultReader {
    fn wait(&self) {
        let (plan, changed) = &*self.0.plan;
        let mut plan = plan.lock();
        plan.reads_waiting += 1;
        changed.notify_all();
        while plan.reads_held {
            changed.wait(&mut plan);
        }
        plan.reads_waiting -= 1;
    }
}

impl LogReader for FaultReader {
    fn read_lines(&self, offset: u64, length: usize) -> Result<(u64, Vec<u8>), LogError> {
        self.wait();
        let reader = self.0.log.lock().reader();
        reader.read_lines(offset, length)
    }

    fn text(&self, seq: Seq) -> Result<Option<Vec<u8>>, LogError> {
        self.wait();
        let reader = self.0.log.lock().reader();
        reader.text(seq)
    }
}
