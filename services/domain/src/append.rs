//! Completes one append despite lost replies, leader changes and other writers.
//!
//! Pure: it receives the outcome of the last step and returns the next one. The shell sends, reads and waits.
//! `tests/simulation` shows which faults it withstands.

use std::time::Duration;

use crate::limits::{APPEND_PAUSE_FIRST, APPEND_PAUSE_MAX, APPEND_RETRY_MAX};

/// An append in flight.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Recovery {
    message_id: String,
    pause: Duration,
    /// A refusal that the leader has not yet confirmed.
    refused: Option<AppendError>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Send the message: always the same one, with the same message id and expected sequence.
    Send,
    /// Read from the leader the first message on the subject after the expected sequence.
    ///
    /// Not the subject's last message: ours may be stored and other messages may have followed it already.
    AskSuccessor,
    /// Wait for this duration.
    Pause(Duration),
    /// The append has ended: the event's sequence, or why the event is not, or not certainly, in the log.
    End(Result<u64, AppendError>),
}

/// The outcome of a step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The log has the message, at this sequence.
    Stored(u64),
    /// The subject's last message is another writer's, or ours, stored earlier.
    WrongLast,
    /// No response, or one that leaves the outcome unknown.
    Unknown(String),
    /// The server refuses the message, and reports why.
    Refused(String),
    /// The server has no room for the message, and reports which resource is exhausted.
    NoRoom(String),
    /// The leader's response: the successor of the expected sequence, if there is one.
    Successor(Option<Successor>),
    /// The pause is over.
    Paused,
}

/// The first message after the expected sequence.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Successor {
    /// Its sequence.
    pub seq: u64,
    /// Its writer's message id.
    pub message_id: Option<String>,
}

/// Why an event is not, or not certainly, in the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AppendError {
    /// Another writer's event follows the expected sequence: read, fold and decide again, or stop.
    #[error("another writer was first, at sequence {seq}")]
    Conflict {
        /// The sequence of the other event; a state to decide on must include it.
        seq: u64,
    },
    /// The outcome is unknown: stored or not. The same append may be sent again at any time.
    #[error("the log is unavailable: {0}")]
    Unavailable(String),
    /// Not stored: too large, no permission.
    #[error("the log refused the event: {0}")]
    Refused(String),
    /// Not stored; the log accepts it once there is room. The same append may be sent again at any time.
    #[error("the log has no room: {0}")]
    NoRoom(String),
}

impl Recovery {
    /// Begins the append of a message with this id, and returns the first step.
    #[must_use]
    pub fn begin(message_id: &str) -> (Self, Step) {
        (Self { message_id: message_id.to_owned(), pause: APPEND_PAUSE_FIRST, refused: None }, Step::Send)
    }

    /// The next step. `elapsed` is the time since the first step.
    ///
    /// A refusal is not final until the leader has returned the successor of the expected sequence: a request whose
    /// reply was lost may have stored our message.
    pub fn next(&mut self, outcome: Outcome, elapsed: Duration) -> Step {
        match outcome {
            Outcome::Stored(seq) => Step::End(Ok(seq)),
            Outcome::WrongLast => {
                self.refused = None;
                Step::AskSuccessor
            }
            Outcome::Refused(why) => self.refused(AppendError::Refused(why)),
            Outcome::NoRoom(why) => self.refused(AppendError::NoRoom(why)),
            Outcome::Successor(Some(next)) if next.message_id.as_deref() == Some(&self.message_id) => {
                Step::End(Ok(next.seq))
            }
            Outcome::Successor(Some(next)) => Step::End(Err(AppendError::Conflict { seq: next.seq })),
            Outcome::Successor(None) => match self.refused.take() {
                Some(error) => Step::End(Err(error)),
                // The expected sequence is not there (yet): a new leader may still be catching up.
                None => self.again("the expected sequence is ahead of the log", elapsed),
            },
            Outcome::Unknown(why) => self.again(&why, elapsed),
            Outcome::Paused => Step::Send,
        }
    }

    fn refused(&mut self, error: AppendError) -> Step {
        self.refused = Some(error);
        Step::AskSuccessor
    }

    fn again(&mut self, why: &str, elapsed: Duration) -> Step {
        let pause = self.pause;
        if elapsed + pause > APPEND_RETRY_MAX {
            return Step::End(Err(AppendError::Unavailable(why.to_owned())));
        }
        self.pause = (pause * 2).min(APPEND_PAUSE_MAX);
        Step::Pause(pause)
    }
}
