//! The nats-server of a test: its data outlives a restart, and the server ends with its value.

use std::{path::Path, time::Duration};

use async_nats::jetstream::{self, stream};
use millrace_harness::nats::{NatsOptions, NatsServer};

async fn stream_of(server: &NatsServer) -> stream::Stream {
    let client = async_nats::connect(server.url()).await.unwrap();
    let config = stream::Config { name: "TEST".into(), subjects: vec!["test.>".into()], ..Default::default() };
    jetstream::new(client).get_or_create_stream(config).await.unwrap()
}

async fn publish(server: &NatsServer) {
    let client = async_nats::connect(server.url()).await.unwrap();
    jetstream::new(client).publish("test.one", "payload".into()).await.unwrap().await.unwrap();
}

#[tokio::test]
async fn jetstream_data_outlives_a_kill_and_a_restart_on_the_same_port() {
    let mut server = NatsServer::start(NatsOptions::default()).await.unwrap();
    let url = server.url();
    stream_of(&server).await;
    publish(&server).await;
    let pid = server.pid();
    server.kill();
    assert!(async_nats::connect(&url).await.is_err());
    server.restart().await.unwrap();
    assert_eq!(server.url(), url);
    assert_ne!(server.pid(), pid);
    assert_eq!(stream_of(&server).await.info().await.unwrap().state.messages, 1);
    server.stop().await.unwrap();
    server.restart().await.unwrap();
    assert_eq!(stream_of(&server).await.info().await.unwrap().state.messages, 1);
}

#[tokio::test]
async fn dropping_ends_the_process_and_removes_the_temporary_store() {
    let server = NatsServer::start(NatsOptions::default()).await.unwrap();
    stream_of(&server).await;
    let (pid, store) = (server.pid(), server.store().to_owned());
    assert!(store.is_dir());
    drop(server);
    assert!(!store.exists());
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test]
async fn a_panicking_test_leaves_nothing_behind() {
    let (pid, store) = tokio::spawn(async {
        let server = NatsServer::start(NatsOptions::default()).await.unwrap();
        let left = (server.pid(), server.store().to_owned());
        let panic = tokio::spawn(async move {
            let _server = server;
            panic!("on purpose");
        });
        assert!(panic.await.unwrap_err().is_panic());
        left
    })
    .await
    .unwrap();
    assert!(!store.exists());
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test]
async fn a_given_store_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let options = NatsOptions { store: Some(dir.path().to_owned()), ..Default::default() };
    let server = NatsServer::start(options.clone()).await.unwrap();
    stream_of(&server).await;
    publish(&server).await;
    drop(server);
    let server = NatsServer::start(options).await.unwrap();
    assert_eq!(stream_of(&server).await.info().await.unwrap().state.messages, 1);
}

#[tokio::test]
async fn a_configuration_file_is_used_and_a_bad_one_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("nats.conf");
    let options = || NatsOptions { config: Some(config.clone()), ..Default::default() };
    for jetstream in ["max_file_store: 10M\n# not here: store_dir\n", "store_dir: $STORE_DIR, max_file_store: 10M"] {
        std::fs::write(
            &config,
            format!("port: 1\nserver_name: other\nmax_payload: 2048\njetstream {{ {jetstream} }}\n"),
        )
        .unwrap();
        let server = NatsServer::start(options()).await.unwrap();
        let client = async_nats::connect(server.url()).await.unwrap();
        assert_eq!(client.server_info().max_payload, 2048);
        stream_of(&server).await;
        assert!(server.store().join("jetstream").is_dir());
    }
    for (text, shown) in
        [("no_such_setting: 1\n", "no_such_setting"), ("jetstream { store_dir: /data }\n", "$STORE_DIR")]
    {
        std::fs::write(&config, text).unwrap();
        let error = NatsServer::start(options()).await.err().unwrap().to_string();
        assert!(error.contains(shown), "{error}");
    }
}

#[tokio::test]
async fn a_frozen_server_answers_again_when_resumed() {
    let server = NatsServer::start(NatsOptions::default()).await.unwrap();
    let stream = stream_of(&server).await;
    server.pause();
    assert!(tokio::time::timeout(Duration::from_millis(300), stream.get_info()).await.is_err());
    server.resume();
    stream.get_info().await.unwrap();
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_says_so() {
    let first = NatsServer::start(NatsOptions::default()).await.unwrap();
    let second = NatsServer::start(NatsOptions { port: Some(first.client_port()), ..Default::default() }).await;
    let error = second.err().unwrap().to_string();
    assert!(error.contains("address already in use"), "{error}");
}
