//! How a command is carried out: decide, append, fold; and if somebody else was first, read and decide again.
//!
//! Pure, like [`crate::append`]: the shell appends and reads.

use std::{
    collections::VecDeque,
    hash::{Hash, Hasher},
};

use jiff::Timestamp;

use crate::{
    decide::{Command, Refusal, decide},
    event::EventBody,
    fold::{Entry, fold},
    ids::JobId,
    limits::DECIDE_ATTEMPTS_MAX,
    state::{JobState, Stage},
};

/// A command under way.
#[derive(Clone, Debug, PartialEq)]
pub struct Execution {
    id: JobId,
    command: Command,
    state: Option<JobState>,
    /// The state was read of the leader.
    is_newest: bool,
    /// A state read now must have seen this sequence, or whoever gave it lags behind.
    seen: u64,
    /// Events that were decided and are not appended yet.
    bodies: VecDeque<EventBody>,
    decisions: u32,
}

/// Without the command, which may hold a number that cannot be hashed: equal ones still have equal hashes.
impl Hash for Execution {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (&self.id, &self.state, self.is_newest, self.seen, &self.bodies, self.decisions).hash(hasher);
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Todo {
    /// Append this event, expecting this sequence on its subject; then tell [`Execution::appended`] or
    /// [`Execution::forestalled`].
    Append {
        /// The expected sequence.
        expected: u64,
        /// The event.
        body: EventBody,
    },
    /// Ask the leader for the job's state, for [`Execution::read`].
    Read,
    /// It is over: the state after the command, or why it does not apply.
    End(Result<Box<JobState>, Refusal>),
    /// Others were first, again and again, or what is read stays behind; the same command may be given again.
    GiveUp,
}

impl Execution {
    /// Begins to carry out `command`; what the caller knows of the job may be old.
    ///
    /// Whoever claims has been handed a work item: nothing that has not seen it tells that the job has ended or that
    /// there is none.
    #[must_use]
    pub fn begin(id: &JobId, known: Option<JobState>, command: Command, now: Timestamp) -> (Self, Todo) {
        let handed_over = match command {
            Command::Claim { submitted_seq, .. } => submitted_seq,
            _ => 0,
        };
        let seen = known.as_ref().map_or(0, |state| state.seq).max(handed_over);
        let mut execution = Self {
            id: id.clone(),
            command,
            state: known,
            is_newest: false,
            seen,
            bodies: VecDeque::new(),
            decisions: 0,
        };
        let todo = execution.decide(now);
        (execution, todo)
    }

    /// The event is in the log.
    pub fn appended(&mut self, entry: &Entry) -> Todo {
        self.state = fold(self.state.take(), &self.id, entry);
        self.next_body()
    }

    /// Somebody else's event, at `seq`, came first.
    pub fn forestalled(&mut self, seq: u64) -> Todo {
        self.seen = self.seen.max(seq);
        Todo::Read
    }

    /// The leader's state of the job, and the sequence of the last entry that the leader has of it, which may be one
    /// that nobody can read. A leader who has not seen what is known to exist still catches up: nothing is decided on
    /// what it says.
    pub fn read(&mut self, state: Option<JobState>, seq: u64, now: Timestamp) -> Todo {
        if seq < self.seen {
            self.decisions += 1;
            return if self.decisions < DECIDE_ATTEMPTS_MAX { Todo::Read } else { Todo::GiveUp };
        }
        self.state = state;
        self.is_newest = true;
        self.decide(now)
    }

    fn decide(&mut self, now: Timestamp) -> Todo {
        if self.decisions >= DECIDE_ATTEMPTS_MAX {
            return Todo::GiveUp;
        }
        self.decisions += 1;
        match decide(self.state.as_ref(), self.command.clone(), now) {
            Ok(bodies) => {
                self.bodies = bodies.into();
                self.next_body()
            }
            Err(refusal) if self.is_newest || is_final(refusal) => Todo::End(Err(refusal)),
            Err(_) => Todo::Read,
        }
    }

    fn next_body(&mut self) -> Todo {
        match (self.bodies.pop_front(), &self.state) {
            (Some(body), state) => {
                let expected = state.as_ref().map_or(0, |state| state.last_seq(body.kind()));
                Todo::Append { expected, body }
            }
            (None, Some(state)) => Todo::End(Ok(Box::new(state.clone()))),
            (None, None) => Todo::End(Err(Refusal::Unknown)),
        }
    }
}

/// Whether every later state refuses too: nothing follows completion, and a job that exists stays.
const fn is_final(refusal: Refusal) -> bool {
    matches!(refusal, Refusal::Ended(Stage::Completed) | Refusal::Exists | Refusal::Superseded { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Event, failure::FailureKind, fold::fold_all, retry::Budget};

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    /// A job that was submitted at 1, has failed at 2 and was resubmitted at 3, as somebody sees it who has so many of
    /// these.
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
            let (mut execution, todo) = Execution::begin(&id(), known.clone(), claim(3), NOW);
            assert_eq!(todo, Todo::Read);
            assert_eq!(execution.read(known, behind as u64, NOW), Todo::Read, "it has seen {behind}");
            let todo = execution.read(seen_of_retried(3), 3, NOW);
            let body = EventBody::Started { worker: "w".into(), attempt: 2 };
            assert_eq!(todo, Todo::Append { expected: 2, body });
        }
    }

    #[test]
    fn a_leader_who_has_the_work_item_and_knows_no_job_is_believed() {
        let (mut execution, todo) = Execution::begin(&id(), None, claim(3), NOW);
        assert_eq!(todo, Todo::Read);
        assert_eq!(execution.read(None, 3, NOW), Todo::End(Err(Refusal::Unknown)));
    }

    #[test]
    fn a_leader_who_never_catches_up_is_asked_so_often_and_no_more() {
        let (mut execution, mut todo) = Execution::begin(&id(), None, claim(3), NOW);
        let mut reads = 0;
        while todo == Todo::Read {
            reads += 1;
            todo = execution.read(None, 0, NOW);
        }
        assert_eq!((todo, reads), (Todo::GiveUp, DECIDE_ATTEMPTS_MAX - 1));
    }
}
