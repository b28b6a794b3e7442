//! A command on its way: the real [`Execution`] and the real [`Recovery`], with calls to a log between.

use std::time::Duration;

use jiff::Timestamp;
use millrace_domain::{
    Command, Entry, Event, JobState, Refusal,
    append::{AppendError, Outcome, Recovery, Step},
    execution::{Execution, Todo},
    limits::NATS_REQUEST_MAX,
    subjects::Kind,
};

use crate::log::{Log, Publish, job_id};

/// Defects that the simulation must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Defect {
    None,
    /// A refusal is believed as it is.
    BelieveRefusals,
    /// The subject's last message is taken for the successor.
    AskForTheLast,
    /// After a refusal the same event is sent behind whatever is last.
    RebaseBlindly,
    /// Every try has a message id of its own.
    NewIdForEachTry,
    /// A worker acknowledges a job that another one has taken over.
    AcknowledgeFenced,
    /// A worker that is handed a job again forgets that it was submitted.
    ForgetTheSubmission,
}

/// A question for the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    Publish(Publish),
    Successor { job: usize, kind: Kind, after: u64 },
    State { job: usize },
}

/// Its answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    Append(Outcome),
    State(Option<JobState>),
    Nothing,
}

pub enum Next {
    Call(Call),
    /// The state after the command, why it does not apply, or that the log was not available.
    Done(Result<JobState, Option<Refusal>>),
}

/// Makes names and times that are used once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fresh(u64);

impl Fresh {
    /// Numbers after `first`.
    pub const fn after(first: u64) -> Self {
        Self(first)
    }

    pub fn number(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }

    pub fn time(&mut self) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + i64::try_from(self.number()).expect("a time")).expect("a time")
    }
}

#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Operation {
    job: usize,
    writer: String,
    reports: Option<u32>,
    /// The same append is sent until the log takes or refuses it.
    is_endless: bool,
    defect: Defect,
    execution: Execution,
    append: Option<(Recovery, Publish)>,
    elapsed: Duration,
}

impl Operation {
    pub fn begin(
        job: usize,
        known: Option<JobState>,
        command: Command,
        writer: &str,
        defect: Defect,
        fresh: &mut Fresh,
        log: &mut Log,
    ) -> (Self, Next) {
        let reports = match &command {
            Command::Report { attempt, .. } => Some(*attempt),
            _ => None,
        };
        let (execution, todo) = Execution::begin(&job_id(job), known, command, fresh.time());
        let mut operation = Self {
            job,
            writer: writer.to_owned(),
            reports,
            is_endless: reports.is_some(),
            defect,
            execution,
            append: None,
            elapsed: Duration::ZERO,
        };
        let next = operation.go(todo, fresh, log);
        (operation, next)
    }

    pub fn answered(&mut self, answer: Answer, fresh: &mut Fresh, log: &mut Log) -> Next {
        match answer {
            Answer::State(state) => {
                let todo = self.execution.read(state, fresh.time());
                self.go(todo, fresh, log)
            }
            Answer::Append(outcome) => self.outcome(outcome, fresh, log),
            Answer::Nothing => {
                self.elapsed += NATS_REQUEST_MAX;
                match &self.append {
                    Some(_) => self.outcome(Outcome::Unknown("no answer".to_owned()), fresh, log),
                    None => Next::Done(Err(None)),
                }
            }
        }
    }

    fn outcome(&mut self, outcome: Outcome, fresh: &mut Fresh, log: &mut Log) -> Next {
        let (recovery, publish) = self.append.as_mut().expect("an append is under way");
        let outcome = match (self.defect, outcome) {
            (Defect::RebaseBlindly, Outcome::WrongLast) => {
                let state = log.state_at(self.job, log.caught_up);
                publish.expected = state.map_or(0, |state| state.events_seq);
                return Next::Call(Call::Publish(publish.clone()));
            }
            (Defect::BelieveRefusals, Outcome::WrongLast) => {
                let seq = log.state_at(self.job, log.caught_up).map_or(0, |state| state.seq);
                return self.step(Step::End(Err(AppendError::Conflict { seq })), fresh, log);
            }
            (_, outcome) => outcome,
        };
        let step = recovery.next(outcome, self.elapsed);
        self.step(step, fresh, log)
    }

    fn go(&mut self, todo: Todo, fresh: &mut Fresh, log: &mut Log) -> Next {
        match todo {
            Todo::Append { expected, body } => {
                let id = fresh.number();
                let event = Event { at: fresh.time(), body };
                let (job, writer, reports) = (self.job, self.writer.clone(), self.reports);
                let publish = Publish { id, append: id, job, expected, event, writer, reports };
                self.elapsed = Duration::ZERO;
                let (recovery, step) = Recovery::begin(&id.to_string());
                self.append = Some((recovery, publish));
                self.step(step, fresh, log)
            }
            Todo::Read => {
                self.append = None;
                Next::Call(Call::State { job: self.job })
            }
            Todo::End(result) => Next::Done(result.map(|state| *state).map_err(Some)),
            Todo::GiveUp => Next::Done(Err(None)),
        }
    }

    fn step(&mut self, step: Step, fresh: &mut Fresh, log: &mut Log) -> Next {
        let (recovery, publish) = self.append.as_mut().expect("an append is under way");
        match step {
            Step::Send => {
                if self.defect == Defect::NewIdForEachTry {
                    publish.id = fresh.number();
                }
                Next::Call(Call::Publish(publish.clone()))
            }
            Step::AskSuccessor => {
                let kind = publish.event.body.kind();
                let after = match log.truth(self.job) {
                    Some(state) if self.defect == Defect::AskForTheLast && kind == Kind::Events => {
                        state.events_seq.saturating_sub(1)
                    }
                    _ => publish.expected,
                };
                Next::Call(Call::Successor { job: self.job, kind, after })
            }
            Step::Pause(pause) => {
                self.elapsed += pause;
                let step = recovery.next(Outcome::Paused, self.elapsed);
                self.step(step, fresh, log)
            }
            Step::End(Ok(seq)) => {
                check_stored(publish, seq, log);
                let event = Some(publish.event.clone());
                let entry = Entry { seq, kind: publish.event.body.kind(), event };
                let todo = self.execution.appended(&entry);
                self.go(todo, fresh, log)
            }
            Step::End(Err(AppendError::Conflict { seq })) => {
                check_conflict(publish, seq, log);
                let todo = self.execution.forestalled(seq);
                self.go(todo, fresh, log)
            }
            Step::End(Err(AppendError::Unavailable(_) | AppendError::NoRoom(_))) if self.is_endless => {
                self.elapsed = Duration::ZERO;
                let (again, step) = Recovery::begin(&publish.id.to_string());
                *recovery = again;
                self.step(step, fresh, log)
            }
            Step::End(Err(_)) => Next::Done(Err(None)),
        }
    }
}

fn check_stored(publish: &Publish, seq: u64, log: &mut Log) {
    let stored = usize::try_from(seq).ok().and_then(|seq| log.stored.get(seq.checked_sub(1)?));
    if stored.is_none_or(|stored| stored.append != publish.append) {
        log.wrong.get_or_insert(format!("said to be stored at {seq}, which is another: {publish:?}"));
    }
}

fn check_conflict(publish: &Publish, seq: u64, log: &mut Log) {
    if log.stored.iter().any(|stored| stored.append == publish.append) {
        log.wrong.get_or_insert(format!("another is said to be first, at {seq}, but it is stored: {publish:?}"));
    }
}
