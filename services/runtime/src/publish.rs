//! One publish to JetStream and what came of it, classified by the server's code.
//!
//! async-nats reports what happens to a publish in flight on a replicated stream as `Other`; here the code decides.

use std::time::Duration;

use async_nats::{Client, HeaderMap, client::RequestErrorKind};
use bytes::Bytes;
use serde::Deserialize;

/// Header: the writer's name for the message, by which the server knows a repeat.
pub const MESSAGE_ID: &str = "Nats-Msg-Id";
/// Header: the sequence that must be the last of the subject, or the message is refused.
pub const EXPECTED_LAST_SUBJECT_SEQUENCE: &str = "Nats-Expected-Last-Subject-Sequence";

/// Wrong last sequence.
const CODE_WRONG_LAST_SEQUENCE: u64 = 10071;
/// The same on a replicated stream, while another publish to the subject is in flight; and its relative.
const CODES_IN_FLIGHT: [u64; 2] = [10158, 10164];
/// The server is there but has no leader, no quorum or no time.
const CODES_UNAVAILABLE: [u64; 4] = [10004, 10006, 10008, 10009];
/// There is no room: insufficient resources, storage or memory exceeded, a store that failed, as on a full disk. Stored
/// as soon as there is room again, so nothing that the message itself could change.
const CODES_NO_ROOM: [u64; 4] = [10023, 10028, 10047, 10077];

/// Why a message was not, or not surely, stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Another message is last on the subject. Not stored by this request; an earlier one may have stored it.
    #[error("another message came first")]
    WrongLastSequence,
    /// Stored or not: no answer, or one that does not tell. The same message may be sent again.
    #[error("the log is not available: {0}")]
    Unavailable(String),
    /// Not stored: the server has no room. The same message may be sent again.
    #[error("NATS has no room: {0}")]
    NoRoom(String),
    /// Not stored, and the server says why: too large, no permission.
    #[error("the server refuses the message: {description} ({code})")]
    Refused {
        /// JetStream's error code.
        code: u64,
        /// The server's words.
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

/// Publishes once; the message's sequence when the server has it (a repeat gives the first one's).
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
        RequestErrorKind::NoResponders => PublishError::Unavailable("no stream takes the subject".into()),
        RequestErrorKind::TimedOut => PublishError::Unavailable("no answer in time".into()),
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
        _ => Err(PublishError::Unavailable("the answer is not one of JetStream".into())),
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
