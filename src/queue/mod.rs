//! The queue as a pure state machine: which commands are allowed, and which events happened.
//!
//! May assume: nothing but its arguments.
//! Must never: read a clock, touch a file, start a thread, or know that a filesystem exists.
//!
//! Data flows one way. A [`Command`] is a request. [`decide`] judges it against the [`State`] and returns [`Event`]s or a [`Refusal`]. An
//! event is a fact with its time. [`State::apply`] never judges an event again, so a stricter rule cannot break an older log. `replay(log)
//! == state`, always.
//!
//! A refusal and every other reason is a fact, too. The filesystem turns facts into sentences, because only the filesystem knows what the
//! reader can type.
//!
//! The number of the event that made a claim is the *epoch* of the claim. Epochs only grow, so an epoch fences off a stale holder.

mod access;
mod areas;
mod budget;
mod command;
mod content;
mod counts;
mod decide;
mod event;
mod instructions;
pub mod lease;
mod loss;
mod names;
mod overlap;
mod pace;
mod private;
mod rank;
mod ready_index;
mod reasons;
mod refusal;
mod state;
mod stuck;
mod summary;
mod summary_input;
mod task;
mod time;
mod why;
mod worker;

pub use access::{Access, Eyes, Wanted};
pub use budget::{Accounts, Budget, Cost, Payer, cost as cost_of};
pub use command::{Actor, ClaimForm, Command, Decision, Ending, Outcome};
pub use content::{Content, Digest};
pub use decide::decide;
pub use event::{Event, Record};
pub use instructions::{bounded as bounded_warnings, owned_files, parse as parse_instructions};
pub use loss::{LossReason, ProcessEnding};
pub use names::{TaskId, WorkerName};
pub use overlap::roots as owned_roots;
pub use ready_index::Rules;
pub use reasons::{ClaimFate, Obstacle, Standing, UnmetNeed, Why};
pub use refusal::{BudgetUnit, EndedClaim, OperatorAct, Refusal, Spender};
pub use state::{State, TaskState};
pub use stuck::{FailureText, Stuck, StuckKind, StuckReason};
pub use summary::Summary;
pub use summary_input::{Misname, SummaryInput};
pub use task::{
    Claim, FileStamp, FileState, Finish, Loss, Manifest, Moment, Note, Phase, Priority, Problem, Spec, Task,
    TextRef, When,
};
pub use time::{Instant, Now, Seq, Span, Wall};
pub use worker::{Lost, Worker};
