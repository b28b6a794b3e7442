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
    /// A worker finds out what it is.
    FetchingInfo,
    /// The download runs.
    Downloading,
    /// The upload runs.
    Uploading,
    /// The upload is complete, temporary files go.
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
    /// A worker is at it.
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

    /// Whether the job has ended. Nothing follows but, after [`Stage::is_retryable`], a person's retry.
    #[must_use]
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Canceled)
    }

    /// Whether the job has ended in a way that a person may have tried again.
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
    /// The same, of the events subject alone; 0 before its first entry. The next append expects it.
    pub events_seq: u64,
    /// The same, of the submission subject alone: the newest work item. 0 in a state of a version that did not keep it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub submitted_seq: u64,
    /// What was asked for.
    pub submission: Submission,
    /// When it was asked for.
    pub submitted_at: Timestamp,
    /// When the last event happened.
    pub updated_at: Timestamp,
    /// Where it stands.
    pub stage: Stage,
    /// From 1. A job that waits for a retry already counts the attempt that it waits for.
    #[schemars(range(min = 1))]
    pub attempt: u32,
    /// How many of its attempts have failed by a transient failure since it was submitted or resubmitted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failures: u32,
    /// How many workers were lost on it since then.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub workers_lost: u32,
    /// Who is at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// 0 to 100; never falls within an attempt.
    #[schemars(range(max = 100))]
    pub progress: u8,
    /// What the video is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub video_info: Option<VideoInfo>,
    /// How far the download is.
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
    /// The upload that has begun last, unless it is known to be complete; of an earlier attempt, it is to be aborted.
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
    /// Whose it is.
    #[schemars(range(min = 1))]
    pub attempt: u32,
    /// The key under which the file is going to be.
    pub key: String,
    /// The store's name of the upload, where it has one.
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

    /// The last sequence on one of the job's subjects; what is appended to it next expects that.
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
