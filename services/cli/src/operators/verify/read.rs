//! Reads the log and the states in batches; memory grows with the jobs, not with the events.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use anyhow::{Context, bail};
use async_nats::{
    Client,
    jetstream::{self, consumer::pull, stream::LastRawMessageErrorKind},
};
use millrace_domain::{
    Entry, Event, JobId, JobState, fold,
    limits::SNAPSHOT_BATCH_MAX,
    subjects::{self, Kind, PROJECTOR_CONSUMER, QUARANTINE_STREAM, STREAM},
};
use millrace_runtime::{
    cursor::Cursor,
    direct::{self, Stored},
};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::SHOWN_MAX;

const BATCH: usize = 1000;
const POLL: Duration = Duration::from_millis(20);

/// Reads both streams.
pub struct Reader {
    client: Client,
    context: jetstream::Context,
}

/// The log, folded.
#[derive(Clone, Default)]
pub struct Log {
    /// By job; `None` for a job that has events but was never submitted.
    pub jobs: HashMap<JobId, Option<JobState>>,
    /// Sequence of the last message when the reading began.
    pub last: u64,
    pub events: u64,
    /// The quarantine subject of each undecodable message.
    pub undecodable: Vec<String>,
    /// The first undecodable messages, each as a sentence.
    pub shown: Vec<String>,
}

/// The stored JSON of each state by the last token of its subject; the reason if it cannot be parsed.
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

    /// Continues after `log`'s last message, up to and including sequence `until`; without it, to the log's current
    /// end.
    pub async fn read_on(&self, log: &mut Log, until: Option<u64>) -> anyhow::Result<()> {
        let after = log.last;
        log.last = match until {
            Some(until) => until,
            None => {
                let info = self
                    .context
                    .get_stream(STREAM)
                    .await
                    .with_context(|| format!("NATS has no stream {STREAM}; `millrace provision` makes it"))?;
                info.cached_info().state.last_sequence
            }
        };
        self.each(STREAM, after, log.last, |stored| log.take(&stored)).await
    }

    /// Waits until the projector has applied sequence `last`; returns the sequence that it has reached.
    pub async fn wait_for_projector(&self, last: u64, wait: Duration) -> anyhow::Result<u64> {
        let deadline = Instant::now() + wait;
        loop {
            let consumer: jetstream::consumer::Consumer<pull::Config> =
                self.context.get_consumer_from_stream(PROJECTOR_CONSUMER, STREAM).await.with_context(|| {
                    format!("the stream {STREAM} has no consumer {PROJECTOR_CONSUMER}; `millrace provision` makes it")
                })?;
            let applied = consumer.cached_info().ack_floor.stream_sequence;
            if applied >= last || Instant::now() > deadline {
                return Ok(applied);
            }
            sleep(POLL).await;
        }
    }

    /// How many of these quarantine subjects hold a message.
    pub async fn quarantined(&self, wanted: &[String]) -> anyhow::Result<u64> {
        if wanted.is_empty() {
            return Ok(0);
        }
        let quarantine = self
            .context
            .get_stream_no_info(QUARANTINE_STREAM)
            .await
            .with_context(|| format!("NATS has no stream {QUARANTINE_STREAM}; `millrace provision` makes it"))?;
        let mut count = 0;
        for wanted in wanted.chunks(SNAPSHOT_BATCH_MAX) {
            let found = direct::last_per_subject(&self.client, QUARANTINE_STREAM, wanted).await?;
            let found: HashSet<_> = found.into_iter().map(|stored| stored.subject).collect();
            count += found.len() as u64;
            // A replica may be stale.
            for subject in wanted.iter().filter(|subject| !found.contains(*subject)) {
                match quarantine.get_last_raw_message_by_subject(subject).await {
                    Ok(_) => count += 1,
                    Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {}
                    Err(error) => bail!("cannot read the stream {QUARANTINE_STREAM}: {error}"),
                }
            }
        }
        Ok(count)
    }

    /// Every state in a bucket.
    pub async fn states(&self, bucket: &str) -> anyhow::Result<States> {
        let stream = subjects::bucket_stream(bucket);
        let info = self
            .context
            .get_stream(&stream)
            .await
            .with_context(|| format!("NATS has no bucket {bucket}; `millrace provision` makes it"))?;
        let last = info.cached_info().state.last_sequence;
        let prefix = format!("$KV.{bucket}.");
        let mut states = States::new();
        // A key that is written meanwhile moves to the end: it may come twice, and then the later one counts.
        self.each(&stream, 0, last, |stored| {
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

    /// Folds further events into `state`, up to and including sequence `until` or the log's end.
    pub async fn catch_up(
        &self,
        id: &JobId,
        mut state: Option<JobState>,
        until: u64,
    ) -> anyhow::Result<Option<JobState>> {
        let after = state.as_ref().map_or(0, |state| state.seq);
        let mut cursor = self.cursor(STREAM, subjects::job_filter(id), after).await?;
        let mut last = after;
        while last < until {
            let batch = cursor.next_page_or_leaders().await?;
            let Some(newest) = batch.last() else { break };
            last = newest.seq;
            for (id, entry) in batch.iter().filter(|stored| stored.seq <= until).filter_map(entry) {
                state = fold(state, &id, &entry);
            }
        }
        Ok(state)
    }

    /// Calls `take` for every message, in order, until all those after `after` up to sequence `last` have been read.
    async fn each(&self, stream: &str, after: u64, last: u64, mut take: impl FnMut(Stored)) -> anyhow::Result<()> {
        let mut cursor = self.cursor(stream, ">", after).await?;
        let mut read = after;
        while read < last {
            let batch = cursor.next_page_or_leaders().await?;
            let Some(newest) = batch.last() else { break };
            read = newest.seq;
            batch.into_iter().for_each(&mut take);
        }
        Ok(())
    }

    async fn cursor(&self, name: &str, filter: impl Into<String>, after: u64) -> anyhow::Result<Cursor> {
        let stream = self.context.get_stream_no_info(name).await?;
        Ok(Cursor::new(&self.client, stream, name, filter, after).in_pages_of(BATCH))
    }
}

impl Log {
    fn take(&mut self, stored: &Stored) {
        if stored.seq > self.last {
            return;
        }
        self.events += 1;
        let Some((id, entry)) = entry(stored) else {
            return self.undecodable(stored, "its subject is not one of a job's");
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
