//! Provisioning against a real server: what it creates, keeps, changes and refuses.

use std::path::PathBuf;

use async_nats::jetstream::{
    Context,
    consumer::{FromConsumer, PullConsumer, pull},
    stream::{self, RetentionPolicy, StorageType},
};
use millrace_domain::subjects::{STREAM, WORKERS_CONSUMER};
use millrace_runtime::provision::{Done, apply, check};
use serde_json::{Value, json};

use crate::support::{World, bare, id, submitted};

/// Every file, with the API subjects that create and read its definition.
fn files() -> Vec<(PathBuf, Value, String, String)> {
    let folder = millrace_harness::checkout().join("nats");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    // Streams before consumers.
    paths.sort_by_key(|path| !path.file_name().unwrap().to_string_lossy().starts_with("stream-"));
    let read = |path: PathBuf| {
        let config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let name = config["name"].as_str().unwrap();
        let (create, info) = if path.file_name().unwrap().to_string_lossy().starts_with("stream-") {
            (format!("STREAM.CREATE.{name}"), format!("STREAM.INFO.{name}"))
        } else {
            (format!("CONSUMER.DURABLE.CREATE.{STREAM}.{name}"), format!("CONSUMER.INFO.{STREAM}.{name}"))
        };
        (path, config, create, info)
    };
    paths.into_iter().map(read).collect()
}

async fn request(context: &Context, subject: &str, body: &Value) -> Value {
    context.request(subject.to_owned(), body).await.unwrap()
}

/// Keys of the file whose value the server does not return. It may omit values that are false, zero or empty.
fn lost(wanted: &Value, actual: &Value) -> Vec<String> {
    let empty = [json!(false), json!(0), json!("")];
    let keys = wanted.as_object().unwrap().iter();
    keys.filter(|(key, value)| actual.get(key) != Some(value) && !(actual.get(key).is_none() && empty.contains(value)))
        .map(|(key, value)| format!("{key}: {value} became {}", actual[key]))
        .collect()
}

#[tokio::test]
async fn the_server_takes_every_file_as_it_is_and_understands_every_key() {
    let (_server, context) = bare().await;
    let files = files();
    assert_eq!(files.len(), 6);
    for (path, config, create, _) in &files {
        let body = if create.starts_with("CONSUMER") {
            json!({"stream_name": STREAM, "config": config, "action": "create"})
        } else {
            config.clone()
        };
        let answer = request(&context, create, &body).await;
        assert_eq!(answer["error"], Value::Null, "{}", path.display());
        assert_eq!(lost(config, &answer["config"]), [] as [&str; 0], "{}", path.display());
    }
    check(&context).await.expect("what the files say is what services need");
    let kept = apply(&context, None).await.unwrap();
    assert!(kept.iter().all(|(_, done)| *done == Done::Kept), "{kept:?}");
}

#[tokio::test]
async fn what_apply_makes_is_what_the_files_say_and_a_second_time_everything_is_kept() {
    let (_server, context) = bare().await;
    let made = apply(&context, None).await.unwrap();
    assert!(made.len() == 6 && made.iter().all(|(_, done)| *done == Done::Created), "{made:?}");
    for (path, config, _, info) in files() {
        let answer = request(&context, &info, &json!({})).await;
        assert_eq!(lost(&config, &answer["config"]), [] as [&str; 0], "{}", path.display());
    }
    for replicas in [None, Some(1)] {
        let kept = apply(&context, replicas).await.unwrap();
        assert!(kept.iter().all(|(_, done)| *done == Done::Kept), "{kept:?}");
    }
    check(&context).await.unwrap();
}

#[tokio::test]
async fn what_may_be_changed_is_changed_and_nothing_in_it_is_lost() {
    let world = World::start().await;
    world.append(&id("job"), 0, submitted()).await;
    let log = world.context.get_stream(STREAM).await.unwrap();
    let mut config = log.cached_info().config.clone();
    let wanted = config.clone();
    config.republish = None;
    config.max_message_size = 1000;
    config.duplicate_window = std::time::Duration::from_secs(1);
    config.metadata = [("owner".to_owned(), "the operator".to_owned())].into();
    world.context.update_stream(config).await.unwrap();
    let consumer: PullConsumer = log.get_consumer(WORKERS_CONSUMER).await.unwrap();
    let mut config = pull::Config::try_from_consumer_config(consumer.cached_info().config.clone()).unwrap();
    config.ack_wait = std::time::Duration::from_secs(7);
    config.max_ack_pending = 5;
    config.backoff = vec![std::time::Duration::from_secs(1)];
    log.update_consumer(config).await.unwrap();

    let done: Vec<_> = apply(&world.context, None).await.unwrap().into_iter().map(|(_, done)| done).collect();
    assert_eq!(done, [Done::Updated, Done::Kept, Done::Kept, Done::Kept, Done::Updated, Done::Kept]);
    check(&world.context).await.unwrap();
    let config = world.context.get_stream(STREAM).await.unwrap().cached_info().config.clone();
    assert_eq!((&config.republish, config.max_message_size), (&wanted.republish, wanted.max_message_size));
    assert_eq!(config.metadata["owner"], "the operator", "what the file does not speak of stays");
    let consumer: PullConsumer = log.get_consumer(WORKERS_CONSUMER).await.unwrap();
    let config = &consumer.cached_info().config;
    assert_eq!((config.ack_wait.as_secs(), config.backoff.len()), (30, 0));
    assert_eq!(world.messages().await, 1);
    let again = apply(&world.context, None).await.unwrap();
    assert!(again.iter().all(|(_, done)| *done == Done::Kept), "{again:?}");
}

#[tokio::test]
async fn what_would_lose_data_is_refused_and_nothing_is_touched() {
    let base = || stream::Config { name: STREAM.into(), subjects: vec!["jobs.*.*".into()], ..Default::default() };
    let cases = [
        (stream::Config { storage: StorageType::Memory, ..base() }, "storage"),
        (stream::Config { retention: RetentionPolicy::WorkQueue, ..base() }, "retention"),
        (stream::Config { subjects: vec!["jobs.*.*".into(), "audit.>".into()], ..base() }, "subjects"),
    ];
    for (config, key) in cases {
        let (_server, context) = bare().await;
        context.create_stream(config).await.unwrap();
        context.publish("jobs.events.job", "x".into()).await.unwrap().await.unwrap();
        let error = apply(&context, None).await.unwrap_err().to_string();
        assert!(error.contains("nats/stream-JOBS.json") && error.contains(key), "{error}");
        let mut stream = context.get_stream(STREAM).await.unwrap();
        assert_eq!(stream.info().await.unwrap().state.messages, 1);
    }
}

#[tokio::test]
async fn a_consumer_that_would_leave_out_messages_is_refused() {
    let world = World::start().await;
    let log = world.context.get_stream(STREAM).await.unwrap();
    log.delete_consumer(WORKERS_CONSUMER).await.unwrap();
    let config = pull::Config {
        durable_name: Some(WORKERS_CONSUMER.into()),
        filter_subject: "jobs.events.*".into(),
        ..Default::default()
    };
    log.create_consumer(config).await.unwrap();
    let error = apply(&world.context, None).await.unwrap_err().to_string();
    assert!(error.contains("nats/consumer-workers.json") && error.contains("filter_subject"), "{error}");
}

#[tokio::test]
async fn the_number_of_waiting_pulls_which_the_server_does_not_change_is_no_obstacle() {
    let world = World::start().await;
    let log = world.context.get_stream(STREAM).await.unwrap();
    let consumer: PullConsumer = log.get_consumer(WORKERS_CONSUMER).await.unwrap();
    let mut config = pull::Config::try_from_consumer_config(consumer.cached_info().config.clone()).unwrap();
    config.max_waiting = 100;
    log.delete_consumer(WORKERS_CONSUMER).await.unwrap();
    log.create_consumer(config).await.unwrap();
    check(&world.context).await.unwrap();
    let done = apply(&world.context, None).await.unwrap();
    assert!(done.iter().all(|(_, done)| *done == Done::Kept), "{done:?}");
}
