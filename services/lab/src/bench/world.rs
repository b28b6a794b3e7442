//! A nats-server and release builds of the services, for one bench.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use async_nats::jetstream::{self, consumer::pull};
use millrace_domain::subjects::{STREAM, WORKERS_CONSUMER};
use millrace_harness::{
    nats::{NatsOptions, NatsServer},
    ports::free_port,
    processes::{Service, ServiceOptions},
    programs::Programs,
    tools::Tools,
};
use millrace_runtime::{log::Log, provision};
use tempfile::TempDir;

const READY_MAX: Duration = Duration::from_secs(30);
const DRAIN_MAX: Duration = Duration::from_secs(60);

/// The running system. Dropping it stops the processes and removes their data.
pub struct World {
    // Drop order: the services, then the servers that they write to.
    services: Vec<Service>,
    /// The bench's own connection to NATS.
    pub client: async_nats::Client,
    /// The log, on that connection.
    pub log: Log,
    /// The edge's port for clients.
    pub edge_port: u16,
    nats: NatsServer,
    folder: TempDir,
    programs: Programs,
    tools: Tools,
}

impl World {
    /// Starts nats-server with the local configuration, a projector and an edge.
    pub async fn start(root: &Path, programs: Programs, tools: Tools) -> anyhow::Result<Self> {
        let nats = NatsServer::start(NatsOptions {
            program: Some(tools.nats_server.clone()),
            config: Some(root.join("nats/local.conf")),
            ..NatsOptions::default()
        })
        .await?;
        let client = async_nats::connect(nats.url()).await?;
        provision::apply(&jetstream::new(client.clone()), None).await?;
        let log = Log::open(&client, &prometheus::Registry::new()).await?;
        let folder = tempfile::Builder::new().prefix("millrace-bench-").tempdir()?;
        let edge_port = free_port();
        let mut world = Self { services: Vec::new(), client, log, edge_port, nats, folder, programs, tools };
        world.spawn("millrace-projector", &[]).await?;
        let edge = [
            format!("--listen=127.0.0.1:{edge_port}"),
            format!("--public-base-url=http://127.0.0.1:{edge_port}"),
            format!("--storage={}", world.folder("files")),
            "--drain-seconds=0".to_owned(),
        ];
        world.spawn("millrace-edge", &edge).await?;
        Ok(world)
    }

    /// Starts a worker, and waits until the queue is empty.
    pub async fn start_worker(&mut self) -> anyhow::Result<()> {
        let worker = [
            "--name=worker-1".to_owned(),
            format!("--work-dir={}", self.folder("work")),
            format!("--storage={}", self.folder("files")),
            format!("--yt-dlp={}", self.tools.yt_dlp.display()),
            format!("--ffmpeg={}", self.tools.ffmpeg.display()),
            format!("--ffprobe={}", self.tools.ffprobe.display()),
        ];
        self.spawn("millrace-worker", &worker).await?;
        self.queue_is_empty().await
    }

    /// The edge's HTTP address for this path.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.edge_port)
    }

    /// Another connection to NATS.
    pub async fn connect(&self) -> anyhow::Result<async_nats::Client> {
        Ok(async_nats::connect(self.nats.url()).await?)
    }

    fn folder(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    async fn spawn(&mut self, name: &str, args: &[String]) -> anyhow::Result<()> {
        let admin = format!("127.0.0.1:{}", free_port());
        let common = [format!("--nats-url={}", self.nats.url()), format!("--admin-listen={admin}")];
        let options = ServiceOptions { args: [&common, args].concat(), ..ServiceOptions::default() };
        let mut service = Service::spawn_program(name, &self.programs.path(name)?, options)?;
        service.wait_ready(&format!("http://{admin}"), READY_MAX).await?;
        self.services.push(service);
        Ok(())
    }

    /// The worker still takes the submissions of ended jobs from the queue once.
    async fn queue_is_empty(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + DRAIN_MAX;
        let context = jetstream::new(self.client.clone());
        loop {
            let consumer: jetstream::consumer::Consumer<pull::Config> =
                context.get_consumer_from_stream(WORKERS_CONSUMER, STREAM).await.context("no queue")?;
            let info = consumer.cached_info();
            if info.num_pending == 0 && info.num_ack_pending == 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the worker has not emptied the queue within {DRAIN_MAX:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
