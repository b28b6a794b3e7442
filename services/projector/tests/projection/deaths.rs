//! Projectors that die or freeze: no entry is left out, and no state goes back.

use crate::{
    revisions::Revisions,
    support::{LIMIT, World, info, progress, until},
};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_handed_to_a_killed_projector_and_never_applied_is_applied_by_the_next() {
    let world = World::start().await;
    let jobs = world.lives("job", 400).await;
    let revisions = Revisions::follow(&world).await;
    let mut first = world.projector().await;
    until("it has begun", async || revisions.count() > 0).await;
    first.service.kill9();
    let acknowledged = world.acknowledged().await;
    assert!(acknowledged < world.last().await, "it was killed too late for this test to say anything");
    let second = world.projector().await;
    // The server continues after the messages of the first projector, and the second one acknowledges all of them.
    let more = world.lives("more", 1).await;
    world.assert_projected(&[jobs, more].concat()).await;
    // One gap behind the first projector's messages, and one more if the server redelivers some of them first.
    let gaps = second.metric("millrace_projector_gaps_total").await;
    assert!((1.0..=2.0).contains(&gaps), "{gaps}");
    revisions.assert_rising(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_events_before_a_kill_are_applied_also_when_no_others_follow() {
    let world = World::start().await;
    let jobs = world.lives("job", 300).await;
    let revisions = Revisions::follow(&world).await;
    let mut first = world.projector().await;
    until("it has begun", async || revisions.count() > 0).await;
    first.service.kill9();
    let _second = world.projector().await;
    world.assert_projected(&jobs).await;
    revisions.assert_rising(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projector_killed_again_and_again_while_events_arrive_leaves_the_same_states() {
    let world = World::start().await;
    let revisions = Revisions::follow(&world).await;
    let writing = async {
        let mut jobs = Vec::new();
        for round in 0..6 {
            jobs.extend(world.lives(&format!("round{round}-"), 60).await);
        }
        jobs
    };
    let killing = async {
        for _ in 0..4 {
            let mut projector = world.projector().await;
            let before = revisions.count();
            until("it works", async || revisions.count() > before + 20 || world.last().await > 3000).await;
            projector.service.kill9();
        }
    };
    let (mut jobs, ()) = tokio::join!(writing, killing);
    let _last = world.projector().await;
    jobs.extend(world.lives("last", 1).await);
    world.assert_projected(&jobs).await;
    revisions.assert_rising(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_from_a_killed_projector() {
    let world = World::start().await;
    let revisions = Revisions::follow(&world).await;
    let mut active = world.projector().await;
    let early = world.lives("early", 20).await;
    world.assert_projected(&early).await;
    let standby = world.projector().await;
    let between = world.lives("between", 20).await;
    world.assert_projected(&between).await;
    assert_eq!(standby.metric("millrace_projector_applied_total").await, 0.0, "it only stands by");

    active.service.kill9();
    let late = world.lives("late", 40).await;
    world.assert_projected(&[early, between, late].concat()).await;
    assert!(standby.metric("millrace_projector_applied_total").await > 0.0);
    revisions.assert_rising(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_projector_that_goes_on_after_its_standby_has_taken_over_does_no_harm() {
    let world = World::start().await;
    let revisions = Revisions::follow(&world).await;
    let active = world.projector().await;
    let mut job = world.submit(&"long".parse().unwrap()).await;
    job = world.report(job, info("before")).await;
    let early = world.lives("early", 20).await;
    world.assert_projected(&early).await;
    let standby = world.projector().await;

    active.service.pause();
    // Some of these are delivered to the frozen projector.
    let mut jobs = world.lives("frozen", 100).await;
    job = world.report(job, progress(50)).await;
    jobs.push(job.job_id.clone());
    world.assert_projected(&jobs).await;
    assert!(standby.metric("millrace_projector_applied_total").await > 0.0);

    active.service.resume();
    for percent in 51..60 {
        job = world.report(job, progress(percent)).await;
        jobs.extend(world.lives(&format!("resumed{percent}-"), 10).await);
    }
    jobs.extend(early);
    world.assert_projected(&jobs).await;

    // Now the projector that was frozen is the only one.
    drop(standby);
    world.report(job, progress(90)).await;
    jobs.extend(world.lives("alone", 20).await);
    world.assert_projected(&jobs).await;
    revisions.assert_rising(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projector_that_is_told_to_stop_ends_well_and_the_next_goes_on() {
    let world = World::start().await;
    let mut first = world.projector().await;
    let jobs = world.lives("job", 200).await;
    let status = first.service.terminate(LIMIT).await.unwrap();
    assert_eq!(status.code(), Some(0));
    let _second = world.projector().await;
    let more = world.lives("more", 1).await;
    world.assert_projected(&[jobs, more].concat()).await;
}
