//! The edge's metrics.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// All of them.
#[derive(Clone)]
pub struct Metrics {
    pub connections_refused: IntCounter,
    pub heads_timed_out: IntCounter,
    pub sockets: IntGauge,
    pub sockets_opened: IntCounter,
    pub sockets_closed: IntCounterVec,
    pub frames_sent: IntCounter,
    pub jobs_watched: IntGauge,
    pub events_heard: IntCounter,
    pub gaps: IntCounter,
    pub quiet_jobs_asked: IntCounter,
    pub sweep_finds: IntCounter,
    pub snapshot_batches: IntCounter,
    pub snapshot_failures: IntCounter,
    pub requests: IntCounterVec,
}

impl Metrics {
    /// Registers them.
    pub fn register(registry: &Registry) -> anyhow::Result<Self> {
        let counter = |name: &str, help: &str| -> anyhow::Result<IntCounter> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |name: &str, help: &str| -> anyhow::Result<IntGauge> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let by = |name: &str, help: &str, labels: &[&str]| -> anyhow::Result<IntCounterVec> {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        Ok(Self {
            connections_refused: counter(
                "millrace_edge_connections_refused_total",
                "Connections that were answered 503, or just closed, because too many are open, in all or from one address",
            )?,
            heads_timed_out: counter(
                "millrace_edge_heads_timed_out_total",
                "Connections that were closed because the headers of a request did not come in time",
            )?,
            sockets: gauge("millrace_edge_sockets", "WebSockets that are open")?,
            sockets_opened: counter("millrace_edge_sockets_opened_total", "WebSockets that were opened")?,
            sockets_closed: by(
                "millrace_edge_sockets_closed_total",
                "WebSockets that ended, by close code; 1006 when the client went away without one",
                &["code"],
            )?,
            frames_sent: counter(
                "millrace_edge_frames_sent_total",
                "Status messages that were written to WebSockets; not those that newer ones have replaced",
            )?,
            jobs_watched: gauge("millrace_edge_jobs_watched", "Jobs that somebody on this edge watches")?,
            events_heard: counter(
                "millrace_edge_events_heard_total",
                "Republished events that arrived, watched or not",
            )?,
            gaps: counter("millrace_edge_gaps_total", "Gaps in the live feed of a watched job that were noticed")?,
            quiet_jobs_asked: counter(
                "millrace_edge_quiet_jobs_asked_total",
                "Watched jobs whose last sequence was read from the log because they were quiet, or after a gap",
            )?,
            sweep_finds: counter("millrace_edge_sweep_finds_total", "Lost events that only the sweep has found")?,
            snapshot_batches: counter("millrace_edge_snapshot_batches_total", "Batched snapshot loads")?,
            snapshot_failures: counter("millrace_edge_snapshot_failures_total", "Snapshot loads that failed")?,
            requests: by("millrace_edge_requests_total", "HTTP answers, by status", &["status"])?,
        })
    }
}
