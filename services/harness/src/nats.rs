//! Real nats-servers for tests: one alone, or several as a cluster, with JetStream, each on a port of its own.

mod cluster;
mod server;

pub use cluster::NatsCluster;
pub use server::{NatsOptions, NatsServer};
