//! Folds a window of entries and writes the newest state of each job, by compare-and-set.

use std::{collections::HashMap, time::Duration};

use futures::{StreamExt, stream};
use tokio::time::sleep;

use millrace_domain::{
    Entry, EventBody, JobId, fold_all,
    limits::{PROJECTOR_CACHE_JOBS_MAX, PROJECTOR_WRITES_IN_FLIGHT_MAX},
    subjects::{self, Kind},
};
use millrace_runtime::{
    admin::Check,
    direct::ReadError,
    log::Log,
    publish::PublishError,
    snapshots::{Projected, Snapshots},
};

use crate::metrics::Metrics;

/// Folds and writes.
pub struct Apply {
    log: Log,
    snapshots: Snapshots,
    metrics: Metrics,
    check: Check,
    /// States of running jobs, as this process last wrote them. A stale one is detected at its write.
    cache: HashMap<JobId, Projected>,
}

impl Apply {
    /// An instance without states in memory.
    pub fn new(log: Log, snapshots: Snapshots, metrics: Metrics, check: Check) -> Self {
        Self { log, snapshots, metrics, check, cache: HashMap::new() }
    }

    /// Applies a window. Returns once every state is written, however long that takes; only then is the window
    /// acknowledged.
    pub async fn window(&mut self, entries: &[(JobId, Entry)]) {
        let mut jobs: HashMap<JobId, Vec<Entry>> = HashMap::new();
        for (id, entry) in entries {
            jobs.entry(id.clone()).or_default().push(entry.clone());
        }
        let mut pause = Duration::from_millis(10);
        while !jobs.is_empty() {
            match self.round(&mut jobs).await {
                Ok(()) => {}
                Err(error) => {
                    self.check.fail(error.clone());
                    tracing::warn!(error, jobs = jobs.len(), "cannot write states; retrying");
                }
            }
            if !jobs.is_empty() {
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(2));
            }
        }
        self.metrics.applied.inc_by(entries.len() as u64);
    }

    /// Tries to write every job once; removes written jobs from `jobs`.
    async fn round(&mut self, jobs: &mut HashMap<JobId, Vec<Entry>>) -> Result<(), String> {
        let unknown: Vec<_> = jobs.keys().filter(|id| !self.cache.contains_key(*id)).cloned().collect();
        let mut known = self.snapshots.projected(&unknown).await.map_err(|error| error.to_string())?;
        for id in jobs.keys() {
            if let Some(cached) = self.cache.remove(id) {
                known.insert(id.clone(), cached);
            }
        }
        let mut problem = None;
        let mut writes = Vec::with_capacity(jobs.len());
        for (id, entries) in jobs.iter() {
            writes.push(self.write(id.clone(), known.remove(id), entries.clone()));
        }
        let written: Vec<_> = stream::iter(writes).buffer_unordered(PROJECTOR_WRITES_IN_FLIGHT_MAX).collect().await;
        for (id, outcome) in written {
            match outcome {
                Ok(projected) => {
                    jobs.remove(&id);
                    if let Some(projected) =
                        projected.filter(|projected| projected.state.as_ref().is_some_and(|state| !state.is_end()))
                    {
                        self.cache.insert(id, projected);
                    }
                }
                Err(Problem::Conflict) => self.metrics.conflicts.inc(),
                Err(Problem::Other(error)) => problem = Some(error),
            }
        }
        if self.cache.len() > PROJECTOR_CACHE_JOBS_MAX {
            self.cache.clear();
        }
        problem.map_or(Ok(()), Err)
    }

    /// Folds `entries` onto the bucket's state and writes the result, unless the bucket has them already.
    ///
    /// The follower leaves no entry out, so the bucket holds everything before the window, from this projector or from
    /// another. Compare-and-set ensures that the fold started from the newest revision: an older state never replaces a
    /// newer one.
    async fn write(
        &self,
        id: JobId,
        projected: Option<Projected>,
        entries: Vec<Entry>,
    ) -> (JobId, Result<Option<Projected>, Problem>) {
        let (state, revision) = projected.map_or((None, 0), |Projected { state, revision }| (state, revision));
        let before = state.as_ref().map(|state| state.seq);
        let state = match (&state, entries.first()) {
            // The state was deleted or garbled meanwhile: the log has the whole history.
            (None, Some(first)) if !is_submission(first) => match self.history(&id, &entries).await {
                Ok(history) => fold_all(None, &id, &history),
                Err(ReadError(error)) => return (id, Err(Problem::Other(error))),
            },
            _ => fold_all(state, &id, &entries),
        };
        let Some(state) = state else {
            tracing::warn!(job = %id, "events of a job without a submission; skipping them");
            return (id, Ok(None));
        };
        if before == Some(state.seq) {
            return (id, Ok(Some(Projected { state: Some(state), revision })));
        }
        let outcome = match self.snapshots.put(&state, revision).await {
            Ok(revision) => {
                self.metrics.written.inc();
                Ok(Some(Projected { state: Some(state), revision }))
            }
            Err(PublishError::WrongLastSequence) => Err(Problem::Conflict),
            Err(error) => Err(Problem::Other(error.to_string())),
        };
        (id, outcome)
    }

    /// All of a job's entries, including the delivered ones. If a replica is behind, they are read from the leader.
    async fn history(&self, id: &JobId, delivered: &[Entry]) -> Result<Vec<Entry>, ReadError> {
        let whole = self.log.read(subjects::job_filter(id), 0);
        let history = self.log.entries(&whole.clone().rest().await?);
        let newest = |entries: &[Entry]| entries.iter().map(|entry| entry.seq).max();
        if newest(&history) < newest(delivered) {
            return Ok(self.log.entries(&whole.to_the_end().await?));
        }
        Ok(history)
    }
}

/// Whether a job can begin with this entry.
fn is_submission(entry: &Entry) -> bool {
    let body = entry.event.as_ref().map(|event| &event.body);
    entry.kind == Kind::Submitted && matches!(body, Ok(EventBody::Submitted(_)))
}

enum Problem {
    /// Another projector has written the key, or the state that was read is stale, or the reply to this projector's
    /// write was lost.
    Conflict,
    Other(String),
}
