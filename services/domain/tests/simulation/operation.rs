//! A command in flight: the real [`Execution`] and the real [`Recovery`], with calls to a log between.

use std::time::Duration;

use jiff::Timestamp;
use millrace_domain::{
    Command, Entry, Event, EventBody, JobState, Refusal,
    append::{AppendError, Outcome, Recovery, Step},
    execution::{ExecuteError, Execution, Patience, Todo},
    retry::RETRY_DELAY_MAX,
    subjects::Kind,
};

use crate::{
    log::{Log, job_id},
    message::Publish,
};

/// Defects that the simulation must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Defect {
    None,
    /// A refusal is taken as final without a read.
    BelieveRefusals,
    /// The subject's last message is taken for the successor.
    AskForTheLast,
    /// After a refusal the same event is sent after the subject's last message.
    RebaseBlindly,
    /// Every try has a new message id.
    NewIdForEachTry,
    /// A worker acknowledges a job that another one has taken over.
    AcknowledgeFenced,
    /// A worker trusts a leader that lacks the work item.
    ForgetTheWorkItem,
    /// A claim accepts any work item of a job.
    IgnoreSupersession,
    /// A worker keeps the work item of a job that was submitted again.
    GiveBackSuperseded,
    /// A person's retry follows the last submission, whichever it is.
    RetryBlindly,
    /// A worker acknowledges a job that waits for its next attempt.
    AcknowledgeTooEarly,
    /// A worker does not wait for the time of the next attempt.
    IgnoreTheTime,
    /// Attempts before a person's retry count, too.
    CountAllAttempts,
    /// A job has no limit of attempts.
    CountNoAttempts,
    /// A worker starts the attempt before the next one anew.
    StartAgain,
    /// A worker trusts the first leader that has no entry of its job.
    BelieveOneAbsence,
    /// A worker never accepts that its job is gone.
    BelieveNoAbsence,
}

/// A request to the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    Publish(Publish),
    Successor { job: usize, kind: Kind, after: u64 },
    State { job: usize },
}

impl Call {
    /// The request arrives at the leader; `None`: the leader responds when the message is committed.
    pub fn arrive(self, log: &mut Log, call: u64) -> Option<Answer> {
        match self {
            Self::Publish(publish) => log.publish(publish, call).map(Answer::Append),
            Self::Successor { job, kind, after } => {
                Some(Answer::Append(Outcome::Successor(log.successor(job, kind, after))))
            }
            Self::State { job } => Some(Answer::State { state: log.state_at(job, log.caught_up), term: log.term }),
        }
    }
}

/// The response to a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    Append(Outcome),
    /// The job's state, and the leader that returned it.
    State {
        state: Option<JobState>,
        term: u64,
    },
    /// No response within this time.
    Nothing(Duration),
}

pub enum Next {
    Call(Call),
    /// The state after the command, why it does not apply, or that the log was unavailable.
    Done(Result<JobState, Option<Refusal>>),
}

/// Makes unique names and times.
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

/// A command with the process that gives it.
pub struct Order<'a> {
    pub job: usize,
    pub known: Option<JobState>,
    pub command: Command,
    pub writer: &'a str,
    /// The work item that a worker received.
    pub item: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Operation {
    job: usize,
    writer: String,
    item: Option<u64>,
    reports: Option<u32>,
    is_claim: bool,
    defect: Defect,
    execution: Execution,
    append: Option<(Recovery, Publish)>,
    elapsed: Duration,
    /// It waits for a state. An append, if there is one, is abandoned for the time being.
    reads: bool,
    /// The leader that had no entry of the job at the last read after an abandoned append.
    absent: Option<u64>,
    /// There was no room for its event.
    pub has_paused: bool,
}

impl Operation {
    pub fn begin(order: Order<'_>, defect: Defect, fresh: &mut Fresh, log: &mut Log) -> (Self, Next) {
        let Order { job, known, command, writer, item } = order;
        let reports = match &command {
            Command::Report { attempt, .. } | Command::Fail { attempt, .. } | Command::Stop { attempt } => {
                Some(*attempt)
            }
            _ => None,
        };
        // As in the worker's journal: progress is not worth repeating.
        let is_progress = matches!(&command, Command::Report { body: EventBody::Progress(_), .. });
        let patience = if reports.is_some() && !is_progress { Patience::Endless } else { Patience::Bounded };
        let is_claim = matches!(command, Command::Claim { .. });
        let (execution, todo) = Execution::begin(&job_id(job), known, command, patience, now(fresh, is_claim, defect));
        let mut operation = Self {
            job,
            writer: writer.to_owned(),
            item,
            reports,
            is_claim,
            defect,
            execution,
            append: None,
            elapsed: Duration::ZERO,
            reads: false,
            absent: None,
            has_paused: false,
        };
        let next = operation.go(todo, fresh, log);
        (operation, next)
    }

    pub fn answered(&mut self, answer: Answer, fresh: &mut Fresh, log: &mut Log) -> Next {
        match answer {
            Answer::State { state, term } => {
                // Every message can be decoded here: the state includes the last one that the leader has.
                let mut seq = state.as_ref().map_or(0, |state| state.seq);
                if self.defect == Defect::ForgetTheWorkItem && self.is_claim {
                    seq = seq.max(self.item.unwrap_or_default());
                }
                let absent = (self.append.is_some() && state.is_none()).then_some(term);
                if self.defect == Defect::BelieveNoAbsence && absent.is_some() {
                    seq = 1;
                }
                let mut todo = self.execution.read(state, seq, now(fresh, self.is_claim, self.defect));
                if self.defect == Defect::BelieveOneAbsence && absent.is_some() && todo == Todo::AppendAgain {
                    self.execution.appended(Err(AppendError::Unavailable(String::new())));
                    todo = self.execution.read(None, 0, fresh.time());
                }
                if let (Some(term), Todo::End(_)) = (absent, &todo) {
                    self.check_gone(term, log);
                }
                self.absent = absent;
                self.go(todo, fresh, log)
            }
            Answer::Append(outcome) => self.outcome(outcome, fresh, log),
            Answer::Nothing(_) if self.reads => {
                self.absent = None;
                let todo = self.execution.not_read("no answer".to_owned());
                self.go(todo, fresh, log)
            }
            Answer::Nothing(time) => {
                self.elapsed += time;
                self.outcome(Outcome::Unknown("no answer".to_owned()), fresh, log)
            }
        }
    }

    pub const fn job(&self) -> usize {
        self.job
    }

    /// Its append follows an entry of the job.
    pub const fn is_report(&self) -> bool {
        self.reports.is_some()
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
                (self.reads, self.absent) = (false, None);
                self.step(step, fresh, log)
            }
            Todo::AppendAgain => {
                let (recovery, publish) = self.append.as_mut().expect("an append comes before its repeat");
                self.elapsed = Duration::ZERO;
                self.reads = false;
                let (again, step) = Recovery::begin(&publish.id.to_string());
                *recovery = again;
                self.step(step, fresh, log)
            }
            Todo::Read => {
                self.reads = true;
                Next::Call(Call::State { job: self.job })
            }
            Todo::Pause(_) => {
                self.has_paused = true;
                let todo = self.execution.paused();
                self.go(todo, fresh, log)
            }
            Todo::End(Ok(state)) => Next::Done(Ok(*state)),
            Todo::End(Err(ExecuteError::Refused(refusal))) => Next::Done(Err(Some(refusal))),
            Todo::End(Err(_)) => Next::Done(Err(None)),
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
                let todo = self.execution.appended(Ok(entry));
                self.go(todo, fresh, log)
            }
            Step::End(Err(error)) => {
                match error {
                    AppendError::Conflict { seq } => {
                        check_conflict(publish, seq, log);
                        self.append = None;
                    }
                    // No leader lags for longer than an append is tried.
                    AppendError::Unavailable(_) if self.absent == Some(log.term) => log.catch_up(),
                    _ => {}
                }
                let todo = self.execution.appended(Err(error));
                self.go(todo, fresh, log)
            }
        }
    }

    /// An existing job may be missing on each of two successive leaders that lag, but the response of a single leader
    /// is not final.
    fn check_gone(&self, term: u64, log: &mut Log) {
        if log.truth(self.job).is_some() && self.absent.is_none_or(|before| before == term) {
            log.wrong.get_or_insert(format!("job {} is said to be gone, and is there", self.job));
        }
    }
}

/// The time at which a command is decided.
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
