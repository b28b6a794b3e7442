//! Current states: read from the bucket that the projector writes, then brought up to date from the log.

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
    /// Loads of states.
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
    /// The state; `None` if the key was deleted or its value is not a state of the job, as after a version change. Both
    /// count as absent, since the log has everything.
    pub state: Option<JobState>,
    /// The key's revision, for compare-and-set.
    pub revision: u64,
}

/// The projector's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Everything up to this sequence of the log is in the bucket.
    pub up_to: u64,
    /// The log had no entry after it.
    pub is_all: bool,
}

/// The known newest sequences of some jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newest {
    /// One sequence for each job, in the order of the jobs; 0 for a job without an entry that the projector had not
    /// written yet.
    pub of_each: Vec<u64>,
    /// The newest sequence of the whole log: a state beyond it belongs to another log.
    pub of_all: u64,
}

/// The bucket's states of some jobs, which may be stale.
pub struct BucketRead<'a> {
    ids: &'a [JobId],
    states: HashMap<JobId, JobState>,
}

impl Snapshots {
    /// States in the live bucket beside `log`.
    ///
    /// # Errors
    /// When the metrics are registered already.
    pub fn new(client: &Client, log: Log, registry: &Registry) -> anyhow::Result<Self> {
        Self::of_bucket(client, log, STATE_BUCKET, registry)
    }

    /// States in another bucket, as a rebuild fills it.
    ///
    /// # Errors
    /// When the metrics are registered already.
    pub fn of_bucket(client: &Client, log: Log, bucket: &str, registry: &Registry) -> anyhow::Result<Self> {
        let metrics = Metrics::register(registry)?;
        Ok(Self { client: client.clone(), log, bucket: bucket.to_owned(), metrics })
    }

    /// The current states of the given jobs, up to the newest entry that a replica of the log returns. Jobs that the
    /// log does not know are left out.
    ///
    /// Two requests for every [`SNAPSHOT_BATCH_MAX`] jobs, and one for each job that the projector has not caught up
    /// with; if the bucket does not respond, one for each job. The result may lack entries that a stale replica does
    /// not have yet; it is never ahead of the log.
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

    /// Reads the bucket's states of at most [`SNAPSHOT_BATCH_MAX`] jobs, to be completed.
    pub async fn read_bucket<'a>(&self, ids: &'a [JobId]) -> BucketRead<'a> {
        let projected = self.projected_or_none(ids).await;
        BucketRead { ids, states: projected.into_iter().filter_map(|(id, p)| Some((id, p.state?))).collect() }
    }

    /// The current states of the jobs that were read from the bucket. The log is not read for a job whose state has its
    /// newest sequence, if `newest` was known after the bucket was read.
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
        // The bucket's state of a job that the log no longer knows is discarded: the log is the truth.
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

    /// The state of one job up to the newest entry of the log's leader: for a decision after a conflict, and for
    /// clients that have seen more than a replica has.
    ///
    /// # Errors
    /// When the log does not answer in time.
    pub async fn get_from_leader(&self, id: &JobId) -> Result<Option<JobState>, ReadError> {
        Ok(self.read_leader(id).await?.0)
    }

    /// The state from the leader, with the sequence of the job's last message (0: none), which may be undecodable. The
    /// sequence distinguishes a job that does not exist from one that a leader does not know yet because it is catching
    /// up.
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

    /// `last` holds the last message of each of the job's subjects that was read and has one.
    async fn catch_up(
        &self,
        id: JobId,
        state: Option<JobState>,
        last: Vec<Stored>,
    ) -> Result<Option<(JobId, JobState)>, ReadError> {
        let newest = last.iter().map(|stored| stored.seq).max().unwrap_or(0);
        let state = match state {
            // No message of the log needs to be decoded.
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

    /// The bucket's states, or none if the bucket does not respond: the log has everything.
    async fn projected_or_none(&self, ids: &[JobId]) -> HashMap<JobId, Projected> {
        let why = match timeout(BUCKET_WAIT_MAX, self.projected(ids)).await {
            Ok(Ok(projected)) => return projected,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no response within {} s", BUCKET_WAIT_MAX.as_secs()),
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

    /// The bucket's states of the given jobs, which may be stale. Keys that were never written are left out.
    ///
    /// # Errors
    /// When the bucket does not answer in time.
    pub async fn projected(&self, ids: &[JobId]) -> Result<HashMap<JobId, Projected>, ReadError> {
        let keys: Vec<_> = ids.iter().map(|id| subjects::state_subject_in(&self.bucket, id)).collect();
        let stored = direct::last_per_subject(&self.client, &subjects::bucket_stream(&self.bucket), &keys).await?;
        Ok(stored.into_iter().filter_map(projected).collect())
    }

    /// The projector's current or very recent position. A later read from the bucket returns at least that, unless the
    /// bucket's replica is stale.
    ///
    /// # Errors
    /// When the server does not answer in time.
    pub async fn progress(&self) -> Result<Progress, ReadError> {
        let info =
            self.log.stream.consumer_info(PROJECTOR_CONSUMER).await.map_err(|error| ReadError(error.to_string()))?;
        let waiting = info.num_pending + info.num_ack_pending as u64;
        Ok(Progress { up_to: info.ack_floor.stream_sequence, is_all: waiting == 0 })
    }

    /// Writes a state if the key still has `revision` (0: absent); returns the new revision.
    ///
    /// # Errors
    /// `WrongLastSequence` if another writer has written the key.
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

/// The filter that must be read from the log to learn whether `state` is the job's newest. On the submission subject,
/// an event is followed only by a person's retry, and only after an event that ended the job.
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
        // The state is of a version that did not keep what a retry needs.
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
