//! One attempt: download, upload, complete. It reports to the journal, and stops when the journal's writer returns a
//! [`Stop`].

use std::time::Duration;

use millrace_domain::{EventBody, JobState, Stage, failure::FailureKind, retry};
use millrace_media::{self as media, MediaError, Step};
use millrace_runtime::now;
use tokio_util::sync::CancellationToken;

use crate::{
    Worker,
    journal::{Journal, Stop, journal},
    metrics::AttemptOutcome,
    upkeep::cleaning,
    upload,
    workspace::Scratch,
};

/// How an attempt ended.
pub enum Outcome {
    /// The job has ended, by this worker or by another process.
    Ended,
    /// The job waits this long for its next attempt: this one failed, the worker stops, or the delivery was too early.
    Waits(Duration),
    /// Another worker has the job.
    Fenced,
    /// The worker could not append the claim to the log.
    NotClaimed,
}

/// Runs the attempt that `state` has begun. It leaves no process, and no temporary file except a part that the job's
/// next attempt can resume from.
pub async fn run(worker: &Worker, state: JobState) -> Outcome {
    let (id, attempt) = (state.job_id.clone(), state.attempt);
    tracing::info!(job = %id, attempt, url = state.submission.url.without_query(), "attempt started");
    let (journal, writer) = journal(worker.jobs.clone(), state.clone());
    let cancel = CancellationToken::new();
    let work = async {
        let left = work(worker, &state, journal, &cancel).await;
        tracing::debug!(job = %id, attempt, "attempt's work finished");
        left
    };
    let write = async {
        let written = writer.run().await;
        cancel.cancel();
        written
    };
    let stop = async {
        tokio::select! {
            () = worker.shutdown.cancelled() => cancel.cancel(),
            () = cancel.cancelled() => {}
        }
    };
    let (left, written, ()) = tokio::join!(work, write, stop);
    let (counted, outcome) = match written {
        Ok(state) => {
            if let Some(left) = left.filter(|_| !state.is_end()) {
                worker.workspace.keep(left);
            }
            tracing::info!(job = %id, attempt, stage = ?state.stage, "attempt finished");
            match state.stage {
                Stage::Completed => (AttemptOutcome::Completed, Outcome::Ended),
                Stage::Failed => (AttemptOutcome::Failed, Outcome::Ended),
                Stage::Canceled => (AttemptOutcome::Ended, Outcome::Ended),
                _ => {
                    let pause = state.retry_at.and_then(|at| retry::wait(at, now())).unwrap_or_default();
                    (AttemptOutcome::Waits, Outcome::Waits(pause))
                }
            }
        }
        Err(stop) => {
            drop(left);
            tracing::info!(job = %id, attempt, ?stop, "attempt stopped");
            match stop {
                Stop::Ended(_) => (AttemptOutcome::Ended, Outcome::Ended),
                Stop::Fenced => {
                    // The job's new holder has looked already.
                    cleaning::clean_up_own(worker, &id, attempt).await;
                    (AttemptOutcome::Fenced, Outcome::Fenced)
                }
            }
        }
    };
    worker.metrics.attempts.of(&counted).inc();
    outcome
}

/// Does the work and reports it; the last report is the end of the attempt. Returns the folder if another attempt may
/// resume from it.
async fn work(worker: &Worker, state: &JobState, journal: Journal, cancel: &CancellationToken) -> Option<Scratch> {
    let scratch = match worker.workspace.scratch(&state.job_id, state.attempt) {
        Ok(scratch) => scratch,
        Err(error) => {
            tracing::error!(job = %state.job_id, %error, "cannot create download folder");
            let kind = full_or(worker, FailureKind::WorkerFailed);
            worker.workspace.make_room();
            journal.fail(kind, None, worker.budget);
            return None;
        }
    };
    match attempt(worker, state, &scratch, &journal, cancel).await {
        Ok(()) => journal.change(EventBody::Completed),
        Err(_) if worker.shutdown.is_cancelled() => {
            journal.stop();
            return Some(scratch);
        }
        // The writer has stopped the attempt and accepts no more reports.
        Err(_) if cancel.is_cancelled() => {}
        Err(Failed { kind, retry_after }) => {
            let is_last = !worker.budget.allows_another(kind, state.failures);
            let is_ours = matches!(kind, FailureKind::WorkerFailed | FailureKind::WorkerFull);
            let left = if is_last || is_ours {
                drop(scratch);
                None
            } else {
                Some(scratch)
            };
            if is_ours {
                worker.workspace.make_room();
            }
            journal.fail(kind, retry_after, worker.budget);
            return left;
        }
    }
    None
}

/// Why an attempt failed.
struct Failed {
    kind: FailureKind,
    retry_after: Option<Duration>,
}

impl From<FailureKind> for Failed {
    fn from(kind: FailureKind) -> Self {
        Self { kind, retry_after: None }
    }
}

/// A failure without a known reason may come from a full disk: tools do not always say so.
fn full_or(worker: &Worker, kind: FailureKind) -> FailureKind {
    if !matches!(kind, FailureKind::WorkerFull | FailureKind::WorkerFailed | FailureKind::DownloadFailed) {
        return kind;
    }
    match worker.workspace.room().shortage {
        Some(shortage) => {
            tracing::error!(shortage, "attempt failed: no room");
            FailureKind::WorkerFull
        }
        None => kind,
    }
}

async fn attempt(
    worker: &Worker,
    state: &JobState,
    scratch: &Scratch,
    journal: &Journal,
    cancel: &CancellationToken,
) -> Result<(), Failed> {
    let id = &state.job_id;
    let request = media::Request {
        url: &state.submission.url,
        quality: state.submission.quality,
        folder: scratch.path(),
        proxy: None,
        bounds: worker.bounds,
    };
    let mut informed = false;
    let steps = |step| match step {
        Step::Info(video_info) => {
            informed = true;
            journal.change(EventBody::Info { video_info });
        }
        Step::Resumed(bytes) => {
            worker.metrics.resumed_bytes.inc_by(bytes);
            tracing::info!(job = %id, bytes, "resuming download of an earlier attempt");
        }
        Step::Progress(progress) => journal.progress(progress),
    };
    let media = media::download(&worker.tools, request, steps, cancel).await.map_err(|error| {
        if let MediaError::Failed(reason) = &error {
            tracing::warn!(job = %id, code = reason.kind.code(), detail = reason.detail, "download failed");
        }
        Failed { kind: full_or(worker, error.kind()), retry_after: error.retry_after() }
    })?;
    worker.metrics.downloaded_bytes.inc_by(media.size);

    if !informed {
        journal.change(EventBody::Info { video_info: media.info.clone() });
    }
    let storage_provider = worker.blobs.provider();
    let video_info = Some(media.info.clone());
    journal.change(EventBody::Downloaded { file_size: media.size, storage_provider, video_info });
    upload::store(worker, state, &media, journal, cancel).await.map_err(|error| {
        tracing::warn!(job = %id, error = format!("{error:#}"), "cannot store file");
        FailureKind::StorageFailed
    })?;
    if let Err(error) = scratch.remove() {
        tracing::warn!(job = %id, %error, "cannot remove download folder");
    }
    Ok(())
}
