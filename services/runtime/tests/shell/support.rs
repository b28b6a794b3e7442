//! A nats-server for each test with everything provisioned, and helpers that write to it.

use std::time::Duration;

use async_nats::{Client, jetstream};
use jiff::Timestamp;
use millrace_domain::{
    Entry, Event, EventBody, JobId, JobState, Submission, VideoInfo,
    event::Progress,
    fold_all,
    subjects::{self, Kind, STREAM},
};
use millrace_harness::{
    nats::{NatsOptions, NatsServer},
    wait,
};
use millrace_runtime::{
    admin::Health,
    direct::ReadError,
    jobs::Jobs,
    log::{Append, Log},
    nats::{self, Nats},
    provision,
    snapshots::Snapshots,
};
use prometheus::Registry;

/// How long a busy machine may take for an expected result.
pub const LIMIT: Duration = Duration::from_secs(60);

pub struct World {
    pub server: NatsServer,
    pub nats: Nats,
    pub health: Health,
    pub context: jetstream::Context,
    pub log: Log,
    pub snapshots: Snapshots,
    pub jobs: Jobs,
    pub registry: Registry,
}

/// A server without streams.
pub async fn bare() -> (NatsServer, jetstream::Context) {
    let server = NatsServer::start(NatsOptions::default()).await.expect("a nats-server");
    let client: Client = async_nats::connect(server.url()).await.expect("NATS");
    (server, jetstream::new(client))
}

/// The configuration for a connection to a server.
pub fn config(url: &str) -> nats::Config {
    nats::Config { urls: nats::parse_urls(url).expect("an address"), credentials: None }
}

impl World {
    pub async fn start() -> Self {
        let server = NatsServer::start(NatsOptions::default()).await.expect("a nats-server");
        let health = Health::default();
        let nats = Nats::connect(&config(&server.url()), "test", health.check("nats")).await.expect("NATS");
        let client = nats.client.clone();
        let context = jetstream::new(client.clone());
        provision::apply(&context, None).await.expect("provisioned");
        let registry = Registry::new();
        let log = Log::open(&client, &registry).await.expect("the log");
        let snapshots = Snapshots::new(&client, log.clone(), &registry).expect("the snapshots");
        let jobs = Jobs { log: log.clone(), snapshots: snapshots.clone() };
        Self { server, nats, health, context, log, snapshots, jobs, registry }
    }

    /// Appends one event after the expected sequence.
    pub async fn append(&self, id: &JobId, expected: u64, body: EventBody) -> u64 {
        self.log.append(&Append::new(id, expected, &event(body))).await.expect("appended")
    }

    /// A submission and the given number of events after it; returns all sequences.
    pub async fn job(&self, id: &JobId, events: usize) -> Vec<u64> {
        let mut seqs = vec![self.append(id, 0, submitted()).await];
        let mut expected = 0;
        for n in 0..events {
            expected = self.append(id, expected, body(n)).await;
            seqs.push(expected);
        }
        seqs
    }

    /// Writes without any check.
    pub async fn publish(&self, subject: impl Into<String>, payload: &'static str) -> u64 {
        self.context.publish(subject.into(), payload.into()).await.unwrap().await.unwrap().sequence
    }

    /// The number of messages in the log.
    pub async fn messages(&self) -> u64 {
        self.context.get_stream(STREAM).await.unwrap().cached_info().state.messages
    }

    /// A job's history, read from a replica.
    pub async fn history(&self, id: &JobId, after: u64) -> Result<Vec<Entry>, ReadError> {
        Ok(self.log.entries(&self.log.read(subjects::job_filter(id), after).rest().await?))
    }

    /// A job's history, read from the leader.
    pub async fn history_of_leader(&self, id: &JobId, after: u64) -> Result<Vec<Entry>, ReadError> {
        Ok(self.log.entries(&self.log.read(subjects::job_filter(id), after).to_the_end().await?))
    }

    /// The state by the log alone.
    pub async fn fold(&self, id: &JobId) -> Option<JobState> {
        fold_all(None, id, &self.history(id, 0).await.unwrap())
    }

    /// One of the counters.
    pub fn counter(&self, name: &str) -> u64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap_or_else(|| panic!("no metric {name}"));
        family.get_metric()[0].get_counter().get_value() as u64
    }
}

pub fn id(text: &str) -> JobId {
    text.parse().expect("a job's id")
}

/// An event in whole milliseconds, as every writer makes them.
pub fn event(body: EventBody) -> Event {
    Event { at: Timestamp::from_millisecond(1_790_000_000_000).unwrap(), body }
}

pub fn submission() -> Submission {
    Submission { url: "https://a.example/v".parse().unwrap(), quality: None }
}

pub fn submitted() -> EventBody {
    EventBody::Submitted(submission())
}

pub fn info(title: &str) -> EventBody {
    EventBody::Info { video_info: VideoInfo { title: Some(title.into()), ..VideoInfo::default() } }
}

/// The `n`th event of a job that never ends.
pub fn body(n: usize) -> EventBody {
    match n {
        0 => EventBody::Started { worker: "w".into(), attempt: 1 },
        1 => info("a title"),
        _ => {
            EventBody::Progress(Progress { downloaded_bytes: n as u64, total_bytes: Some(1000), ..Progress::default() })
        }
    }
}

pub fn seqs(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.seq).collect()
}

pub fn events_subject(id: &JobId) -> String {
    subjects::subject(Kind::Events, id)
}

/// Waits until a condition holds, as long as a busy machine may take.
pub async fn until(what: &str, holds: impl AsyncFnMut() -> bool) {
    wait::until(what, LIMIT, holds).await;
}
