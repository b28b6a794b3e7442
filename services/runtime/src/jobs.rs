//! Carries out commands: [`millrace_domain::execution`] decides what to append, when to read and when to wait; this
//! module does it.

use millrace_domain::{
    Command, Entry, Event, JobId, JobState,
    execution::{Execution, Todo},
};
use tokio::time::sleep;

use crate::{
    failpoints,
    log::{Append, AppendError, Log},
    now,
    snapshots::Snapshots,
};

pub use millrace_domain::execution::{ExecuteError, Patience};

/// Executes commands on jobs.
#[derive(Clone)]
pub struct Jobs {
    /// The log.
    pub log: Log,
    /// The current states.
    pub snapshots: Snapshots,
}

impl Jobs {
    /// Carries out `command`; returns the state after it.
    ///
    /// `known` is the caller's state of the job, which may be stale: the expected sequence makes a stale state
    /// harmless, and a refusal that a newer state might not give is final only for the newest state.
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
        let (mut execution, mut todo) = Execution::begin(id, known, command.clone(), patience, now());
        let mut last = None;
        loop {
            todo = match todo {
                Todo::Append { expected, body } => {
                    failpoints::before(&body);
                    let append = Append::new(id, expected, &Event { at: now(), body });
                    execution.appended(self.append(last.insert(append), patience).await)
                }
                Todo::AppendAgain => {
                    let append = last.as_ref().expect("an append comes before its repeat");
                    execution.appended(self.append(append, patience).await)
                }
                Todo::Read => match self.snapshots.read_leader(id).await {
                    Ok((state, seq)) => execution.read(state, seq, now()),
                    Err(error) => execution.not_read(error.to_string()),
                },
                Todo::Pause(pause) => {
                    sleep(pause).await;
                    execution.paused()
                }
                Todo::End(result) => return result.map(|state| *state),
            };
        }
    }

    async fn append(&self, append: &Append, patience: Patience) -> Result<Entry, AppendError> {
        let entry = self.log.append(append).await.map(|seq| append.entry(seq));
        let waits = patience == Patience::Endless;
        match &entry {
            Ok(Entry { event: Ok(event), .. }) => failpoints::after(&event.body),
            Err(AppendError::Unavailable(why)) if waits => {
                tracing::warn!(job = %append.id, why, "log unavailable; state change waits");
            }
            Err(AppendError::NoRoom(why)) if waits => tracing::warn!(
                job = %append.id,
                why,
                "NATS has no room for more events; a state change waits for it: make room on its disk, or raise \
                 max_file_store"
            ),
            _ => {}
        }
        entry
    }
}
