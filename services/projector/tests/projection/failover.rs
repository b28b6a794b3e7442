//! How long writes pause when the active projector is lost while another one stands by.

use std::time::{Duration, Instant};

use millrace_domain::JobState;

use crate::{
    revisions::Revisions,
    support::{World, info, progress, until},
};

/// The promise is 3 s. A busy machine may take longer, but not as long as a lease.
const TAKEOVER_MAX: Duration = Duration::from_secs(5);
const ROUNDS: usize = 4;

/// Loses the active projector by `lose`, right after an event; returns the time until that event, and a later one if
/// there is one, is in the bucket.
async fn takeover(world: &World, state: JobState, goes_on: bool, lose: impl FnOnce()) -> (JobState, Duration) {
    let id = state.job_id.clone();
    let state = world.report(state, progress(20)).await;
    lose();
    let lost = Instant::now();
    let state = if goes_on { world.report(state, progress(30)).await } else { state };
    until("the other one has written", async || {
        world.states(std::slice::from_ref(&id)).await.get(&id).is_some_and(|written| written.seq >= state.seq)
    })
    .await;
    (state, lost.elapsed())
}

/// A running job whose newest state is written, which shows that a projector is active.
async fn running(world: &World, round: usize) -> JobState {
    let id = format!("job{round}").parse().unwrap();
    let state = world.submit(&id).await;
    let state = world.report(state, info("a title")).await;
    world.assert_projected(&[id]).await;
    state
}

fn report(what: &str, took: &[Duration]) {
    println!("{what}: the other one wrote after {took:.2?}");
    assert!(took.iter().all(|took| *took < TAKEOVER_MAX), "{what}: {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_writes_within_seconds_after_the_working_projector_was_killed() {
    let world = World::start().await;
    let revisions = Revisions::follow(&world).await;
    let mut active = world.projector().await;
    let mut took = [Vec::new(), Vec::new()];
    for round in 0..2 * ROUNDS {
        let state = running(&world, round).await;
        let standby = world.projector().await;
        assert_eq!(standby.metric("millrace_projector_applied_total").await, 0.0, "it only stands by");
        let goes_on = round % 2 == 0;
        let (_, time) = takeover(&world, state, goes_on, || active.service.kill9()).await;
        took[round % 2].push(time);
        active = standby;
    }
    report("killed, and events go on", &took[0]);
    report("killed, and nothing more happens", &took[1]);
    revisions.assert_rising(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_writes_within_seconds_after_the_working_projector_has_frozen() {
    let world = World::start().await;
    let revisions = Revisions::follow(&world).await;
    let mut active = world.projector().await;
    let mut took = [Vec::new(), Vec::new()];
    for round in 0..2 * ROUNDS {
        let state = running(&world, round).await;
        let standby = world.projector().await;
        let goes_on = round % 2 == 0;
        let (state, time) = takeover(&world, state, goes_on, || active.service.pause()).await;
        took[round % 2].push(time);
        // Two active projectors, and the frozen one holds messages whose states the other has written.
        active.service.resume();
        let state = world.report(state, progress(40)).await;
        world.assert_projected(&[state.job_id]).await;
        active.service.kill9();
        active = standby;
    }
    report("frozen, and events go on", &took[0]);
    report("frozen, and nothing more happens", &took[1]);
    let jobs: Vec<_> = (0..2 * ROUNDS).map(|round| format!("job{round}").parse().unwrap()).collect();
    world.assert_projected(&jobs).await;
    revisions.assert_rising(&world).await;
}
