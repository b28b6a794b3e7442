//! The worker's metrics.

use millrace_runtime::metrics::{IntCounter, IntCounterBy, IntGauge};

millrace_runtime::metrics! {
    /// What the worker counts.
    pub struct Metrics in "millrace_worker" {
        /// Attempts in flight.
        pub attempts_running: IntGauge,
        /// Attempts that ended on this worker: the job completed, failed, waits for its next attempt, was ended by
        /// another process, or was taken over by another worker (fenced).
        pub attempts: IntCounterBy<AttemptOutcome>,
        /// Bytes of the files whose download completed.
        pub downloaded_bytes: IntCounter,
        /// Bytes that were not downloaded again because an earlier attempt had left them.
        pub resumed_bytes: IntCounter,
        /// Bytes of the files that were written to the object store.
        pub stored_bytes: IntCounter,
        /// Remains of dead workers that the janitor removed from the object store: files, and unfinished uploads.
        pub janitor_removed: IntCounterBy<Remains>,
        /// Files of jobs that the log does not know, among those that the janitor last listed; it does not remove them.
        pub store_unknown_files: IntGauge,
        /// Bytes free on the disk of the work folder when the worker last looked for a job.
        pub work_room_bytes: IntGauge,
    }
}

millrace_runtime::label! {
    /// How an attempt ended.
    pub enum AttemptOutcome as "outcome" {
        Completed => "completed",
        Failed => "failed",
        Waits => "waits",
        Ended => "ended",
        Fenced => "fenced",
    }
}

millrace_runtime::label! {
    /// What a dead worker left in the object store.
    pub enum Remains as "what" {
        File => "file",
        Upload => "upload",
    }
}
