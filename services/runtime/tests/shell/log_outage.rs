//! Appends while the server does not respond.

use millrace_domain::{JobId, subjects};
use millrace_runtime::{
    direct::ReadError,
    log::{Append, AppendError, Log},
};
use tokio::task::JoinHandle;

use crate::support::{World, body, event, id, seqs, submitted, until};

/// Sends an append in a task and waits until it has been repeated.
async fn append_into_the_outage(world: &World, job: &JobId) -> JoinHandle<Result<u64, AppendError>> {
    let append = Append::new(job, 0, &event(body(0)));
    let log: Log = world.log.clone();
    let sending = tokio::spawn(async move { log.append(&append).await });
    until("the append is repeated", async || world.counter("millrace_log_repeated_total") > 0).await;
    assert!(!sending.is_finished());
    sending
}

async fn assert_stored_once(world: &World, job: &JobId, seq: u64) {
    let history = world.history(job, 0).await.unwrap();
    assert_eq!(seqs(&history), [history[0].seq, seq]);
    assert_eq!(world.messages().await, 2);
}

#[tokio::test]
async fn an_append_to_a_frozen_server_succeeds_exactly_once_when_it_goes_on() {
    let world = World::start().await;
    let job = id("job");
    world.append(&job, 0, submitted()).await;
    world.server.pause();
    let sending = append_into_the_outage(&world, &job).await;
    world.server.resume();
    let seq = sending.await.unwrap().expect("stored");
    assert_stored_once(&world, &job, seq).await;
}

#[tokio::test]
async fn an_append_to_a_killed_server_succeeds_exactly_once_when_it_is_back() {
    let mut world = World::start().await;
    let job = id("job");
    world.append(&job, 0, submitted()).await;
    world.server.kill();
    let sending = append_into_the_outage(&world, &job).await;
    world.server.restart().await.unwrap();
    let seq = sending.await.unwrap().expect("stored");
    assert_stored_once(&world, &job, seq).await;
}

#[tokio::test]
async fn many_appends_that_meet_a_kill_are_each_stored_exactly_once() {
    let mut world = World::start().await;
    let (log, jobs) = (world.log.clone(), 200);
    let writing = tokio::spawn(async move {
        let appends: Vec<_> = (0..jobs).map(|n| Append::new(&id(&format!("job{n}")), 0, &event(submitted()))).collect();
        futures::future::join_all(appends.iter().map(|append| log.append(append))).await
    });
    until("some are stored", async || world.counter("millrace_log_appended_total") > 0).await;
    world.server.kill();
    world.server.restart().await.unwrap();
    let mut stored: Vec<u64> = writing.await.unwrap().into_iter().map(|outcome| outcome.expect("stored")).collect();
    stored.sort_unstable();
    stored.dedup();
    assert_eq!(stored.len(), jobs);
    assert_eq!(world.messages().await, jobs as u64);
}

#[tokio::test]
async fn reads_of_a_frozen_server_fail_instead_of_waiting_for_ever() {
    let world = World::start().await;
    let job = id("job");
    world.append(&job, 0, submitted()).await;
    world.server.pause();
    let filters = [subjects::job_filter(&job)];
    let (history, last, leader) =
        tokio::join!(world.history(&job, 0), world.log.last(&filters), world.history_of_leader(&job, 0));
    assert!(matches!((history, last, leader), (Err(ReadError(_)), Err(ReadError(_)), Err(ReadError(_)))));
    world.server.resume();
    assert_eq!(world.history(&job, 0).await.unwrap().len(), 1);
}
