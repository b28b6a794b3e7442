//! A nats-server as the services use it, and messages as its stream republishes them.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use async_nats::{
    Client, HeaderMap,
    jetstream::{self, consumer::pull},
};
use futures::{StreamExt, TryStreamExt, stream};
use millrace_domain::{
    Event, EventBody, JobId,
    subjects::{PROJECTOR_CONSUMER, STREAM},
};
use millrace_harness::{
    nats::{NatsOptions, NatsServer},
    ports::free_port,
};
use millrace_runtime::{
    log::{Append, Log},
    now, provision,
};
use serde::Deserialize;

use super::{
    super::job::{self, Tracks},
    Ground,
};

const CATCH_UP_MAX: Duration = Duration::from_secs(180);
/// Appends in flight at once while jobs are made.
const APPENDS_IN_FLIGHT: usize = 256;

/// nats-server and the bench's connections to it.
pub struct NatsSide {
    pub server: NatsServer,
    pub client: Client,
    pub log: Log,
    http_port: u16,
}

/// Numbers of `/varz`.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Told {
    /// Messages from all clients.
    pub in_msgs: u64,
    pub connections: u64,
    pub subscriptions: u64,
    /// Connections that the server closed since they did not read their messages fast enough.
    pub slow_consumers: u64,
}

impl NatsSide {
    /// Starts it with our streams. `more` is added to the configuration.
    pub async fn start(ground: &Ground, folder: &std::path::Path, more: &str) -> anyhow::Result<Self> {
        let config: PathBuf = folder.join("nats.conf");
        let local = std::fs::read_to_string(ground.root.join("nats/local.conf"))?;
        std::fs::write(&config, format!("{local}\n{more}\n"))?;
        let http_port = free_port();
        let server = NatsServer::start(NatsOptions {
            program: Some(ground.nats_server.clone()),
            config: Some(config),
            args: vec!["--http_port".to_owned(), http_port.to_string()],
            ..NatsOptions::default()
        })
        .await?;
        let client = async_nats::connect(server.url()).await?;
        provision::apply(&jetstream::new(client.clone()), None).await?;
        let log = Log::open(&client, &prometheus::Registry::new()).await?;
        Ok(Self { server, client, log, http_port })
    }

    /// Restarts the server with its stored data.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.server.stop().await?;
        self.server.restart().await?;
        self.client = async_nats::connect(self.server.url()).await?;
        self.log = Log::open(&self.client, &prometheus::Registry::new()).await?;
        Ok(())
    }

    /// The server's own numbers.
    pub async fn told(&self) -> anyhow::Result<Told> {
        let url = format!("http://127.0.0.1:{}/varz", self.http_port);
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
        client.get(url).send().await?.json().await.context("nats-server's /varz is not as expected")
    }

    /// Makes the jobs in the log: submitted, started, and what the video is.
    pub async fn make_jobs(&self, tracks: &Tracks) -> anyhow::Result<()> {
        let make = async |number: usize| -> anyhow::Result<()> {
            let id = job::id(number);
            let mut expected = 0;
            for body in job::beginning() {
                let is_submission = matches!(body, EventBody::Submitted(_));
                let seq = self.log.append(&Append::new(&id, expected, &Event { at: now(), body })).await?;
                expected = if is_submission { 0 } else { seq };
            }
            let mut track = tracks.get(number).lock().await;
            track.stored.seq = expected;
            track.seen = track.stored;
            Ok(())
        };
        stream::iter((0..tracks.len()).map(make)).buffer_unordered(APPENDS_IN_FLIGHT).try_collect::<()>().await
    }

    /// Waits until the projector has written every state.
    pub async fn projected(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + CATCH_UP_MAX;
        let context = jetstream::new(self.client.clone());
        loop {
            let consumer: jetstream::consumer::Consumer<pull::Config> =
                context.get_consumer_from_stream(PROJECTOR_CONSUMER, STREAM).await.context("no projector")?;
            let info = consumer.cached_info();
            if info.num_pending == 0 && info.num_ack_pending == 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the projector was not done within {CATCH_UP_MAX:?}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Sends a message on the job's live subject with the headers that the stream gives it.
    ///
    /// The stream's own messages are identical; sent this way, their rate is not limited by the log.
    pub async fn republish(&self, id: &JobId, seq: u64, previous: u64, payload: Vec<u8>) -> anyhow::Result<()> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", format!("{id}/{previous}/0123456789abcdef").as_str());
        headers.insert("Nats-Expected-Last-Subject-Sequence", previous.to_string().as_str());
        headers.insert("Nats-Stream", STREAM);
        headers.insert("Nats-Subject", format!("jobs.events.{id}").as_str());
        headers.insert("Nats-Sequence", seq.to_string().as_str());
        headers.insert("Nats-Last-Sequence", previous.to_string().as_str());
        headers.insert("Nats-Time-Stamp", "2026-11-23T08:00:00.123456789Z");
        Ok(self.client.publish_with_headers(job::live_subject(id), headers, payload.into()).await?)
    }
}
