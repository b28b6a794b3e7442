//! One publish to JetStream and its outcome, classified by the server's code.
//!
//! async-nats reports a conflict with a publish in flight on a replicated stream as `Other`; the server's code
//! distinguishes it.

use std::time::Duration;

use async_nats::{Client, HeaderMap, client::RequestErrorKind};
use bytes::Bytes;
use serde::Deserialize;

/// Header: the writer's id of the message, by which the server recognises a repeat.
pub const MESSAGE_ID: &str = "Nats-Msg-Id";
/// Header: the sequence that must be the subject's last, or the server refuses the message.
pub const EXPECTED_LAST_SUBJECT_SEQUENCE: &str = "Nats-Expected-Last-Subject-Sequence";

/// Wrong last sequence.
const CODE_WRONG_LAST_SEQUENCE: u64 = 10071;
/// Wrong last sequence on a replicated stream, while another publish to the subject is in flight; two codes.
const CODES_IN_FLIGHT: [u64; 2] = [10158, 10164];
/// The server responds but has no leader, no quorum or no time.
const CODES_UNAVAILABLE: [u64; 4] = [10004, 10006, 10008, 10009];
/// There is no room: insufficient resources, storage or memory exceeded, or a store that failed, as on a full disk. The
/// server stores the message once there is room; changing the message would not help.
const CODES_NO_ROOM: [u64; 4] = [10023, 10028, 10047, 10077];

/// Why a message was not, or not certainly, stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Another message is last on the subject. This request did not store ours; an earlier one may have.
    #[error("another message came first")]
    WrongLastSequence,
    /// Unknown whether stored: no response, or one that leaves it open. The same message may be sent again.
    #[error("the log is unavailable: {0}")]
    Unavailable(String),
    /// Not stored: the server has no room. The same message may be sent again.
    #[error("NATS has no room: {0}")]
    NoRoom(String),
    /// Not stored, and the server reports why: too large, no permission.
    #[error("the server refused the message: {description} ({code})")]
    Refused {
        /// JetStream's error code.
        code: u64,
        /// The server's description.
        description: String,
    },
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    seq: u64,
    error: Option<ApiError>,
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// Publishes once; returns the message's sequence once the server has it (for a repeat, that of the first).
///
/// # Errors
/// See [`PublishError`].
pub async fn publish(
    client: &Client,
    subject: &str,
    headers: HeaderMap,
    payload: Bytes,
    timeout: Duration,
) -> Result<u64, PublishError> {
    let request = async_nats::Request::new().headers(headers).payload(payload).timeout(Some(timeout));
    let answer = client.send_request(subject.to_owned(), request).await.map_err(|error| match error.kind() {
        RequestErrorKind::NoResponders => PublishError::Unavailable("no stream stores the subject".into()),
        RequestErrorKind::TimedOut => PublishError::Unavailable("no response in time".into()),
        _ => PublishError::Unavailable(error.to_string()),
    })?;
    classify(&answer.payload)
}

fn classify(answer: &[u8]) -> Result<u64, PublishError> {
    match serde_json::from_slice(answer) {
        Ok(Answer { error: None, seq }) if seq > 0 => Ok(seq),
        Ok(Answer { error: Some(error), .. }) => Err(match error.err_code {
            CODE_WRONG_LAST_SEQUENCE => PublishError::WrongLastSequence,
            code if CODES_IN_FLIGHT.contains(&code) || CODES_UNAVAILABLE.contains(&code) => {
                PublishError::Unavailable(error.description)
            }
            code if CODES_NO_ROOM.contains(&code) => PublishError::NoRoom(format!("{} ({code})", error.description)),
            code => PublishError::Refused { code, description: error.description },
        }),
        _ => Err(PublishError::Unavailable("the response is not from JetStream".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_classified_by_code_and_not_by_text() {
        let error = |code: u64| {
            classify(format!(r#"{{"error":{{"code":400,"err_code":{code},"description":"x"}}}}"#).as_bytes())
        };
        assert_eq!(classify(br#"{"stream":"JOBS","seq":7,"duplicate":true}"#), Ok(7));
        assert_eq!(error(10071), Err(PublishError::WrongLastSequence));
        for code in [10164, 10158, 10008] {
            assert!(matches!(error(code), Err(PublishError::Unavailable(_))), "{code}");
        }
        for code in [10023, 10028, 10047, 10077] {
            assert!(matches!(error(code), Err(PublishError::NoRoom(_))), "{code}");
        }
        assert_eq!(error(10054), Err(PublishError::Refused { code: 10054, description: "x".into() }));
        assert!(matches!(classify(b"hello"), Err(PublishError::Unavailable(_))));
    }
}
