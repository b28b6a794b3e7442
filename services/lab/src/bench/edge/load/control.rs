//! What the bench and its load generators say to each other: one JSON document per line over TCP.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize};

use super::super::super::stats::Summary;

/// How clients speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// Ours: the state comes by itself after the handshake. The peers written for this bench do the same.
    Status,
    /// NATS in WebSocket frames: subscribe to the job's live subject, then read the job's last message.
    Nats,
    /// Engine.IO 4 and Socket.IO 5, WebSocket transport only: `watch` joins the job's room.
    SocketIo,
}

/// What to do. Each is answered once, in order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// Connect clients; answered by [`Answer::Opened`] when each has its job's state, or after the plan's limit.
    Open(Plan),
    /// Drop all clients, without a WebSocket close.
    Close,
    /// Count from zero. `is_paced`: tell of [`Answer::Progress`] from now on, until the next order.
    Begin { is_paced: bool },
    /// Tell what was counted.
    Report,
}

/// Which clients.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    pub protocol: Protocol,
    /// Each client takes the next one.
    pub targets: Vec<SocketAddr>,
    /// The path and query; `{id}` stands for the job's id.
    pub path: String,
    /// The number of the first client, over all load generators.
    pub first_client: usize,
    pub clients: usize,
    /// Client n watches job n modulo this.
    pub jobs: usize,
    /// Handshakes under way at once.
    pub at_once: usize,
    /// How long it may take, in seconds.
    pub limit_s: f64,
    /// Rises by one with each plan, so that no address is used again while the system still holds it.
    pub generation: u8,
}

/// What came of an order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    Opened(Opened),
    Closed,
    Begun,
    Report(Report),
    /// Unasked: how far the clients are.
    Progress(Progress),
}

/// Clients that were connected.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Opened {
    /// Clients that have their job's state.
    pub opened: usize,
    /// From the order to the last client's state.
    pub seconds: f64,
    /// Attempts that failed and were made again, by what happened.
    pub failures: BTreeMap<String, u64>,
}

/// How far the clients are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// `status` frames that were received.
    pub frames: u64,
    /// Events that clients have received, or a later one instead of them.
    pub covered: u64,
}

/// What was counted since [`Order::Begin`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub progress: Progress,
    /// From just before the publish to the frame read.
    pub latency: Summary,
    /// Clients that are connected now.
    pub open: usize,
    /// Clients that were disconnected, by what happened.
    pub ended: BTreeMap<String, u64>,
}
