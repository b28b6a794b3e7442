//! Carrying out commands: decide, append, fold; and if somebody else was first, read and decide again.

use millrace_domain::{Command, Event, JobId, JobState, Refusal, Stage, decide, fold, limits::DECIDE_ATTEMPTS_MAX};

use crate::{
    direct::ReadError,
    failpoints,
    log::{Append, AppendError, Log},
    now,
    snapshots::Snapshots,
};

/// Jobs as something that commands are given to.
#[derive(Clone)]
pub struct Jobs {
    /// The log.
    pub log: Log,
    /// The current states.
    pub snapshots: Snapshots,
}

/// What to do when an append's outcome stays unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Give up after [`millrace_domain::limits::APPEND_RETRY_MAX`]: somebody waits for the answer.
    Bounded,
    /// Send the same append until the log takes or refuses it: a state change waits for the log.
    Endless,
}

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecuteError {
    /// It does not apply to the job.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The outcome is unknown, or nothing was done; the same command may be given again.
    #[error("{0}")]
    Unavailable(String),
    /// The log takes no such event.
    #[error("{0}")]
    Rejected(String),
}

impl From<ReadError> for ExecuteError {
    fn from(error: ReadError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl Jobs {
    /// Carries out `command`; returns the state after it.
    ///
    /// `known` is what the caller holds of the job, however old: the expected sequence makes a stale one harmless, and a
    /// refusal that a newer state might not give is only believed of the newest.
    ///
    /// # Errors
    /// See [`ExecuteError`].
    pub async fn execute(
        &self,
        id: &JobId,
        known: Option<JobState>,
        command: &Command,
        patience: Patience,
    ) -> Result<JobState, ExecuteError> {
        let mut state = known;
        let mut newest = false;
        'deciding: for _ in 0..DECIDE_ATTEMPTS_MAX {
            let bodies = match decide(state.as_ref(), command.clone(), now()) {
                Ok(bodies) => bodies,
                Err(refusal) if newest || is_final(refusal) => return Err(refusal.into()),
                Err(_) => {
                    state = self.snapshots.get_from_leader(id).await?;
                    newest = true;
                    continue 'deciding;
                }
            };
            for body in bodies {
                failpoints::before(&body);
                let expected = state.as_ref().map_or(0, |state| state.last_seq(body.kind()));
                let event = Event { at: now(), body };
                let append = Append::new(id, expected, &event);
                let appended = loop {
                    match self.log.append(&append).await {
                        Err(AppendError::Unavailable(why)) if patience == Patience::Endless => {
                            tracing::warn!(job = %id, why, "the log is not available; a state change waits for it");
                        }
                        appended => break appended,
                    }
                };
                match appended {
                    Ok(seq) => {
                        state = fold(state, id, &append.entry(seq));
                        failpoints::after(&event.body);
                    }
                    Err(AppendError::Conflict { .. }) => {
                        state = self.snapshots.get_from_leader(id).await?;
                        newest = true;
                        continue 'deciding;
                    }
                    Err(AppendError::Unavailable(why)) => return Err(ExecuteError::Unavailable(why)),
                    Err(AppendError::Refused(why)) => return Err(ExecuteError::Rejected(why)),
                }
            }
            return state.ok_or(ExecuteError::Refused(Refusal::Unknown));
        }
        Err(ExecuteError::Unavailable(format!("others were first {DECIDE_ATTEMPTS_MAX} times in a row")))
    }
}

/// Whether every later state refuses too: nothing follows completion, and a job that exists stays.
const fn is_final(refusal: Refusal) -> bool {
    matches!(refusal, Refusal::Ended(Stage::Completed) | Refusal::Exists | Refusal::Superseded { .. })
}
