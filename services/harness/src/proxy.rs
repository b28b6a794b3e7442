//! A TCP proxy that can be broken: refuse, cut, stall, delay; and, before a nats-server, lose and delay some of its
//! messages.

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

/// How a link treats what goes through it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// As if it were not there.
    #[default]
    Pass,
    /// New connections are closed at once. Those that are open stay; see [`Proxy::cut`].
    Refuse,
    /// Connections stay open, new ones too, and no byte moves: a network that swallows packets.
    Stall,
    /// What comes is passed on so much later, in both directions.
    Delay(Duration),
}

/// What happens to some messages of a nats-server on their way to a client: those on subjects that begin with
/// `subject`.
#[derive(Clone, Debug, PartialEq)]
pub struct MessageFault {
    /// The beginning of the subjects, such as `live.`.
    pub subject: String,
    /// The part of the messages that is lost, 0 to 1.
    pub lost: f64,
    /// The part of the others that comes late, 0 to 1: other messages overtake it.
    pub late: f64,
    /// How late.
    pub lateness: Duration,
}

/// A link from one client to one server. Dropped, every connection through it is closed.
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
    /// Numbers the connections, so that each has its own luck.
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
    /// Listens on a free port of 127.0.0.1 and passes connections on to `server`. `seed` decides which messages are
    /// hit.
    ///
    /// Must be called within a tokio runtime, which serves it.
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

    /// Where clients connect.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, also for connections that are open.
    pub fn set(&self, mode: Mode) {
        self.shared.state.send_modify(|state| state.mode = mode);
    }

    /// Closes every open connection. New ones are taken.
    pub fn cut(&self) {
        self.shared.state.send_modify(|state| state.cuts += 1);
    }

    /// From now on messages are lost or late; `None` ends that, and what is late still comes.
    pub fn set_messages(&self, fault: Option<MessageFault>) {
        self.shared.state.send_modify(|state| state.messages = fault);
    }

    /// How many messages were lost so far.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// How many messages came late so far.
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
        // Dropping the client is the answer where the server is away.
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
