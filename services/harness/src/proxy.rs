//! A TCP proxy that injects faults: it refuses, cuts, stalls or delays connections; in front of a nats-server, it can
//! also lose and delay some of its messages.

mod frames;
mod pump;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// How a link treats its traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Passes everything on unchanged.
    #[default]
    Pass,
    /// Closes new connections at once. Open ones stay; see [`Proxy::cut`].
    Refuse,
    /// Keeps connections open, also new ones, and transfers no byte, like a network that drops packets.
    Stall,
    /// Passes everything on after this delay, in both directions.
    Delay(Duration),
}

/// A fault of a nats-server's messages to a client, on subjects that begin with `subject`.
#[derive(Clone, Debug, PartialEq)]
pub struct MessageFault {
    /// The beginning of the subjects, such as `live.`.
    pub subject: String,
    /// The share of the messages that is lost, 0 to 1.
    pub lost: f64,
    /// The share of the others that is delayed, 0 to 1; other messages overtake them.
    pub late: f64,
    /// The delay.
    pub lateness: Duration,
}

/// A link from one client to one server. Dropping it closes every connection through it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    state: watch::Sender<State>,
    seed: u64,
    /// Numbers the connections, so that each has its own random generator.
    connections: AtomicU64,
    lost: AtomicU64,
    late: AtomicU64,
}

#[derive(Clone, Debug, Default)]
struct State {
    mode: Mode,
    /// Rises with each cut.
    cuts: u64,
    messages: Option<MessageFault>,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1 and passes connections on to `server`. `seed` determines which messages a
    /// fault hits.
    ///
    /// Must be called within a tokio runtime, which serves the proxy.
    pub async fn start(server: SocketAddr, seed: u64) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("a proxy cannot listen")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            state: watch::Sender::new(State::default()),
            seed,
            connections: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            late: AtomicU64::new(0),
        });
        let accepting = tokio::spawn(accept(listener, server, Arc::clone(&shared)));
        Ok(Self { address, shared, accepting })
    }

    /// The address to which clients connect.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the mode, also for open connections.
    pub fn set(&self, mode: Mode) {
        self.shared.state.send_modify(|state| state.mode = mode);
    }

    /// Closes every open connection, and accepts new ones.
    pub fn cut(&self) {
        self.shared.state.send_modify(|state| state.cuts += 1);
    }

    /// Sets the fault of messages; `None` ends it, and delayed messages still arrive.
    pub fn set_messages(&self, fault: Option<MessageFault>) {
        self.shared.state.send_modify(|state| state.messages = fault);
    }

    /// The number of messages lost so far.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// The number of messages delayed so far.
    pub fn late(&self) -> u64 {
        self.shared.late.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        if shared.state.borrow().mode != Mode::Refuse {
            connections.spawn(connect(client, server, Arc::clone(&shared)));
        }
    }
}

async fn connect(client: TcpStream, server: SocketAddr, shared: Arc<Shared>) {
    let mut state = shared.state.subscribe();
    let cuts = state.borrow().cuts;
    let pass = async {
        pump::flowing(&mut shared.state.subscribe()).await;
        // If the server is unavailable, the client's connection is dropped.
        let server = TcpStream::connect(server).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        pump::both(client, server, &shared).await
    };
    tokio::select! {
        _ = pass => {}
        _ = state.wait_for(|state| state.cuts != cuts) => {}
    }
}
