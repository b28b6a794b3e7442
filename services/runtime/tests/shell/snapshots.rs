//! The bucket is a cache and never the truth: with any contents, a loaded state equals the fold of the log.

use std::collections::HashMap;

use async_nats::jetstream::kv::Store;
use futures::{StreamExt, stream};
use millrace_domain::{Command, JobId, JobState, fold_all, subjects::STATE_BUCKET};
use millrace_runtime::{jobs::Patience, publish::PublishError};

use crate::support::{World, events_subject, id};

impl World {
    async fn bucket(&self) -> Store {
        self.context.get_key_value(STATE_BUCKET).await.unwrap()
    }

    /// Projects the first entries of the job's log.
    async fn project(&self, job: &JobId, entries: usize) -> JobState {
        let history = self.history(job, 0).await.unwrap();
        let state = fold_all(None, job, &history[..entries]).unwrap();
        self.snapshots.put(&state, 0).await.unwrap();
        state
    }

    async fn assert_loaded(&self, jobs: &[JobId]) {
        let loaded = self.snapshots.load(jobs).await.unwrap();
        for job in jobs {
            let fold = self.fold(job).await;
            assert_eq!(loaded.get(job), fold.as_ref(), "{job}");
            assert_eq!(self.snapshots.get(job).await.unwrap(), fold);
            assert_eq!(self.snapshots.get_from_leader(job).await.unwrap(), fold);
        }
    }
}

#[tokio::test]
async fn what_is_loaded_equals_the_fold_of_the_log_however_far_the_projector_is() {
    let world = World::start().await;
    let mut jobs = Vec::new();
    for (events, projected) in [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (9, 0), (9, 1), (9, 5), (9, 9), (9, 10)] {
        let job = id(&format!("events{events}projected{projected}"));
        world.job(&job, events).await;
        if projected > 0 {
            world.project(&job, projected).await;
        }
        jobs.push(job);
    }
    let long = id("more_than_a_page");
    world.job(&long, 600).await;
    world.project(&long, 2).await;
    jobs.push(long);
    world.assert_loaded(&jobs).await;
}

#[tokio::test]
async fn messages_that_are_no_events_are_part_of_what_is_loaded() {
    let world = World::start().await;
    let mut jobs = Vec::new();
    for projected in 0..4 {
        let job = id(&format!("job{projected}"));
        world.job(&job, 2).await;
        world.publish(events_subject(&job), "garbage").await;
        world.publish(format!("jobs.audit.{job}"), "of another kind").await;
        if projected > 0 {
            world.project(&job, projected).await;
        }
        jobs.push(job);
    }
    world.assert_loaded(&jobs).await;
    assert_eq!(world.snapshots.get(&jobs[0]).await.unwrap().unwrap().seq, 4);
}

#[tokio::test]
async fn a_value_that_is_no_state_of_the_job_counts_as_absent_and_can_be_replaced() {
    let world = World::start().await;
    let bucket = world.bucket().await;
    let names = ["garbled", "foreign", "deleted", "purged", "emptied"];
    let jobs: Vec<JobId> = names.iter().map(|name| id(name)).collect();
    for job in &jobs {
        world.job(job, 4).await;
        world.project(job, 3).await;
    }
    let other = id("other");
    world.job(&other, 6).await;
    let other_state = world.project(&other, 7).await;
    bucket.put("garbled", r#"{"jobId":"garbled","seq":99}"#.into()).await.unwrap();
    bucket.put("foreign", serde_json::to_vec(&other_state).unwrap().into()).await.unwrap();
    bucket.delete("deleted").await.unwrap();
    bucket.purge("purged").await.unwrap();
    bucket.put("emptied", "".into()).await.unwrap();

    let asked = [jobs.as_slice(), std::slice::from_ref(&other)].concat();
    world.assert_loaded(&asked).await;
    let projected = world.snapshots.projected(&asked).await.unwrap();
    assert_eq!(projected[&other].state.as_ref(), Some(&other_state), "the foreign key does not hide it");
    for job in &jobs {
        assert_eq!(projected[job].state, None, "{job}");
        let fold = world.fold(job).await.unwrap();
        world.snapshots.put(&fold, projected[job].revision).await.expect("written over what is there");
        assert_eq!(world.snapshots.projected(std::slice::from_ref(job)).await.unwrap()[job].state, Some(fold));
    }
}

#[tokio::test]
async fn jobs_that_the_log_does_not_know_are_left_out_whatever_the_bucket_says() {
    let world = World::start().await;
    let (known, stray, unsubmitted) = (id("known"), id("stray"), id("unsubmitted"));
    world.job(&known, 2).await;
    let state = world.fold(&known).await.unwrap();
    world.snapshots.put(&JobState { job_id: stray.clone(), ..state }, 0).await.unwrap();
    world.publish(events_subject(&unsubmitted), r#"{"type":"completed","at":"2026-11-23T07:00:00Z"}"#).await;
    let loaded = world.snapshots.load(&[id("nobody"), known.clone(), stray, unsubmitted]).await.unwrap();
    assert_eq!(loaded.keys().collect::<Vec<_>>(), [&known]);
    assert!(world.snapshots.load(&[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn six_hundred_jobs_are_loaded_at_once_at_every_stage_of_projection() {
    let world = World::start().await;
    let jobs: Vec<JobId> = (0..600).map(|n| id(&format!("job{n}"))).collect();
    let made = jobs.iter().enumerate().map(async |(n, job)| {
        let events = n % 5;
        world.job(job, events).await;
        match n % 3 {
            0 => {}
            1 => drop(world.project(job, 1 + events / 2).await),
            _ => drop(world.project(job, 1 + events).await),
        }
        (job.clone(), world.fold(job).await.unwrap())
    });
    let folds: HashMap<JobId, JobState> = stream::iter(made).buffer_unordered(64).collect().await;
    let unknown = (0..50).map(|n| id(&format!("unknown{n}")));
    let asked: Vec<JobId> = unknown.chain(jobs).collect();
    assert_eq!(world.snapshots.load(&asked).await.unwrap(), folds);
}

#[tokio::test]
async fn states_too_large_for_one_answer_of_the_server_are_all_loaded() {
    let world = World::start().await;
    let jobs: Vec<JobId> = (0..512).map(|n| id(&format!("job{n}"))).collect();
    let made = jobs.iter().map(async |job| {
        world.job(job, 0).await;
        let mut state = world.fold(job).await.unwrap();
        // Larger than an event may be, but small enough for the bucket.
        state.worker = Some("w".repeat(120_000));
        world.snapshots.put(&state, 0).await.unwrap();
        (job.clone(), state)
    });
    let states: HashMap<JobId, JobState> = stream::iter(made).buffer_unordered(8).collect().await;
    let loaded = world.snapshots.load(&jobs).await.unwrap();
    assert_eq!(loaded.len(), states.len());
    assert!(loaded == states);
}

#[tokio::test]
async fn a_state_is_only_written_over_the_revision_that_it_was_folded_on() {
    let world = World::start().await;
    let job = id("job");
    world.job(&job, 3).await;
    let history = world.history(&job, 0).await.unwrap();
    let states: Vec<_> = (1..=4).map(|n| fold_all(None, &job, &history[..n]).unwrap()).collect();
    let first = world.snapshots.put(&states[1], 0).await.unwrap();
    assert_eq!(world.snapshots.put(&states[0], 0).await, Err(PublishError::WrongLastSequence));
    let second = world.snapshots.put(&states[2], first).await.unwrap();
    assert!(second > first);
    assert_eq!(world.snapshots.put(&states[3], first).await, Err(PublishError::WrongLastSequence));
    let projected = world.snapshots.projected(std::slice::from_ref(&job)).await.unwrap().remove(&job).unwrap();
    assert_eq!((projected.state.as_ref(), projected.revision), (Some(&states[2]), second));

    let racing = (0..20).map(|_| world.snapshots.put(&states[3], second));
    let won = futures::future::join_all(racing).await.into_iter().filter(Result::is_ok).count();
    assert_eq!(won, 1);
}

#[tokio::test]
async fn a_job_that_was_tried_again_is_loaded_whole_however_far_the_projector_is_and_whatever_its_version() {
    let world = World::start().await;
    for projected in 0..=4 {
        let job = id(&format!("job{projected}"));
        world.job(&job, 1).await;
        for command in [Command::Cancel, Command::Retry] {
            world.jobs.execute(&job, world.fold(&job).await, &command, Patience::Bounded).await.unwrap();
        }
        if projected > 0 {
            world.project(&job, projected).await;
        }
        world.assert_loaded(&[job]).await;
    }
    // The state of a version that did not keep the submission's sequence.
    let job = id("old");
    world.job(&job, 3).await;
    world.snapshots.put(&JobState { submitted_seq: 0, ..world.fold(&job).await.unwrap() }, 0).await.unwrap();
    world.assert_loaded(&[job]).await;
}
