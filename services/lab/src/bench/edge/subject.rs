//! The measured systems: ours, its peers, and the floor.

pub mod floor;
pub mod nats_side;
pub mod nats_ws;
pub mod ours;
pub mod peer;
mod redis_side;

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::bail;
use futures::future::BoxFuture;
use millrace_harness::{processes::Service, programs::Programs, tools};
use tokio::net::TcpStream;

use self::peer::Kind;
use super::loads::Access;

const START_MAX: Duration = Duration::from_secs(20);

/// The input of every subject.
#[derive(Clone, Debug)]
pub struct Ground {
    /// The root of the checkout.
    pub root: PathBuf,
    /// Our own binaries.
    pub programs: Programs,
    /// nats-server.
    pub nats_server: PathBuf,
    /// Marks count from this time.
    pub epoch_us: u64,
    /// The number of jobs.
    pub jobs: usize,
}

/// A system that delivers the state of jobs to clients. Dropping it stops its processes.
pub trait Subject: Send + Sync {
    /// Where and how clients connect.
    fn access(&self) -> Access;

    /// Restarts the serving process; stored data stays.
    fn renew(&mut self) -> BoxFuture<'_, anyhow::Result<()>>;

    /// Publishes the job's next state, and waits until it is stored if the system stores states.
    fn publish(&self, job: usize) -> BoxFuture<'_, anyhow::Result<()>>;

    /// Sends the job's next state to the serving process on the shortest way, without waiting.
    fn offer(&self, job: usize) -> BoxFuture<'_, anyhow::Result<()>>;

    /// Sends a state of a job without clients; `None` if the serving process does not receive those.
    fn offer_unwatched(&self, _job: usize) -> Option<BoxFuture<'_, anyhow::Result<()>>> {
        None
    }

    /// The processes that hold the clients.
    fn serving(&self) -> Vec<u32>;

    /// The processes behind them, except those of the bench.
    fn behind(&self) -> Vec<u32>;

    /// Messages that nats-server has received, if there is one.
    fn requests(&self) -> BoxFuture<'_, anyhow::Result<Option<u64>>> {
        Box::pin(async { Ok(None) })
    }
}

/// The subjects by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub enum Name {
    /// Our edge
    Edge,
    /// nats-server's own WebSocket listener
    NatsWs,
    /// FastAPI on uvicorn, with Redis pub/sub
    Fastapi,
    /// FastAPI on uvicorn, which polls Redis every second for each socket
    FastapiPoll,
    /// Socket.IO on Node, a job is a room
    SocketIo,
    /// A bare program that writes the same frames: one call for each client and message
    Floor,
    /// The floor, but it writes frames that are due together with one call
    FloorMerged,
}

impl Name {
    /// All of them, in the order of the table. The subjects that ours is compared with follow it, since a machine's
    /// speed varies over time.
    pub const ALL: [Self; 7] =
        [Self::Floor, Self::Edge, Self::NatsWs, Self::FloorMerged, Self::Fastapi, Self::FastapiPoll, Self::SocketIo];

    /// The name as it is typed and printed.
    pub fn text(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::NatsWs => "nats-ws",
            Self::Fastapi => "fastapi",
            Self::FastapiPoll => "fastapi-poll",
            Self::SocketIo => "socket-io",
            Self::Floor => "floor",
            Self::FloorMerged => "floor-merged",
        }
    }

    /// Starts the subject with all its jobs.
    pub async fn start(self, ground: &Ground) -> anyhow::Result<Box<dyn Subject>> {
        Ok(match self {
            Self::Edge => Box::new(ours::Edge::start(ground, 1).await?),
            Self::NatsWs => Box::new(nats_ws::NatsWs::start(ground).await?),
            Self::Fastapi => Box::new(peer::Peer::start(ground, Kind::FastapiPubsub).await?),
            Self::FastapiPoll => Box::new(peer::Peer::start(ground, Kind::FastapiPoll).await?),
            Self::SocketIo => Box::new(peer::Peer::start(ground, Kind::SocketIo).await?),
            Self::Floor => Box::new(floor::Floor::start(ground, false).await?),
            Self::FloorMerged => Box::new(floor::Floor::start(ground, true).await?),
        })
    }
}

impl Ground {
    /// Finds or installs the programs to run.
    pub fn new(root: PathBuf, programs: Programs, jobs: usize) -> anyhow::Result<Self> {
        let nats_server = tools::nats_server(&root, &mut |words| println!("{words}"))?;
        Ok(Self { root, programs, nats_server, epoch_us: super::mark::now_us(), jobs })
    }
}

/// Waits until the service accepts connections.
async fn connect(service: &mut Service, name: &str, address: SocketAddr) -> anyhow::Result<TcpStream> {
    let deadline = Instant::now() + START_MAX;
    loop {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(_) if Instant::now() < deadline && service.exit_status().is_none() => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(error) => bail!("{name} did not start: {error}; its last lines:\n{}", service.log_tail()),
        }
    }
}
