//! Carries out a command: decide, append, fold; if another writer was first, read and decide again. Where a state
//! change waits for the log, the same append is sent until the log accepts it or the job turns out to be gone.
//!
//! Pure, like [`crate::append`]: the shell appends, reads and waits. `tests/simulation` shows which faults it
//! withstands.

use std::{
    collections::VecDeque,
    hash::{Hash, Hasher},
    time::Duration,
};

use jiff::Timestamp;

use crate::{
    append::AppendError,
    decide::{Command, Refusal, decide},
    event::EventBody,
    fold::{Entry, fold},
    ids::JobId,
    limits::{ABSENCES_BELIEVED, DECIDE_ATTEMPTS_MAX, NO_ROOM_PAUSE},
    state::{JobState, Stage},
};

/// A command in flight.
#[derive(Clone, Debug, PartialEq)]
pub struct Execution {
    id: JobId,
    command: Command,
    patience: Patience,
    state: Option<JobState>,
    /// The state was read from the leader.
    is_newest: bool,
    /// A state read now must include this sequence; otherwise the server that returned it is stale.
    seen: u64,
    /// Events that were decided and have not been appended yet.
    bodies: VecDeque<EventBody>,
    decisions: u32,
    phase: Phase,
}

/// What to do when an append's outcome stays unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Patience {
    /// Give up after [`crate::limits::APPEND_RETRY_MAX`], and at once if there is no room: a caller waits for the
    /// result.
    Bounded,
    /// Send the same append until the log accepts or refuses it, or the job is gone: a state change waits for the log.
    Endless,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// A state is being read for the decision.
    Deciding,
    /// An event is being appended. `absences` counts, in a row, the reads after an abandoned append in which the leader
    /// had no entry of the job.
    Appending { absences: u32 },
}

/// Leaves out the command, which may hold a number that cannot be hashed: equal executions still have equal hashes.
impl Hash for Execution {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (&self.id, self.patience, &self.state, self.is_newest, self.seen).hash(hasher);
        (&self.bodies, self.decisions, self.phase).hash(hasher);
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Todo {
    /// Append this event, expecting this sequence on its subject; then call [`Execution::appended`].
    Append {
        /// The expected sequence.
        expected: u64,
        /// The event.
        body: EventBody,
    },
    /// Send the last append again, with the same message id; then call [`Execution::appended`].
    AppendAgain,
    /// Read the job's state from the leader; then call [`Execution::read`] or [`Execution::not_read`].
    Read,
    /// Wait for this duration; then call [`Execution::paused`].
    Pause(Duration),
    /// The command has ended: the state after it, or why it was not carried out.
    End(Result<Box<JobState>, ExecuteError>),
}

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecuteError {
    /// It does not apply to the job.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The outcome is unknown, or nothing was done; the caller may repeat the command.
    #[error("{0}")]
    Unavailable(String),
    /// The log has no room; the caller may repeat the command.
    #[error("NATS has no room for more events: {0}")]
    NoRoom(String),
    /// The log refuses the event.
    #[error("{0}")]
    Rejected(String),
}

impl Execution {
    /// Begins to carry out `command`; the state that the caller knows may be stale.
    ///
    /// A claim comes from a delivered work item: a server without that work item cannot show that the job has ended or
    /// does not exist.
    #[must_use]
    pub fn begin(
        id: &JobId,
        known: Option<JobState>,
        command: Command,
        patience: Patience,
        now: Timestamp,
    ) -> (Self, Todo) {
        let handed_over = match command {
            Command::Claim { submitted_seq, .. } => submitted_seq,
            _ => 0,
        };
        let seen = known.as_ref().map_or(0, |state| state.seq).max(handed_over);
        let mut execution = Self {
            id: id.clone(),
            command,
            patience,
            state: known,
            is_newest: false,
            seen,
            bodies: VecDeque::new(),
            decisions: 0,
            phase: Phase::Deciding,
        };
        let todo = execution.decide(now);
        (execution, todo)
    }

    /// Takes the result of an append: the entry in the log, or why it is not, or not certainly, there.
    pub fn appended(&mut self, result: Result<Entry, AppendError>) -> Todo {
        match result {
            Ok(entry) => {
                self.state = fold(self.state.take(), &self.id, &entry);
                self.next_body()
            }
            Err(AppendError::Conflict { seq }) => {
                self.seen = self.seen.max(seq);
                self.phase = Phase::Deciding;
                Todo::Read
            }
            // The job may have been removed: then the log never accepts an append that expects one of its entries.
            Err(AppendError::Unavailable(_)) if self.patience == Patience::Endless => Todo::Read,
            Err(AppendError::NoRoom(_)) if self.patience == Patience::Endless => Todo::Pause(NO_ROOM_PAUSE),
            Err(AppendError::Unavailable(why)) => Todo::End(Err(ExecuteError::Unavailable(why))),
            Err(AppendError::NoRoom(why)) => Todo::End(Err(ExecuteError::NoRoom(why))),
            Err(AppendError::Refused(why)) => Todo::End(Err(ExecuteError::Rejected(why))),
        }
    }

    /// The pause is over.
    pub const fn paused(&mut self) -> Todo {
        Todo::AppendAgain
    }

    /// Takes the leader's state of the job, and the sequence of the last entry that the leader has of the job (0:
    /// none), which may be an undecodable one.
    ///
    /// A leader that lacks an entry known to exist is still catching up, and its state is not used for a decision. For
    /// the same reason a job counts as gone only if the leader has no entry of it [`ABSENCES_BELIEVED`] times in a row.
    pub fn read(&mut self, state: Option<JobState>, seq: u64, now: Timestamp) -> Todo {
        match &mut self.phase {
            Phase::Appending { absences } => {
                *absences = if state.is_none() && seq == 0 { *absences + 1 } else { 0 };
                if *absences < ABSENCES_BELIEVED {
                    return Todo::AppendAgain;
                }
                Todo::End(Err(Refusal::Unknown.into()))
            }
            Phase::Deciding if seq < self.seen => {
                self.decisions += 1;
                if self.decisions < DECIDE_ATTEMPTS_MAX { Todo::Read } else { give_up() }
            }
            Phase::Deciding => {
                self.state = state;
                self.is_newest = true;
                self.decide(now)
            }
        }
    }

    /// The leader did not respond.
    pub fn not_read(&mut self, why: String) -> Todo {
        match &mut self.phase {
            Phase::Appending { absences } => {
                *absences = 0;
                Todo::AppendAgain
            }
            Phase::Deciding => Todo::End(Err(ExecuteError::Unavailable(why))),
        }
    }

    fn decide(&mut self, now: Timestamp) -> Todo {
        if self.decisions >= DECIDE_ATTEMPTS_MAX {
            return give_up();
        }
        self.decisions += 1;
        match decide(self.state.as_ref(), self.command.clone(), now) {
            Ok(bodies) => {
                self.bodies = bodies.into();
                self.next_body()
            }
            Err(refusal) if self.is_newest || is_final(refusal) => Todo::End(Err(refusal.into())),
            Err(_) => Todo::Read,
        }
    }

    fn next_body(&mut self) -> Todo {
        match (self.bodies.pop_front(), &self.state) {
            (Some(body), state) => {
                self.phase = Phase::Appending { absences: 0 };
                let expected = state.as_ref().map_or(0, |state| state.last_seq(body.kind()));
                Todo::Append { expected, body }
            }
            (None, Some(state)) => Todo::End(Ok(Box::new(state.clone()))),
            (None, None) => Todo::End(Err(Refusal::Unknown.into())),
        }
    }
}

fn give_up() -> Todo {
    let why = format!("other writers were first, or the log's leader was behind, {DECIDE_ATTEMPTS_MAX} times in a row");
    Todo::End(Err(ExecuteError::Unavailable(why)))
}

/// Whether every later state gives the same refusal: no event follows completion, and an existing job remains.
const fn is_final(refusal: Refusal) -> bool {
    matches!(refusal, Refusal::Ended(Stage::Completed) | Refusal::Exists | Refusal::Superseded { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Event, failure::FailureKind, fold::fold_all, retry::Budget, subjects::Kind};

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    /// A job that was submitted at 1, failed at 2 and was resubmitted at 3, as read from a server that has the first
    /// `count` of these entries.
    fn seen_of_retried(count: usize) -> Option<JobState> {
        let submitted = serde_json::from_str(r#"{"type":"submitted","url":"http://e.org/"}"#).unwrap();
        let bodies = [submitted, EventBody::Failed(FailureKind::Unsupported.failure()), EventBody::Resubmitted];
        let entries = (1..).zip(bodies).map(|(seq, body): (u64, EventBody)| {
            let kind = body.kind();
            Entry { seq, kind, event: Ok(Event { at: NOW, body }) }
        });
        fold_all(None, &id(), &entries.take(count).collect::<Vec<_>>())
    }

    fn id() -> JobId {
        "a".parse().unwrap()
    }

    fn claim(submitted_seq: u64) -> Command {
        Command::Claim { worker: "w".into(), submitted_seq, budget: Budget::default() }
    }

    #[test]
    fn a_leader_who_lags_behind_the_work_item_does_not_tell_that_its_job_has_ended_or_is_none() {
        for behind in [0, 2] {
            let known = seen_of_retried(behind);
            let (mut execution, todo) = Execution::begin(&id(), known.clone(), claim(3), Patience::Bounded, NOW);
            assert_eq!(todo, Todo::Read);
            assert_eq!(execution.read(known, behind as u64, NOW), Todo::Read, "it has seen {behind}");
            let todo = execution.read(seen_of_retried(3), 3, NOW);
            let body = EventBody::Started { worker: "w".into(), attempt: 2 };
            assert_eq!(todo, Todo::Append { expected: 2, body });
        }
    }

    #[test]
    fn a_leader_who_has_the_work_item_and_knows_no_job_is_believed() {
        let (mut execution, todo) = Execution::begin(&id(), None, claim(3), Patience::Bounded, NOW);
        assert_eq!(todo, Todo::Read);
        assert_eq!(execution.read(None, 3, NOW), Todo::End(Err(Refusal::Unknown.into())));
    }

    #[test]
    fn a_leader_who_never_catches_up_is_asked_so_often_and_no_more() {
        let (mut execution, mut todo) = Execution::begin(&id(), None, claim(3), Patience::Bounded, NOW);
        let mut reads = 0;
        while todo == Todo::Read {
            reads += 1;
            todo = execution.read(None, 0, NOW);
        }
        assert_eq!((todo, reads), (give_up(), DECIDE_ATTEMPTS_MAX - 1));
    }

    /// A worker that has begun its attempt at 2 reports what the video is.
    fn reporting(patience: Patience) -> (Execution, Todo) {
        let started = EventBody::Started { worker: "w".into(), attempt: 1 };
        let started = Entry { seq: 2, kind: Kind::Events, event: Ok(Event { at: NOW, body: started }) };
        let known = fold(seen_of_retried(1), &id(), &started);
        let body = EventBody::Info { video_info: Default::default() };
        Execution::begin(&id(), known, Command::Report { attempt: 1, body }, patience, NOW)
    }

    fn away() -> Result<Entry, AppendError> {
        Err(AppendError::Unavailable("away".into()))
    }

    fn full() -> Result<Entry, AppendError> {
        Err(AppendError::NoRoom("full".into()))
    }

    #[test]
    fn a_state_change_is_sent_until_two_answers_in_a_row_say_that_its_job_is_gone() {
        let (mut execution, _) = reporting(Patience::Endless);
        let mut look = |answer: Option<(Option<JobState>, u64)>| {
            assert_eq!(execution.appended(away()), Todo::Read);
            match answer {
                Some((state, seq)) => execution.read(state, seq, NOW),
                None => execution.not_read("away".into()),
            }
        };
        // A job that exists, one without a readable entry, and no response: each resets the count.
        for there in [Some((seen_of_retried(1), 1)), Some((None, 2)), None] {
            assert_eq!(look(Some((None, 0))), Todo::AppendAgain);
            assert_eq!(look(there), Todo::AppendAgain);
        }
        assert_eq!(look(Some((None, 0))), Todo::AppendAgain);
        assert_eq!(look(Some((None, 0))), Todo::End(Err(Refusal::Unknown.into())));
    }

    #[test]
    fn a_state_change_waits_for_room_and_a_caller_does_not() {
        let (mut patient, _) = reporting(Patience::Endless);
        assert_eq!(patient.appended(full()), Todo::Pause(NO_ROOM_PAUSE));
        assert_eq!(patient.paused(), Todo::AppendAgain);
        let (mut hurried, _) = reporting(Patience::Bounded);
        assert_eq!(hurried.clone().appended(full()), Todo::End(Err(ExecuteError::NoRoom("full".into()))));
        assert_eq!(hurried.appended(away()), Todo::End(Err(ExecuteError::Unavailable("away".into()))));
    }
}
