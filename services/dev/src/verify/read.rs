//! The log and the states, read in batches; what is kept in memory grows with the jobs, not with the events.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::{Context, bail};
use async_nats::Client;
use async_nats::jetstream::{
    self,
    consumer::pull,
    stream::{LastRawMessageErrorKind, RawMessageErrorKind},
};
use millrace_domain::limits::SNAPSHOT_BATCH_MAX;
use millrace_domain::subjects::{self, Kind, PROJECTOR_CONSUMER, QUARANTINE_STREAM, STREAM};
use millrace_domain::{Entry, Event, JobId, JobState, fold};
use millrace_runtime::direct::{self, Stored};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::SHOWN_MAX;

const BATCH: usize = 1000;
const POLL: Duration = Duration::from_millis(20);
/// A replica that is behind the leader is asked again for so long.
const REPLICA_LAG_MAX: Duration = Duration::from_secs(10);

/// Reads both streams.
pub struct Reader {
    client: Client,
    context: jetstream::Context,
}

/// The log, folded.
#[derive(Clone, Default)]
pub struct Log {
    /// By job; `None` for one that has events but was never submitted.
    pub jobs: HashMap<JobId, Option<JobState>>,
    /// Sequence of the last message when the reading began.
    pub last: u64,
    pub events: u64,
    /// Where each undecodable message has its place in the quarantine.
    pub undecodable: Vec<String>,
    /// The first undecodable ones, in sentences.
    pub shown: Vec<String>,
}

/// The states by the last token of their subject, as the JSON that is stored; the reason if that cannot be read.
pub type States = HashMap<String, Result<Value, String>>;

impl Reader {
    /// Reads through this connection.
    pub fn new(client: &Client) -> Self {
        Self { client: client.clone(), context: jetstream::new(client.clone()) }
    }

    /// Reads and folds what the log holds now.
    pub async fn log(&self) -> anyhow::Result<Log> {
        let mut log = Log::default();
        self.read_on(&mut log, None).await?;
        Ok(log)
    }

    /// Reads on where `log` ends, up to and with sequence `until`; without it, to what is the log's end now.
    pub async fn read_on(&self, log: &mut Log, until: Option<u64>) -> anyhow::Result<()> {
        let from = log.last + 1;
        log.last = match until {
            Some(until) => until,
            None => {
                let info = self.context.get_stream(STREAM).await.with_context(|| {
                    format!("NATS has no stream {STREAM}; `cargo dev up` or `cargo dev provision` makes it")
                })?;
                info.cached_info().state.last_sequence
            }
        };
        self.each(STREAM, from, log.last, |stored| log.take(&stored)).await
    }

    /// Waits until the projector has applied sequence `last`; returns how far it is.
    pub async fn wait_for_projector(&self, last: u64, wait: Duration) -> anyhow::Result<u64> {
        let deadline = Instant::now() + wait;
        loop {
            let consumer: jetstream::consumer::Consumer<pull::Config> =
                self.context.get_consumer_from_stream(PROJECTOR_CONSUMER, STREAM).await.with_context(|| {
                    format!("the stream {STREAM} has no consumer {PROJECTOR_CONSUMER}; `cargo dev provision` makes it")
                })?;
            let applied = consumer.cached_info().ack_floor.stream_sequence;
            if applied >= last || Instant::now() > deadline {
                return Ok(applied);
            }
            sleep(POLL).await;
        }
    }

    /// How many of these subjects of the quarantine have their message.
    pub async fn quarantined(&self, wanted: &[String]) -> anyhow::Result<u64> {
        if wanted.is_empty() {
            return Ok(0);
        }
        let quarantine = self
            .context
            .get_stream_no_info(QUARANTINE_STREAM)
            .await
            .with_context(|| format!("NATS has no stream {QUARANTINE_STREAM}; `cargo dev provision` makes it"))?;
        let mut count = 0;
        for wanted in wanted.chunks(SNAPSHOT_BATCH_MAX) {
            let found = direct::last_per_subject(&self.client, QUARANTINE_STREAM, wanted).await?;
            let found: HashSet<_> = found.into_iter().map(|stored| stored.subject).collect();
            count += found.len() as u64;
            // A replica may be behind.
            for subject in wanted.iter().filter(|subject| !found.contains(*subject)) {
                match quarantine.get_last_raw_message_by_subject(subject).await {
                    Ok(_) => count += 1,
                    Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {}
                    Err(error) => bail!("the stream {QUARANTINE_STREAM} cannot be read: {error}"),
                }
            }
        }
        Ok(count)
    }

    /// Every state that a bucket has.
    pub async fn states(&self, bucket: &str) -> anyhow::Result<States> {
        let stream = format!("KV_{bucket}");
        let info = self.context.get_stream(&stream).await.with_context(|| {
            format!("NATS has no bucket {bucket}; `cargo dev up` or `cargo dev provision` makes it")
        })?;
        let last = info.cached_info().state.last_sequence;
        let prefix = format!("$KV.{bucket}.");
        let mut states = States::new();
        // A key that is written meanwhile moves to the end: it may be met twice, and then the later one counts.
        self.each(&stream, 1, last, |stored| {
            let key = stored.subject.strip_prefix(&prefix).unwrap_or(&stored.subject).to_owned();
            if stored.deleted {
                states.remove(&key);
            } else {
                states.insert(key, serde_json::from_slice(&stored.payload).map_err(|error| error.to_string()));
            }
        })
        .await?;
        Ok(states)
    }

    /// Folds `state` further, up to and with sequence `until`, as far as the log goes.
    pub async fn catch_up(
        &self,
        id: &JobId,
        mut state: Option<JobState>,
        until: u64,
    ) -> anyhow::Result<Option<JobState>> {
        let filter = subjects::job_filter(id);
        let mut from = state.as_ref().map_or(1, |state| state.seq + 1);
        while from <= until {
            let batch = self.batch(STREAM, &filter, from).await?;
            let Some(newest) = batch.last() else { break };
            from = newest.seq + 1;
            for (id, entry) in batch.iter().filter(|stored| stored.seq <= until).filter_map(entry) {
                state = fold(state, &id, &entry);
            }
        }
        Ok(state)
    }

    /// Calls `take` for every message, in order, until all those from `from` up to sequence `last` have been read.
    async fn each(&self, stream: &str, mut from: u64, last: u64, mut take: impl FnMut(Stored)) -> anyhow::Result<()> {
        while from <= last {
            let batch = self.batch(stream, ">", from).await?;
            let Some(newest) = batch.last() else { break };
            from = newest.seq + 1;
            batch.into_iter().for_each(&mut take);
        }
        Ok(())
    }

    /// The next messages from `from` on; none only if the stream's leader has none either.
    async fn batch(&self, stream: &str, filter: &str, from: u64) -> anyhow::Result<Vec<Stored>> {
        let deadline = Instant::now() + REPLICA_LAG_MAX;
        loop {
            let (batch, _) = direct::next(&self.client, stream, filter, from, BATCH).await?;
            if !batch.is_empty() {
                return Ok(batch);
            }
            let leader = self.context.get_stream_no_info(stream).await?;
            match leader.get_first_raw_message_by_subject(filter, from).await {
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => return Ok(batch),
                Err(error) => bail!("the stream {stream} cannot be read: {error}"),
                Ok(_) if Instant::now() > deadline => {
                    bail!("a replica of the stream {stream} stays behind its leader: it ends before sequence {from}")
                }
                Ok(_) => sleep(POLL).await,
            }
        }
    }
}

impl Log {
    fn take(&mut self, stored: &Stored) {
        if stored.seq > self.last {
            return;
        }
        self.events += 1;
        let Some((id, entry)) = entry(stored) else {
            return self.undecodable(stored, "its subject is none of a job's");
        };
        if let Err(error) = &entry.event {
            self.undecodable(stored, &error.to_string());
        }
        let state = self.jobs.entry(id.clone()).or_default();
        *state = fold(state.take(), &id, &entry);
    }

    fn undecodable(&mut self, stored: &Stored, why: &str) {
        self.undecodable.push(subjects::quarantine_subject(&stored.subject, stored.seq));
        if self.shown.len() < SHOWN_MAX {
            self.shown.push(format!("undecodable  message {} on {}: {why}", stored.seq, stored.subject));
        }
    }
}

fn entry(stored: &Stored) -> Option<(JobId, Entry)> {
    let (kind, id): (Kind, JobId) = subjects::parse(&stored.subject)?;
    Some((id, Entry { seq: stored.seq, kind, event: Event::decode(&stored.payload) }))
}
