//! Keys that vanish or are garbled, undecodable messages, and a start from zero.

use async_nats::jetstream;
use millrace_domain::{
    JobId,
    subjects::{self, Kind, PROJECTOR_CONSUMER, STATE_BUCKET, STREAM},
};
use millrace_runtime::provision;

use crate::{
    revisions::Revisions,
    support::{World, info, progress, until},
};

async fn bucket(world: &World) -> jetstream::kv::Store {
    world.context.get_key_value(STATE_BUCKET).await.unwrap()
}

async fn publish(world: &World, subject: String, payload: &'static str) {
    world.context.publish(subject, payload.into()).await.unwrap().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn states_that_were_deleted_purged_or_garbled_come_back_with_the_jobs_next_event() {
    let world = World::start().await;
    let _projector = world.projector().await;
    let mut running = Vec::new();
    for name in ["deleted", "purged", "garbled", "foreign", "untouched"] {
        let state = world.submit(&name.parse().unwrap()).await;
        running.push(world.report(state, info(name)).await);
    }
    let ids: Vec<JobId> = running.iter().map(|state| state.job_id.clone()).collect();
    world.assert_projected(&ids).await;

    let bucket = bucket(&world).await;
    bucket.delete("deleted").await.unwrap();
    bucket.purge("purged").await.unwrap();
    bucket.put("garbled", "{".into()).await.unwrap();
    let other = serde_json::to_vec(&running[4]).unwrap();
    bucket.put("foreign", other.into()).await.unwrap();
    assert_eq!(world.states(&ids).await.len(), 1, "only the untouched one is left");

    for state in running {
        world.report(state, progress(40)).await;
    }
    world.assert_projected(&ids).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_done_while_no_projector_runs_is_repaired_by_the_jobs_next_event() {
    let world = World::start().await;
    let projector = world.projector().await;
    let mut running = Vec::new();
    for name in ["deleted", "garbled"] {
        let state = world.submit(&name.parse().unwrap()).await;
        running.push(world.report(state, info(name)).await);
    }
    let ids: Vec<JobId> = running.iter().map(|state| state.job_id.clone()).collect();
    world.assert_projected(&ids).await;
    drop(projector);
    let bucket = bucket(&world).await;
    bucket.delete("deleted").await.unwrap();
    bucket.put("garbled", "[]".into()).await.unwrap();
    for state in running {
        world.report(state, progress(40)).await;
    }
    let _projector = world.projector().await;
    world.assert_projected(&ids).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_was_emptied_or_made_anew_fills_again() {
    let world = World::start().await;
    let _projector = world.projector().await;
    let first = world.submit(&"first".parse().unwrap()).await;
    let second = world.submit(&"second".parse().unwrap()).await;
    let ids = [first.job_id.clone(), second.job_id.clone()];
    world.assert_projected(&ids).await;
    let stream = world.context.get_stream(subjects::bucket_stream(STATE_BUCKET)).await.unwrap();
    stream.purge().await.unwrap();
    let first = world.report(first, info("first")).await;
    world.assert_projected(&ids[..1]).await;

    world.context.delete_stream(subjects::bucket_stream(STATE_BUCKET)).await.unwrap();
    world.report(first, progress(10)).await;
    world.report(second, info("second")).await;
    provision::apply(&world.context, None).await.unwrap();
    world.assert_projected(&ids).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_no_events_hold_nothing_up() {
    let world = World::start().await;
    let _projector = world.projector().await;
    let id: JobId = "job".parse().unwrap();
    let state = world.submit(&id).await;
    publish(&world, subjects::subject(Kind::Events, &id), "not JSON").await;
    publish(&world, subjects::subject(Kind::Events, &id), r#"{"type":"newer","at":"2026-11-23T07:00:00Z"}"#).await;
    publish(&world, subjects::subject(Kind::Events, &id), "").await;
    publish(&world, "jobs.audit.job".into(), "of another kind").await;
    publish(&world, format!("jobs.events.{}", "x".repeat(65)), "no job's id").await;
    publish(&world, "jobs.events.never_submitted".into(), r#"{"type":"completed","at":"2026-11-23T07:00:00Z"}"#).await;
    publish(&world, "jobs.submitted.unreadable".into(), "{}").await;
    // The earlier state is stale by now: the log shows it, and the command is decided again.
    world.report(state, info("after")).await;
    let others = world.lives("other", 10).await;
    world.assert_projected(&others).await;
    world.assert_projected(&[id.clone(), "never_submitted".parse().unwrap(), "unreadable".parse().unwrap()]).await;
    assert_eq!(
        world.states(std::slice::from_ref(&id)).await[&id].video_info.as_ref().unwrap().title.as_deref(),
        Some("after")
    );
    until("all of it is acknowledged", async || world.acknowledged().await == world.last().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_from_zero_on_states_that_are_there_changes_none() {
    let world = World::start().await;
    let projector = world.projector().await;
    let jobs = world.lives("job", 100).await;
    world.assert_projected(&jobs).await;
    drop(projector);
    let before = world.states(&jobs).await;

    let log = world.context.get_stream(STREAM).await.unwrap();
    log.delete_consumer(PROJECTOR_CONSUMER).await.unwrap();
    provision::apply(&world.context, None).await.unwrap();
    let revisions = Revisions::follow(&world).await;
    let projector = world.projector().await;
    until("all of it is applied", async || world.acknowledged().await == world.last().await).await;
    assert_eq!(projector.metric("millrace_projector_written_total").await, 0.0, "there was nothing to write");
    assert_eq!(world.states(&jobs).await, before);
    revisions.assert_rising(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_from_zero_into_an_empty_bucket_makes_every_state() {
    let world = World::start().await;
    let jobs = {
        let _projector = world.projector().await;
        let jobs = world.lives("job", 100).await;
        world.assert_projected(&jobs).await;
        jobs
    };
    let log = world.context.get_stream(STREAM).await.unwrap();
    log.delete_consumer(PROJECTOR_CONSUMER).await.unwrap();
    world.context.delete_stream(subjects::bucket_stream(STATE_BUCKET)).await.unwrap();
    provision::apply(&world.context, None).await.unwrap();
    let _projector = world.projector().await;
    world.assert_projected(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn holes_that_purged_jobs_leave_in_the_log_are_not_taken_for_gaps() {
    let world = World::start().await;
    let jobs = world.lives("job", 200).await;
    let log = world.context.get_stream(STREAM).await.unwrap();
    // The other jobs leave gaps in the sequences, at the beginning, at the end, and between.
    let (left, purged): (Vec<_>, Vec<_>) = jobs.iter().cloned().partition(|id| id.as_str().len() == 5);
    for id in &purged {
        log.purge().filter(subjects::job_filter(id)).await.unwrap();
    }
    let projector = world.projector().await;
    let more = world.lives("more", 50).await;
    world.assert_projected(&[left, more].concat()).await;
    until("all of it is acknowledged", async || world.acknowledged().await == world.last().await).await;
    assert!(world.states(&purged).await.is_empty());
    assert!(projector.metric("millrace_projector_gaps_total").await <= 1.0, "a hole was taken for a gap");
}
