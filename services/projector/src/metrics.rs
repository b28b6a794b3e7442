//! The projector's metrics.

use millrace_runtime::metrics::{IntCounter, IntGauge};

millrace_runtime::metrics! {
    /// What the projector counts.
    pub struct Metrics in "millrace_projector" {
        /// Entries of the log that were applied.
        pub applied: IntCounter,
        /// States written to the bucket.
        pub written: IntCounter,
        /// Writes refused because another writer had changed the state; the state is folded again.
        pub conflicts: IntCounter,
        /// Times that the projector read entries from the log because another projector may have received them.
        pub gaps: IntCounter,
        /// Undecodable messages that were copied to the quarantine.
        pub quarantined: IntCounter,
        /// Undecodable messages that the quarantine did not accept; they remain in the log only.
        pub unquarantined: IntCounter,
        /// Entries of the log that are pending or in flight.
        pub lag_entries: IntGauge,
        /// Log sequence of the last entry that was applied.
        pub position: IntGauge,
    }
}
