//! Removes what finished attempts have left in the object store.
//!
//! Normally no scan is needed: a worker acknowledges a delivery only after it has removed everything of the job but its
//! file. A worker that is killed before leaves the delivery unacknowledged, and the next worker that gets it removes
//! the rest. A fenced worker removes what it has stored itself. If it is killed at that moment, or a worker is killed
//! after an upload has begun and before the log has it, [`super::janitor`] finds the remains.

use anyhow::Context;
use millrace_domain::{JobId, JobState, Stage, files};
use millrace_runtime::{blobs::Blobs, failpoints};

use crate::Worker;

/// Aborts the upload and removes the files of the attempts that are finished in `state`. A stale state is safe: a
/// finished attempt stays finished.
///
/// # Errors
/// The store is unavailable; the caller may retry.
pub async fn clean_up(blobs: &Blobs, state: &JobState) -> anyhow::Result<()> {
    failpoints::reach("before_clean_up");
    let over = over(state);
    // Abort the upload first: if it was completed in between, the listing finds its file.
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

/// Does the same for an ended job, by its newest state. Only after this may its delivery be acknowledged.
///
/// # Errors
/// The store or the log is unavailable.
pub async fn clean_up_after_end(worker: &Worker, id: &JobId) -> anyhow::Result<()> {
    match worker.jobs.snapshots.get_from_leader(id).await.context("cannot read the job's state")? {
        Some(state) => clean_up(&worker.blobs, &state).await,
        None => Ok(()),
    }
}

/// Removes what a fenced worker has stored in its attempt.
pub async fn clean_up_own(worker: &Worker, id: &JobId, attempt: u32) {
    let own = move |key: &str| files::owner(key).is_some_and(|(_, of)| of == attempt);
    if let Err(error) = worker.blobs.remove(id, own).await {
        tracing::warn!(
            job = %id,
            attempt,
            error = format!("{error:#}"),
            "cannot remove file of a fenced attempt; leaving it to the janitor"
        );
    }
}

/// Whether a key belongs to a finished attempt and may be removed. The file of a completed job stays.
pub fn over(state: &JobState) -> impl Fn(&str) -> bool + Send + Sync + 'static + use<> {
    let kept = state.file.as_ref().filter(|_| state.stage == Stage::Completed).map(|file| file.key.clone());
    let of_ended = of_ended(state);
    move |key| of_ended(key) && Some(key) != kept.as_deref()
}

/// Whether a key belongs to a finished attempt: nothing more will be stored under it.
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
