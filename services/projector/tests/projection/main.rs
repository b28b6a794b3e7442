//! The projector as a process against a real nats-server: whatever happens to it, the bucket ends as the fold of the log.

mod damage;
mod deaths;
mod failover;
mod quarantine;
mod revisions;
mod support;

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
    assert_eq!(projector.metric("millrace_projector_lag_entries").await, 0.0);
    assert_eq!(projector.metric("millrace_projector_conflicts_total").await, 0.0);
}
