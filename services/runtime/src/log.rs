//! The log: appends with fence and recovery, reads of a job's history, reads of last sequences.

use async_nats::{Client, HeaderMap, jetstream};
use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use millrace_domain::{
    Entry, Event, JobId,
    append::{Outcome, Recovery, Step, Successor},
    limits::{EVENT_BYTES_MAX, NATS_REQUEST_MAX},
    subjects::{self, Kind},
};

use crate::{
    cursor::Cursor,
    direct::{self, ReadError, Stored},
    metrics::{IntCounter, Registry},
    publish::{self, PublishError},
};

pub use millrace_domain::append::AppendError;

/// The stream of all jobs.
#[derive(Clone)]
pub struct Log {
    client: Client,
    pub(crate) stream: jetstream::stream::Stream<()>,
    metrics: Metrics,
}

crate::metrics! {
    /// Appends and reads.
    struct Metrics in "millrace_log" {
        /// Events that this process stored in the log.
        pub appended: IntCounter,
        /// Appends refused because an event of another writer came first.
        pub conflicts: IntCounter,
        /// Appends sent again because their outcome was unknown.
        pub repeated: IntCounter,
        /// Messages in the log that could not be decoded.
        pub undecodable: IntCounter,
        /// Appends refused because NATS has no room: its disk is full, or the part of it that NATS may use.
        pub no_room: IntCounter,
    }
}

/// The log's end, read from its leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    /// The sequence of the last message that the log ever stored, of any job.
    pub last_sequence: u64,
    /// When the leader responded, by the server's clock.
    pub at: Timestamp,
}

#[derive(Deserialize)]
struct Info {
    ts: Timestamp,
    state: InfoState,
}

#[derive(Deserialize)]
struct InfoState {
    last_seq: u64,
}

/// One event to be appended. It keeps its message id, so sending it again cannot store it twice.
#[derive(Clone, Debug)]
pub struct Append {
    /// The job.
    pub id: JobId,
    kind: Kind,
    subject: String,
    expected: u64,
    message_id: String,
    payload: Bytes,
}

impl Append {
    /// Prepares `event` to follow sequence `expected` on its subject of job `id`.
    #[must_use]
    pub fn new(id: &JobId, expected: u64, event: &Event) -> Self {
        let nonce = format!("{:016x}", rand::random::<u64>());
        let kind = event.body.kind();
        Self {
            id: id.clone(),
            kind,
            subject: subjects::subject(kind, id),
            expected,
            message_id: subjects::message_id(id, expected, &nonce),
            payload: event.encode().into(),
        }
    }

    /// The entry that the log holds once the append has succeeded at `seq`.
    #[must_use]
    pub fn entry(&self, seq: u64) -> Entry {
        Entry { seq, kind: self.kind, event: Event::decode(&self.payload) }
    }
}

impl Log {
    /// The log on a connection.
    ///
    /// # Errors
    /// When the metrics are already registered, or JetStream does not respond.
    pub async fn open(client: &Client, registry: &Registry) -> anyhow::Result<Self> {
        let metrics = Metrics::register(registry)?;
        let stream = jetstream::new(client.clone()).get_stream_no_info(subjects::STREAM).await?;
        Ok(Self { client: client.clone(), stream, metrics })
    }

    /// Appends; returns the event's sequence.
    ///
    /// Safe against a lost reply and a repeat: the message id and the expected sequence let the log hold the event at
    /// most once, and a refusal counts only after a read of the message that follows the expected sequence.
    /// [`millrace_domain::append`] decides, this function carries it out.
    ///
    /// # Errors
    /// See [`AppendError`]; `NoRoom` at once, `Unavailable` only after [`millrace_domain::limits::APPEND_RETRY_MAX`].
    pub async fn append(&self, append: &Append) -> Result<u64, AppendError> {
        if append.payload.len() > EVENT_BYTES_MAX {
            return Err(AppendError::Refused(format!("the event is larger than {EVENT_BYTES_MAX} bytes")));
        }
        let began = Instant::now();
        let (mut recovery, mut step) = Recovery::begin(&append.message_id);
        loop {
            let outcome = match step {
                Step::Send => self.send(append).await,
                Step::AskSuccessor => self.successor(append).await,
                Step::Pause(pause) => {
                    self.metrics.repeated.inc();
                    tracing::debug!(job = %append.id, "repeating append");
                    sleep(pause).await;
                    Outcome::Paused
                }
                Step::End(result) => {
                    match &result {
                        Ok(seq) => self.stored(append, *seq),
                        Err(AppendError::Conflict { .. }) => self.metrics.conflicts.inc(),
                        Err(AppendError::NoRoom(_)) => self.metrics.no_room.inc(),
                        Err(_) => {}
                    }
                    return result;
                }
            };
            step = recovery.next(outcome, began.elapsed());
        }
    }

    /// `cargo dev chaos` reads this log line, and checks the log against it.
    fn stored(&self, append: &Append, seq: u64) {
        self.metrics.appended.inc();
        tracing::debug!(job = %append.id, seq, message_id = append.message_id, "event appended");
    }

    async fn send(&self, append: &Append) -> Outcome {
        let mut headers = HeaderMap::new();
        headers.insert(publish::MESSAGE_ID, append.message_id.as_str());
        headers.insert(publish::EXPECTED_LAST_SUBJECT_SEQUENCE, append.expected.to_string().as_str());
        let payload = append.payload.clone();
        match publish::publish(&self.client, &append.subject, headers, payload, NATS_REQUEST_MAX).await {
            Ok(seq) => Outcome::Stored(seq),
            Err(PublishError::WrongLastSequence) => Outcome::WrongLast,
            Err(PublishError::Unavailable(why)) => Outcome::Unknown(why),
            Err(PublishError::NoRoom(why)) => Outcome::NoRoom(why),
            Err(PublishError::Refused { code, description }) => Outcome::Refused(format!("{description} ({code})")),
        }
    }

    async fn successor(&self, append: &Append) -> Outcome {
        match self.read(&append.subject, append.expected).next_of_leader().await {
            Ok(next) => Outcome::Successor(next.map(|Stored { seq, message_id, .. }| Successor { seq, message_id })),
            Err(ReadError(why)) => Outcome::Unknown(why),
        }
    }

    /// Reads the messages that match a filter and come after sequence `after`: [`subjects::ALL`],
    /// [`subjects::SUBMITTED_ALL`], or the [`subjects::job_filter`] of one job.
    #[must_use]
    pub fn read(&self, filter: impl Into<String>, after: u64) -> Cursor {
        Cursor::new(&self.client, self.stream.clone(), subjects::STREAM, filter, after)
    }

    /// The last stored message of each job subject that matches one of the filters, in the order of their sequences.
    ///
    /// # Errors
    /// When the stream does not answer in time.
    pub async fn last(&self, filters: &[String]) -> Result<Vec<(JobId, Stored)>, ReadError> {
        let last = direct::last_per_subject(&self.client, subjects::STREAM, filters).await?;
        Ok(last.into_iter().filter_map(|stored| Some((subjects::parse(&stored.subject)?.1, stored))).collect())
    }

    /// The log's end and the server's time.
    ///
    /// # Errors
    /// When the leader does not answer in time.
    pub async fn tip(&self) -> Result<Tip, ReadError> {
        let failed = |error: &dyn std::fmt::Display| ReadError(error.to_string());
        // async-nats does not return the server's time.
        let asked = format!("$JS.API.STREAM.INFO.{}", subjects::STREAM);
        let answer = self.client.request(asked, Bytes::new()).await.map_err(|error| failed(&error))?;
        let info: Info = serde_json::from_slice(&answer.payload)
            .map_err(|_| ReadError(String::from_utf8_lossy(&answer.payload).into_owned()))?;
        Ok(Tip { last_sequence: info.state.last_seq, at: info.ts })
    }

    /// The sequence of the last message that the log has stored; it may have been purged since.
    ///
    /// # Errors
    /// When the leader does not answer in time.
    pub async fn last_sequence(&self) -> Result<u64, ReadError> {
        Ok(self.tip().await?.last_sequence)
    }

    /// Removes all events of a job; the job is then unknown to the log.
    ///
    /// # Errors
    /// When the leader does not answer in time; some events may be gone.
    pub async fn purge(&self, id: &JobId) -> anyhow::Result<()> {
        self.stream.purge().filter(subjects::job_filter(id)).await?;
        Ok(())
    }

    /// Decodes messages of the log. Leaves out a message whose subject does not belong to a job.
    #[must_use]
    pub fn entries<'a>(&self, stored: impl IntoIterator<Item = &'a Stored>) -> Vec<Entry> {
        stored.into_iter().filter_map(|stored| self.entry(stored)).collect()
    }

    /// Decodes a message of the log; `None` if its subject does not belong to a job.
    #[must_use]
    pub fn entry(&self, stored: &Stored) -> Option<Entry> {
        let (kind, id) = subjects::parse(&stored.subject)?;
        Some(self.decode(&id, stored.seq, kind, &stored.payload))
    }

    /// Makes an entry from a payload. An undecodable one is counted and becomes an entry without an event: it remains
    /// in the log, where its sequence identifies it.
    #[must_use]
    pub fn decode(&self, id: &JobId, seq: u64, kind: Kind, payload: &[u8]) -> Entry {
        let event = Event::decode(payload).inspect_err(|error| {
            self.metrics.undecodable.inc();
            tracing::error!(job = %id, seq, %error, "cannot decode message in the log; skipping it");
        });
        Entry { seq, kind, event }
    }
}
