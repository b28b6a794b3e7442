//! Removes jobs that ended long ago: the file, the state and the events together.
//!
//! Every worker runs it at intervals. Several at once are harmless, since each step may be repeated. The submission is
//! removed last, so the job of a worker that died in between is found again.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::Context;
use jiff::SignedDuration;
use millrace_domain::{
    JobId, JobState, files,
    limits::{RETENTION_INTERVAL_MAX, RETENTION_INTERVAL_MIN},
    subjects,
};
use millrace_runtime::{
    direct::{ReadError, Stored},
    now,
};

use crate::Worker;

/// Removes expired jobs until the shutdown.
pub async fn run(worker: Arc<Worker>, retention: Duration) -> anyhow::Result<()> {
    let interval = (retention / 10).clamp(RETENTION_INTERVAL_MIN, RETENTION_INTERVAL_MAX);
    loop {
        let pause = interval.mul_f64(rand::random_range(0.5..1.5));
        if worker.shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return Ok(());
        }
        let swept = worker.shutdown.run_until_cancelled(sweep(&worker, retention)).await;
        match swept {
            Some(Ok(0)) | None => {}
            Some(Ok(expired)) => tracing::info!(jobs = expired, "removed expired jobs"),
            Some(Err(error)) => {
                tracing::warn!(error = format!("{error:#}"), "cannot remove expired jobs; retrying");
            }
        }
    }
}

/// Goes through the oldest submissions and removes the jobs that ended longer ago than `retention`; returns their
/// number.
///
/// The log's time of an event counts, not its writer's clock.
async fn sweep(worker: &Worker, retention: Duration) -> anyhow::Result<u64> {
    let retention = SignedDuration::try_from(retention)?;
    // Use the earlier of two clocks, so that one that is ahead, ours or the server's, removes nothing.
    let now = now().min(worker.jobs.log.tip().await?.at);
    let before = now.checked_sub(retention).context("retention is too long")?;
    // The projector would write again the state of events that it has not read yet.
    let projected = worker.jobs.snapshots.progress().await?.up_to;
    let mut submissions = worker.jobs.log.read(subjects::SUBMITTED_ALL, 0);
    let mut expired = 0;
    loop {
        let page = submissions.next_page().await?;
        if page.is_empty() {
            return Ok(expired);
        }
        // A job that was submitted later cannot have ended before.
        let old: Vec<_> = page.iter().take_while(|stored| stored.stored_at < before).collect();
        let young = old.len() < page.len();
        let ids: Vec<JobId> =
            old.iter().filter_map(|stored| subjects::parse(&stored.subject)).map(|(_, id)| id).collect();
        let mut ended = worker.jobs.snapshots.load(&ids).await?;
        ended.retain(|_, state| state.is_end() && state.seq <= projected);
        for (id, stored) in newest(worker, &ended).await?.into_iter().filter(|(_, stored)| stored.stored_at < before) {
            // A replica may be stale; only the leader's state counts.
            let is_same = |state: &JobState| state.is_end() && state.seq == stored.seq;
            if let Some(state) = worker.jobs.snapshots.get_from_leader(&id).await?.filter(is_same) {
                match expire(worker, &state).await {
                    Ok(true) => expired += 1,
                    Ok(false) => {}
                    // Continue with the other jobs.
                    Err(error) => tracing::warn!(
                        job = %id,
                        error = format!("{error:#}"),
                        "cannot remove expired job; retrying"
                    ),
                }
            }
        }
        if young {
            return Ok(expired);
        }
    }
}

/// The newest message of each job.
async fn newest(worker: &Worker, states: &HashMap<JobId, JobState>) -> Result<HashMap<JobId, Stored>, ReadError> {
    let filters: Vec<_> = states.keys().map(subjects::job_filter).collect();
    // `last` returns them in the order of their sequences, so the newest of each job stays.
    Ok(worker.jobs.log.last(&filters).await?.into_iter().collect())
}

/// Removes one job. Each step may be repeated, and the last one makes the job unknown. Returns `false` if the job was
/// retried meanwhile.
async fn expire(worker: &Worker, state: &JobState) -> anyhow::Result<bool> {
    let id = &state.job_id;
    let last = state.attempt;
    if let Some((key, upload)) =
        state.upload.as_ref().and_then(|upload| Some((&upload.key, upload.upload_id.as_ref()?)))
    {
        worker.blobs.abort(key, upload).await?;
    }
    worker.blobs.remove(id, move |key| files::owner(key).is_none_or(|(_, attempt)| attempt <= last)).await?;
    // The store may have taken minutes, and a client may have retried the job.
    if worker.jobs.snapshots.read_leader(id).await?.1 != state.seq {
        return Ok(false);
    }
    worker.jobs.snapshots.purge(id).await.context("cannot remove the state")?;
    worker.jobs.log.purge(id).await.context("cannot remove the events")?;
    tracing::debug!(job = %id, "removed expired job");
    Ok(true)
}
