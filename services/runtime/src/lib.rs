//! The shell that the services share: all I/O.
//!
//! `domain` ← `runtime` ← services. The shell knows no particular service. The modules stand in the order in which a
//! process and then a job meet them: the life of a service; the connection to NATS and its streams; the log, the states
//! and the commands, the queue, the stored files.

pub mod service;
pub mod config;
pub mod telemetry;
pub mod metrics;
pub mod admin;
pub mod tasks;

pub mod nats;
pub mod provision;
pub mod publish;
pub mod direct;
pub mod cursor;

pub mod log;
pub mod snapshots;
pub mod jobs;
pub mod queue;
pub mod blobs;

pub mod failpoints;

/// The wall clock, in whole milliseconds: the `at` of events.
#[must_use]
pub fn now() -> jiff::Timestamp {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}
