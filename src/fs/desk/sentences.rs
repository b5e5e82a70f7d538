//! The sentences in which the desk states the facts of the queue: what happened, why, and what to type next.
//!
//! May assume: the name of the tasks directory is the one under which it is mounted.
//! Must never: change the text of a user, end a sentence with a full stop, or omit a fact with a wildcard in a match.

use super::misuse::Misuse;
use crate::limits::{NAMED_IN_A_SENTENCE, NOTE_BYTES};
use crate::queue::lease::NamedLease;
use crate::queue::{
    BudgetUnit, ClaimFate, EndedClaim, FailureText, LossReason, Lost, Misname, Obstacle, OperatorAct,
    Problem, Refusal, Span, Spender, Standing, Stuck, StuckReason, TaskId, UnmetNeed, Wall, Why, WorkerName,
};

/// Stands for a text that the caller may not see.
const WITHHELD: &str = "why is said to users who may read its file";

/// Sentences for a mount whose tasks directory has this name.
#[derive(Clone, Copy)]
pub struct Sentences<'a>(pub &'a str);

impl Sentences<'_> {
    /// Why the queue refuses a command.
    pub fn refusal(self, refusal: &Refusal) -> String {
        let tasks = self.0;
        match refusal {
            Refusal::Unknown { task } => format!("there is no task {task}"),
            Refusal::Finished { task, state } => {
                format!("{task} is already {state}; to do it again: mv {tasks}/{state}/{task} {tasks}/ready/")
            }
            Refusal::Rejected { task, problem: Some(problem) } => format!("{task} is rejected: {problem}"),
            Refusal::Rejected { task, problem: None } => {
                format!("{task} is rejected: what is wrong is said in {tasks}/rejected/{task}")
            }
            Refusal::Blocked { task, why } => format!("{task} is blocked: {}", self.obstacles(why)),
            Refusal::Held { task, holder, since } => {
                let at = since.at;
                format!("{task} is held by {holder} since {at}; take another one: touch {tasks}/claim/next")
            }
            Refusal::AlreadyYours { task } => format!("you hold {task} already"),
            Refusal::AlreadyFinished { task, state } => format!("you have already {state} {task}"),
            Refusal::NothingReady { blocked, claimed } => {
                format!("no task is ready: {blocked} blocked, {claimed} claimed by others")
            }
            Refusal::NothingForWorker { worker, missing } => format!(
                "nothing that is ready is for {worker}: it requires {}; what you can do is said in \
                 {tasks}/workers/self/capabilities",
                named(missing)
            ),
            Refusal::Incapable { task, worker, missing, others } => format!(
                "{task} requires {}, which {worker} lacks; {}; what you can do is said in \
                 {tasks}/workers/self/capabilities",
                named(missing),
                capable(others)
            ),
            Refusal::Private { task, worker } => format!(
                "{task} is not for {worker}, who may not read {tasks}/{task}.md; take another one: touch \
                 {tasks}/claim/next, or ask the owner of that file for the right (chgrp, chmod or setfacl)"
            ),
            Refusal::AllPrivate { worker, count } => {
                format!(
                    "nothing that is ready is for {worker}: the files of {count} tasks are for others to read"
                )
            }
            Refusal::TooMany { worker, held, limit } => {
                format!("{worker} holds as many tasks as it may ({held} of {limit}); finish one first")
            }
            Refusal::Paused => {
                format!("the queue is paused; nothing is claimed until {tasks}/paused is removed")
            }
            Refusal::Draining { worker } => {
                format!("{worker} is draining: finish what you hold, then stop")
            }
            Refusal::NotHolder { task, fate } => format!("{task} is not yours: {}", self.fate(fate)),
            Refusal::Stale { task, epoch } => format!(
                "your claim {epoch} of {task} is over; nothing that was opened under it can change the task"
            ),
            Refusal::NoNote(ended) => {
                let (fate, claim) = match ended {
                    EndedClaim::Of(task, fate) => (self.fate(fate), task.as_str()),
                    EndedClaim::Last(Lost { task, at, reason }) => {
                        (format!("your claim of {task} ended at {at}: {reason}"), "next")
                    }
                };
                format!("{fate}; a note claims nothing anew: to claim again: touch {tasks}/claim/{claim}")
            }
            Refusal::InUse { task, holder } => format!(
                "{task} is being worked on by {holder}; wait until it ends, or take it away: rm {tasks}/claim/{task}"
            ),
            Refusal::NotFinished { task, state } => {
                format!("{task} is {state}: only a completed, failed or rejected task can be tried again")
            }
            Refusal::NoFile { task } => {
                format!("{task} has no instructions any more; write {tasks}/{task}.md again, then move it")
            }
            Refusal::HasFile { task } => format!(
                "{task} has its instructions still: remove {tasks}/{task}.md first; to do it again, move it to {tasks}/ready/"
            ),
            Refusal::Cycle { task, cycle } => format!(
                "{task} cannot be done again: {}; change the needs of one of them first",
                Problem::cycle(cycle).message
            ),
            Refusal::NameTaken { worker, owner } => {
                format!("the name {worker} belongs to uid {owner}; set CREWFS_WORKER to a name of your own")
            }
            Refusal::NoMember { uid } => format!(
                "changing the queue takes the right to write in the directory {tasks}/, which uid {uid} lacks; ask its owner \
                 for it (chgrp, chmod or setfacl), or who mounted for the option workers=NAME"
            ),
            Refusal::OverBudget { spender, unit, a_second, at_once, wait } => format!(
                "{} has written more to the event log than is allowed ({}), so nothing was changed; finish what you hold, \
                 which goes on, or try again in {wait}",
                spent_by(spender),
                allowed(*unit, *a_second, *at_once)
            ),
            Refusal::OperatorOnly { act } => {
                let act = match act {
                    OperatorAct::Forget => "forgetting a finished task",
                    OperatorAct::DrainAnother => "draining another worker",
                    OperatorAct::EquipAnother => "saying what another worker can do",
                    OperatorAct::Pause => "pausing the queue",
                };
                format!("{act} is for operators: the user who mounted, or root, without CREWFS_WORKER")
            }
        }
    }

    /// Why a request means nothing to the desk.
    pub fn misuse(self, misuse: &Misuse) -> String {
        let tasks = self.0;
        match misuse {
            Misuse::OurName => "this name belongs to crewfs".into(),
            Misuse::OurDirectory => "this directory belongs to crewfs".into(),
            Misuse::NotMakeable => "this name belongs to crewfs and cannot be made".into(),
            Misuse::NotMovable => "this name belongs to crewfs and cannot be moved".into(),
            Misuse::NotRemovable => "this name belongs to crewfs and cannot be removed".into(),
            Misuse::NotAnId => "this can be no task: its name is not an id".into(),
            Misuse::NoTaskReady => "no task is ready".into(),
            Misuse::NoClaim => "you hold no claim".into(),
            Misuse::NotWritable => "this can only be read".into(),
            Misuse::OnlyFiles => "only files can be made here".into(),
            Misuse::NoSymlinks => "symbolic links cannot be made here; use touch".into(),
            Misuse::MadeByWriting { task } => {
                format!("a task is made by writing its instructions: {task}.md")
            }
            Misuse::WithdrawnByRemoving { task } => {
                format!("to withdraw the task, remove its instructions: {task}.md")
            }
            Misuse::KeepsItsName { task } => format!("{task} keeps its name wherever it is moved"),
            Misuse::StatusIsForReading => "status/ is for reading; move what is in ready/".into(),
            Misuse::ChangesAreForReading => "changes/ is for reading; move what is in ready/".into(),
            Misuse::NoSuchMove => {
                "a task moves from ready/ to claim/, from claim/ to completed/, failed/ or ready/, and back to ready/".into()
            }
            Misuse::NotWords => "capabilities are words, separated by white space".into(),
            Misuse::CapabilitiesOfAnother { worker } => {
                format!("only {worker} and operators say what {worker} can do")
            }
            Misuse::NoteOfAnother { worker } => {
                format!("only {worker} and operators write the note of {worker}")
            }
            Misuse::NothingToNote { worker } => format!(
                "{worker} holds no task, so there is nothing to note; claim one: touch {tasks}/claim/next"
            ),
            Misuse::NoteTooLong => format!("a progress note has at most {NOTE_BYTES} bytes"),
            Misuse::TextTooLong { limit } => {
                format!("this text has at most {limit} bytes; it is kept as it was")
            }
            Misuse::TooMuchOpen { uid } => {
                format!("uid {uid} has too much open in the queue; close some of it")
            }
            Misuse::TooManyScratches => "too many temporary files are open here; close some".into(),
            Misuse::ScratchOfAnother { uid } => {
                format!("this temporary file was made by uid {uid}; choose another name")
            }
        }
    }

    /// Why a task does not move.
    pub fn why(self, why: &Why) -> String {
        match why {
            Why::Blocked(obstacles) => self.obstacles(obstacles),
            Why::Paused(since) => format!("the queue is paused since {since}"),
            Why::NoWorkerHas(required) => format!("no worker has {}", named(required)),
            Why::Draining(worker) => format!("{worker} is draining"),
            Why::Incapable { worker, missing, others } => {
                format!("it requires {}, which {worker} lacks; {}", named(missing), capable(others))
            }
            Why::HoldsEnough { worker, held, limit } => {
                format!("{worker} holds as many tasks as it may ({held} of {limit})")
            }
            Why::Claimed { worker, since, withdrawn: None } => format!("{worker} works on it since {since}"),
            Why::Claimed { worker, since, withdrawn: Some(at) } => {
                format!("{worker} works on it since {since}; {}", self.withdrawn(*at))
            }
            Why::Rejected(problem) => problem.to_string(),
            Why::Failed(reason) => reason.clone(),
            Why::FailedSilently(worker) => gave_no_reason(worker),
        }
    }

    /// What an open task waits for.
    pub fn obstacles(self, obstacles: &[Obstacle]) -> String {
        obstacles.iter().map(|obstacle| self.obstacle(obstacle)).collect::<Vec<_>>().join("; ")
    }

    fn obstacle(self, obstacle: &Obstacle) -> String {
        match obstacle {
            Obstacle::FileOpen => "its file is being written".into(),
            Obstacle::FileMissing => "its file is being replaced".into(),
            Obstacle::Needs { unmet, more } => {
                let unmet = unmet.iter().map(|need| self.unmet(need));
                let more = (*more > 0).then(|| format!("and {more} more"));
                format!("it needs {}", unmet.chain(more).collect::<Vec<_>>().join("; "))
            }
            Obstacle::NotBefore(wall) => format!("it is not to be begun before {wall}"),
            Obstacle::SharedFiles { other, claim: Some((worker, since)) } => {
                format!("it owns files that {other} owns, too, which {worker} works on since {since}")
            }
            Obstacle::SharedFiles { other, claim: None } => {
                format!("it owns files that {other} owns, too, which goes first: it has waited longest")
            }
        }
    }

    fn unmet(self, need: &UnmetNeed) -> String {
        let because = |why: &Option<Box<Why>>| {
            why.as_ref().map_or_else(String::new, |why| format!(" ({})", self.why(why)))
        };
        match need {
            UnmetNeed::Absent(need) => format!("{need}, which does not exist"),
            UnmetNeed::Failed(need, why) => {
                format!("{need}, which failed{}: move it to ready/, or take it out of needs", because(why))
            }
            UnmetNeed::Rejected(need, why) => format!("{need}, which is rejected{}", because(why)),
            UnmetNeed::Unfinished(need, state) => format!("{need}, which is {state}"),
        }
    }

    /// What became of a claim.
    pub fn fate(self, fate: &ClaimFate) -> String {
        let now = self.standing(&fate.now);
        match &fate.ended {
            Some((at, reason)) => format!("your claim ended at {at}: {reason}; {now}"),
            None => now,
        }
    }

    fn standing(self, standing: &Standing) -> String {
        match standing {
            Standing::Held(worker, since) => format!("{worker} holds it since {since}"),
            Standing::Finished(worker, state) => format!("{worker} has {state} it"),
            Standing::Is(state) => format!("it is {state}"),
            Standing::ClaimedElsewhere => "another connection of yours has claimed it again since".into(),
            Standing::Withdrawn => "it was withdrawn".into(),
        }
    }

    /// A worker lost its claim of a task, which stands like this now.
    pub fn lost_claim(self, task: &TaskId, reason: &LossReason, now: &Standing) -> String {
        format!("your claim of {task} ended: {reason}; {}", self.standing(now))
    }

    /// A worker works on a task whose instructions were withdrawn.
    pub fn works_without_instructions(self, task: &TaskId, withdrawn: Wall) -> String {
        format!("you work on {task}: {}", self.withdrawn(withdrawn))
    }

    fn withdrawn(self, at: Wall) -> String {
        format!(
            "its instructions were withdrawn at {at}: the file is gone; unless it comes back, the task goes when this claim ends"
        )
    }

    /// The mount allows less than the lease that a task names; nothing if it does not.
    pub fn cut_lease(self, lease: NamedLease) -> Option<String> {
        let NamedLease { named, granted } = lease;
        (granted < named)
            .then(|| format!("lease: {named} is cut to {granted}, the longest that this mount allows"))
    }

    /// Why something is stuck.
    pub fn stuck(self, stuck: &Stuck) -> String {
        match &stuck.reason {
            StuckReason::Log(error) => {
                format!("the event log does not work, so nothing can be changed: {error}")
            }
            StuckReason::Disk => "the disk is full: claims can be finished, new work is not accepted".into(),
            StuckReason::Paused => "the queue is paused, nobody may claim anything".into(),
            StuckReason::Nobody { ready, silent } => {
                format!("{ready} ready, and no worker was heard of for {}", in_minutes(*silent))
            }
            StuckReason::Rejected(Some(problem)) => problem.to_string(),
            StuckReason::Rejected(None) | StuckReason::Failed(FailureText::Withheld) => WITHHELD.into(),
            StuckReason::Misnamed(Misname { name, why, .. }) => format!("{name:?} is no task: {why}"),
            StuckReason::Missing { needed_by, more } => {
                format!("it does not exist, and is needed by {}", and_more(needed_by, *more))
            }
            StuckReason::Failed(FailureText::Given(reason)) => reason.clone(),
            StuckReason::Failed(FailureText::NoneBy(worker)) => gave_no_reason(worker),
            StuckReason::Failed(FailureText::None) => "no reason was given".into(),
            StuckReason::Lease { worker, silent, left } => {
                let (silent, left) = (in_seconds(*silent), in_seconds(*left));
                format!("{worker} was not heard of for {silent}; its claim ends in {left}")
            }
            StuckReason::Overdue { state, deadline } => {
                format!("it is {state}, and was to be done before {deadline}")
            }
            StuckReason::LostClaims { lost, allowed, last } => format!(
                "{lost} of {allowed} attempts are used up; the last was {}'s: {}",
                last.worker, last.reason
            ),
            StuckReason::GivenBack { times, last } => {
                format!("it was given back {times} times, the last time by {last}")
            }
        }
    }

    /// What can be done about something that is stuck.
    pub fn next(self, stuck: &Stuck) -> Option<String> {
        let tasks = self.0;
        let id = stuck.task.as_ref().map_or("", TaskId::as_str);
        match &stuck.reason {
            StuckReason::Log(_) => Some("read the log of crewfs, and run crewfs doctor".into()),
            StuckReason::Disk => Some("free some space on the disk of the project".into()),
            StuckReason::Paused => Some(format!("rm {tasks}/paused")),
            StuckReason::Nobody { .. } => Some("start a worker".into()),
            StuckReason::Rejected(_) => Some(format!("mend {tasks}/{id}.md")),
            StuckReason::Misnamed(Misname { better, .. }) => Some(format!("rename it to {tasks}/{better}")),
            StuckReason::Missing { .. } => {
                Some(format!("write {tasks}/{id}.md, or take it out of their needs"))
            }
            StuckReason::Failed(_) => Some(format!("mv {tasks}/failed/{id} {tasks}/ready/")),
            StuckReason::Lease { .. } => Some(format!("rm {tasks}/claim/{id}")),
            StuckReason::Overdue { .. } | StuckReason::LostClaims { .. } => None,
            StuckReason::GivenBack { .. } => {
                Some(format!("read what the workers said, and mend {tasks}/{id}.md"))
            }
        }
    }
}

fn gave_no_reason(worker: &WorkerName) -> String {
    format!("{worker} gave no reason")
}

fn spent_by(spender: &Spender) -> String {
    match spender {
        Spender::Worker(worker) => worker.to_string(),
        Spender::User(uid) => format!("the user with uid {uid}"),
    }
}

fn allowed(unit: BudgetUnit, a_second: u64, at_once: u64) -> String {
    let amount = |number: u64| match (unit, number) {
        (BudgetUnit::Events, number) => format!("{number} events"),
        (BudgetUnit::Bytes, number) if number % (1 << 20) == 0 => format!("{} MiB", number >> 20),
        (BudgetUnit::Bytes, number) if number % (1 << 10) == 0 => format!("{} KiB", number >> 10),
        (BudgetUnit::Bytes, number) => format!("{number} B"),
    };
    format!("{} a second, {} at once", amount(a_second), amount(at_once))
}

/// The workers that can do a task, as the end of a sentence.
fn capable(others: &[WorkerName]) -> String {
    match others {
        [] => "nobody has all that it requires".into(),
        others => format!("it is for {}", and_more(others, 0)),
    }
}

/// Some words, not too many.
fn named(words: &[String]) -> String {
    let some = words.len().min(NAMED_IN_A_SENTENCE);
    and_more(&words[..some], words.len() - some)
}

fn and_more(words: &[impl ToString], more: usize) -> String {
    let words = words.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if more == 0 { words } else { format!("{words} and {more} more") }
}

fn in_seconds(span: Span) -> Span {
    Span(span.0 / 1_000 * 1_000)
}

fn in_minutes(span: Span) -> Span {
    Span(span.0 / 60_000 * 60_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Loss;

    fn id(text: &str) -> TaskId {
        TaskId::parse(text).unwrap()
    }

    fn name(text: &str) -> WorkerName {
        WorkerName::parse(text).unwrap()
    }

    fn stuck(reason: StuckReason) -> (String, Option<String>) {
        let stuck = Stuck { reason, task: Some(id("a")), worker: None, since: Wall(0), holds_up: 0 };
        (Sentences("work").stuck(&stuck), Sentences("work").next(&stuck))
    }

    #[test]
    fn the_directory_is_named_as_it_is_and_the_text_of_a_user_stays() {
        let why = vec![Obstacle::Needs {
            unmet: vec![UnmetNeed::Failed(id("b"), Some(Box::new(Why::Failed("see tasks/notes".into()))))],
            more: 2,
        }];
        assert_eq!(
            Sentences("work").refusal(&Refusal::Blocked { task: id("a"), why }),
            "a is blocked: it needs b, which failed (see tasks/notes): move it to ready/, or take it out of needs; and 2 more"
        );
        let failed = stuck(StuckReason::Failed(FailureText::Given("see tasks/notes".into())));
        assert_eq!(failed, ("see tasks/notes".into(), Some("mv work/failed/a work/ready/".into())));
        let misname =
            Misname { name: "a b.md".into(), why: "why".into(), better: "a-b.md".into(), since: Wall(0) };
        assert_eq!(
            stuck(StuckReason::Misnamed(misname)),
            ("\"a b.md\" is no task: why".into(), Some("rename it to work/a-b.md".into()))
        );
    }

    #[test]
    fn times_are_rounded_and_many_names_are_cut() {
        let minutes = |n: u64| Span(n * 60_000 + 999);
        let lease = StuckReason::Lease { worker: name("w1"), silent: minutes(20), left: minutes(10) };
        assert_eq!(stuck(lease).0, "w1 was not heard of for 20m; its claim ends in 10m");
        let nobody = StuckReason::Nobody { ready: 1, silent: minutes(24) };
        assert_eq!(stuck(nobody).0, "1 ready, and no worker was heard of for 24m");
        let reason = LossReason::LeaseExpired { silent: Span(30 * 60_000) };
        let last = Loss { worker: name("w1"), epoch: 1, at: Wall(0), reason };
        assert_eq!(
            stuck(StuckReason::LostClaims { lost: 2, allowed: 3, last }),
            (
                "2 of 3 attempts are used up; the last was w1's: its lease ran out after 30m of silence"
                    .into(),
                None
            )
        );
        let words: Vec<String> = ["a", "b", "c", "d", "e", "f", "g"].map(String::from).to_vec();
        assert_eq!(named(&words), "a, b, c, d, e and 2 more");
        assert_eq!(named(&words[..2]), "a, b");
    }

    #[test]
    fn a_budget_is_told_in_round_numbers() {
        assert_eq!(allowed(BudgetUnit::Events, 2, 512), "2 events a second, 512 events at once");
        assert_eq!(allowed(BudgetUnit::Bytes, 100, 25 << 10), "100 B a second, 25 KiB at once");
        assert_eq!(allowed(BudgetUnit::Bytes, 1 << 20, 256 << 20), "1 MiB a second, 256 MiB at once");
    }
}
