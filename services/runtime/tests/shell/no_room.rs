//! A server whose disk is full.

use std::time::Duration;

use async_nats::{HeaderMap, jetstream};
use millrace_domain::subjects::{QUARANTINE_STREAM, STREAM};
use millrace_harness::nats::{NatsOptions, NatsServer};
use millrace_runtime::{
    provision,
    publish::{PublishError, publish},
};

use crate::support::until;

#[tokio::test]
async fn a_message_that_finds_no_room_is_told_apart_and_is_taken_when_there_is_room_again() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("nats.conf");
    // Provisioned streams reserve room, so the disk shrinks afterwards.
    let disk = |size: &str| {
        let text = format!("jetstream {{ max_file_store: {size}, store_dir: $STORE_DIR }}\n");
        std::fs::write(&config, text).unwrap();
    };
    disk("1GB");
    let options = NatsOptions { config: Some(config.clone()), ..Default::default() };
    let mut server = NatsServer::start(options).await.unwrap();
    let client = async_nats::connect(server.url()).await.unwrap();
    let context = jetstream::new(client.clone());
    provision::apply(&context, None).await.unwrap();
    context.delete_stream(QUARANTINE_STREAM).await.unwrap();
    disk("2MB");
    server.restart().await.unwrap();
    until("the stream is back", async || context.get_stream(STREAM).await.is_ok()).await;
    let send = async || {
        let payload = vec![b'x'; 60_000].into();
        publish(&client, "jobs.events.a", HeaderMap::new(), payload, Duration::from_secs(5)).await
    };
    let mut stored = 0;
    let error = loop {
        match send().await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 100, "the server takes more than it has room for");
    };
    assert!(matches!(error, PublishError::NoRoom(_)), "after {stored}: {error:?}");
    context.get_stream(STREAM).await.unwrap().purge().await.unwrap();
    send().await.expect("there is room again");
}
