//! The common base of tests, benches and the developer command: the outside programs, real servers to run against, and
//! the workspace's own binaries, run as processes.
//!
//! This crate has no knowledge of jobs and depends on no other crate of the workspace, so that each of them may use it
//! in its tests.
//!
//! A test usually begins with [`nats::NatsServer::start`], [`media::MediaServer::start`] and
//! [`processes::Service::spawn`]. Each cleans up when dropped, also when the test panics.

mod child;
mod command;
pub mod disk;
pub mod media;
pub mod namespace;
pub mod nats;
pub mod output;
pub mod ports;
pub mod processes;
pub mod programs;
pub mod proxy;
mod reaper;
#[cfg(feature = "s3")]
pub mod s3;
mod serving;
pub mod tools;
pub mod wait;
pub mod ws;

use std::path::{Path, PathBuf};

/// The root of the checkout that this crate was compiled in.
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap_or_else(|_| PathBuf::from("."))
}
