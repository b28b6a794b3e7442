//! Messages from and to clients. **Field names, casing and values are frozen.**

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    event::{Provider, VideoInfo},
    ids::JobId,
    state::{JobState, Stage, Status},
};

/// The answer to `ping`, byte for byte.
pub const PONG: &str = r#"{"type":"pong"}"#;

/// A WebSocket message of the server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub enum ServerMessage {
    /// The whole current state of the job.
    Status(Box<JobStatus>),
    /// The answer to `ping`; it has no `data`.
    Pong,
}

/// A job as clients see it: the `data` of a `status` message and the body of the HTTP answers.
///
/// A field that does not apply is absent, never `null`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobStatus {
    /// The job.
    pub job_id: JobId,
    /// One of four values.
    pub status: Status,
    /// 0 to 100; never falls within an attempt.
    #[schemars(range(max = 100))]
    pub progress: u8,
    /// Present from 10 % on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub video_info: Option<VideoInfo>,
    /// The file's address, once completed: an absolute URL that does not expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download_url: Option<String>,
    /// Why the job failed: a sentence that a person can act on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Present from the upload on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_provider: Option<Provider>,
    /// Bytes of the file, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_size: Option<u64>,
    /// Stream sequence of the last event applied: strictly rising; the position from which a client resumes.
    pub seq: u64,
    /// Where the job stands, in more detail than `status`.
    pub stage: Stage,
    /// From 1.
    #[schemars(range(min = 1))]
    pub attempt: u32,
    /// Why the job, or the attempt before, failed: stable, snake_case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// Bytes that have arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downloaded_bytes: Option<u64>,
    /// Bytes of the whole file, or an estimate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// Speed of the download.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Seconds until the download ends at this speed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<u64>,
    /// When the next attempt may begin, while `stage` is `retrying`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    /// When the last event happened.
    pub updated_at: Timestamp,
}

impl JobStatus {
    /// What clients see of `state`. `public_base_url` has no slash at its end.
    #[must_use]
    pub fn new(state: &JobState, public_base_url: &str) -> Self {
        let status = state.status();
        let download = state.download.as_ref();
        Self {
            job_id: state.job_id.clone(),
            status,
            progress: state.progress,
            video_info: state.video_info.clone(),
            download_url: (status == Status::Completed)
                .then(|| format!("{public_base_url}/api/download/{}/file", state.job_id)),
            error: state.failure.as_ref().filter(|_| status == Status::Failed).map(|failure| failure.message.clone()),
            storage_provider: state.storage_provider,
            file_size: state.file_size,
            seq: state.seq,
            stage: state.stage,
            attempt: state.attempt,
            error_code: state.failure.as_ref().map(|failure| failure.code.clone()),
            downloaded_bytes: download.map(|d| d.downloaded_bytes),
            total_bytes: download.and_then(|d| d.total_bytes),
            bytes_per_second: download.and_then(|d| d.bytes_per_second),
            eta_seconds: download.and_then(|d| d.eta_seconds),
            retry_at: state.retry_at,
            updated_at: state.updated_at,
        }
    }
}

/// The `status` message of `state` as the text of one frame.
#[must_use]
pub fn status_frame(state: &JobState, public_base_url: &str) -> String {
    let message = ServerMessage::Status(Box::new(JobStatus::new(state, public_base_url)));
    serde_json::to_string(&message).expect("a message has string keys only")
}

/// What a client may send: the bare text `ping` or `{"type":"ping"}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientMessage {
    /// Asks for a `pong`.
    Ping,
}

impl ClientMessage {
    /// Reads a text frame; `None` for an unknown text, which the edge ignores.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.trim() == "ping" { Some(Self::Ping) } else { serde_json::from_str(text).ok() }
    }
}

/// The body of an HTTP error: RFC 9457, `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// Always `about:blank`: `code` indicates the kind.
    #[serde(rename = "type")]
    pub kind: String,
    /// The HTTP status in words.
    pub title: String,
    /// The HTTP status.
    #[schemars(range(min = 400, max = 599))]
    pub status: u16,
    /// What was wrong and what to do.
    pub detail: String,
    /// Stable, snake_case.
    pub code: String,
}

/// A line of a job's history: the event and its sequence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryLine {
    /// Sequence in the stream.
    pub seq: u64,
    /// The event as it was written.
    #[serde(flatten)]
    pub event: crate::event::Event,
}
