//! The shell that the services share: everything that touches the outside.
//!
//! `domain` ← `runtime` ← services. Nothing here knows a particular service.

pub mod admin;
pub mod blobs;
pub mod config;
pub mod direct;
pub mod failpoints;
pub mod jobs;
pub mod log;
pub mod metrics;
pub mod nats;
pub mod provision;
pub mod publish;
pub mod queue;
pub mod service;
pub mod snapshots;
pub mod tasks;
pub mod telemetry;

/// The wall clock, in whole milliseconds: what events carry as `at`.
#[must_use]
pub fn now() -> jiff::Timestamp {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}
