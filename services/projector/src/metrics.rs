//! The projector's metrics.

use prometheus::{IntCounter, IntGauge, Registry};

/// All of them; the doc comments are the help texts.
#[derive(Clone)]
pub struct Metrics {
    /// Entries of the log that were applied.
    pub applied: IntCounter,
    /// States that were written.
    pub written: IntCounter,
    /// Writes that found another writer's state, and were folded anew.
    pub conflicts: IntCounter,
    /// Times that entries which another projector was given were read from the log.
    pub gaps: IntCounter,
    /// Messages that could not be read and are in the quarantine.
    pub quarantined: IntCounter,
    /// Messages that could not be read and that the quarantine did not take; they are in the log only.
    pub unquarantined: IntCounter,
    /// Entries of the log that wait to be applied, or are being applied.
    pub lag: IntGauge,
    /// Sequence of the last entry applied.
    pub position: IntGauge,
}

impl Metrics {
    /// Registers them.
    pub fn register(registry: &Registry) -> anyhow::Result<Self> {
        let metrics = Self {
            applied: IntCounter::new("millrace_projector_applied_total", "Entries of the log that were applied")?,
            written: IntCounter::new("millrace_projector_written_total", "States that were written")?,
            conflicts: IntCounter::new(
                "millrace_projector_conflicts_total",
                "Writes that found another writer's state, and were folded anew",
            )?,
            gaps: IntCounter::new(
                "millrace_projector_gaps_total",
                "Times that entries which another projector was given were read from the log",
            )?,
            quarantined: IntCounter::new(
                "millrace_projector_quarantined_total",
                "Messages that could not be read and are in the quarantine",
            )?,
            unquarantined: IntCounter::new(
                "millrace_projector_unquarantined_total",
                "Messages that could not be read and that the quarantine did not take; they are in the log only",
            )?,
            lag: IntGauge::new(
                "millrace_projector_lag_entries",
                "Entries of the log that wait to be applied, or are being applied",
            )?,
            position: IntGauge::new("millrace_projector_position", "Sequence of the last entry applied")?,
        };
        registry.register(Box::new(metrics.applied.clone()))?;
        registry.register(Box::new(metrics.written.clone()))?;
        registry.register(Box::new(metrics.conflicts.clone()))?;
        registry.register(Box::new(metrics.gaps.clone()))?;
        registry.register(Box::new(metrics.quarantined.clone()))?;
        registry.register(Box::new(metrics.unquarantined.clone()))?;
        registry.register(Box::new(metrics.lag.clone()))?;
        registry.register(Box::new(metrics.position.clone()))?;
        Ok(metrics)
    }
}
