//! The peers: FastAPI and Socket.IO on Redis. The servers are in `../peers/`, a page each.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use futures::{StreamExt, TryStreamExt, future::BoxFuture, stream};
use millrace_harness::{
    ports::free_port,
    processes::{Service, ServiceOptions},
    tools::Peers,
};
use tempfile::TempDir;

use super::{
    super::{
        job::{self, Tracks},
        load::control::Protocol,
        loads::Access,
        mark::Mark,
    },
    Ground, Subject, connect,
    redis_side::RedisSide,
};

/// The servers' folder in the checkout.
const FOLDER: &str = "services/lab/src/bench/edge/peers";
const PUBLISHES_IN_FLIGHT: usize = 256;

/// The kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    FastapiPubsub,
    FastapiPoll,
    SocketIo,
}

/// The subject: one process, since such servers are run with one process per processor.
pub struct Peer {
    // Drop order: the server, then the Redis that it reads from.
    server: Option<Service>,
    redis: RedisSide,
    kind: Kind,
    tools: Peers,
    port: u16,
    tracks: Tracks,
    ground: Ground,
    _folder: TempDir,
}

impl Peer {
    /// Starts it, and stores a state of each job.
    pub async fn start(ground: &Ground, kind: Kind) -> anyhow::Result<Self> {
        let tools = Peers::ensure(&ground.root, &mut |words| println!("{words}"))?;
        let folder = tempfile::Builder::new().prefix("millrace-bench-").tempdir()?;
        let redis = RedisSide::start(&tools.redis_server, folder.path()).await?;
        let (tracks, ground) = (Tracks::new(ground.jobs), ground.clone());
        let mut subject = Self { server: None, redis, kind, tools, port: free_port(), tracks, ground, _folder: folder };
        let redis = &subject.redis;
        let first = (0..subject.ground.jobs).map(async |number| {
            let id = job::id(number);
            redis.publish(&id, &job::status_text(&id, 3, None)).await
        });
        stream::iter(first).buffer_unordered(PUBLISHES_IN_FLIGHT).try_collect::<()>().await?;
        subject.start_again().await?;
        Ok(subject)
    }

    async fn start_again(&mut self) -> anyhow::Result<()> {
        self.server = None;
        let folder = self.ground.root.join(FOLDER);
        let (name, program, args) = self.command(&folder.to_string_lossy());
        let env = BTreeMap::from([
            ("REDIS_URL".to_owned(), self.redis.url()),
            ("PORT".to_owned(), self.port.to_string()),
            ("NODE_PATH".to_owned(), self.tools.node_modules.display().to_string()),
            ("NODE_ENV".to_owned(), "production".to_owned()),
            // Python writes no files into the checkout.
            ("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned()),
        ]);
        let mut server = Service::spawn_program(name, &program, ServiceOptions { args, env, ..Default::default() })?;
        connect(&mut server, name, self.address()).await?;
        self.server = Some(server);
        Ok(())
    }

    fn command(&self, folder: &str) -> (&'static str, PathBuf, Vec<String>) {
        let uvicorn = |page: &str| {
            let (port, app) = (self.port.to_string(), format!("{page}:app"));
            // Access logs would cost more than the rest; all other settings are the defaults of `uvicorn[standard]`.
            let args = ["-m", "uvicorn", &app, "--app-dir", folder, "--port", &port, "--log-level", "warning"];
            (self.tools.python.clone(), args.map(str::to_owned).to_vec())
        };
        match self.kind {
            Kind::FastapiPubsub => {
                let (program, args) = uvicorn("fastapi_pubsub");
                ("fastapi", program, args)
            }
            Kind::FastapiPoll => {
                let (program, args) = uvicorn("fastapi_poll");
                ("fastapi-poll", program, args)
            }
            Kind::SocketIo => ("socket.io", self.tools.node.clone(), vec![format!("{folder}/socketio.cjs")]),
        }
    }

    fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    async fn send(&self, job: usize, is_awaited: bool) -> anyhow::Result<()> {
        let mut track = self.tracks.get(job).lock().await;
        let mark = Mark::now(self.ground.epoch_us, track.seen.number + 1);
        let (seq, id) = (track.invented(), job::id(job));
        let text = job::status_text(&id, seq, Some(mark));
        if is_awaited {
            self.redis.publish(&id, &text).await?;
        } else {
            self.redis.offer(&id, &text).await?;
        }
        track.advance(seq, true);
        Ok(())
    }
}

impl Subject for Peer {
    fn access(&self) -> Access {
        let (protocol, path) = match self.kind {
            Kind::SocketIo => (Protocol::SocketIo, "/socket.io/?EIO=4&transport=websocket"),
            Kind::FastapiPubsub | Kind::FastapiPoll => (Protocol::Status, "/ws/download/{id}"),
        };
        Access { protocol, targets: vec![self.address()], path: path.into() }
    }

    fn renew(&mut self) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(self.start_again())
    }

    fn publish(&self, job: usize) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(self.send(job, true))
    }

    fn offer(&self, job: usize) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(self.send(job, false))
    }

    fn offer_unwatched(&self, job: usize) -> Option<BoxFuture<'_, anyhow::Result<()>>> {
        let (id, mark) = (job::id(job::UNWATCHED_FROM + job), Mark { at_us: 0, number: job as u64 });
        let text = job::status_text(&id, 4, Some(mark));
        Some(Box::pin(async move { self.redis.offer(&id, &text).await }))
    }

    fn serving(&self) -> Vec<u32> {
        self.server.iter().map(Service::pid).collect()
    }

    fn behind(&self) -> Vec<u32> {
        vec![self.redis.pid()]
    }
}
