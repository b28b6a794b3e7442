//! The record of a run: exactly what the checks read. Times are milliseconds since 1970.

use std::collections::BTreeMap;

use millrace_domain::{Event, JobId, subjects::Kind};
use serde_json::Value;

/// Everything.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// When the last fault ended.
    pub calm_at: u64,
    /// The lease of a job.
    pub lease_ms: u64,
    /// The `--public-base-url` of the edges.
    pub base_url: String,
    /// Submissions that were answered with 202.
    pub accepted: Vec<Accepted>,
    /// Appends that the log has acknowledged, according to the services' log lines.
    pub acked: Vec<Acked>,
    /// The log, in its order.
    pub log: Vec<Logged>,
    /// The bucket of states by key, as far as it is JSON.
    pub states: BTreeMap<String, Value>,
    /// What clients saw, each of one job.
    pub sessions: Vec<Session>,
    /// Workers that were killed.
    pub worker_deaths: Vec<Death>,
    /// Files in the object store, by key.
    pub objects: BTreeMap<String, Object>,
    /// Unfinished uploads in the object store.
    pub uploads: Vec<String>,
    /// Parts of aborted uploads, which only the test's store keeps.
    pub stray_parts: usize,
    /// Processes that remained after all services had stopped.
    pub processes: Vec<String>,
    /// Files of downloads that remained then.
    pub files: Vec<String>,
}

/// A submission and the expected end of its job.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The address; no two submissions have the same.
    pub url: String,
    /// The job.
    pub id: JobId,
    /// How it must end.
    pub expected: Expected,
}

/// How a job must end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Completed, with this file.
    File {
        /// SHA-256, lower-case hexadecimal.
        sha256: String,
    },
    /// Failed, with this code.
    Failure(&'static str),
    /// Canceled, or with this file if the cancel came too late.
    CanceledOrFile {
        /// SHA-256, lower-case hexadecimal.
        sha256: String,
    },
}

/// An append that was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acked {
    /// Its sequence.
    pub seq: u64,
    /// Its message id.
    pub message_id: String,
}

/// A message of the log.
#[derive(Clone, Debug)]
pub struct Logged {
    /// Its sequence.
    pub seq: u64,
    /// Its message id.
    pub message_id: String,
    /// Its job.
    pub id: JobId,
    /// Which of the job's subjects.
    pub kind: Kind,
    /// The event, or why the message cannot be decoded.
    pub event: Result<Event, millrace_domain::Undecodable>,
}

/// What one client saw of one job, over all of its connections.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// The client's number.
    pub client: usize,
    /// The job.
    pub job: String,
    /// When it first connected.
    pub began_at: u64,
    /// Each `status` message.
    pub seen: Vec<Seen>,
    /// The `data` of the last one.
    pub last: Option<Value>,
    /// Close codes of connections that the server closed.
    pub closes: Vec<u16>,
}

/// A `status` message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When it arrived.
    pub at: u64,
    /// On which connection of the session, from 0.
    pub connection: u32,
    /// `seq`
    pub seq: u64,
    /// `attempt`
    pub attempt: u64,
    /// `progress`
    pub progress: u64,
    /// Whether the job has ended.
    pub end: bool,
}

/// A worker that was killed.
#[derive(Clone, Debug)]
pub struct Death {
    /// Its name in events.
    pub worker: String,
    /// When it was killed.
    pub at: u64,
    /// Whether no other fault kept the other workers from taking its jobs.
    pub clear: bool,
}

/// A file in the object store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Bytes.
    pub size: u64,
    /// SHA-256, lower-case hexadecimal.
    pub sha256: String,
}
