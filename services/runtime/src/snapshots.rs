//! Current states: from the bucket that the projector writes, brought up to date from the log.

use std::collections::HashMap;

use async_nats::{Client, HeaderMap, jetstream};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::timeout;

use millrace_domain::{
    JobId, JobState, fold_all,
    limits::{BUCKET_WAIT_MAX, NATS_REQUEST_MAX, SNAPSHOT_BATCH_MAX, TAILS_IN_FLIGHT_MAX},
    subjects::{self, Kind, PROJECTOR_CONSUMER, STATE_BUCKET},
};

use crate::{
    direct::{self, ReadError, Stored},
    log::Log,
    metrics::{IntCounter, Registry},
    publish::{self, PublishError},
};

/// Reads and writes current states.
#[derive(Clone)]
pub struct Snapshots {
    client: Client,
    log: Log,
    bucket: String,
    metrics: Metrics,
}

crate::metrics! {
    /// How states were loaded.
    struct Metrics in "millrace_log" {
        /// States loaded without a read from the log, because the live feed showed that they are the newest.
        pub spared: IntCounter,
        /// Loads of states that were folded from the log alone, because the state bucket did not respond.
        pub bucket_away: IntCounter,
    }
}

/// What the bucket holds under a job's key.
#[derive(Clone, Debug)]
pub struct Projected {
    /// The state; `None` when the key was deleted or its value is no state of the job, as after another version. Both
    /// count as absent, since the log has everything.
    pub state: Option<JobState>,
    /// The key's revision, for compare-and-set.
    pub revision: u64,
}

/// How far the projector is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Everything up to this sequence of the log is in the bucket.
    pub up_to: u64,
    /// The log had nothing after it.
    pub is_all: bool,
}

/// What is known of the newest sequences of some jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newest {
    /// Each job's, in the order of the jobs; 0 where there is nothing that the projector had not written before.
    pub of_each: Vec<u64>,
    /// Of the whole log: a state beyond it is of another log.
    pub of_all: u64,
}

/// What the bucket has of some jobs, as old as the projector left it.
pub struct BucketRead<'a> {
    ids: &'a [JobId],
    states: HashMap<JobId, JobState>,
}

impl Snapshots {
    /// States in the bucket beside `log`.
    ///
    /// # Errors
    /// When the metrics are registered already.
    pub fn new(client: &Client, log: Log, registry: &Registry) -> anyhow::Result<Self> {
        Self::of_bucket(client, log, STATE_BUCKET, registry)
    }

    /// States in another bucket, as a rebuild makes it.
    ///
    /// # Errors
    /// When the metrics are registered already.
    pub fn of_bucket(client: &Client, log: Log, bucket: &str, registry: &Registry) -> anyhow::Result<Self> {
        let metrics = Metrics::register(registry)?;
        Ok(Self { client: client.clone(), log, bucket: bucket.to_owned(), metrics })
    }

    /// The current states of the given jobs, as new as the log is where it answers. Jobs that the log does not know
    /// are left out.
    ///
    /// Two requests for every [`SNAPSHOT_BATCH_MAX`] jobs, and one for each job that the projector has not caught up
    /// with; where the bucket does not answer, one for each job. May miss what a stale replica has not seen yet; it is
    /// never ahead of the log.
    ///
    /// # Errors
    /// When the log does not answer in time.
    pub async fn load(&self, ids: &[JobId]) -> Result<HashMap<JobId, JobState>, ReadError> {
        let mut states = HashMap::with_capacity(ids.len());
        for batch in ids.chunks(SNAPSHOT_BATCH_MAX) {
            let read = self.read_bucket(batch).await;
            states.extend(self.complete(read, None).await?);
        }
        Ok(states)
    }

    /// What the bucket has of at most [`SNAPSHOT_BATCH_MAX`] jobs, to be completed.
    pub async fn read_bucket<'a>(&self, ids: &'a [JobId]) -> BucketRead<'a> {
        let projected = self.projected_or_none(ids).await;
        BucketRead { ids, states: projected.into_iter().filter_map(|(id, p)| Some((id, p.state?))).collect() }
    }

    /// The current states of the jobs of which the bucket was read. The log is not asked about those whose newest
    /// sequence is known, after the bucket was read, and is that of their state.
    ///
    /// # Errors
    /// When the log does not answer in time.
    pub async fn complete(
        &self,
        BucketRead { ids, mut states }: BucketRead<'_>,
        newest: Option<Newest>,
    ) -> Result<HashMap<JobId, JobState>, ReadError> {
        let is_newest = |at: usize, id: &JobId| match (&newest, states.get(id)) {
            (Some(Newest { of_each, of_all }), Some(state)) => (of_each[at]..=*of_all).contains(&state.seq),
            _ => false,
        };
        let asked: Vec<_> = (0..).zip(ids).filter(|(at, id)| !is_newest(*at, id)).map(|(_, id)| id.clone()).collect();
        self.metrics.spared.inc_by((ids.len() - asked.len()) as u64);
        if asked.is_empty() {
            return Ok(states);
        }
        let filters: Vec<_> = asked.iter().map(|id| newest_filter(id, states.get(id))).collect();
        let mut last: HashMap<JobId, Vec<Stored>> = HashMap::with_capacity(asked.len());
        for (id, stored) in self.log.last(&filters).await? {
            last.entry(id).or_insert_with(|| Vec::with_capacity(1)).push(stored);
        }
        let mut projected: HashMap<_, _> = asked.into_iter().filter_map(|id| states.remove_entry(&id)).collect();
        // What the bucket has of a job that the log no longer knows is not used: the log is the truth.
        let jobs = last.into_iter().map(|(id, last)| {
            let state = projected.remove(&id);
            self.catch_up(id, state, last)
        });
        let loaded = stream::iter(jobs).buffer_unordered(TAILS_IN_FLIGHT_MAX);
        states.extend(loaded.try_collect::<Vec<_>>().await?.into_iter().flatten());
        Ok(states)
    }

    /// The current state of one job. See [`Snapshots::load`].
    ///
    /// # Errors
    /// When the log does not answer in time.
    pub async fn get(&self, id: &JobId) -> Result<Option<JobState>, ReadError> {
        Ok(self.load(std::slice::from_ref(id)).await?.remove(id))
    }

    /// The state of one job with everything that the log's leader has: for deciding after a conflict, and for
    /// clients who have seen more than a replica.
    ///
    /// # Errors
    /// When the log does not answer in time.
    pub async fn get_from_leader(&self, id: &JobId) -> Result<Option<JobState>, ReadError> {
        Ok(self.read_leader(id).await?.0)
    }

    /// The same, with the sequence of the last message that is there of the job (0: none), which may be one that cannot
    /// be decoded: so that one can tell a job that is none from one that a leader who catches up does not know yet.
    ///
    /// # Errors
    /// When the log does not answer in time.
    pub async fn read_leader(&self, id: &JobId) -> Result<(Option<JobState>, u64), ReadError> {
        let state = self.get(id).await?;
        let after = state.as_ref().map_or(0, |state| state.seq);
        let tail = self.log.entries(&self.log.read(subjects::job_filter(id), after).to_the_end().await?);
        let seq = tail.last().map_or(after, |entry| entry.seq);
        Ok((fold_all(state, id, &tail), seq))
    }

    /// `last` holds the last message of each of the job's subjects that was asked and has one.
    async fn catch_up(
        &self,
        id: JobId,
        state: Option<JobState>,
        last: Vec<Stored>,
    ) -> Result<Option<(JobId, JobState)>, ReadError> {
        let newest = last.iter().map(|stored| stored.seq).max().unwrap_or(0);
        let state = match state {
            // Nothing of the log needs to be decoded.
            Some(state) if state.seq >= newest => Some(state),
            Some(state) => {
                let tail = self.log.read(subjects::job_filter(&id), state.seq).rest().await?;
                fold_all(Some(state), &id, &self.log.entries(&tail))
            }
            None => {
                let last = self.log.entries(&last);
                let complete = last.iter().all(|entry| entry.kind == Kind::Submitted);
                let history = if complete {
                    last
                } else {
                    self.log.entries(&self.log.read(subjects::job_filter(&id), 0).rest().await?)
                };
                fold_all(None, &id, &history)
            }
        };
        Ok(state.map(|state| (id, state)))
    }

    /// What the bucket holds, and nothing where it does not answer: the log has everything.
    async fn projected_or_none(&self, ids: &[JobId]) -> HashMap<JobId, Projected> {
        let why = match timeout(BUCKET_WAIT_MAX, self.projected(ids)).await {
            Ok(Ok(projected)) => return projected,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", BUCKET_WAIT_MAX.as_secs()),
        };
        self.metrics.bucket_away.inc();
        tracing::warn!(
            bucket = self.bucket,
            why,
            jobs = ids.len(),
            "state bucket unavailable; folding jobs from the log (slower)"
        );
        HashMap::new()
    }

    /// What the bucket holds of the given jobs, as old as the projector left it. Keys that were never written are left
    /// out.
    ///
    /// # Errors
    /// When the bucket does not answer in time.
    pub async fn projected(&self, ids: &[JobId]) -> Result<HashMap<JobId, Projected>, ReadError> {
        let keys: Vec<_> = ids.iter().map(|id| subjects::state_subject_in(&self.bucket, id)).collect();
        let stored = direct::last_per_subject(&self.client, &subjects::bucket_stream(&self.bucket), &keys).await?;
        Ok(stored.into_iter().filter_map(projected).collect())
    }

    /// How far the projector is, or has been a moment ago: the bucket, read after this, holds at least that, but for a
    /// replica of it that lags behind.
    ///
    /// # Errors
    /// When the server does not answer in time.
    pub async fn progress(&self) -> Result<Progress, ReadError> {
        let info =
            self.log.stream.consumer_info(PROJECTOR_CONSUMER).await.map_err(|error| ReadError(error.to_string()))?;
        let waiting = info.num_pending + info.num_ack_pending as u64;
        Ok(Progress { up_to: info.ack_floor.stream_sequence, is_all: waiting == 0 })
    }

    /// Writes a state if the key is still at `revision` (0: absent); returns the new revision.
    ///
    /// # Errors
    /// `WrongLastSequence` when somebody else has written it.
    pub async fn put(&self, state: &JobState, revision: u64) -> Result<u64, PublishError> {
        let mut headers = HeaderMap::new();
        headers.insert(publish::EXPECTED_LAST_SUBJECT_SEQUENCE, revision.to_string().as_str());
        let payload = serde_json::to_vec(state).expect("a state has string keys only");
        let subject = subjects::state_subject_in(&self.bucket, &state.job_id);
        publish::publish(&self.client, &subject, headers, payload.into(), NATS_REQUEST_MAX).await
    }

    /// Removes the state of a job.
    ///
    /// # Errors
    /// When the bucket does not answer in time.
    pub async fn purge(&self, id: &JobId) -> anyhow::Result<()> {
        let context = jetstream::new(self.client.clone());
        let bucket = context.get_stream_no_info(subjects::bucket_stream(&self.bucket)).await?;
        bucket.purge().filter(subjects::state_subject_in(&self.bucket, id)).await?;
        Ok(())
    }
}

/// Where the log must be asked whether `state` is the job's newest. Nothing is on the submission subject after an event
/// but a person's retry, and that only after an event by which the job ended.
fn newest_filter(id: &JobId, state: Option<&JobState>) -> String {
    match state {
        Some(state) if state.events_seq > state.submitted_seq && !state.stage.is_retryable() => {
            subjects::subject(Kind::Events, id)
        }
        _ => subjects::job_filter(id),
    }
}

fn projected(stored: direct::Stored) -> Option<(JobId, Projected)> {
    let id: JobId = stored.subject.rsplit('.').next()?.parse().ok()?;
    let state = match serde_json::from_slice::<JobState>(&stored.payload) {
        _ if stored.deleted => None,
        // Of a version that did not keep what a retry needs.
        Ok(state) if state.submitted_seq == 0 => None,
        Ok(state) if state.job_id == id => Some(state),
        Ok(state) => {
            tracing::error!(key = stored.subject, job = %state.job_id, "state in the bucket belongs to another job; \
            ignoring it");
            None
        }
        Err(error) => {
            tracing::error!(key = stored.subject, %error, "cannot decode state in the bucket; ignoring it");
            None
        }
    };
    Some((id, Projected { state, revision: stored.seq }))
}
