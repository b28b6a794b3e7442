//! A command on its way: the real [`Execution`] and the real [`Recovery`], with calls to a log between.

use std::time::Duration;

use jiff::Timestamp;
use millrace_domain::{
    Command, Entry, Event, EventBody, JobState, Refusal,
    append::{AppendError, Outcome, Recovery, Step},
    execution::{Execution, Todo},
    limits::NATS_REQUEST_MAX,
    retry::RETRY_DELAY_MAX,
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
    /// A worker believes a leader who has not seen the work item yet.
    ForgetTheWorkItem,
    /// Any work item of a job does for a claim.
    IgnoreSupersession,
    /// A worker keeps the work item of a job that was submitted again.
    GiveBackSuperseded,
    /// A person's retry follows whatever submission is last.
    RetryBlindly,
    /// A worker acknowledges a job that waits for its next attempt.
    AcknowledgeTooEarly,
    /// A worker does not wait for the time of the next attempt.
    IgnoreTheTime,
    /// Attempts of before a person's retry count, too.
    CountAllAttempts,
    /// A job may cost as many attempts as it takes.
    CountNoAttempts,
    /// A worker starts the attempt before the next one anew.
    StartAgain,
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

    /// Time passes.
    pub const fn skip(&mut self, time: Duration) {
        self.0 += time.as_millis() as u64;
    }

    pub fn time(&mut self) -> Timestamp {
        Timestamp::from_millisecond(1_790_000_000_000 + i64::try_from(self.number()).expect("a time")).expect("a time")
    }
}

/// Who wants what of a job.
pub struct Order<'a> {
    pub job: usize,
    pub known: Option<JobState>,
    pub command: Command,
    pub writer: &'a str,
    /// The work item that a worker was handed.
    pub item: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Operation {
    job: usize,
    writer: String,
    item: Option<u64>,
    reports: Option<u32>,
    is_claim: bool,
    /// The same append is sent until the log takes or refuses it.
    is_endless: bool,
    defect: Defect,
    execution: Execution,
    append: Option<(Recovery, Publish)>,
    elapsed: Duration,
}

impl Operation {
    pub fn begin(order: Order<'_>, defect: Defect, fresh: &mut Fresh, log: &mut Log) -> (Self, Next) {
        let Order { job, known, command, writer, item } = order;
        let reports = match &command {
            Command::Report { attempt, .. } | Command::Fail { attempt, .. } => Some(*attempt),
            _ => None,
        };
        let is_claim = matches!(command, Command::Claim { .. });
        let (execution, todo) = Execution::begin(&job_id(job), known, command, now(fresh, is_claim, defect));
        let mut operation = Self {
            job,
            writer: writer.to_owned(),
            item,
            reports,
            is_claim,
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
                // Every message can be read here: the state has seen the last one that the leader has.
                let mut seq = state.as_ref().map_or(0, |state| state.seq);
                if self.defect == Defect::ForgetTheWorkItem && self.is_claim {
                    seq = seq.max(self.item.unwrap_or_default());
                }
                let todo = self.execution.read(state, seq, now(fresh, self.is_claim, self.defect));
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
                let body = match body {
                    EventBody::Started { worker, attempt } if self.defect == Defect::StartAgain => {
                        EventBody::Started { worker, attempt: attempt.saturating_sub(1).max(1) }
                    }
                    body => body,
                };
                let event = Event { at: fresh.time(), body };
                let (job, writer, reports, item) = (self.job, self.writer.clone(), self.reports, self.item);
                let publish = Publish { id, append: id, job, expected, event, writer, reports, item };
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
                if self.defect == Defect::RetryBlindly && publish.event.body == EventBody::Resubmitted {
                    publish.expected = log.truth(self.job).map_or(0, |state| state.submitted_seq);
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
                let event = Ok(publish.event.clone());
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

/// The time by which a command is decided.
fn now(fresh: &mut Fresh, is_claim: bool, defect: Defect) -> Timestamp {
    let ahead = if defect == Defect::IgnoreTheTime && is_claim { RETRY_DELAY_MAX } else { Duration::ZERO };
    fresh.time() + ahead
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
