//! Names of everything that is stored in or sent through NATS. **All frozen once released.**
//!
//! | name | layout | written by | read by |
//! |---|---|---|---|
//! | `jobs.submitted.<id>` | `submitted`, and a `resubmitted` for each retry | edge | workers, projector, edges |
//! | `jobs.events.<id>` | all later events of the job | workers, edges (cancel) | projector, edges |
//! | `live.<shard>.<submitted\|events>.<id>` | the same messages, republished at most once | nats-server | edges |
//! | KV `JOB_STATE`, key `<id>` | [`crate::JobState`] as JSON | projector | edges, operators |
//! | KV `JOB_STATE_REBUILD` | the same, folded from zero beside it | projector with `--rebuild` | `millrace rebuild` |
//! | KV `JOB_KEYS`, key hash of an `Idempotency-Key` | the job that the key stands for | edge | edge |
//! | `quarantine.<submitted\|events>.<id>.<seq>` | an undecodable message, unchanged | projector | operators |

use crate::ids::JobId;

/// The stream that holds the log.
pub const STREAM: &str = "JOBS";
/// Every subject of the log.
pub const ALL: &str = "jobs.*.*";
/// The work queue: one submission per job, and one `resubmitted` for each retry by a person.
pub const SUBMITTED_ALL: &str = "jobs.submitted.*";
/// All republished messages, of every shard.
pub const LIVE_ALL: &str = "live.*.*.*";
/// The bucket of current states.
pub const STATE_BUCKET: &str = "JOB_STATE";
/// The bucket that a rebuild fills beside the live one.
pub const REBUILD_BUCKET: &str = "JOB_STATE_REBUILD";
/// The bucket of idempotency keys.
pub const KEY_BUCKET: &str = "JOB_KEYS";
/// The stream of undecodable messages of the log.
pub const QUARANTINE_STREAM: &str = "JOBS_QUARANTINE";
/// Every subject of the quarantine.
pub const QUARANTINE_ALL: &str = "quarantine.*.*.*";
/// Header in the quarantine: why the message cannot be decoded, as a sentence for people.
pub const QUARANTINE_REASON: &str = "Millrace-Reason";
/// Header in the quarantine: the message's subject in the log.
pub const QUARANTINE_SUBJECT: &str = "Millrace-Subject";
/// Header in the quarantine: the message's sequence in the log.
pub const QUARANTINE_SEQUENCE: &str = "Millrace-Sequence";
/// The workers' durable consumer.
pub const WORKERS_CONSUMER: &str = "workers";
/// The projector's durable consumer.
pub const PROJECTOR_CONSUMER: &str = "projector";
/// The priority group in which one projector is pinned and the others stand by.
pub const PROJECTOR_GROUP: &str = "projector";

/// Which of a job's two subjects a message is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `jobs.submitted.<id>`
    Submitted,
    /// `jobs.events.<id>`
    Events,
}

impl Kind {
    const fn token(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Events => "events",
        }
    }

    fn from_token(token: &str) -> Option<Self> {
        match token {
            "submitted" => Some(Self::Submitted),
            "events" => Some(Self::Events),
            _ => None,
        }
    }
}

/// The subject of one job in the log.
#[must_use]
pub fn subject(kind: Kind, id: &JobId) -> String {
    format!("jobs.{}.{id}", kind.token())
}

/// The `Nats-Msg-Id` of the message that is to follow sequence `expected` on its subject: `<id>/<expected>/<nonce>`.
///
/// The nonce is random and distinguishes two writers of the same successor. If the outcome of an append is unknown, a
/// writer that finds its own nonce in the log knows that its message was stored.
#[must_use]
pub fn message_id(id: &JobId, expected: u64, nonce: &str) -> String {
    format!("{id}/{expected}/{nonce}")
}

/// Both subjects of one job, as one filter.
#[must_use]
pub fn job_filter(id: &JobId) -> String {
    format!("jobs.*.{id}")
}

/// The stream beneath a bucket.
#[must_use]
pub fn bucket_stream(bucket: &str) -> String {
    format!("KV_{bucket}")
}

/// The key's subject in the stream beneath the state bucket.
#[must_use]
pub fn state_subject(id: &JobId) -> String {
    state_subject_in(STATE_BUCKET, id)
}

/// The key's subject in the stream beneath another bucket of states.
#[must_use]
pub fn state_subject_in(bucket: &str, id: &JobId) -> String {
    format!("$KV.{bucket}.{id}")
}

/// The quarantine's subject for the message at `seq` on `subject` of the log: one subject for each message.
#[must_use]
pub fn quarantine_subject(subject: &str, seq: u64) -> String {
    format!("quarantine.{}.{seq}", subject.strip_prefix("jobs.").unwrap_or(subject))
}

/// Reads a subject of the log; `None` for anything that is not `jobs.<kind>.<id>`.
#[must_use]
pub fn parse(subject: &str) -> Option<(Kind, JobId)> {
    let (kind, id) = subject.strip_prefix("jobs.")?.split_once('.')?;
    Some((Kind::from_token(kind)?, id.parse().ok()?))
}

/// Reads the kind and the unchecked job id from a republished subject `live.<shard>.<kind>.<id>`.
///
/// Allocates nothing: an edge calls it for every event in the system, including those of jobs without a watcher.
#[must_use]
pub fn parse_live(subject: &str) -> Option<(Kind, &str)> {
    let (_shard, rest) = subject.strip_prefix("live.")?.split_once('.')?;
    let (kind, id) = rest.split_once('.')?;
    Some((Kind::from_token(kind)?, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_reads_back_as_what_it_was_made_from() {
        let id: JobId = "job_1-A".parse().unwrap();
        for kind in [Kind::Submitted, Kind::Events] {
            assert_eq!(parse(&subject(kind, &id)), Some((kind, id.clone())));
            let live = format!("live.63.{}", subject(kind, &id).strip_prefix("jobs.").unwrap());
            assert_eq!(parse_live(&live), Some((kind, id.as_str())));
        }
    }

    #[test]
    fn a_foreign_subject_is_not_taken_for_a_job() {
        for foreign in ["jobs.events", "jobs.other.a", "jobs.events.a.b", "live.1.events", "$KV.JOB_STATE.a", ""] {
            assert_eq!(parse(foreign), None, "{foreign}");
            assert_eq!(parse_live(foreign), None, "{foreign}");
        }
    }
}
