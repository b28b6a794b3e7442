//! The projector as a process against a real nats-server: after every fault, the bucket ends as the fold of the log.

mod damage;
mod deaths;
mod failover;
mod quarantine;
mod revisions;
mod support;

use millrace_domain::subjects::{self, STATE_BUCKET};
use support::World;

#[tokio::test(flavor = "multi_thread")]
async fn every_state_in_the_bucket_equals_the_fold_of_the_jobs_log() {
    let world = World::start().await;
    let before = world.lives("before", 150).await;
    let projector = world.projector().await;
    let during = world.lives("during", 150).await;
    let jobs = [before, during].concat();
    world.assert_projected(&jobs).await;
    let last = world.last().await;
    support::until("everything is acknowledged", async || world.acknowledged().await == last).await;
    assert_eq!(projector.metric("millrace_projector_applied_total").await, last as f64, "each event is applied once");
    assert_eq!(projector.metric("millrace_projector_position").await, last as f64);
    assert_eq!(projector.metric("millrace_projector_conflicts_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lag_is_told_while_nothing_can_be_written_and_when_it_is_over() {
    let world = World::start().await;
    let projector = world.projector().await;
    world.context.delete_stream(subjects::bucket_stream(STATE_BUCKET)).await.unwrap();
    let jobs = world.lives("waiting", 20).await;
    let lag = async || projector.metric("millrace_projector_lag_entries").await;
    support::until("all of it is told to wait", async || lag().await == world.last().await as f64).await;
    millrace_runtime::provision::apply(&world.context, None).await.unwrap();
    world.assert_projected(&jobs).await;
    support::until("nothing is told to wait", async || lag().await == 0.0).await;
}
