//! Resource use of all processes.

use tokio::time::Instant;

use super::super::edge::{
    proc::Cpu,
    subject::{Subject, ours::Edge},
};

/// The use up to one point in time.
pub struct Reading {
    pub at: Instant,
    edges_s: f64,
    nats_s: f64,
    nats_msgs: u64,
    slow_consumers: u64,
    pub nats_connections: f64,
    pub nats_subscriptions: f64,
}

/// The use between two readings. Processor time in microseconds.
pub struct Used {
    pub seconds: f64,
    pub edges_us: f64,
    pub nats_us: f64,
    /// Messages that nats-server has received.
    pub nats_msgs: f64,
    /// Connections that nats-server has closed.
    pub slow_consumers: u64,
}

impl Reading {
    /// Takes a reading now.
    pub async fn of(edge: &Edge) -> anyhow::Result<Self> {
        let told = edge.nats.told().await?;
        Ok(Self {
            at: Instant::now(),
            edges_s: Cpu::of(&edge.serving())?.total_s(),
            nats_s: Cpu::of(&[edge.nats.server.pid()])?.total_s(),
            nats_msgs: told.in_msgs,
            slow_consumers: told.slow_consumers,
            nats_connections: told.connections as f64,
            nats_subscriptions: told.subscriptions as f64,
        })
    }

    /// The use since `before`.
    pub fn since(&self, before: &Self) -> Used {
        Used {
            seconds: self.at.duration_since(before.at).as_secs_f64(),
            edges_us: (self.edges_s - before.edges_s) * 1e6,
            nats_us: (self.nats_s - before.nats_s) * 1e6,
            nats_msgs: (self.nats_msgs - before.nats_msgs) as f64,
            slow_consumers: self.slow_consumers - before.slow_consumers,
        }
    }
}
