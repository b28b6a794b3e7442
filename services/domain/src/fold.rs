//! From the log to the state. The projector, the edges, the workers and `verify` all use this function.

use crate::{
    event::{Event, EventBody, Failure, Progress, Undecodable},
    failure::FailureKind,
    ids::JobId,
    state::{JobState, Stage, Upload},
    subjects::Kind,
};

/// One entry of a job's log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Its sequence in the stream.
    pub seq: u64,
    /// Which of the job's subjects it is on.
    pub kind: Kind,
    /// What happened. An undecodable message changes only the sequence, like an unknown tag.
    pub event: Result<Event, Undecodable>,
}

/// Progress when a worker has started.
pub const PROGRESS_STARTED: u8 = 5;
/// Progress when the video's info is known.
pub const PROGRESS_INFO: u8 = 10;
/// Progress at the first byte of the download.
pub const PROGRESS_DOWNLOAD_FIRST: u8 = 15;
/// Progress at the last byte of the download.
pub const PROGRESS_DOWNLOAD_LAST: u8 = 89;
/// Progress when the download is complete.
pub const PROGRESS_DOWNLOADED: u8 = 90;
/// Progress when bytes go to the object store.
pub const PROGRESS_UPLOADING: u8 = 92;
/// Progress when the upload is complete.
pub const PROGRESS_UPLOADED: u8 = 98;
/// Progress when the job is complete.
pub const PROGRESS_COMPLETED: u8 = 100;

/// Applies one entry. Total: every entry gives a next state.
///
/// An entry at or before `state.seq` was applied already and changes nothing. An entry that does not fit changes only
/// the sequence: an event before the submission, an event after the end except `resubmitted`, an event of a past
/// attempt, or an event on the wrong one of the job's subjects.
#[must_use]
pub fn fold(state: Option<JobState>, id: &JobId, entry: &Entry) -> Option<JobState> {
    let Some(mut state) = state else { return first(id, entry) };
    if entry.seq <= state.seq {
        return Some(state);
    }
    state.seq = entry.seq;
    match entry.kind {
        Kind::Submitted => state.submitted_seq = entry.seq,
        Kind::Events => state.events_seq = entry.seq,
    }
    if let Ok(event) = &entry.event
        && event.body.kind() == entry.kind
        && apply(&mut state, event)
    {
        state.updated_at = event.at;
    }
    Some(state)
}

/// Applies entries in their order.
#[must_use]
pub fn fold_all<'a>(
    state: Option<JobState>,
    id: &JobId,
    entries: impl IntoIterator<Item = &'a Entry>,
) -> Option<JobState> {
    entries.into_iter().fold(state, |state, entry| fold(state, id, entry))
}

fn first(id: &JobId, entry: &Entry) -> Option<JobState> {
    let (Kind::Submitted, Ok(Event { at, body: EventBody::Submitted(submission) })) = (entry.kind, &entry.event) else {
        return None;
    };
    Some(JobState {
        job_id: id.clone(),
        seq: entry.seq,
        events_seq: 0,
        submitted_seq: entry.seq,
        submission: submission.clone(),
        submitted_at: *at,
        updated_at: *at,
        stage: Stage::Queued,
        attempt: 1,
        failures: 0,
        workers_lost: 0,
        worker: None,
        progress: 0,
        video_info: None,
        download: None,
        file_size: None,
        storage_provider: None,
        file: None,
        upload: None,
        failure: None,
        retry_at: None,
    })
}

/// Applies an event; returns whether it fitted.
fn apply(state: &mut JobState, event: &Event) -> bool {
    use Stage::{Canceled, Completed, Downloading, Failed, FetchingInfo, Finishing, Queued, Retrying, Uploading};
    let running = matches!(state.stage, FetchingInfo | Downloading | Uploading | Finishing);
    match &event.body {
        EventBody::Resubmitted if state.stage.is_retryable() && state.attempt < u32::MAX => {
            begin_attempt(state, state.attempt + 1, Queued, 0);
            (state.failures, state.workers_lost, state.failure) = (0, 0, None);
            true
        }
        _ if state.is_end() => false,
        EventBody::Started { worker, attempt } => {
            let next =
                *attempt > state.attempt || (*attempt == state.attempt && matches!(state.stage, Queued | Retrying));
            if next {
                begin_attempt(state, *attempt, FetchingInfo, PROGRESS_STARTED);
                state.worker = Some(worker.clone());
                state.failure = None;
            }
            next
        }
        EventBody::Info { video_info } if matches!(state.stage, FetchingInfo | Downloading) => {
            state.video_info = Some(video_info.clone());
            advance(state, Downloading, PROGRESS_INFO)
        }
        EventBody::Progress(progress) if matches!(state.stage, FetchingInfo | Downloading) => {
            state.download = Some(*progress);
            advance(state, Downloading, download_progress(progress))
        }
        EventBody::Downloaded { file_size, storage_provider, video_info } if running => {
            state.file_size = Some(*file_size);
            state.storage_provider = Some(*storage_provider);
            state.download = Some(Progress {
                downloaded_bytes: *file_size,
                total_bytes: Some(*file_size),
                bytes_per_second: None,
                eta_seconds: None,
            });
            if video_info.is_some() {
                state.video_info.clone_from(video_info);
            }
            advance(state, Uploading, PROGRESS_DOWNLOADED)
        }
        EventBody::Uploading { storage_provider, key, upload_id } if running => {
            state.storage_provider = Some(*storage_provider);
            if let Some(key) = key {
                state.upload = Some(Upload { attempt: state.attempt, key: key.clone(), upload_id: upload_id.clone() });
            }
            advance(state, Uploading, PROGRESS_UPLOADING)
        }
        EventBody::Uploaded(file) if running => {
            state.file_size = Some(file.file_size);
            state.file = Some(file.clone());
            state.upload = state.upload.take().filter(|upload| upload.key != file.key);
            advance(state, Finishing, PROGRESS_UPLOADED)
        }
        EventBody::Completed if running && state.file.is_some() => advance(state, Completed, PROGRESS_COMPLETED),
        EventBody::Failed(failure) => {
            state.failure = Some(failure.clone());
            state.retry_at = None;
            state.stage = Failed;
            true
        }
        EventBody::Retrying { code, message, until } if running && state.attempt < u32::MAX => {
            begin_attempt(state, state.attempt + 1, Retrying, 0);
            if code == FailureKind::WorkerLost.code() {
                state.workers_lost = state.workers_lost.saturating_add(1);
            } else if code != FailureKind::WorkerStopped.code() {
                state.failures = state.failures.saturating_add(1);
            }
            state.failure = Some(Failure { code: code.clone(), message: message.clone(), retryable: true });
            state.retry_at = Some(*until);
            true
        }
        EventBody::Canceled => {
            state.failure = Some(FailureKind::Canceled.failure());
            state.retry_at = None;
            state.stage = Canceled;
            true
        }
        _ => false,
    }
}

/// A new attempt discards the byte counts of the previous one. It keeps the video's info, and an upload that has yet to
/// be aborted.
///
/// Every field is named, so that a new field does not compile until its author decides whether it outlives an attempt.
fn begin_attempt(state: &mut JobState, attempt: u32, stage: Stage, progress: u8) {
    let JobState {
        // Of the job.
        job_id: _,
        seq: _,
        events_seq: _,
        submitted_seq: _,
        submission: _,
        submitted_at: _,
        updated_at: _,
        failures: _,
        workers_lost: _,
        video_info: _,
        upload: _,
        failure: _,
        // Of one attempt.
        stage: its_stage,
        attempt: its_number,
        worker,
        progress: its_progress,
        download,
        file_size,
        storage_provider,
        file,
        retry_at,
    } = state;
    (*its_stage, *its_number, *its_progress) = (stage, attempt, progress);
    *worker = None;
    *download = None;
    *file_size = None;
    *storage_provider = None;
    *file = None;
    *retry_at = None;
}

/// Within an attempt, neither stage nor progress goes back.
fn advance(state: &mut JobState, stage: Stage, progress: u8) -> bool {
    if state.progress <= progress {
        state.stage = stage;
    }
    state.progress = state.progress.max(progress);
    true
}

/// Maps a download's bytes to 15 to 89. Without a total, progress stays at 15 and the state reports only the bytes.
fn download_progress(progress: &Progress) -> u8 {
    let span = u128::from(PROGRESS_DOWNLOAD_LAST - PROGRESS_DOWNLOAD_FIRST);
    let done = match progress.total_bytes {
        Some(total) if total > 0 => (u128::from(progress.downloaded_bytes) * span / u128::from(total)).min(span),
        _ => 0,
    };
    PROGRESS_DOWNLOAD_FIRST + u8::try_from(done).expect("at most the span")
}
