//! The worker's metrics.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// All of them.
pub struct Metrics {
    pub running: IntGauge,
    pub attempts: IntCounterVec,
    pub bytes_downloaded: IntCounter,
    pub bytes_resumed: IntCounter,
    pub bytes_stored: IntCounter,
    pub janitor_removed: IntCounterVec,
    pub store_unknown: IntGauge,
    pub work_room: IntGauge,
}

impl Metrics {
    /// Registers them.
    pub fn register(registry: &Registry) -> anyhow::Result<Self> {
        let metrics = Self {
            running: IntGauge::new("millrace_worker_attempts_running", "Attempts under way")?,
            attempts: IntCounterVec::new(
                Opts::new(
                    "millrace_worker_attempts_total",
                    "Attempts that ended here: completed, failed, waits (for the next one), ended (by somebody else) or fenced",
                ),
                &["outcome"],
            )?,
            bytes_downloaded: IntCounter::new("millrace_worker_downloaded_bytes_total", "Bytes of downloaded files")?,
            bytes_resumed: IntCounter::new(
                "millrace_worker_resumed_bytes_total",
                "Bytes that were not downloaded again, since an earlier attempt had left them",
            )?,
            bytes_stored: IntCounter::new("millrace_worker_stored_bytes_total", "Bytes that went to the object store")?,
            janitor_removed: IntCounterVec::new(
                Opts::new(
                    "millrace_worker_janitor_removed_total",
                    "What dead workers had left in the store and was removed: file or upload (an unfinished one)",
                ),
                &["what"],
            )?,
            store_unknown: IntGauge::new(
                "millrace_worker_store_unknown_files",
                "Files of jobs that the log does not know, among those that the last look into the store saw; they stay",
            )?,
            work_room: IntGauge::new(
                "millrace_worker_work_room_bytes",
                "Bytes that were free on the disk of the work folder when a job was last looked for",
            )?,
        };
        registry.register(Box::new(metrics.running.clone()))?;
        registry.register(Box::new(metrics.attempts.clone()))?;
        registry.register(Box::new(metrics.bytes_downloaded.clone()))?;
        registry.register(Box::new(metrics.bytes_resumed.clone()))?;
        registry.register(Box::new(metrics.bytes_stored.clone()))?;
        registry.register(Box::new(metrics.janitor_removed.clone()))?;
        registry.register(Box::new(metrics.store_unknown.clone()))?;
        registry.register(Box::new(metrics.work_room.clone()))?;
        Ok(metrics)
    }
}
