//! nats-server's own WebSocket listener: each client subscribes to its job, and whole states are published.

use futures::{StreamExt, TryStreamExt, future::BoxFuture, stream};
use millrace_domain::limits::NATS_REQUEST_MAX;
use millrace_harness::ports::free_port;
use millrace_runtime::publish::{EXPECTED_LAST_SUBJECT_SEQUENCE, MESSAGE_ID, publish};
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

const PUBLISHES_IN_FLIGHT: usize = 256;

/// The subject.
pub struct NatsWs {
    nats: NatsSide,
    port: u16,
    tracks: Tracks,
    epoch_us: u64,
    _folder: TempDir,
}

impl NatsWs {
    /// Starts it, and stores a state of each job.
    pub async fn start(ground: &Ground) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("millrace-bench-").tempdir()?;
        let port = free_port();
        let websocket = format!("websocket {{ host: \"127.0.0.1\", port: {port}, no_tls: true }}");
        let nats = NatsSide::start(ground, folder.path(), &websocket).await?;
        let tracks = Tracks::new(ground.jobs);
        let mut subject = Self { nats, port, tracks, epoch_us: ground.epoch_us, _folder: folder };
        let first = (0..ground.jobs).map(|job| subject.store(job, false));
        stream::iter(first).buffer_unordered(PUBLISHES_IN_FLIGHT).try_collect::<()>().await?;
        subject.renew().await?;
        Ok(subject)
    }

    /// Publishes by JetStream with the headers of our log, and waits for the acknowledgement.
    async fn store(&self, job: usize, is_marked: bool) -> anyhow::Result<()> {
        let mut track = self.tracks.get(job).lock().await;
        let mark = is_marked.then(|| Mark::now(self.epoch_us, track.seen.number + 1));
        let (id, expected) = (job::id(job), track.stored.seq);
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(MESSAGE_ID, format!("{id}/{expected}/0123456789abcdef").as_str());
        headers.insert(EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string().as_str());
        let text = job::status_text(&id, expected + 1, mark);
        let subject = format!("jobs.events.{id}");
        let seq = publish(&self.nats.client, &subject, headers, text.into(), NATS_REQUEST_MAX).await?;
        if is_marked {
            track.advance(seq, true);
        } else {
            track.stored.seq = seq;
            track.seen = track.stored;
        }
        Ok(())
    }
}

impl Subject for NatsWs {
    fn access(&self) -> Access {
        let targets = vec![([127, 0, 0, 1], self.port).into()];
        Access { protocol: Protocol::Nats, targets, path: "/".into() }
    }

    fn renew(&mut self) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(async {
            self.tracks.forget_offered();
            self.nats.restart().await
        })
    }

    fn publish(&self, job: usize) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(self.store(job, true))
    }

    fn offer(&self, job: usize) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(async move {
            let mut track = self.tracks.get(job).lock().await;
            let mark = Mark::now(self.epoch_us, track.seen.number + 1);
            let (seq, previous, id) = (track.invented(), track.seen.seq, job::id(job));
            let text = job::status_text(&id, seq, Some(mark));
            self.nats.republish(&id, seq, previous, text.into_bytes()).await?;
            track.advance(seq, false);
            Ok(())
        })
    }

    fn serving(&self) -> Vec<u32> {
        vec![self.nats.server.pid()]
    }

    fn behind(&self) -> Vec<u32> {
        Vec::new()
    }
}
