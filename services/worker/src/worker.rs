//! The state that all tasks of a worker share.

use millrace_domain::retry::Budget;
use millrace_media::{Bounds, Tools};
use millrace_runtime::{blobs::Blobs, jobs::Jobs, queue::Queue};
use tokio_util::sync::CancellationToken;

use crate::{metrics::Metrics, workspace::Workspace};

/// The shared parts of one worker process.
pub(crate) struct Worker {
    pub(crate) name: String,
    pub(crate) jobs: Jobs,
    pub(crate) queue: Queue,
    pub(crate) blobs: Blobs,
    pub(crate) tools: Tools,
    pub(crate) budget: Budget,
    pub(crate) bounds: Bounds,
    pub(crate) workspace: Workspace,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: CancellationToken,
}
