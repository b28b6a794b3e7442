//! Real nats-servers for tests: one alone, or several as a cluster, with JetStream, each on its own port.

mod cluster;
mod server;

pub use cluster::NatsCluster;
pub use server::{NatsOptions, NatsServer};
