//! Ours: edges with their own nats-server and projector.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use futures::future::BoxFuture;
use millrace_domain::Event;
use millrace_harness::{
    ports::free_port,
    processes::{Service, ServiceOptions},
};
use millrace_runtime::{log::Append, now};
use tempfile::TempDir;

use super::{
    super::{
        job::{self, Tracks},
        load::control::Protocol,
        loads::Access,
        mark::Mark,
    },
    Ground, Subject,
    nats_side::NatsSide,
};

const READY_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(60);
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// The text before the number in an edge's metrics.
const HEARD: &str = "millrace_edge_events_heard_total ";

/// The subject.
pub struct Edge {
    // Drop order: the services, then the servers that they write to.
    edges: Vec<(Service, String)>,
    projector: Service,
    pub nats: NatsSide,
    ports: Vec<u16>,
    tracks: Tracks,
    ground: Ground,
    folder: TempDir,
}

impl Edge {
    /// Starts this number of edges, and makes the jobs.
    pub async fn start(ground: &Ground, edges: usize) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("millrace-bench-").tempdir()?;
        let nats = NatsSide::start(ground, folder.path(), "").await?;
        let (projector, _) = spawn(ground, &nats, "millrace-projector", &[]).await?;
        let tracks = Tracks::new(ground.jobs);
        nats.make_jobs(&tracks).await?;
        nats.projected().await?;
        let (running, ports, ground) = (Vec::new(), Vec::new(), ground.clone());
        let mut subject = Self { edges: running, projector, nats, ports, tracks, ground, folder };
        subject.set_edges(edges).await?;
        Ok(subject)
    }

    /// Replaces the running edges by this number of fresh ones.
    pub async fn set_edges(&mut self, edges: usize) -> anyhow::Result<()> {
        self.ports = (0..edges).map(|_| free_port()).collect();
        self.spawn_edges().await
    }

    /// Restarts nats-server and the edges; stored data stays.
    pub async fn renew_all(&mut self) -> anyhow::Result<()> {
        self.nats.restart().await?;
        self.nats.projected().await?;
        self.spawn_edges().await
    }

    /// The projector's process.
    pub fn projector(&self) -> u32 {
        self.projector.pid()
    }

    /// Republished events that all edges together have received.
    pub async fn heard(&self) -> anyhow::Result<u64> {
        let client = reqwest::Client::builder().no_proxy().timeout(ANSWER_MAX).build()?;
        let mut heard = 0;
        for (_, admin) in &self.edges {
            let text = client.get(format!("{admin}/metrics")).send().await?.text().await?;
            let count = text.lines().find_map(|line| line.strip_prefix(HEARD)?.trim().parse::<u64>().ok());
            heard += count.context("an edge's metrics lack the number of events that it has heard")?;
        }
        Ok(heard)
    }

    async fn spawn_edges(&mut self) -> anyhow::Result<()> {
        for (edge, _) in &mut self.edges {
            edge.terminate(STOP_MAX).await?;
        }
        self.edges.clear();
        self.tracks.forget_offered();
        for port in &self.ports {
            let args = [
                format!("--listen=127.0.0.1:{port}"),
                format!("--public-base-url={}", job::BASE_URL),
                format!("--storage={}", self.folder.path().join("files").display()),
                "--drain-seconds=0".to_owned(),
            ];
            self.edges.push(spawn(&self.ground, &self.nats, "millrace-edge", &args).await?);
        }
        Ok(())
    }
}

/// With the address of its admin port.
async fn spawn(ground: &Ground, nats: &NatsSide, name: &str, args: &[String]) -> anyhow::Result<(Service, String)> {
    let listen = format!("127.0.0.1:{}", free_port());
    let common = [format!("--nats-url={}", nats.server.url()), format!("--admin-listen={listen}")];
    let admin = format!("http://{listen}");
    let options = ServiceOptions { args: [&common, args].concat(), ..ServiceOptions::default() };
    let mut service = Service::spawn_program(name, &ground.programs.path(name)?, options)?;
    service.wait_ready(&admin, READY_MAX).await?;
    Ok((service, admin))
}

impl Subject for Edge {
    fn access(&self) -> Access {
        let targets = self.ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect();
        Access { protocol: Protocol::Status, targets, path: "/ws/download/{id}".into() }
    }

    fn renew(&mut self) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(self.spawn_edges())
    }

    fn publish(&self, job: usize) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(async move {
            let mut track = self.tracks.get(job).lock().await;
            let mark = Mark::now(self.ground.epoch_us, track.seen.number + 1);
            let event = Event { at: now(), body: job::progress(mark) };
            let seq = self.nats.log.append(&Append::new(&job::id(job), track.stored.seq, &event)).await?;
            track.advance(seq, true);
            Ok(())
        })
    }

    fn offer(&self, job: usize) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(async move {
            let mut track = self.tracks.get(job).lock().await;
            let mark = Mark::now(self.ground.epoch_us, track.seen.number + 1);
            let event = Event { at: now(), body: job::progress(mark) };
            let (seq, previous) = (track.invented(), track.seen.seq);
            self.nats.republish(&job::id(job), seq, previous, event.encode()).await?;
            track.advance(seq, false);
            Ok(())
        })
    }

    fn offer_unwatched(&self, job: usize) -> Option<BoxFuture<'_, anyhow::Result<()>>> {
        let event = Event { at: now(), body: job::progress(Mark { at_us: 0, number: job as u64 }) };
        let id = job::id(job::UNWATCHED_FROM + job);
        Some(Box::pin(async move { self.nats.republish(&id, job as u64 + 2, 1, event.encode()).await }))
    }

    fn serving(&self) -> Vec<u32> {
        self.edges.iter().map(|(edge, _)| edge.pid()).collect()
    }

    fn behind(&self) -> Vec<u32> {
        vec![self.nats.server.pid(), self.projector.pid()]
    }

    fn requests(&self) -> BoxFuture<'_, anyhow::Result<Option<u64>>> {
        Box::pin(async { Ok(Some(self.nats.told().await?.in_msgs)) })
    }
}
