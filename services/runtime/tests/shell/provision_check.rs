//! What services check before they start.

use std::pin::pin;

use async_nats::jetstream::{
    self,
    consumer::{FromConsumer, PullConsumer, pull},
    stream,
};
use millrace_domain::subjects::{
    self, KEY_BUCKET, PROJECTOR_CONSUMER, QUARANTINE_STREAM, STATE_BUCKET, STREAM, WORKERS_CONSUMER,
};
use millrace_harness::nats::{NatsOptions, NatsServer};
use millrace_runtime::provision::{CheckError, check, check_when_available};

use crate::support::{World, bare};

impl World {
    async fn change_log(&self, change: impl FnOnce(&mut stream::Config)) {
        let mut config = self.context.get_stream(STREAM).await.unwrap().cached_info().config.clone();
        change(&mut config);
        self.context.update_stream(config).await.unwrap();
    }

    /// The server allows few changes of a consumer: the test recreates it.
    async fn change_consumer(&self, name: &str, change: impl FnOnce(&mut pull::Config)) {
        let log = self.context.get_stream(STREAM).await.unwrap();
        let consumer: PullConsumer = log.get_consumer(name).await.unwrap();
        let mut config = pull::Config::try_from_consumer_config(consumer.cached_info().config.clone()).unwrap();
        change(&mut config);
        log.delete_consumer(name).await.unwrap();
        log.create_consumer(config).await.unwrap();
    }

    async fn assert_refused(&self, words: &[&str]) {
        let error = check(&self.context).await.expect_err("a service would not work with this").to_string();
        for word in words.iter().chain(&["millrace provision"]) {
            assert!(error.contains(word), "{word} is not in: {error}");
        }
    }
}

#[tokio::test]
async fn on_an_empty_server_everything_that_is_missing_is_named_at_once() {
    let (_server, context) = bare().await;
    let error = check(&context).await.unwrap_err().to_string();
    for name in [STREAM, STATE_BUCKET, KEY_BUCKET, QUARANTINE_STREAM, WORKERS_CONSUMER, PROJECTOR_CONSUMER] {
        assert!(error.contains(name), "{name} is not in: {error}");
    }
    assert!(error.contains("is missing") && error.contains("millrace provision"), "{error}");
}

#[tokio::test]
async fn one_missing_part_is_named_alone() {
    let world = World::start().await;
    world.context.delete_stream(subjects::bucket_stream(STATE_BUCKET)).await.unwrap();
    let error = check(&world.context).await.unwrap_err().to_string();
    assert!(error.contains("stream KV_JOB_STATE is missing") && !error.contains("JOB_KEYS"), "{error}");
}

#[tokio::test]
async fn a_log_that_is_not_republished_as_edges_listen_is_refused() {
    let world = World::start().await;
    let unsharded = "live.0.{{wildcard(1)}}.{{wildcard(2)}}";
    world.change_log(|config| config.republish.as_mut().unwrap().destination = unsharded.into()).await;
    world.assert_refused(&["stream JOBS", "republish", unsharded]).await;
    world.change_log(|config| config.republish = None).await;
    world.assert_refused(&["stream JOBS", "republish nothing"]).await;
}

#[tokio::test]
async fn a_log_that_replicas_do_not_answer_for_is_refused() {
    let world = World::start().await;
    world.change_log(|config| config.allow_direct = false).await;
    world.assert_refused(&["stream JOBS", "allow_direct"]).await;
}

#[tokio::test]
async fn a_log_that_forgets_by_itself_is_refused() {
    let world = World::start().await;
    world.change_log(|config| config.max_messages_per_subject = 1).await;
    world.assert_refused(&["stream JOBS", "max_msgs_per_subject"]).await;
}

#[tokio::test]
async fn workers_on_another_filter_are_refused() {
    let world = World::start().await;
    world.change_consumer(WORKERS_CONSUMER, |config| config.filter_subject = "jobs.events.*".into()).await;
    world.assert_refused(&["consumer workers", "filter_subject", "jobs.events.*"]).await;
}

#[tokio::test]
async fn a_projector_with_any_filter_is_refused() {
    let world = World::start().await;
    world.change_consumer(PROJECTOR_CONSUMER, |config| config.filter_subject = "jobs.events.*".into()).await;
    world.assert_refused(&["consumer projector", "filter_subject"]).await;
    let two = ["jobs.events.*", "jobs.submitted.*"].map(str::to_owned).to_vec();
    world
        .change_consumer(PROJECTOR_CONSUMER, |config| {
            (config.filter_subject, config.filter_subjects) = (String::new(), two);
        })
        .await;
    world.assert_refused(&["consumer projector", "filter_subjects"]).await;
}

#[tokio::test]
async fn a_consumer_that_delivers_no_payloads_or_by_a_backoff_of_its_own_is_refused() {
    let world = World::start().await;
    world.change_consumer(PROJECTOR_CONSUMER, |config| config.headers_only = true).await;
    world.assert_refused(&["consumer projector", "headers_only"]).await;
    let world = World::start().await;
    world.change_consumer(WORKERS_CONSUMER, |config| config.backoff = vec![std::time::Duration::from_secs(1)]).await;
    world.assert_refused(&["consumer workers", "backoff"]).await;
}

#[tokio::test]
async fn what_an_operator_may_tune_is_not_looked_at() {
    let world = World::start().await;
    world
        .change_log(|config| {
            config.description = Some("ours".into());
            config.max_age = std::time::Duration::from_secs(90 * 24 * 3600);
            config.max_bytes = 1_000_000_000;
            config.max_message_size = 100_000;
            config.duplicate_window = std::time::Duration::from_secs(30);
            config.metadata = [("owner".to_owned(), "me".to_owned())].into();
        })
        .await;
    world
        .change_consumer(WORKERS_CONSUMER, |config| {
            config.ack_wait = std::time::Duration::from_secs(7);
            config.max_ack_pending = 77;
            config.max_waiting = 777;
        })
        .await;
    check(&world.context).await.unwrap();
}

#[tokio::test]
async fn an_account_without_jetstream_is_told_so() {
    let config = std::env::temp_dir().join(format!("millrace-no-jetstream-{}.conf", std::process::id()));
    let text = "accounts { A { users: [{user: a, password: a}] } }\nno_auth_user: a\n";
    std::fs::write(&config, text).unwrap();
    let server = NatsServer::start(NatsOptions { config: Some(config.clone()), ..Default::default() }).await;
    std::fs::remove_file(&config).unwrap();
    let server = server.unwrap();
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let error = format!("{:#}", check(&context).await.unwrap_err());
    assert!(error.contains("JetStream"), "{error}");
}

#[tokio::test]
async fn a_service_that_starts_during_an_outage_waits_for_its_end() {
    let world = World::start().await;
    world.server.pause();
    let mut waiting = pin!(check_when_available(&world.context));
    // Both check at the same time; where one check has failed, so has the first check of the other.
    tokio::select! {
        biased;
        ended = &mut waiting => panic!("it does not wait: {ended:?}"),
        unanswered = check(&world.context) => {
            assert!(matches!(unanswered, Err(CheckError::Unavailable(_))), "{unanswered:?}");
        }
    }
    world.server.resume();
    assert_eq!(waiting.await, Ok(()));
}
