//! Requests that wait until a process gives back its lease on a file (fcntl(2), F_SETLEASE).
//!
//! May assume: files are opened with O_NONBLOCK. A lease then is EAGAIN, and the kernel has told the holder to give it back.
//! Must never: keep a thread that serves the kernel, or hold back so many requests that the kernel has no room for others. The
//! kernel lets few requests for reading ahead be under way at a time (`MAX_BACKGROUND`), and a parked one is among them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::fs::{Fault, Result};
use crate::limits::{LEASE_WAIT_MS, LEASED_REQUESTS, LEASED_REQUESTS_OF_A_USER};

/// How long the thread rests between two rounds.
const ROUND: Duration = Duration::from_millis(5);

/// The requests that wait for leases.
#[derive(Default)]
pub struct Leases(Arc<Mutex<LeaseQueue>>);

#[derive(Default)]
struct LeaseQueue {
    /// Whether a thread goes round.
    served: bool,
    parked: Vec<LeasedRequest>,
}

struct LeasedRequest {
    uid: u32,
    until: Instant,
    operation: Box<dyn Operation>,
}

/// Whether an operation failed because of a lease.
pub fn is_leased<T>(came: &Result<T>) -> bool {
    came.as_ref().is_err_and(|error| error.errno() == libc::EAGAIN)
}

impl Leases {
    /// Run `attempt` for a user, again while a lease is in its way, and hand what comes of it to `done`: EAGAIN when the lease was not
    /// given back in time, or too many wait already. The attempt must change nothing when it fails with EAGAIN.
    pub fn run<T: Send + 'static>(
        &self,
        uid: u32,
        mut attempt: impl FnMut() -> Result<T> + Send + 'static,
        done: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        let came = attempt();
        if is_leased(&came) { self.park(uid, attempt, done) } else { done(came) }
    }

    /// The same, of an attempt that has failed because of a lease.
    pub fn park<T: Send + 'static>(
        &self,
        uid: u32,
        attempt: impl FnMut() -> Result<T> + Send + 'static,
        done: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        let mut waiting = self.0.lock();
        let of_user = waiting.parked.iter().filter(|parked| parked.uid == uid).count();
        let serves = waiting.served || {
            let waiting = self.0.clone();
            std::thread::Builder::new().name("leases".into()).spawn(move || go_round(&waiting)).is_ok()
        };
        if !serves || waiting.parked.len() >= LEASED_REQUESTS || of_user >= LEASED_REQUESTS_OF_A_USER {
            waiting.served = serves;
            drop(waiting);
            return done(Err(Fault::Leased.into()));
        }
        waiting.served = true;
        let until = Instant::now() + Duration::from_millis(LEASE_WAIT_MS);
        waiting.parked.push(LeasedRequest {
            uid,
            until,
            operation: Box::new(WaitingReply { attempt, done: Some(done) }),
        });
    }
}

/// Ends when nothing waits any more.
fn go_round(waiting: &Mutex<LeaseQueue>) {
    loop {
        std::thread::sleep(ROUND);
        let parked = std::mem::take(&mut waiting.lock().parked);
        let now = Instant::now();
        let mut stay = Vec::new();
        for mut parked in parked {
            if !parked.operation.is_answered(now >= parked.until) {
                stay.push(parked);
            }
        }
        let mut waiting = waiting.lock();
        // Others may have come meanwhile.
        waiting.parked.append(&mut stay);
        if waiting.parked.is_empty() {
            waiting.served = false;
            return;
        }
    }
}

trait Operation: Send {
    /// Try again. Whether an answer was given: on the last attempt it is given in any case.
    fn is_answered(&mut self, last: bool) -> bool;
}

struct WaitingReply<A, D> {
    attempt: A,
    done: Option<D>,
}

impl<T, A: FnMut() -> Result<T> + Send, D: FnOnce(Result<T>) + Send> Operation for WaitingReply<A, D> {
    fn is_answered(&mut self, last: bool) -> bool {
        let came = (self.attempt)();
        if is_leased(&came) && !last {
            return false;
        }
        if let Some(done) = self.done.take() {
            done(came);
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
    fn what_is_in_no_lease_s_way_is_answered_at_once() {
        let leases = Leases::default();
        let (tell, told) = channel();
        leases.run(1, || Ok(7), move |came| tell.send(came.unwrap()).unwrap());
        assert_eq!(told.try_recv(), Ok(7));
    }

    #[test]
    fn an_attempt_is_made_again_until_the_lease_is_given_back() {
        let leases = Leases::default();
        for _ in 0..2 {
            let (tell, told) = channel();
            let mut attempts = 0;
            let attempt = move || {
                attempts += 1;
                if attempts < 4 { LEASED } else { Ok(attempts) }
            };
            leases.run(1, attempt, move |came| tell.send(came.unwrap()).unwrap());
            assert!(told.try_recv().is_err(), "it waits, and the caller does not");
            assert_eq!(told.recv(), Ok(4));
        }
    }

    #[test]
    fn one_user_s_requests_leave_room_for_another_s() {
        let leases = Leases::default();
        let (tell, told) = channel();
        let ask = |uid| {
            let tell = tell.clone();
            leases.run(uid, || LEASED, move |came| tell.send((uid, came.unwrap_err().errno())).unwrap());
        };
        (0..LEASED_REQUESTS_OF_A_USER).for_each(|_| ask(1));
        assert!(told.try_recv().is_err());
        ask(1);
        assert_eq!(told.try_recv(), Ok((1, libc::EAGAIN)), "one too many");
        ask(2);
        assert!(told.try_recv().is_err());
        // The lease is never given back.
        let mut answered: Vec<u32> =
            (0..=LEASED_REQUESTS_OF_A_USER).map(|_| told.recv().unwrap().0).collect();
        answered.sort_unstable();
        assert_eq!(answered.iter().filter(|uid| **uid == 1).count(), LEASED_REQUESTS_OF_A_USER);
        assert_eq!(answered.last(), Some(&2));
    }
}
