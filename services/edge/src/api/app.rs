//! The state that all routes share.

use millrace_domain::{JobId, JobState};
use millrace_runtime::{blobs::Blobs, jobs::Jobs, nats::Nats, tasks::Tasks};

use super::idempotency::Keys;
use crate::{
    config::Config,
    feed::Feed,
    http::{origin::Origins, problem::ApiError},
    metrics::Metrics,
    sockets::Sockets,
    websocket::handshake::Handshakes,
};

/// The parts of the edge that a request may need.
pub struct App {
    pub nats: Nats,
    pub jobs: Jobs,
    pub keys: Keys,
    pub feed: Feed,
    pub blobs: Blobs,
    pub origins: Origins,
    pub handshakes: Handshakes,
    pub metrics: Metrics,
    pub sockets: Sockets,
    pub tasks: Tasks,
    pub config: Config,
}

impl App {
    /// Reads a job's state. If a replica has none, the log's leader decides: the replica may be stale.
    ///
    /// # Errors
    /// `UnknownJob`, or `LogUnavailable` when the log does not answer.
    pub async fn known(&self, id: &JobId) -> Result<JobState, ApiError> {
        match self.jobs.snapshots.get(id).await? {
            Some(state) => Ok(state),
            None => self.jobs.snapshots.get_from_leader(id).await?.ok_or(ApiError::UnknownJob),
        }
    }
}
