//! Carrying out commands: [`millrace_domain::execution`] says what to append and when to read; here that is done.

use millrace_domain::{
    Command, Event, JobId, JobState, Refusal,
    execution::{Execution, Todo},
    limits::{ABSENCES_BELIEVED, DECIDE_ATTEMPTS_MAX, NO_ROOM_PAUSE},
};

use tokio::time::sleep;

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
    /// Give up after [`millrace_domain::limits::APPEND_RETRY_MAX`], and at once where there is no room: somebody waits for the answer.
    Bounded,
    /// Send the same append until the log takes or refuses it: a state change waits for the log.
    Endless,
}

enum NotAppended {
    For(AppendError),
    /// The job was removed from the log.
    Gone,
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
    /// The log has no room; the same command may be given again.
    #[error("NATS has no room for more events: {0}")]
    NoRoom(String),
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
        let (mut execution, mut todo) = Execution::begin(id, known, command.clone(), now());
        loop {
            todo = match todo {
                Todo::Append { expected, body } => {
                    failpoints::before(&body);
                    let event = Event { at: now(), body };
                    let append = Append::new(id, expected, &event);
                    match self.append(&append, patience).await {
                        Ok(seq) => {
                            failpoints::after(&event.body);
                            execution.appended(&append.entry(seq))
                        }
                        Err(NotAppended::Gone) => return Err(Refusal::Unknown.into()),
                        Err(NotAppended::For(AppendError::Conflict { seq })) => execution.forestalled(seq),
                        Err(NotAppended::For(AppendError::Unavailable(why))) => {
                            return Err(ExecuteError::Unavailable(why));
                        }
                        Err(NotAppended::For(AppendError::NoRoom(why))) => return Err(ExecuteError::NoRoom(why)),
                        Err(NotAppended::For(AppendError::Refused(why))) => return Err(ExecuteError::Rejected(why)),
                    }
                }
                Todo::Read => {
                    let (state, seq) = self.snapshots.read_leader(id).await?;
                    execution.read(state, seq, now())
                }
                Todo::End(result) => return Ok(*result?),
                Todo::GiveUp => {
                    return Err(ExecuteError::Unavailable(format!(
                        "others were first, or the log's leader behind, {DECIDE_ATTEMPTS_MAX} times in a row"
                    )));
                }
            };
        }
    }

    async fn append(&self, append: &Append, patience: Patience) -> Result<u64, NotAppended> {
        let mut absences = 0;
        loop {
            match self.log.append(append).await {
                Err(AppendError::Unavailable(why)) if patience == Patience::Endless => {
                    tracing::warn!(job = %append.id, why, "the log is not available; a state change waits for it");
                    match self.snapshots.read_leader(&append.id).await {
                        Ok((None, 0)) => absences += 1,
                        _ => absences = 0,
                    }
                    if absences == ABSENCES_BELIEVED {
                        return Err(NotAppended::Gone);
                    }
                }
                Err(AppendError::NoRoom(why)) if patience == Patience::Endless => {
                    tracing::warn!(
                        job = %append.id,
                        why,
                        "NATS has no room for more events; a state change waits for it: make room on its disk, or raise max_file_store"
                    );
                    sleep(NO_ROOM_PAUSE).await;
                }
                appended => return appended.map_err(NotAppended::For),
            }
        }
    }
}
