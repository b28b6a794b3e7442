//! The protocol between the bench and its load generators: one JSON document per line over TCP.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize};

use super::super::super::stats::Summary;

/// The clients' protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// Ours: the server sends the state after the handshake. The peers written for this bench do the same.
    Status,
    /// NATS in WebSocket frames: subscribe to the job's live subject, then read the job's last message.
    Nats,
    /// Engine.IO 4 and Socket.IO 5, WebSocket transport only: `watch` joins the job's room.
    SocketIo,
}

/// An order of the bench. The load generator answers each once, in order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// Connect clients; answered by [`Answer::Opened`] when each has its job's state, or after the plan's limit.
    Open(Plan),
    /// Drop all clients, without a WebSocket close.
    Close,
    /// Count from zero. `is_paced`: report [`Answer::Progress`] until the next order.
    Begin { is_paced: bool },
    /// Report the counts.
    Report,
}

/// The clients to connect.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    pub protocol: Protocol,
    /// Addresses, which the clients take in turn.
    pub targets: Vec<SocketAddr>,
    /// The path and query; `{id}` stands for the job's id.
    pub path: String,
    /// The number of the first client, over all load generators.
    pub first_client: usize,
    pub clients: usize,
    /// Client n watches job n modulo this.
    pub jobs: usize,
    /// Handshakes in flight at once.
    pub at_once: usize,
    /// How long opening may take, in seconds.
    pub limit_s: f64,
    /// Rises by one with each plan, so that no address is reused while the system still holds it.
    pub generation: u8,
}

/// A load generator's answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    Opened(Opened),
    Closed,
    Begun,
    Report(Report),
    /// Sent without an order: the clients' progress.
    Progress(Progress),
}

/// Clients that were connected.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Opened {
    /// Clients that have their job's state.
    pub opened: usize,
    /// Time from the order to the last client's state.
    pub seconds: f64,
    /// Attempts that failed and were repeated, by reason.
    pub failures: BTreeMap<String, u64>,
}

/// The clients' progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Received `status` frames.
    pub frames: u64,
    /// Events that clients have received, or that a received later event has replaced.
    pub covered: u64,
}

/// The counts since [`Order::Begin`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub progress: Progress,
    /// From just before the publish to the frame read.
    pub latency: Summary,
    /// Clients that are connected now.
    pub open: usize,
    /// Clients that were disconnected, by reason.
    pub ended: BTreeMap<String, u64>,
}
