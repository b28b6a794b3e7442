//! A nats-server for each test, jobs in its log, and projectors as processes.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use async_nats::jetstream::{self, consumer::PullConsumer};
use futures::{StreamExt, stream};
use millrace_domain::{
    Command, EventBody, JobId, JobState, Provider, VideoInfo,
    event::{Progress, StoredFile},
    fold_all,
    subjects::{self, PROJECTOR_CONSUMER, STREAM},
};
use millrace_harness::{
    nats::{NatsOptions, NatsServer},
    ports::free_port,
    processes::{Service, ServiceOptions},
    wait,
};
use millrace_runtime::{
    jobs::{Jobs, Patience},
    log::Log,
    metrics::Registry,
    provision,
    snapshots::Snapshots,
};

/// How long a busy machine may take for an expected result.
pub const LIMIT: Duration = Duration::from_secs(90);

/// One system without workers and edges.
pub struct World {
    pub context: jetstream::Context,
    pub jobs: Jobs,
    _server: NatsServer,
    url: String,
}

/// A projector's process.
pub struct Projector {
    pub service: Service,
    admin: String,
}

impl World {
    pub async fn start() -> Self {
        let server = NatsServer::start(NatsOptions::default()).await.expect("a nats-server");
        let client = async_nats::connect(server.url()).await.expect("NATS");
        let context = jetstream::new(client.clone());
        provision::apply(&context, None).await.expect("provisioned");
        let registry = Registry::new();
        let log = Log::open(&client, &registry).await.expect("the log");
        let snapshots = Snapshots::new(&client, log.clone(), &registry).expect("the snapshots");
        Self { context, jobs: Jobs { log, snapshots }, url: server.url(), _server: server }
    }

    /// A ready projector: active, or standing by.
    pub async fn projector(&self) -> Projector {
        let address = format!("127.0.0.1:{}", free_port());
        let args = ["--nats-url", &self.url, "--admin-listen", &address, "--log", "debug,async_nats=info"];
        let options = ServiceOptions { args: args.map(str::to_owned).to_vec(), ..Default::default() };
        let program = env!("CARGO_BIN_EXE_millrace-projector").as_ref();
        let mut service = Service::spawn_program("millrace-projector", program, options).expect("the projector");
        let admin = format!("http://{address}");
        service.wait_ready(&admin, LIMIT).await.expect("the projector");
        Projector { service, admin }
    }

    /// Creates jobs, many at once, each with its whole life in the log; every third one is still running.
    pub async fn lives(&self, name: &str, count: usize) -> Vec<JobId> {
        let jobs = (0..count).map(|n| async move {
            let id: JobId = format!("{name}{n}").parse().expect("an id");
            let bodies = life(&id, n);
            let until = if n % 3 == 0 { bodies.len() / 2 } else { bodies.len() };
            let mut state = self.submit(&id).await;
            for body in bodies.into_iter().take(until) {
                state = self.report(state, body).await;
            }
            id
        });
        stream::iter(jobs).buffered(32).collect().await
    }

    pub async fn submit(&self, id: &JobId) -> JobState {
        let submission = millrace_domain::Submission { url: "https://a.example/v".parse().unwrap(), quality: None };
        let state = self.jobs.execute(id, None, &Command::Submit(submission), Patience::Bounded).await.unwrap();
        let claim = Command::Claim {
            worker: "w".into(),
            submitted_seq: state.submitted_seq,
            budget: millrace_domain::retry::Budget::default(),
        };
        self.jobs.execute(id, Some(state), &claim, Patience::Bounded).await.unwrap()
    }

    pub async fn report(&self, state: JobState, body: EventBody) -> JobState {
        let command = Command::Report { attempt: state.attempt, body };
        self.jobs.execute(&state.job_id.clone(), Some(state), &command, Patience::Bounded).await.unwrap()
    }

    /// The states of the jobs by the log.
    pub async fn folds(&self, ids: &[JobId]) -> HashMap<JobId, JobState> {
        let histories = ids.iter().map(|id| async move {
            let history = self.jobs.log.read(subjects::job_filter(id), 0).rest().await.unwrap();
            Some((id.clone(), fold_all(None, id, &self.jobs.log.entries(&history))?))
        });
        stream::iter(histories).buffer_unordered(32).filter_map(async |fold| fold).collect().await
    }

    /// The states of the jobs in the bucket.
    pub async fn states(&self, ids: &[JobId]) -> HashMap<JobId, JobState> {
        let projected = self.jobs.snapshots.projected(ids).await.unwrap();
        projected.into_iter().filter_map(|(id, projected)| Some((id, projected.state?))).collect()
    }

    /// Waits until the bucket equals the fold of the log, for each of the jobs.
    pub async fn assert_projected(&self, ids: &[JobId]) {
        let folds = self.folds(ids).await;
        let deadline = Instant::now() + LIMIT;
        loop {
            let states = self.states(ids).await;
            let different: Vec<_> = ids.iter().filter(|id| states.get(*id) != folds.get(*id)).collect();
            let Some(id) = different.first() else { return };
            // Everything was acknowledged: no later message can correct the state.
            let position = self.acknowledged().await;
            assert!(
                Instant::now() < deadline && (position < self.last().await || self.states(ids).await != states),
                "{} of {} states differ from the log, with {position} acknowledged; of {id}:\n{:#?}\nby the \
                log:\n{:#?}",
                different.len(),
                ids.len(),
                states.get(*id),
                folds.get(*id)
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The last sequence of the log.
    pub async fn last(&self) -> u64 {
        self.context.get_stream(STREAM).await.unwrap().cached_info().state.last_sequence
    }

    /// The sequence up to which projectors have acknowledged the log.
    pub async fn acknowledged(&self) -> u64 {
        let consumer: PullConsumer = self.context.get_consumer_from_stream(PROJECTOR_CONSUMER, STREAM).await.unwrap();
        consumer.cached_info().ack_floor.stream_sequence
    }
}

impl Projector {
    /// The value of one of its metrics.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = reqwest::get(format!("{}/metrics", self.admin)).await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no metric {name} in:\n{text}")).parse().unwrap()
    }
}

/// Waits until a condition holds, as long as a busy machine may take.
pub async fn until(what: &str, holds: impl AsyncFnMut() -> bool) {
    wait::until(what, LIMIT, holds).await;
}

/// The progress of a download of 100 bytes.
pub fn progress(downloaded_bytes: u64) -> EventBody {
    EventBody::Progress(Progress { downloaded_bytes, total_bytes: Some(100), ..Progress::default() })
}

pub fn info(title: &str) -> EventBody {
    EventBody::Info { video_info: VideoInfo { title: Some(title.into()), ..VideoInfo::default() } }
}

/// The reports of a job's worker.
fn life(id: &JobId, n: usize) -> Vec<EventBody> {
    let file = StoredFile {
        key: format!("jobs/{id}/1/v.mp4"),
        file_size: 100,
        sha256: "0".repeat(64),
        content_type: "video/mp4".into(),
        file_name: "v.mp4".into(),
    };
    let provider = Provider::S3;
    let mut bodies = vec![info(id.as_str())];
    bodies.extend((0..(n % 7) as u64).map(|step| progress(step * 10)));
    bodies.push(EventBody::Downloaded { file_size: 100, storage_provider: provider, video_info: None });
    bodies.push(EventBody::Uploading { storage_provider: provider, key: None, upload_id: None });
    bodies.push(EventBody::Uploaded(file));
    bodies.push(EventBody::Completed);
    bodies
}
