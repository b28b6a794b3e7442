//! The disk and memory that nats-server uses at one time.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use millrace_domain::subjects::{self, STATE_BUCKET, STREAM};
use millrace_harness::nats::NatsServer;
use serde::Serialize;

use super::super::edge::proc;

/// Bytes of one nats-server: the mean over the servers.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Sample {
    /// Finished jobs in the log.
    pub jobs: usize,
    /// The messages of the log.
    pub log: f64,
    /// The states.
    pub states: f64,
    /// The log's consumers.
    pub consumers: f64,
    /// Its whole folder.
    pub disk: f64,
    /// Resident memory of the process.
    pub memory: f64,
}

impl Sample {
    /// Takes a sample now.
    pub fn take(servers: &[&NatsServer], jobs: usize) -> anyhow::Result<Self> {
        let mut sum = Self { jobs, ..Self::default() };
        for server in servers {
            let streams = server.store().join("jetstream/$G/streams");
            let log = streams.join(STREAM);
            sum.log += bytes(&log.join("msgs"));
            sum.consumers += bytes(&log.join("obs"));
            sum.states += bytes(&streams.join(subjects::bucket_stream(STATE_BUCKET)).join("msgs"));
            sum.disk += bytes(server.store());
            sum.memory += proc::rss_kib(&[server.pid()])? * 1024.0;
        }
        let count = servers.len() as f64;
        let mean = |sum: f64| sum / count;
        Ok(Self {
            jobs,
            log: mean(sum.log),
            states: mean(sum.states),
            consumers: mean(sum.consumers),
            disk: mean(sum.disk),
            memory: mean(sum.memory),
        })
    }
}

/// The disk space that a folder uses. Files may appear and disappear meanwhile.
fn bytes(folder: &Path) -> f64 {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let sizes = entries.filter_map(|entry| {
        let meta = entry.metadata().ok()?;
        Some(if meta.is_dir() { bytes(&entry.path()) } else { meta.blocks() as f64 * 512.0 })
    });
    sizes.sum()
}
