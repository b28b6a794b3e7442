//! Undecodable messages: each is quarantined with its reason, once, and blocks nothing.

use async_nats::jetstream::message::StreamMessage;
use millrace_domain::{
    JobId,
    subjects::{
        self, PROJECTOR_CONSUMER, QUARANTINE_REASON, QUARANTINE_SEQUENCE, QUARANTINE_STREAM, QUARANTINE_SUBJECT, STREAM,
    },
};
use millrace_runtime::provision;

use crate::support::{World, info, until};

async fn publish(world: &World, subject: &str, payload: impl Into<bytes::Bytes>) -> u64 {
    world.context.publish(subject.to_owned(), payload.into()).await.unwrap().await.unwrap().sequence
}

async fn quarantined(world: &World, subject: &str, seq: u64) -> StreamMessage {
    let stream = world.context.get_stream(QUARANTINE_STREAM).await.unwrap();
    let subject = subjects::quarantine_subject(subject, seq);
    let message = stream.get_last_raw_message_by_subject(&subject).await;
    message.unwrap_or_else(|error| panic!("{subject} is not in the quarantine: {error}"))
}

async fn count(world: &World) -> u64 {
    world.context.get_stream(QUARANTINE_STREAM).await.unwrap().cached_info().state.messages
}

async fn until_acknowledged(world: &World) {
    until("all of it is acknowledged", async || world.acknowledged().await == world.last().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_that_cannot_be_read_is_kept_with_its_reason_and_holds_nothing_up() {
    let world = World::start().await;
    let projector = world.projector().await;
    let id: JobId = "job".parse().unwrap();
    let state = world.submit(&id).await;
    // A reason that quotes a line break, which would end a header; and the largest message that the log accepts.
    let lines = "{\"type\":\"uploading\",\"at\":\"2026-11-23T07:00:00Z\",\"storageProvider\":\"x\\r\\nB: c\"}";
    let garbage = [
        ("jobs.events.job", b"not JSON".to_vec(), "expected"),
        ("jobs.events.job", b"".to_vec(), "EOF"),
        ("jobs.events.job", b"\x00\xff\r\n\r\n".to_vec(), "expected"),
        ("jobs.events.job", lines.as_bytes().to_vec(), "unknown variant"),
        ("jobs.events.job", vec![b'x'; 69_000], "expected"),
        ("jobs.events.never_submitted", b"[".to_vec(), "EOF"),
        ("jobs.submitted.job", b"{}".to_vec(), "missing field"),
        ("jobs.submitted.unreadable", b"null".to_vec(), "invalid type"),
        ("jobs.audit.job", b"of another kind".to_vec(), "does not belong to a job"),
    ];
    let mut sent = Vec::new();
    for (subject, payload, _) in &garbage {
        sent.push(publish(&world, subject, payload.clone()).await);
    }
    // A tag of a later version is not an undecodable message.
    publish(&world, "jobs.events.job", &br#"{"type":"newer","at":"2026-11-23T07:00:00Z"}"#[..]).await;
    world.report(state, info("after")).await;
    let others = world.lives("other", 10).await;
    world.assert_projected(&[others, vec![id]].concat()).await;
    until_acknowledged(&world).await;

    for ((subject, payload, reason), seq) in garbage.iter().zip(sent) {
        let message = quarantined(&world, subject, seq).await;
        let header = |name: &str| message.headers.get(name).expect("a header").as_str().to_owned();
        assert_eq!(&message.payload[..], &payload[..], "byte for byte");
        assert_eq!((header(QUARANTINE_SUBJECT), header(QUARANTINE_SEQUENCE)), ((*subject).to_owned(), seq.to_string()));
        assert!(header(QUARANTINE_REASON).contains(reason), "{}", header(QUARANTINE_REASON));
    }
    assert_eq!(count(&world).await, garbage.len() as u64);
    assert_eq!(projector.metric("millrace_projector_quarantined_total").await, garbage.len() as f64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_again_is_in_the_quarantine_once() {
    let world = World::start().await;
    let projector = world.projector().await;
    let seq = publish(&world, "jobs.events.job", "garbage").await;
    until_acknowledged(&world).await;
    drop(projector);
    let log = world.context.get_stream(STREAM).await.unwrap();
    log.delete_consumer(PROJECTOR_CONSUMER).await.unwrap();
    provision::apply(&world.context, None).await.unwrap();
    let _projector = world.projector().await;
    until_acknowledged(&world).await;
    quarantined(&world, "jobs.events.job", seq).await;
    assert_eq!(count(&world).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantine_that_takes_nothing_holds_nothing_up_and_is_counted() {
    let world = World::start().await;
    let projector = world.projector().await;
    world.context.delete_stream(QUARANTINE_STREAM).await.unwrap();
    for n in 0..20 {
        publish(&world, "jobs.events.job", format!("garbage {n}")).await;
    }
    let jobs = world.lives("job", 20).await;
    world.assert_projected(&jobs).await;
    until_acknowledged(&world).await;
    assert_eq!(projector.metric("millrace_projector_unquarantined_total").await, 20.0);

    provision::apply(&world.context, None).await.unwrap();
    let seq = publish(&world, "jobs.events.job", "more").await;
    until_acknowledged(&world).await;
    quarantined(&world, "jobs.events.job", seq).await;
    assert_eq!(projector.metric("millrace_projector_quarantined_total").await, 1.0);
}
