//! How one append is brought to an end although replies are lost, leaders change and others write too.
//!
//! Pure: it is told what came of the last step and says what to do next. The shell sends, reads and waits. See
//! `tests/simulation` for what it withstands.

use std::time::Duration;

use crate::limits::{APPEND_PAUSE_FIRST, APPEND_PAUSE_MAX, APPEND_RETRY_MAX};

/// An append under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Recovery {
    message_id: String,
    pause: Duration,
    /// A refusal that is not believed yet.
    refused: Option<AppendError>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Send the message: always the same one, with the same message id and expectation.
    Send,
    /// Ask the leader for the first message on the subject after the expected sequence.
    ///
    /// Not for the subject's last: ours may be stored and have been followed by others already.
    AskSuccessor,
    /// Wait so long.
    Pause(Duration),
    /// It is over: the event's sequence, or why it is not, or not surely, in the log.
    End(Result<u64, AppendError>),
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The log has the message, at this sequence.
    Stored(u64),
    /// Another message is last on the subject, or ours, stored before.
    WrongLast,
    /// No answer, or one that does not tell.
    Unknown(String),
    /// The server does not take the message, and says why.
    Refused(String),
    /// The server has no room for the message, and says of what.
    NoRoom(String),
    /// The leader's answer: the successor of the expected sequence, if there is one.
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

/// Why an event is not, or not surely, in the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AppendError {
    /// Another writer's event follows the expected sequence: read, fold and decide again, or stop.
    #[error("another writer was first, at sequence {seq}")]
    Conflict {
        /// The sequence of the other event; a state to decide on must have seen it.
        seq: u64,
    },
    /// The outcome is unknown: stored or not. The same append may be sent again at any time.
    #[error("the log is not available: {0}")]
    Unavailable(String),
    /// Not stored: too large, no permission.
    #[error("the log refuses the event: {0}")]
    Refused(String),
    /// Not stored, and taken as soon as there is room: the same append may be sent again at any time.
    #[error("the log has no room: {0}")]
    NoRoom(String),
}

impl Recovery {
    /// The append of a message with this id, and the first step.
    #[must_use]
    pub fn begin(message_id: &str) -> (Self, Step) {
        (Self { message_id: message_id.to_owned(), pause: APPEND_PAUSE_FIRST, refused: None }, Step::Send)
    }

    /// The next step. `elapsed` is the time since the first.
    ///
    /// No refusal is believed before the leader was asked what really came next: ours may be stored by a request whose
    /// reply was lost.
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
                // What we expected is not there (yet): a new leader may still be catching up.
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
