//! The quarantine of undecodable messages of the log: a copy of each goes to a separate stream, with the reason.
//!
//! The subject in that stream identifies the message, and the stream accepts only one copy: a repeat, after a kill or
//! by another projector, finds it there. The quarantine blocks nothing. If it is unavailable for a while, the projector
//! counts the message and passes over it; the message remains in the log, and a rebuild copies it later.

use std::time::Duration;

use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::time::{Instant, sleep};

use millrace_domain::{
    limits::{ERROR_CHARS_MAX, PROJECTOR_WRITES_IN_FLIGHT_MAX, QUARANTINE_WAIT_AWAY_MAX, QUARANTINE_WAIT_MAX, cut},
    subjects::{QUARANTINE_REASON, QUARANTINE_SEQUENCE, QUARANTINE_SUBJECT, quarantine_subject},
};
use millrace_runtime::publish::{self, PublishError};

use crate::metrics::Metrics;

/// An undecodable message of the log.
#[derive(Clone, Debug)]
pub struct Unreadable {
    pub subject: String,
    pub seq: u64,
    pub payload: Bytes,
    pub reason: String,
}

/// The writer of the quarantine.
pub struct Quarantine {
    client: Client,
    metrics: Metrics,
    /// Whether it stored the last message.
    is_there: bool,
}

impl Quarantine {
    pub fn new(client: Client, metrics: Metrics) -> Self {
        Self { client, metrics, is_there: true }
    }

    /// Returns when all messages are in the quarantine, or the wait is over.
    pub async fn take(&mut self, messages: &[Unreadable]) {
        let wait = if self.is_there { QUARANTINE_WAIT_MAX } else { QUARANTINE_WAIT_AWAY_MAX };
        let deadline = Instant::now() + wait;
        let mut takes = Vec::with_capacity(messages.len());
        for message in messages {
            takes.push(take(&self.client, message, deadline));
        }
        let taken: Vec<_> = stream::iter(takes).buffered(PROJECTOR_WRITES_IN_FLIGHT_MAX).collect().await;
        for (Unreadable { subject, seq, reason, .. }, taken) in messages.iter().zip(taken) {
            self.is_there = taken.is_ok();
            match taken {
                Ok(()) => {
                    self.metrics.quarantined.inc();
                    tracing::error!(subject, seq, reason, "cannot decode message in the log; quarantined it");
                }
                Err(error) => {
                    self.metrics.unquarantined.inc();
                    tracing::error!(
                        subject,
                        seq,
                        reason,
                        error,
                        "cannot decode message in the log, nor quarantine it; leaving it in the log only"
                    );
                }
            }
        }
    }
}

async fn take(client: &Client, message: &Unreadable, deadline: Instant) -> Result<(), String> {
    let mut pause = Duration::from_millis(20);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let subject = quarantine_subject(&message.subject, message.seq);
        let error = match publish::publish(client, &subject, headers(message), message.payload.clone(), left).await {
            Ok(_) | Err(PublishError::WrongLastSequence) => return Ok(()),
            Err(error @ PublishError::Refused { .. }) => return Err(error.to_string()),
            Err(error @ (PublishError::Unavailable(_) | PublishError::NoRoom(_))) => error.to_string(),
        };
        if Instant::now() + pause > deadline {
            return Err(error);
        }
        sleep(pause).await;
        pause *= 2;
    }
}

fn headers(message: &Unreadable) -> HeaderMap {
    let mut headers = HeaderMap::new();
    // A reason quotes the message, which may hold any characters; a header is one line.
    let reason = message.reason.replace(char::is_control, " ");
    headers.insert(QUARANTINE_REASON, cut(&reason, ERROR_CHARS_MAX).as_str());
    headers.insert(QUARANTINE_SUBJECT, message.subject.as_str());
    headers.insert(QUARANTINE_SEQUENCE, message.seq.to_string().as_str());
    headers.insert(publish::EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
    headers
}
