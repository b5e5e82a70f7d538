//! Requests that wait until a process gives back its lease on a file (fcntl(2), F_SETLEASE).
//!
//! May assume: files are opened with O_NONBLOCK. If a process has a lease, the open fails with EAGAIN, and the kernel asks the holder
//! to give the lease back.
//! Must never: block a thread that serves the kernel, or park so many requests that the kernel has no room for others. The kernel
//! allows few read-ahead requests at a time (`MAX_BACKGROUND`), and a parked one is among them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::fs::{Fault, Result};
use crate::limits::{LEASE_WAIT_MS, LEASED_REQUESTS, LEASED_REQUESTS_OF_A_USER};

/// The pause between two rounds of attempts.
const ROUND: Duration = Duration::from_millis(5);

/// The requests that wait for leases.
#[derive(Default)]
pub struct Leases(Arc<Mutex<LeaseQueue>>);

#[derive(Default)]
struct LeaseQueue {
    /// Whether a thread retries the parked requests.
    has_thread: bool,
    parked: Vec<LeasedRequest>,
}

struct LeasedRequest {
    uid: u32,
    until: Instant,
    operation: Box<dyn Operation>,
}

/// Whether an operation failed because of a lease.
pub fn is_leased<T>(outcome: &Result<T>) -> bool {
    outcome.as_ref().is_err_and(|error| error.errno() == libc::EAGAIN)
}

impl Leases {
    /// Run `attempt` for a user, and repeat it while a lease blocks it. Then pass the result to `done`: EAGAIN if the lease was not given
    /// back in time, or if too many requests wait already. An attempt that fails with EAGAIN must have changed nothing.
    pub fn run<T: Send + 'static>(
        &self,
        uid: u32,
        mut attempt: impl FnMut() -> Result<T> + Send + 'static,
        done: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        let outcome = attempt();
        if is_leased(&outcome) { self.park(uid, attempt, done) } else { done(outcome) }
    }

    /// As [`Leases::run`], for an attempt that a lease has blocked already.
    pub fn park<T: Send + 'static>(
        &self,
        uid: u32,
        attempt: impl FnMut() -> Result<T> + Send + 'static,
        done: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        let mut waiting = self.0.lock();
        let of_user = waiting.parked.iter().filter(|parked| parked.uid == uid).count();
        let has_thread = waiting.has_thread || {
            let waiting = self.0.clone();
            std::thread::Builder::new().name("leases".into()).spawn(move || retry_parked(&waiting)).is_ok()
        };
        if !has_thread || waiting.parked.len() >= LEASED_REQUESTS || of_user >= LEASED_REQUESTS_OF_A_USER {
            waiting.has_thread = has_thread;
            drop(waiting);
            return done(Err(Fault::Leased.into()));
        }
        waiting.has_thread = true;
        let until = Instant::now() + Duration::from_millis(LEASE_WAIT_MS);
        waiting.parked.push(LeasedRequest {
            uid,
            until,
            operation: Box::new(WaitingReply { attempt, done: Some(done) }),
        });
    }
}

/// Retry the parked requests, until none is left.
fn retry_parked(waiting: &Mutex<LeaseQueue>) {
    loop {
        std::thread::sleep(ROUND);
        let parked = std::mem::take(&mut waiting.lock().parked);
        let now = Instant::now();
        let mut blocked = Vec::new();
        for mut parked in parked {
            if !parked.operation.is_answered(now >= parked.until) {
                blocked.push(parked);
            }
        }
        let mut waiting = waiting.lock();
        // Other requests may have been parked meanwhile.
        waiting.parked.append(&mut blocked);
        if waiting.parked.is_empty() {
            waiting.has_thread = false;
            return;
        }
    }
}

trait Operation: Send {
    /// Attempt again, and answer unless a lease blocks it. The last attempt answers in any case. The answer is whether it answered.
    fn is_answered(&mut self, last: bool) -> bool;
}

struct WaitingReply<A, D> {
    attempt: A,
    done: Option<D>,
}

impl<T, A: FnMut() -> Result<T> + Send, D: FnOnce(Result<T>) + Send> Operation for WaitingReply<A, D> {
    fn is_answered(&mut self, last: bool) -> bool {
        let outcome = (self.attempt)();
        if is_leased(&outcome) && !last {
            return false;
        }
        if let Some(done) = self.done.take() {
            done(outcome);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::FsError;
    use std::sync::mpsc::channel;

    const LEASED: Result<u32> = Err(FsError::Plain(Fault::Leased));

    #[test]
    fn a_request_that_no_lease_blocks_is_answered_at_once() {
        let leases = Leases::default();
        let (sender, receiver) = channel();
        leases.run(1, || Ok(7), move |outcome| sender.send(outcome.unwrap()).unwrap());
        assert_eq!(receiver.try_recv(), Ok(7));
    }

    #[test]
    fn an_attempt_is_made_again_until_the_lease_is_given_back() {
        let leases = Leases::default();
        for _ in 0..2 {
            let (sender, receiver) = channel();
            let mut attempts = 0;
            let attempt = move || {
                attempts += 1;
                if attempts < 4 { LEASED } else { Ok(attempts) }
            };
            leases.run(1, attempt, move |outcome| sender.send(outcome.unwrap()).unwrap());
            assert!(receiver.try_recv().is_err(), "it waits, and the caller does not");
            assert_eq!(receiver.recv(), Ok(4));
        }
    }

    #[test]
    fn one_user_s_requests_leave_room_for_another_s() {
        let leases = Leases::default();
        let (sender, receiver) = channel();
        let ask = |uid| {
            let sender = sender.clone();
            leases.run(
                uid,
                || LEASED,
                move |outcome| sender.send((uid, outcome.unwrap_err().errno())).unwrap(),
            );
        };
        (0..LEASED_REQUESTS_OF_A_USER).for_each(|_| ask(1));
        assert!(receiver.try_recv().is_err());
        ask(1);
        assert_eq!(receiver.try_recv(), Ok((1, libc::EAGAIN)), "one too many");
        ask(2);
        assert!(receiver.try_recv().is_err());
        // The lease is never given back.
        let mut answered: Vec<u32> =
            (0..=LEASED_REQUESTS_OF_A_USER).map(|_| receiver.recv().unwrap().0).collect();
        answered.sort_unstable();
        assert_eq!(answered.iter().filter(|uid| **uid == 1).count(), LEASED_REQUESTS_OF_A_USER);
        assert_eq!(answered.last(), Some(&2));
    }
}
