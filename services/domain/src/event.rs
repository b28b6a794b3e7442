//! Events: what happened to a job, as written to the log. **Tags and field names are frozen once released.**

use std::borrow::Cow;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    limits::{ERROR_CHARS_MAX, THUMBNAIL_BYTES_MAX, TITLE_CHARS_MAX, cut},
    submission::Submission,
};

/// One entry of a job's log: JSON, self-describing, at most 65,536 bytes.
///
/// A reader skips unknown fields and unknown tags, and still advances its sequence.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// When it happened, by the writer's clock; RFC 3339. Shown to clients, never used to decide.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub body: EventBody,
}

/// What happened. `submitted` and `resubmitted` are on the job's submission subject, all others on its events subject.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum EventBody {
    /// The job exists. The first event of every job, and the work item of the workers.
    Submitted(Submission),
    /// A person retries a failed or canceled job: a new work item, and a new attempt.
    Resubmitted,
    /// A worker has taken the job and begins the given attempt.
    Started {
        /// The worker's name, for operators.
        worker: String,
        /// From 1, rising by one with each attempt.
        #[schemars(range(min = 1))]
        attempt: u32,
    },
    /// What the video is.
    #[serde(rename_all = "camelCase")]
    Info {
        /// What the source reports before the download.
        video_info: VideoInfo,
    },
    /// The download has come this far.
    Progress(Progress),
    /// The download is complete, the upload begins.
    Downloaded {
        /// Bytes of the file.
        file_size: u64,
        /// Where the upload goes.
        storage_provider: Provider,
        /// What the file itself reports about the video, if it adds to what was known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        video_info: Option<VideoInfo>,
    },
    /// The first bytes are about to go to the object store. The worker sends them only after this event is in the log,
    /// so that the log names every upload that may be incomplete, even after the writer has died. A worker that begins
    /// an upload has aborted the one named before it.
    Uploading {
        /// Where the bytes go.
        storage_provider: Provider,
        /// The key under which the file will be stored.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        /// The store's id of the upload, if it has one; needed to abort the upload.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        upload_id: Option<String>,
    },
    /// The object store has the whole file.
    Uploaded(StoredFile),
    /// The job is done and leaves nothing behind but its file.
    Completed,
    /// The job has ended without a file.
    Failed(Failure),
    /// The attempt has failed; the next one follows.
    Retrying {
        /// Why the attempt failed: a stable code, as in `failed`.
        code: String,
        /// Why the attempt failed: a sentence for people.
        message: String,
        /// The next attempt does not start before this time.
        until: Timestamp,
    },
    /// A person has ended the job.
    Canceled,
    /// A tag that this version does not know.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// What is known about a video. A field is absent if the source does not report it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VideoInfo {
    /// The source's own id of the video.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// At most 300 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Address of a picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thumbnail: Option<String>,
    /// Whole seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<u64>,
    /// Picture height of the downloaded video, like `1080p`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<String>,
}

impl VideoInfo {
    /// Cuts every text to its bound: sources are not trusted.
    #[must_use]
    pub fn bounded(self) -> Self {
        Self {
            id: self.id.map(|id| cut(&id, TITLE_CHARS_MAX)),
            title: self.title.map(|title| cut(&title, TITLE_CHARS_MAX)),
            thumbnail: self.thumbnail.filter(|url| {
                url.len() <= THUMBNAIL_BYTES_MAX && (url.starts_with("http://") || url.starts_with("https://"))
            }),
            duration: self.duration,
            quality: self.quality.map(|quality| cut(&quality, 16)),
        }
    }

    /// Fills what is absent here from `other`.
    #[must_use]
    pub fn or(self, other: &Self) -> Self {
        Self {
            id: self.id.or_else(|| other.id.clone()),
            title: self.title.or_else(|| other.title.clone()),
            thumbnail: self.thumbnail.or_else(|| other.thumbnail.clone()),
            duration: self.duration.or(other.duration),
            quality: self.quality.or_else(|| other.quality.clone()),
        }
    }
}

/// Progress of a download.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Bytes that have arrived.
    pub downloaded_bytes: u64,
    /// Bytes of the whole file, or the downloader's estimate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// Speed of the download.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Seconds until the download ends at this speed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<u64>,
}

/// The kind of object store. Frozen: front ends know `gcs`, `azure` and `s3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
    /// Amazon S3 or a store that speaks its protocol.
    S3,
    /// A folder.
    Local,
}

/// A file in the object store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoredFile {
    /// `jobs/<id>/<attempt>/<name>`, ASCII, unique to the attempt.
    pub key: String,
    /// Bytes.
    pub file_size: u64,
    /// SHA-256 of the bytes, lower-case hexadecimal.
    #[schemars(regex(pattern = "^[0-9a-f]{64}$"))]
    pub sha256: String,
    /// MIME type.
    pub content_type: String,
    /// The name under which a browser saves the file; any characters.
    pub file_name: String,
}

/// Why a job has ended without a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Stable, snake_case. New codes may be added.
    pub code: String,
    /// A sentence that a person can act on.
    pub message: String,
    /// Whether the same submission might succeed later.
    pub retryable: bool,
}

impl Failure {
    /// Cuts the sentence to its bound.
    #[must_use]
    pub fn bounded(self) -> Self {
        Self { message: cut(&self.message, ERROR_CHARS_MAX), ..self }
    }
}

/// A message in the log that is not an event: not JSON, a known tag with fields that do not fit, or too large.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("not an event: {0}")]
pub struct Undecodable(pub String);

impl Event {
    /// Reads an event; an unknown tag gives [`EventBody::Unknown`].
    ///
    /// # Errors
    /// What is wrong with the bytes. The caller counts the message and continues: see [`crate::fold::Entry`].
    pub fn decode(payload: &[u8]) -> Result<Self, Undecodable> {
        /// serde reads a number as the index of a variant: `{"type":7}` would complete a job.
        #[derive(Deserialize)]
        struct Tag<'a> {
            #[serde(borrow, rename = "type")]
            _is_text: Cow<'a, str>,
        }
        serde_json::from_slice::<Tag<'_>>(payload)
            .and_then(|_| serde_json::from_slice(payload))
            .map_err(|error| Undecodable(error.to_string()))
    }

    /// The event as it is written to the log.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an event has string keys only")
    }
}

impl EventBody {
    /// The kind of subject that the event is written to.
    #[must_use]
    pub const fn kind(&self) -> crate::subjects::Kind {
        match self {
            Self::Submitted(_) | Self::Resubmitted => crate::subjects::Kind::Submitted,
            _ => crate::subjects::Kind::Events,
        }
    }
}
