//! `millrace verify` reports wrong states, and nothing when all are right; `millrace rebuild` repairs them.

use std::time::Duration;

use async_nats::jetstream;
use millrace_cli::operators::verify::{Report, verify};
use millrace_domain::{Event, EventBody, JobId, JobState, Submission, subjects, subjects::Kind};
use millrace_harness::{
    nats::{NatsOptions, NatsServer},
    processes::{Service, ServiceOptions},
};
use millrace_runtime::{
    log::{Append, Log},
    now, provision,
    snapshots::Snapshots,
};

const WAIT: Duration = Duration::from_secs(20);

struct World {
    client: async_nats::Client,
    log: Log,
    snapshots: Snapshots,
    server: NatsServer,
}

impl World {
    async fn new() -> Self {
        let server = NatsServer::start(NatsOptions::default()).await.unwrap();
        let client = async_nats::connect(server.url()).await.unwrap();
        provision::apply(&jetstream::new(client.clone()), None).await.unwrap();
        let registry = prometheus::Registry::new();
        let log = Log::open(&client, &registry).await.unwrap();
        let snapshots = Snapshots::new(&client, log.clone(), &registry).unwrap();
        Self { client, log, snapshots, server }
    }

    fn projector(&self) -> Service {
        let args = ["--nats-url".to_owned(), self.server.url(), "--admin-listen=127.0.0.1:0".to_owned()];
        let options = ServiceOptions { args: args.to_vec(), ..ServiceOptions::default() };
        Service::spawn("millrace-projector", options).unwrap()
    }

    /// A job with some events.
    async fn job(&self, id: &str) -> JobId {
        let id: JobId = id.parse().unwrap();
        let submission = Submission { url: "http://127.0.0.1/video".parse().unwrap(), quality: None };
        self.append(&id, 0, EventBody::Submitted(submission)).await;
        let started = self.append(&id, 0, EventBody::Started { worker: "w".into(), attempt: 1 }).await;
        self.append(&id, started, EventBody::Canceled).await;
        id
    }

    async fn append(&self, id: &JobId, expected: u64, body: EventBody) -> u64 {
        self.log.append(&Append::new(id, expected, &Event { at: now(), body })).await.unwrap()
    }

    /// Publishes a raw payload that no service would write.
    async fn tamper(&self, subject: String, payload: &str) {
        let headers = async_nats::HeaderMap::new();
        let payload = payload.to_owned().into();
        millrace_runtime::publish::publish(&self.client, &subject, headers, payload, WAIT).await.unwrap();
    }

    async fn verify(&self) -> Report {
        verify(&self.client, WAIT).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_states_of_a_projector_that_has_caught_up_are_equal() {
    let world = World::new().await;
    assert!(world.verify().await.is_clean(), "nothing at all is clean");
    // More events than one batch, and a job that was never submitted, which has no state.
    for number in 0..400 {
        world.job(&format!("job{number}")).await;
    }
    world.append(&"stray_events".parse().unwrap(), 0, EventBody::Completed).await;
    let _projector = world.projector();
    let report = world.verify().await;
    assert_eq!(report, Report { jobs: 400, events: 1201, equal: 400, ..Report::default() });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_is_not_the_fold_is_found() {
    let world = World::new().await;
    let [altered, garbled, deleted] =
        [world.job("altered").await, world.job("garbled").await, world.job("deleted").await];
    let _projector = world.projector();
    assert_eq!(world.verify().await.equal, 3);

    let projected = world.snapshots.projected(std::slice::from_ref(&altered)).await.unwrap().remove(&altered).unwrap();
    let state = JobState { attempt: 7, ..projected.state.unwrap() };
    world.snapshots.put(&state, projected.revision).await.unwrap();
    world.tamper(subjects::state_subject(&garbled), "{").await;
    let bucket = jetstream::new(world.client.clone()).get_key_value(subjects::STATE_BUCKET).await.unwrap();
    bucket.delete(deleted.as_str()).await.unwrap();
    world.tamper("$KV.JOB_STATE.nobody".to_owned(), r#"{"seq":1}"#).await;
    world.tamper(subjects::subject(Kind::Events, &altered), "not an event").await;
    // The projector folds the new event onto the altered state: it continues from the state that it finds.
    let report = world.verify().await;
    let counts = [report.undecodable, report.quarantined, report.equal, report.different, report.missing, report.stray];
    assert_eq!(counts, [1, 1, 0, 2, 1, 1], "{:#?}", report.shown);
    assert!(!report.is_clean());
    assert!(report.shown.iter().any(|line| line.contains("attempt is 7, but 1 by the log")), "{:#?}", report.shown);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_decoded_is_mentioned_and_wrong_only_where_the_quarantine_has_it_not() {
    let world = World::new().await;
    let id = world.job("job").await;
    world.tamper(subjects::subject(Kind::Events, &id), "not an event").await;
    world.tamper("jobs.audit.job".to_owned(), "of another kind").await;
    let _projector = world.projector();
    let report = world.verify().await;
    assert_eq!([report.undecodable, report.quarantined, report.equal], [2, 2, 1], "{:#?}", report.shown);
    assert!(report.is_clean() && report.shown.len() == 2, "{:#?}", report.shown);

    let context = jetstream::new(world.client.clone());
    context.get_stream(subjects::QUARANTINE_STREAM).await.unwrap().purge().await.unwrap();
    let report = world.verify().await;
    assert_eq!([report.undecodable, report.quarantined], [2, 0]);
    assert!(!report.is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projector_that_does_not_run_is_noticed() {
    let world = World::new().await;
    world.job("waiting").await;
    let report = verify(&world.client, Duration::from_millis(100)).await.unwrap();
    assert_eq!((report.missing, report.behind_at), (1, Some(0)));
}

/// Runs `millrace rebuild`; returns whether it exited with 0, and what it printed.
fn rebuild(world: &World, more: &[&str]) -> (bool, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_millrace"))
        .args(["rebuild", "--nats-url", &world.server.url()])
        .args(more)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_beside_a_working_projector_is_found_by_a_rebuild_and_put_right_when_adopted() {
    let world = World::new().await;
    for number in 0..300 {
        world.job(&format!("job{number}")).await;
    }
    let [altered, deleted] = [world.job("altered").await, world.job("deleted").await];
    let _projector = world.projector();
    assert_eq!(world.verify().await.equal, 302);
    let (is_clean, text) = rebuild(&world, &[]);
    assert!(is_clean && text.contains("302"), "{text}");

    let projected = world.snapshots.projected(std::slice::from_ref(&altered)).await.unwrap().remove(&altered).unwrap();
    let state = JobState { attempt: 7, ..projected.state.unwrap() };
    world.snapshots.put(&state, projected.revision).await.unwrap();
    let context = jetstream::new(world.client.clone());
    let bucket = context.get_key_value(subjects::STATE_BUCKET).await.unwrap();
    bucket.delete(deleted.as_str()).await.unwrap();
    world.tamper("$KV.JOB_STATE.nobody".to_owned(), r#"{"seq":1}"#).await;

    let (is_clean, text) = rebuild(&world, &[]);
    assert!(!is_clean && text.contains("attempt is 7, but 1 by the log"), "{text}");
    assert!(!world.verify().await.is_clean(), "a rebuild that is not adopted changes nothing");

    // Other jobs are appended meanwhile.
    let (log, writing) = (world.log.clone(), tokio_util::sync::CancellationToken::new());
    let writer = tokio::spawn({
        let writing = writing.clone();
        async move {
            let mut number = 0;
            while !writing.is_cancelled() {
                let id = format!("meanwhile{number}").parse().unwrap();
                let submission = Submission { url: "http://127.0.0.1/video".parse().unwrap(), quality: None };
                let event = Event { at: now(), body: EventBody::Submitted(submission) };
                log.append(&Append::new(&id, 0, &event)).await.unwrap();
                number += 1;
            }
            number
        }
    });
    let (is_clean, text) = rebuild(&world, &["--adopt"]);
    writing.cancel();
    assert!(is_clean, "{text}");
    let jobs = 302 + writer.await.unwrap();
    let report = world.verify().await;
    assert!(report.is_clean() && report.jobs == jobs && jobs > 302, "{jobs}: {report:#?}");
    assert!(context.get_stream("KV_JOB_STATE_REBUILD").await.is_err(), "the bucket beside the live one is left");
}
