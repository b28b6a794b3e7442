//! Batched reads of a stream by direct get, which async-nats does not offer.
//!
//! Written here, although jetstream-extra (of Synadia's orbit.rs) has `get_batch` and `get_last_messages_for`: it is
//! built on async-nats 0.45, and its stream of messages hides `Nats-Num-Pending`, which [`last_per_subject`] needs to
//! decide that it must halve its list.
//!
//! Any replica responds, so a read may be stale, but it is never wrong in any other way.

use async_nats::{Client, Message, StatusCode, header, jetstream::message::StreamMessage};
use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;
use serde::Serialize;

use millrace_domain::{execution::ExecuteError, limits::NATS_REQUEST_MAX};

use crate::publish::MESSAGE_ID;

/// A message as stored in a stream.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its subject.
    pub subject: String,
    /// Its sequence.
    pub seq: u64,
    /// The writer's `Nats-Msg-Id`.
    pub message_id: Option<String>,
    /// When it was stored, by the server's clock.
    pub stored_at: Timestamp,
    /// Whether it is the marker of a deleted key.
    pub deleted: bool,
    /// Its bytes.
    pub payload: Bytes,
}

/// Why a read failed. It may always be repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the log: {0}")]
pub struct ReadError(pub String);

impl From<ReadError> for ExecuteError {
    fn from(error: ReadError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

#[derive(Serialize)]
struct Request<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_by_subj: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    multi_last: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<usize>,
}

struct Batch {
    messages: Vec<Stored>,
    /// The number of further messages that match.
    pending: u64,
}

/// The last message of each subject, in the order of their sequences; subjects without messages are left out.
///
/// # Errors
/// When the stream does not answer in time.
pub async fn last_per_subject(client: &Client, stream: &str, subjects: &[String]) -> Result<Vec<Stored>, ReadError> {
    // The server may end a large response early; then each half of the list fits.
    let mut work = vec![subjects];
    let mut found = Vec::with_capacity(subjects.len());
    while let Some(part) = work.pop() {
        if part.is_empty() {
            continue;
        }
        let request = Request { seq: None, next_by_subj: None, multi_last: part, batch: None };
        let batch = fetch(client, stream, &request).await?;
        if batch.pending > 0 && part.len() > 1 {
            let (front, back) = part.split_at(part.len() / 2);
            work.extend([back, front]);
        } else {
            found.extend(batch.messages);
        }
    }
    found.sort_by_key(|message| message.seq);
    Ok(found)
}

/// Messages on `filter` from sequence `from` on, at most `batch_max`; and whether more follow.
///
/// # Errors
/// When the stream does not answer in time.
pub async fn next(
    client: &Client,
    stream: &str,
    filter: &str,
    from: u64,
    batch_max: usize,
) -> Result<(Vec<Stored>, bool), ReadError> {
    let request = Request { seq: Some(from), next_by_subj: Some(filter), multi_last: &[], batch: Some(batch_max) };
    let batch = fetch(client, stream, &request).await?;
    Ok((batch.messages, batch.pending > 0))
}

async fn fetch(client: &Client, stream: &str, request: &Request<'_>) -> Result<Batch, ReadError> {
    let failed = |error: String| ReadError(error);
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| failed(error.to_string()))?;
    let payload = serde_json::to_vec(request).expect("a request has string keys only");
    client
        .publish_with_reply(format!("$JS.API.DIRECT.GET.{stream}"), inbox, payload.into())
        .await
        .map_err(|error| failed(error.to_string()))?;
    let mut messages = Vec::new();
    let deadline = tokio::time::Instant::now() + NATS_REQUEST_MAX;
    loop {
        let message = tokio::time::timeout_at(deadline, answers.next())
            .await
            .map_err(|_| failed(format!("stream {stream} did not respond in time")))?
            .ok_or_else(|| failed("the connection was closed".into()))?;
        let number = |name: &str| -> u64 {
            message.headers.as_ref().and_then(|headers| headers.get(name)?.as_str().parse().ok()).unwrap_or(0)
        };
        match message.status {
            Some(status) if status.as_u16() == 204 => {
                return Ok(Batch { messages, pending: number("Nats-Num-Pending") });
            }
            Some(StatusCode::NOT_FOUND) => return Ok(Batch { messages, pending: 0 }),
            Some(StatusCode::NO_RESPONDERS) => return Err(failed(format!("no server responds for stream {stream}"))),
            // Too many results: the caller reads fewer.
            Some(status) if status.as_u16() == 413 => return Ok(Batch { messages: Vec::new(), pending: 1 }),
            Some(status) if status != StatusCode::OK => {
                let description = message.description.as_deref().unwrap_or("no reason given");
                return Err(failed(format!("stream {stream} returned {status}: {description}")));
            }
            _ => {
                let stored = stored(message).ok_or_else(|| failed(format!("stream {stream} returned no message")))?;
                messages.push(stored);
            }
        }
    }
}

/// Reads only the needed headers of a response: in a storm there are two responses for each client.
fn stored(message: Message) -> Option<Stored> {
    let headers = message.headers?;
    Some(Stored {
        subject: headers.get(header::NATS_SUBJECT)?.as_str().to_owned(),
        seq: headers.get(header::NATS_SEQUENCE)?.as_str().parse().ok()?,
        message_id: headers.get(header::NATS_MESSAGE_ID).map(|id| id.as_str().to_owned()),
        stored_at: headers.get(header::NATS_TIME_STAMP)?.as_str().parse().ok()?,
        deleted: headers.get("KV-Operation").is_some(),
        payload: message.payload,
    })
}

impl From<StreamMessage> for Stored {
    fn from(message: StreamMessage) -> Self {
        let header = |name: &str| message.headers.get(name).map(|value| value.as_str().to_owned());
        Self {
            subject: message.subject.to_string(),
            seq: message.sequence,
            message_id: header(MESSAGE_ID),
            // The server's time is always representable.
            stored_at: Timestamp::from_nanosecond(message.time.unix_timestamp_nanos()).unwrap_or_default(),
            deleted: header("KV-Operation").is_some(),
            payload: message.payload,
        }
    }
}
