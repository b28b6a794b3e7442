//! `Idempotency-Key`: a repeated submission returns the first job.
//!
//! The edge reserves the key before it writes the job: the reservation names a fresh job id, and the submission under
//! that id is itself safe to repeat. If an edge dies between the two, the client's repeat completes the submission. Ids
//! are random and do not derive from the key, so a known key does not reveal the job.

use anyhow::Context;
use async_nats::{Client, HeaderMap, jetstream};
use axum::http::{HeaderMap as HttpHeaders, HeaderName};
use millrace_domain::{
    JobId, Submission,
    limits::{APPEND_PAUSE_FIRST, APPEND_PAUSE_MAX, APPEND_RETRY_MAX, IDEMPOTENCY_KEY_BYTES_MAX, NATS_REQUEST_MAX},
    subjects::{KEY_BUCKET, bucket_stream},
};
use millrace_runtime::publish;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep};

use crate::http::problem::ApiError;

/// The header.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The bucket of reserved keys.
pub struct Keys {
    client: Client,
    stream: jetstream::stream::Stream<()>,
}

/// The value stored under a key. Layout frozen once released.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reservation {
    job_id: JobId,
    /// Of the submission, to detect a key that is reused for another one.
    sha256: String,
}

/// A checked `Idempotency-Key`.
pub struct Key(String);

impl Key {
    /// Reads the header; `None` without one.
    ///
    /// # Errors
    /// `InvalidIdempotencyKey`.
    pub fn of(headers: &HttpHeaders) -> Result<Option<Self>, ApiError> {
        let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
        let text = value.to_str().map_err(|_| ApiError::InvalidIdempotencyKey)?.trim();
        let fits = (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&text.len());
        if fits { Ok(Some(Self(text.to_owned()))) } else { Err(ApiError::InvalidIdempotencyKey) }
    }
}

impl Keys {
    /// Opens the bucket.
    ///
    /// # Errors
    /// JetStream does not answer.
    pub async fn open(client: &Client) -> anyhow::Result<Self> {
        let context = jetstream::new(client.clone());
        let stream =
            context.get_stream_no_info(bucket_stream(KEY_BUCKET)).await.context("cannot open the key bucket")?;
        Ok(Self { client: client.clone(), stream })
    }

    /// Reserves `key` for the job `fresh`, or returns the job of the earlier submission that holds it.
    ///
    /// # Errors
    /// The key was used for another submission, or the bucket is unavailable or has no room.
    pub async fn reserve(&self, key: &Key, submission: &Submission, fresh: JobId) -> Result<JobId, ApiError> {
        let body = serde_json::to_vec(submission).expect("a submission has string keys only");
        let reservation = Reservation { job_id: fresh, sha256: hex(&body) };
        let subject = format!("$KV.{KEY_BUCKET}.{}", hex(key.0.as_bytes()));
        let until = Instant::now() + APPEND_RETRY_MAX;
        let mut pause = APPEND_PAUSE_FIRST;
        loop {
            let why = match self.try_reserve(&subject, &reservation).await? {
                Ok(id) => return Ok(id),
                Err(why) => why,
            };
            if Instant::now() + pause > until {
                return Err(ApiError::LogUnavailable(why));
            }
            tracing::debug!(why, "cannot reserve idempotency key; retrying");
            sleep(pause).await;
            pause = (pause * 2).min(APPEND_PAUSE_MAX);
        }
    }

    /// Reads the key's reservation, or creates it if there is none. The inner error is the reason for another try.
    async fn try_reserve(&self, subject: &str, mine: &Reservation) -> Result<Result<JobId, String>, ApiError> {
        match self.stream.get_last_raw_message_by_subject(subject).await {
            Ok(message) => {
                let first: Reservation = serde_json::from_slice(&message.payload)
                    .map_err(|error| ApiError::LogUnavailable(format!("cannot decode reservation: {error}")))?;
                return if first.sha256 == mine.sha256 {
                    Ok(Ok(first.job_id))
                } else {
                    Err(ApiError::IdempotencyKeyReused)
                };
            }
            Err(error) if error.kind() == jetstream::stream::LastRawMessageErrorKind::NoMessageFound => {}
            Err(error) => return Ok(Err(error.to_string())),
        }
        let mut headers = HeaderMap::new();
        headers.insert(publish::EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
        let payload = serde_json::to_vec(mine).expect("a reservation has string keys only");
        match publish::publish(&self.client, subject, headers, payload.into(), NATS_REQUEST_MAX).await {
            Ok(_) => Ok(Ok(mine.job_id.clone())),
            Err(publish::PublishError::NoRoom(why)) => Err(ApiError::NoRoom(why)),
            // Another edge was first, or the response to our own write was lost: the next try reads the reservation.
            Err(error) => Ok(Err(error.to_string())),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}
