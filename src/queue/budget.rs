//! Limits how much a worker and a user may add to the event log, so that no user fills the disk by repeating a command.
//!
//! May assume: the caller passes the time, and charges the true cost of a decision.
//! Must never: prevent the end of a claim, or drop a debt before it is paid.
//!
//! Each worker and each user has an account of events and an account of bytes. Both accounts fill over time up to a limit. A payer with a
//! positive balance in both may act and pays afterwards, with a debt if necessary. So a text of any length can be written. A command that
//! must not be refused is charged, too. A user has one account for all its workers, because a user can have any number of worker names.

use std::collections::HashMap;
use std::hash::Hash;

use super::refusal::{BudgetUnit, Refusal, Spender};
use super::task::Phase;
use super::{Actor, Command, Decision, Event, Instant, Outcome, Span, State, TaskId, WorkerName};
use crate::limits::{LOG_ACCOUNTS, LOG_BURST_SECONDS, LOG_SHARES_OF_A_USER};

/// The configurable rates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Bytes per second for one worker.
    pub bytes: u64,
    /// Events per second for one worker.
    pub events: u64,
    /// The user that owns the log. The accounts of this user and of root have no limit.
    pub owner: u32,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { bytes: 1 << 20, events: 50, owner: 0 }
    }
}

/// The worker and the user that pay for a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payer {
    /// The worker, if known.
    pub worker: Option<WorkerName>,
    /// The user.
    pub uid: u32,
    /// Whether the caller is an operator. Operators do not pay.
    pub operator: bool,
}

impl From<&Actor> for Payer {
    fn from(actor: &Actor) -> Payer {
        Payer { worker: Some(actor.worker.clone()), uid: actor.uid, operator: actor.operator }
    }
}

/// The cost of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Events. Later events that follow from a command are paid with that command.
    pub events: u64,
    /// Bytes.
    pub bytes: u64,
    /// Whether the decision takes effect even without a positive balance.
    pub is_due: bool,
}

/// Balances in thousandths of events and of bytes, so that a rate per second adds the same number per millisecond.
#[derive(Debug, Clone, Copy)]
struct Account {
    events: i64,
    bytes: i64,
    as_of: Instant,
}

impl Account {
    fn full(budget: &Budget, share: u64, now: Instant) -> Account {
        let full = |rate: u64| i64::try_from(limit(rate, share).saturating_mul(1_000)).unwrap_or(i64::MAX);
        Account { events: full(budget.events), bytes: full(budget.bytes), as_of: now }
    }

    /// The account at `now`, after filling.
    fn refilled(self, budget: &Budget, share: u64, now: Instant) -> Account {
        let full = Account::full(budget, share, now);
        let ms = now.since(self.as_of).0;
        let filled = |had: i64, rate: u64, full: i64| {
            let more = rate.saturating_mul(share).saturating_mul(ms);
            had.saturating_add_unsigned(more).min(full)
        };
        Account {
            events: filled(self.events, budget.events, full.events),
            bytes: filled(self.bytes, budget.bytes, full.bytes),
            as_of: now.max(self.as_of),
        }
    }

    /// The account after a payment. A debt is never larger than a full account.
    fn charged(self, cost: &Cost, full: &Account) -> Account {
        let paid = |had: i64, cost: u64, full: i64| {
            let cost = i64::try_from(cost.saturating_mul(1_000)).unwrap_or(i64::MAX);
            had.saturating_sub(cost).max(full.saturating_neg())
        };
        let events = paid(self.events, cost.events, full.events);
        Account { events, bytes: paid(self.bytes, cost.bytes, full.bytes), ..self }
    }

    fn is_full(&self, full: &Account) -> bool {
        self.events >= full.events && self.bytes >= full.bytes
    }
}

/// The size of a full account.
fn limit(rate: u64, share: u64) -> u64 {
    rate.saturating_mul(share).saturating_mul(LOG_BURST_SECONDS)
}

/// All accounts.
#[derive(Debug, Default)]
pub struct Accounts {
    budget: Budget,
    workers: HashMap<WorkerName, Account>,
    users: HashMap<u32, Account>,
}

impl Accounts {
    /// Accounts that are all full.
    pub fn new(budget: Budget) -> Accounts {
        Accounts { budget, ..Accounts::default() }
    }

    /// Refuses a payer whose balance is not positive.
    pub fn check(&self, payer: &Payer, now: Instant) -> Result<(), Refusal> {
        let budget = &self.budget;
        let left = |account: Option<&Account>, share: u64, spender: &dyn Fn() -> Spender| {
            let account = account.map(|account| account.refilled(budget, share, now));
            account.map_or(Ok(()), |account| self.check_account(&account, share, spender))
        };
        if let Some(worker) = self.worker_of(payer) {
            left(self.workers.get(worker), 1, &|| Spender::Worker(worker.clone()))?;
        }
        match self.user_of(payer) {
            Some(uid) => left(self.users.get(&uid), LOG_SHARES_OF_A_USER, &|| Spender::User(uid)),
            None => Ok(()),
        }
    }

    fn check_account(
        &self,
        account: &Account,
        share: u64,
        spender: &dyn Fn() -> Spender,
    ) -> Result<(), Refusal> {
        let spent = |left: i64, rate: u64, unit: BudgetUnit| {
            if left > 0 {
                return Ok(());
            }
            let (a_second, at_once) = (rate.saturating_mul(share), limit(rate, share));
            let wait = left.unsigned_abs() / a_second.max(1) + 1;
            // Rounded up to whole seconds, at least one.
            let wait = Span(wait.div_ceil(1_000) * 1_000);
            Err(Refusal::OverBudget { spender: spender(), unit, a_second, at_once, wait })
        };
        spent(account.events, self.budget.events, BudgetUnit::Events)?;
        spent(account.bytes, self.budget.bytes, BudgetUnit::Bytes)
    }

    /// Charges a payer.
    pub fn charge(&mut self, payer: &Payer, cost: &Cost, now: Instant) {
        if (cost.events, cost.bytes) == (0, 0) {
            return;
        }
        if let Some(worker) = self.worker_of(payer) {
            pay(&mut self.workers, worker.clone(), &self.budget, 1, cost, now);
        }
        if let Some(uid) = self.user_of(payer) {
            pay(&mut self.users, uid, &self.budget, LOG_SHARES_OF_A_USER, cost, now);
        }
    }

    fn worker_of<'a>(&self, payer: &'a Payer) -> Option<&'a WorkerName> {
        payer.worker.as_ref().filter(|_| !payer.operator)
    }

    fn user_of(&self, payer: &Payer) -> Option<u32> {
        let limited = !payer.operator && payer.uid != 0 && payer.uid != self.budget.owner;
        limited.then_some(payer.uid)
    }
}

fn pay<K: Hash + Eq + Clone>(
    accounts: &mut HashMap<K, Account>,
    key: K,
    budget: &Budget,
    share: u64,
    cost: &Cost,
    now: Instant,
) {
    let full = Account::full(budget, share, now);
    if accounts.len() >= LOG_ACCOUNTS && !accounts.contains_key(&key) {
        accounts.retain(|_, account| !account.refilled(budget, share, now).is_full(&full));
        // No account is full. Drop the one that owes least.
        if accounts.len() >= LOG_ACCOUNTS
            && let Some(least) =
                accounts.iter().max_by_key(|(_, account)| account.refilled(budget, share, now).events)
        {
            let least = least.0.clone();
            accounts.remove(&least);
        }
    }
    let account = accounts.entry(key).or_insert(full);
    *account = account.refilled(budget, share, now).charged(cost, &full);
}

/// The payer and the cost of a decision; `None` if it is free. Claiming a task and ending the claim cost no event: the payer that
/// published, retried or gave back the task has already paid for both. `file_payer` pays for commands that name no caller.
pub fn cost(
    state: &State,
    command: &Command,
    decision: &Decision,
    file_payer: Option<&Payer>,
) -> Option<(Payer, Cost)> {
    let bytes = decision.events.iter().map(size).sum();
    let cost = |events: u64| Cost { events, bytes, is_due: false };
    let many = decision.events.len() as u64;
    let cost = match command {
        // The event itself, and the later events that the file is gone and the task is withdrawn.
        Command::Publish { .. } => cost(2 * many),
        // The payer that published the task or opened the file has already paid.
        Command::OpenFile { .. } | Command::FileGone { .. } | Command::Withdraw { .. } => return None,
        // Only the event that a worker joined is charged.
        Command::Claim { .. } | Command::ClaimNext { .. } => {
            cost(many.saturating_sub(u64::from(matches!(decision.outcome, Outcome::Claimed { .. }))))
        }
        Command::Finish { task, .. } | Command::Report { task, .. } if is_first(state, task) => {
            Cost { events: 0, bytes, is_due: true }
        }
        // The end of this claim and the next claim are charged here.
        Command::Release { .. } | Command::Expire { .. } | Command::Depart { .. } => {
            Cost { is_due: true, ..cost(2 * many) }
        }
        // The event itself, and the next claim and finish.
        Command::Retry { .. } => cost(3 * many),
        Command::Finish { .. }
        | Command::Report { .. }
        | Command::RemoveFile { .. }
        | Command::Note { .. }
        | Command::Drain { .. }
        | Command::Equip { .. }
        | Command::Forget { .. }
        | Command::Pause { .. } => cost(many),
    };
    let payer = match command {
        Command::Expire { .. } | Command::Depart { .. } => holder(state, decision)?,
        _ => command.actor().map(Payer::from).or_else(|| file_payer.cloned())?,
    };
    Some((payer, cost))
}

/// Whether a text for a task is the first one or comes with the finish.
fn is_first(state: &State, task: &TaskId) -> bool {
    let task = state.task(task.as_str());
    task.is_some_and(|task| match &task.phase {
        Phase::Completed(finish) | Phase::Failed(finish) => finish.text.is_none(),
        Phase::Open | Phase::Claimed(_) | Phase::Rejected(_) => true,
    })
}

/// The holder whose claims end by these events.
fn holder(state: &State, decision: &Decision) -> Option<Payer> {
    let worker = decision.events.iter().find_map(|event| match event {
        Event::Returned { worker, .. } => Some(worker),
        _ => None,
    })?;
    let uid = state.worker(worker.as_str())?.uid;
    Some(Payer { worker: Some(worker.clone()), uid, operator: false })
}

/// About how many bytes an event has in the log.
fn size(event: &Event) -> u64 {
    const BARE: u64 = 128;
    BARE + match event {
        Event::Published { manifest, .. } => manifest.bytes(),
        Event::Capable { words, .. } => words.iter().map(|word| word.len() as u64 + 3).sum(),
        event => event.text().map_or(0, |text| text.digest().bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Budget = Budget { bytes: 100, events: 2, owner: 7 };

    fn payer(worker: &str, uid: u32) -> Payer {
        Payer { worker: Some(WorkerName::parse(worker).unwrap()), uid, operator: false }
    }

    fn at(seconds: u64) -> Instant {
        Instant(5_000 + seconds * 1_000)
    }

    fn events(events: u64) -> Cost {
        Cost { events, ..Cost::default() }
    }

    fn refused(accounts: &Accounts, payer: &Payer, now: Instant) -> Refusal {
        accounts.check(payer, now).unwrap_err()
    }

    fn over(spender: Spender, unit: BudgetUnit, [a_second, at_once]: [u64; 2], seconds: u64) -> Refusal {
        Refusal::OverBudget { spender, unit, a_second, at_once, wait: Span(seconds * 1_000) }
    }

    #[test]
    fn a_positive_balance_allows_a_debt_that_is_waited_off() {
        let (mut accounts, w1) = (Accounts::new(BUDGET), payer("w1", 1));
        let at_once = limit(BUDGET.events, 1);
        accounts.charge(&w1, &events(at_once - 1), at(0));
        accounts.check(&w1, at(0)).unwrap();
        accounts.charge(&w1, &events(5), at(0));
        // The debt is four events and the balance must reach one, at two events a second.
        let w1_spent = Spender::Worker(WorkerName::parse("w1").unwrap());
        let expected = over(w1_spent, BudgetUnit::Events, [BUDGET.events, at_once], 3);
        assert_eq!(refused(&accounts, &w1, at(0)), expected);
        assert!(accounts.check(&w1, at(2)).is_err());
        accounts.check(&w1, at(3)).unwrap();
        accounts.check(&payer("w2", 1), at(0)).unwrap();
        // A time that goes back changes no balance.
        accounts.charge(&w1, &events(2), at(3));
        accounts.charge(&w1, &events(0), at(0));
        assert!(accounts.check(&w1, at(3)).is_err());
    }

    #[test]
    fn bytes_count_beside_events_and_a_debt_has_a_bound() {
        let (mut accounts, w1) = (Accounts::new(BUDGET), payer("w1", 1));
        accounts.charge(&w1, &Cost { bytes: u64::MAX, ..Cost::default() }, at(0));
        let why = refused(&accounts, &w1, at(0));
        let Refusal::OverBudget { unit, a_second, at_once, .. } = why else { panic!("{why:?}") };
        assert_eq!((unit, a_second, at_once), (BudgetUnit::Bytes, BUDGET.bytes, limit(BUDGET.bytes, 1)));
        assert!(accounts.check(&w1, at(LOG_BURST_SECONDS - 1)).is_err());
        accounts.check(&w1, at(LOG_BURST_SECONDS + 1)).unwrap();
    }

    #[test]
    fn many_names_do_not_help_a_user() {
        let mut accounts = Accounts::new(BUDGET);
        let all = limit(BUDGET.events, LOG_SHARES_OF_A_USER);
        for n in 0..all {
            accounts.check(&payer(&format!("w{n}"), 1), at(0)).unwrap();
            accounts.charge(&payer(&format!("w{n}"), 1), &events(1), at(0));
        }
        let why = refused(&accounts, &payer("another", 1), at(0));
        assert!(matches!(why, Refusal::OverBudget { spender: Spender::User(1), .. }), "{why:?}");
        accounts.check(&payer("another", 2), at(0)).unwrap();
    }

    #[test]
    fn operators_do_not_pay_and_root_and_the_owner_have_no_limit_together() {
        let mut accounts = Accounts::new(BUDGET);
        let operator = Payer { operator: true, ..payer("root", 0) };
        let much = events(10 * limit(BUDGET.events, LOG_SHARES_OF_A_USER));
        accounts.charge(&operator, &much, at(0));
        accounts.check(&operator, at(0)).unwrap();
        for uid in [0, BUDGET.owner] {
            accounts.charge(&payer("w1", uid), &much, at(0));
            accounts.check(&payer("w2", uid), at(0)).unwrap();
            assert!(accounts.check(&payer("w1", uid), at(0)).is_err(), "a worker of {uid} pays");
        }
    }

    #[test]
    fn no_more_accounts_are_kept_than_the_limit() {
        let mut accounts = Accounts::new(BUDGET);
        accounts.charge(&payer("debtor", 0), &events(limit(BUDGET.events, 2)), at(0));
        for n in 0..=LOG_ACCOUNTS {
            accounts.charge(&payer(&format!("w{n}"), 0), &events(1), at(0));
        }
        assert!(accounts.workers.len() <= LOG_ACCOUNTS);
        assert!(accounts.check(&payer("debtor", 0), at(0)).is_err(), "a debt is not forgotten");
    }
}
