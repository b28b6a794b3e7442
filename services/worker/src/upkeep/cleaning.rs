//! What attempts that are over have left in the object store.
//!
//! No scan is needed in ordinary life: a delivery is not acknowledged before everything of the job but its file is
//! gone, so a worker that is killed on the way there leaves a delivery, and the next worker that gets it removes the
//! rest. A worker that was cut off removes what it has stored itself. If that one is killed at this very moment, or a
//! worker before the log knows of an upload that the store has begun, [`super::janitor`] finds what is left.

use anyhow::Context;
use millrace_domain::{JobId, JobState, Stage, files};
use millrace_runtime::{blobs::Blobs, failpoints};

use crate::Worker;

/// Aborts the upload and removes the files of a job's attempts that are over by its state, however old that is: an
/// attempt that is over stays over.
///
/// # Errors
/// When the store cannot be reached; it may be done again.
pub async fn clean_up(blobs: &Blobs, state: &JobState) -> anyhow::Result<()> {
    failpoints::reach("before_clean_up");
    let over = over(state);
    // First the upload: completed in between, its file is found by the listing.
    if let Some(upload) = state.upload.as_ref().filter(|upload| over(&upload.key))
        && let Some(id) = &upload.upload_id
    {
        blobs.abort(&upload.key, id).await?;
    }
    let removed = blobs.remove(&state.job_id, over).await?;
    if removed > 0 {
        tracing::info!(job = %state.job_id, files = removed, "removed files of earlier attempts");
    }
    failpoints::reach("after_clean_up");
    Ok(())
}

/// The same for a job at its end, by its newest state. Only then may its delivery be acknowledged.
///
/// # Errors
/// When the store or the log cannot be reached.
pub async fn clean_up_after_end(worker: &Worker, id: &JobId) -> anyhow::Result<()> {
    match worker.jobs.snapshots.get_from_leader(id).await.context("its state cannot be read")? {
        Some(state) => clean_up(&worker.blobs, &state).await,
        None => Ok(()),
    }
}

/// Removes what a worker that was cut off has stored in its attempt.
pub async fn clean_up_own(worker: &Worker, id: &JobId, attempt: u32) {
    let own = move |key: &str| files::owner(key).is_some_and(|(_, of)| of == attempt);
    if let Err(error) = worker.blobs.remove(id, own).await {
        tracing::warn!(
            job = %id,
            attempt,
            error = format!("{error:#}"),
            "cannot remove file of a lost attempt; leaving it"
        );
    }
}

/// Whether what is under a key belongs to an attempt that is over. Of the last one, that has ended, its file stays.
pub fn over(state: &JobState) -> impl Fn(&str) -> bool + Send + Sync + 'static + use<> {
    let kept = state.file.as_ref().filter(|_| state.stage == Stage::Completed).map(|file| file.key.clone());
    let of_ended = of_ended(state);
    move |key| of_ended(key) && Some(key) != kept.as_deref()
}

/// Whether a key belongs to an attempt that is over: nothing more will be stored under it.
pub fn of_ended(state: &JobState) -> impl Fn(&str) -> bool + Send + Sync + 'static + use<> {
    let (id, attempt, ended) = (state.job_id.clone(), state.attempt, state.is_end());
    move |key| files::owner(key).is_some_and(|(of, its)| of == id && (its < attempt || (ended && its == attempt)))
}

#[cfg(test)]
mod tests {
    use millrace_domain::{Entry, Event, EventBody, fold_all, subjects::Kind};

    use super::*;

    fn state(bodies: &[EventBody]) -> JobState {
        let entries = bodies.iter().zip(1..).map(|(body, seq)| Entry {
            seq,
            kind: body.kind(),
            event: Ok(Event { at: jiff::Timestamp::UNIX_EPOCH, body: body.clone() }),
        });
        let entries: Vec<_> = entries.collect();
        assert_eq!(entries[0].kind, Kind::Submitted);
        fold_all(None, &"a".parse().unwrap(), &entries).unwrap()
    }

    fn submitted() -> EventBody {
        serde_json::from_str(r#"{"type":"submitted","url":"http://e.org/"}"#).unwrap()
    }

    #[test]
    fn a_running_attempt_keeps_what_is_its_own_and_loses_what_was_before() {
        let over = over(&state(&[submitted(), EventBody::Started { worker: "w".into(), attempt: 2 }]));
        assert!(over("jobs/a/1/x.mp4") && over("jobs/a/1/x.mp4#3"));
        for kept in ["jobs/a/2/x.mp4", "jobs/a/3/x.mp4", "jobs/b/1/x.mp4", "jobs/a/x", "other/a/1/x"] {
            assert!(!over(kept), "{kept}");
        }
    }

    #[test]
    fn of_an_attempt_that_has_ended_the_file_stays_and_only_where_the_job_is_complete() {
        let uploaded = serde_json::from_str(
            r#"{"type":"uploaded","key":"jobs/a/1/x.mp4","fileSize":1,"sha256":"","contentType":"","fileName":""}"#,
        )
        .unwrap();
        let started = EventBody::Started { worker: "w".into(), attempt: 1 };
        let of_canceled = over(&state(&[submitted(), started.clone(), EventBody::Canceled]));
        assert!(of_canceled("jobs/a/1/x.mp4") && !of_canceled("jobs/a/2/x.mp4"));
        let of_completed = over(&state(&[submitted(), started, uploaded, EventBody::Completed]));
        assert!(of_completed("jobs/a/1/x.mp4#1") && !of_completed("jobs/a/1/x.mp4"));
    }
}
