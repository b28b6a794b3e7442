//! Overwrites live states that differ from the log, while a projector may be writing too.

use std::time::Duration;

use anyhow::{Context, bail};
use async_nats::{Client, HeaderMap, jetstream, jetstream::stream::LastRawMessageErrorKind};
use millrace_domain::{
    JobId, JobState,
    limits::NATS_REQUEST_MAX,
    subjects::{self, STATE_BUCKET},
};
use millrace_runtime::publish::{self, PublishError};
use tokio::time::{Instant, sleep};

use crate::operators::verify::read::Reader;

const PAUSE: Duration = Duration::from_millis(50);
/// How long a state newer than the log counts as correct, on the assumption that the log's leader is catching up.
const LEADER_LAG_MAX: Duration = Duration::from_secs(5);
/// Attempts at one state that another writer changes at the same time.
const TRIES_MAX: u32 = 1000;

/// Repairs the states under these keys.
pub async fn run(client: &Client, reader: &Reader, keys: &[String]) -> anyhow::Result<()> {
    let bucket = jetstream::new(client.clone()).get_stream_no_info(subjects::bucket_stream(STATE_BUCKET)).await?;
    for key in keys {
        put_right(client, reader, &bucket, key).await.with_context(|| format!("cannot repair the state {key}"))?;
    }
    Ok(())
}

async fn put_right(
    client: &Client,
    reader: &Reader,
    bucket: &jetstream::stream::Stream<()>,
    key: &str,
) -> anyhow::Result<()> {
    let subject = format!("$KV.{STATE_BUCKET}.{key}");
    let began = Instant::now();
    for _ in 0..TRIES_MAX {
        // First the state, then the log: every event that the projector has folded is in the log.
        let (revision, stored) = match bucket.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => {
                let is_deleted = message.headers.get("KV-Operation").is_some();
                (message.sequence, (!is_deleted).then(|| serde_json::from_slice::<JobState>(&message.payload).ok()))
            }
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => (0, None),
            Err(error) => bail!("cannot read the bucket: {error}"),
        };
        let folded = match key.parse::<JobId>() {
            Ok(id) => reader.catch_up(&id, None, u64::MAX).await?,
            Err(_) => None,
        };
        let headers = match (&stored, &folded) {
            (None, None) => return Ok(()),
            (Some(Some(stored)), Some(folded)) if stored == folded => return Ok(()),
            (Some(Some(stored)), folded)
                if stored.seq > folded.as_ref().map_or(0, |folded| folded.seq) && began.elapsed() < LEADER_LAG_MAX =>
            {
                sleep(PAUSE).await;
                continue;
            }
            (_, Some(_)) => HeaderMap::new(),
            (Some(_), None) => {
                let mut headers = HeaderMap::new();
                headers.insert("KV-Operation", "PURGE");
                headers.insert("Nats-Rollup", "sub");
                headers
            }
        };
        let payload = match &folded {
            Some(folded) => serde_json::to_vec(folded)?,
            None => Vec::new(),
        };
        match set(client, &subject, headers, payload, revision).await {
            Ok(_) => return Ok(()),
            Err(PublishError::WrongLastSequence | PublishError::Unavailable(_) | PublishError::NoRoom(_)) => {
                sleep(PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    bail!("other writers keep changing it, or the bucket is unavailable")
}

/// Writes if the key is still at `revision`.
async fn set(
    client: &Client,
    subject: &str,
    mut headers: HeaderMap,
    payload: Vec<u8>,
    revision: u64,
) -> Result<u64, PublishError> {
    headers.insert(publish::EXPECTED_LAST_SUBJECT_SEQUENCE, revision.to_string().as_str());
    publish::publish(client, subject, headers, payload.into(), NATS_REQUEST_MAX).await
}
