//! The current state of a job: the fold of its log, stored in the state bucket.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    event::{Failure, Provider, StoredFile, VideoInfo},
    ids::JobId,
    subjects::Kind,
    submission::Submission,
};

/// Where a job stands. Frozen names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Waits for a worker.
    Queued,
    /// A worker reads the video's info.
    FetchingInfo,
    /// The download runs.
    Downloading,
    /// The upload runs.
    Uploading,
    /// The upload is complete; the worker removes temporary files.
    Finishing,
    /// Ended with a file.
    Completed,
    /// Ended without a file.
    Failed,
    /// Ended by a person.
    Canceled,
    /// Waits for the next attempt.
    Retrying,
}

/// The four statuses that front ends know. Frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Waits for a worker.
    Queued,
    /// A worker is working on it.
    Processing,
    /// Ended with a file.
    Completed,
    /// Ended without a file.
    Failed,
}

impl Stage {
    /// The status that clients see.
    #[must_use]
    pub const fn status(self) -> Status {
        match self {
            Self::Queued | Self::Retrying => Status::Queued,
            Self::FetchingInfo | Self::Downloading | Self::Uploading | Self::Finishing => Status::Processing,
            Self::Completed => Status::Completed,
            Self::Failed | Self::Canceled => Status::Failed,
        }
    }

    /// Whether the job has ended. No event follows, except a person's retry if [`Stage::is_retryable`].
    #[must_use]
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Canceled)
    }

    /// Whether the job has ended in a way that a person may retry.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Failed | Self::Canceled)
    }
}

/// A job's state. Everything in it follows from the job's log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobState {
    /// The job.
    pub job_id: JobId,
    /// Stream sequence of the last entry applied.
    pub seq: u64,
    /// Stream sequence of the last entry on the events subject; 0 before its first entry. The next append expects it.
    pub events_seq: u64,
    /// Stream sequence of the last entry on the submission subject: the newest work item. 0 in a state of a version
    /// that did not keep it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub submitted_seq: u64,
    /// What the client submitted.
    pub submission: Submission,
    /// When the job was submitted.
    pub submitted_at: Timestamp,
    /// When the last event happened.
    pub updated_at: Timestamp,
    /// Where the job stands.
    pub stage: Stage,
    /// From 1. A job that waits for a retry already counts the attempt that it waits for.
    #[schemars(range(min = 1))]
    pub attempt: u32,
    /// Number of attempts that ended in a transient failure since the job was last submitted or resubmitted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failures: u32,
    /// Number of workers lost on the job since then.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub workers_lost: u32,
    /// The worker that runs the attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// 0 to 100; never falls within an attempt.
    #[schemars(range(max = 100))]
    pub progress: u8,
    /// What the video is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub video_info: Option<VideoInfo>,
    /// Progress of the download.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download: Option<crate::event::Progress>,
    /// Bytes of the file, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_size: Option<u64>,
    /// Where the file goes, from the upload on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_provider: Option<Provider>,
    /// The stored file, from the end of the upload on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<StoredFile>,
    /// The upload that began last, unless it is known to be complete. If it belongs to an earlier attempt, it must be
    /// aborted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<Upload>,
    /// Why the job, or its last attempt, failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// When the next attempt may begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
}

/// An upload that has begun.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Upload {
    /// The attempt that began it.
    #[schemars(range(min = 1))]
    pub attempt: u32,
    /// The key under which the file will be stored.
    pub key: String,
    /// The store's id of the upload, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload_id: Option<String>,
}

fn is_zero<T: Default + PartialEq>(count: &T) -> bool {
    *count == T::default()
}

impl JobState {
    /// The status that clients see.
    #[must_use]
    pub const fn status(&self) -> Status {
        self.stage.status()
    }

    /// The last sequence on one of the job's subjects, which the next append to that subject expects.
    #[must_use]
    pub const fn last_seq(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Submitted => self.submitted_seq,
            Kind::Events => self.events_seq,
        }
    }

    /// See [`Stage::is_end`].
    #[must_use]
    pub const fn is_end(&self) -> bool {
        self.stage.is_end()
    }
}
