//! Searches the store itself, at intervals, for unfinished uploads and files of finished attempts that no delivery
//! refers to any more.
//!
//! A worker may die after the store has begun an upload and before the log has it, or the store's response may be lost;
//! then the upload's id is only in the store. Every worker runs a janitor. Several at once are harmless: an attempt
//! that is finished in any state, even a stale one, stays finished, and removal is idempotent.
//!
//! The janitor counts files of jobs that the log does not know, and keeps them: they may belong to another
//! installation, or this one's log may be lost, and clients may hold links to them.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use millrace_domain::{
    JobId, JobState, files,
    limits::{JANITOR_FILES_MAX, SNAPSHOT_BATCH_MAX, UNKNOWN_UPLOAD_AGE_MIN},
};
use millrace_runtime::{blobs::Unfinished, now};

use super::cleaning;
use crate::{Worker, metrics::Remains};

/// Runs until the shutdown.
pub async fn run(worker: Arc<Worker>, interval: Duration) -> anyhow::Result<()> {
    loop {
        let pause = interval.mul_f64(rand::random_range(0.5..1.5));
        if worker.shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return Ok(());
        }
        // Handle each on its own: a store may list its files and not its uploads.
        if let Some(Err(error)) = worker.shutdown.run_until_cancelled(uploads(&worker)).await {
            tracing::warn!(
                error = format!("{error:#}"),
                "cannot list the store's unfinished uploads; retrying. If the store does not support that, give the \
                 bucket a rule that aborts incomplete uploads"
            );
        }
        if let Some(Err(error)) = worker.shutdown.run_until_cancelled(stored(&worker)).await {
            tracing::warn!(
                error = format!("{error:#}"),
                "cannot list the store for files of finished attempts; retrying"
            );
        }
    }
}

/// Aborts uploads of finished attempts, and very old uploads of unknown jobs.
async fn uploads(worker: &Worker) -> anyhow::Result<()> {
    let unfinished = worker.blobs.unfinished().await?;
    let states = states(worker, unfinished.iter().map(|upload| upload.key.as_str())).await?;
    // Use the earlier of two clocks, so that one that is ahead makes nothing old.
    let now = now().min(worker.jobs.log.tip().await?.at);
    for upload in unfinished.iter().filter(|upload| is_left(upload, &states, now)) {
        if let Err(error) = worker.blobs.abort(&upload.key, &upload.id).await {
            tracing::warn!(
                key = upload.key,
                error = format!("{error:#}"),
                "cannot abort upload without an attempt; retrying"
            );
            continue;
        }
        worker.metrics.janitor_removed.of(&Remains::Upload).inc();
        tracing::info!(key = upload.key, "aborted upload without an attempt");
    }
    Ok(())
}

/// Removes files of finished attempts; completed jobs keep theirs.
async fn stored(worker: &Worker) -> anyhow::Result<()> {
    // Start at a random id, so that over time every file is listed.
    let from = files::folder(&JobId::from_entropy(rand::random()));
    let keys = worker.blobs.keys(&from, JANITOR_FILES_MAX).await?;
    let states = states(worker, keys.iter().map(String::as_str)).await?;
    worker.metrics.store_unknown_files.set(keys.iter().filter(|key| state_of(key, &states).is_none()).count() as i64);
    let left = keys.iter().filter_map(|key| state_of(key, &states).filter(|state| cleaning::over(state)(key)));
    let left: HashMap<_, _> = left.map(|state| (&state.job_id, state)).collect();
    for (id, state) in left {
        let removed = match worker.blobs.remove(id, cleaning::over(state)).await {
            Ok(removed) => removed,
            Err(error) => {
                tracing::warn!(
                    job = %id,
                    error = format!("{error:#}"),
                    "cannot remove files of finished attempts; retrying"
                );
                continue;
            }
        };
        worker.metrics.janitor_removed.of(&Remains::File).inc_by(removed as u64);
        tracing::info!(job = %id, files = removed, "removed files of finished attempts");
    }
    Ok(())
}

/// The states of the jobs that these keys belong to.
async fn states(worker: &Worker, keys: impl Iterator<Item = &str>) -> anyhow::Result<HashMap<JobId, JobState>> {
    let ids: HashSet<_> = keys.filter_map(files::owner).map(|(id, _)| id).collect();
    let ids: Vec<_> = ids.into_iter().collect();
    let mut states = HashMap::new();
    for ids in ids.chunks(SNAPSHOT_BATCH_MAX) {
        states.extend(worker.jobs.snapshots.load(ids).await?);
    }
    Ok(states)
}

fn state_of<'a>(key: &str, states: &'a HashMap<JobId, JobState>) -> Option<&'a JobState> {
    states.get(&files::owner(key)?.0)
}

fn is_left(upload: &Unfinished, states: &HashMap<JobId, JobState>, now: Timestamp) -> bool {
    match state_of(&upload.key, states) {
        Some(state) => cleaning::of_ended(state)(&upload.key),
        // Uploads with a foreign name have no job either: they stay.
        None => {
            let age = now.duration_since(upload.begun);
            files::owner(&upload.key).is_some()
                && SignedDuration::try_from(UNKNOWN_UPLOAD_AGE_MIN).is_ok_and(|min| age > min)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_of_a_job_that_nobody_knows_is_left_alone_for_a_day_and_what_is_not_ours_for_ever() {
        let begun: Timestamp = "2026-11-24T12:00:00Z".parse().unwrap();
        let upload = |key: &str| Unfinished { key: key.into(), id: "u".into(), begun };
        let at = |hours| begun + SignedDuration::from_hours(hours);
        let none = HashMap::new();
        assert!(!is_left(&upload("jobs/a/1/x.mp4"), &none, at(23)));
        assert!(is_left(&upload("jobs/a/1/x.mp4"), &none, at(25)));
        assert!(!is_left(&upload("backups/2026.tar"), &none, at(2500)));
    }
}
