//! Real nats-servers for tests: one alone, with JetStream, on a port of its own.

mod server;

pub use server::{NatsOptions, NatsServer};
