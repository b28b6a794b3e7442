//! Commands that run concurrently with the commands of other writers.

use futures::future::join_all;
use millrace_domain::{
    Command, EventBody, JobId, JobState, Refusal, Stage,
    event::{Progress, StoredFile},
    fold_all,
    subjects::{self, Kind},
};
use millrace_runtime::jobs::{ExecuteError, Patience};

use crate::support::{World, id, info, submission};

type Outcome = Result<JobState, ExecuteError>;

impl World {
    async fn execute(&self, id: &JobId, known: Option<&JobState>, command: Command) -> Outcome {
        self.jobs.execute(id, known.cloned(), &command, Patience::Bounded).await
    }

    async fn submit(&self, id: &JobId) -> JobState {
        self.execute(id, None, Command::Submit(submission())).await.expect("submitted")
    }

    /// Log, snapshot and the outcomes of all writers agree.
    async fn assert_agreement(&self, id: &JobId, outcomes: &[Outcome]) {
        let history = self.history(id, 0).await.unwrap();
        let fold = fold_all(None, id, &history).unwrap();
        assert_eq!(self.snapshots.get(id).await.unwrap().as_ref(), Some(&fold));
        assert_eq!(fold.seq, history.last().unwrap().seq);
        for state in outcomes.iter().flatten() {
            let until = history.iter().position(|entry| entry.seq == state.seq).expect("it is in the log");
            assert_eq!(Some(state), fold_all(None, id, &history[..=until]).as_ref(), "told and written differ");
        }
        let bodies: Vec<_> = history.iter().map(|entry| &entry.event.as_ref().unwrap().body).collect();
        let end = bodies
            .iter()
            .position(|body| matches!(body, EventBody::Completed | EventBody::Failed(_) | EventBody::Canceled));
        assert!(end.is_none_or(|end| end == bodies.len() - 1), "something follows the end: {bodies:?}");
        let started = bodies.iter().filter_map(|body| match body {
            EventBody::Started { attempt, .. } => Some(*attempt),
            _ => None,
        });
        assert!(started.clone().eq(1..=u32::try_from(started.count()).unwrap()), "attempts rise by one: {bodies:?}");
    }
}

/// A worker's claim for the submission that `submitted` includes.
fn claim(worker: usize, submitted: &JobState) -> Command {
    Command::Claim {
        worker: format!("worker{worker}"),
        submitted_seq: submitted.submitted_seq,
        budget: millrace_domain::retry::Budget::default(),
    }
}

fn report(attempt: u32, body: EventBody) -> Command {
    Command::Report { attempt, body }
}

fn progress() -> EventBody {
    EventBody::Progress(Progress { downloaded_bytes: 1, total_bytes: Some(2), ..Progress::default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn cancels_and_claims_by_many_at_once_give_exactly_one_end() {
    let world = World::start().await;
    for round in 0..5 {
        let job = id(&format!("job{round}"));
        let state = world.submit(&job).await;
        let racing = (0..24).map(|n| {
            let command = if n % 3 == 0 { Command::Cancel } else { claim(n, &state) };
            let (jobs, job, state) = (world.jobs.clone(), job.clone(), state.clone());
            tokio::spawn(async move { jobs.execute(&job, Some(state), &command, Patience::Bounded).await })
        });
        let outcomes: Vec<Outcome> = join_all(racing).await.into_iter().map(Result::unwrap).collect();
        let ends = outcomes.iter().flatten().filter(|state| state.is_end()).count();
        let last = world.fold(&job).await.unwrap();
        assert_eq!(last.stage, Stage::Canceled);
        assert_eq!(ends, 1, "one cancel ended the job and was told so: {outcomes:#?}");
        for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            let lost = matches!(error, ExecuteError::Unavailable(why) if why.contains("other writers were first"));
            assert!(lost || *error == ExecuteError::Refused(Refusal::Ended(Stage::Canceled)), "{error:?}");
        }
        world.assert_agreement(&job, &outcomes).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_by_the_worker_and_the_end_by_a_person_exclude_each_other() {
    let world = World::start().await;
    let file = StoredFile {
        key: "jobs/job/1/v.mp4".into(),
        file_size: 1,
        sha256: "0".repeat(64),
        content_type: "video/mp4".into(),
        file_name: "v.mp4".into(),
    };
    for round in 0..10 {
        let job = id(&format!("job{round}"));
        let mut state = world.submit(&job).await;
        state = world.execute(&job, Some(&state), claim(1, &state)).await.unwrap();
        let provider = millrace_domain::Provider::Local;
        let downloaded = EventBody::Downloaded { file_size: 1, storage_provider: provider, video_info: None };
        for body in [info("x"), downloaded, EventBody::Uploaded(file.clone())] {
            state = world.execute(&job, Some(&state), report(1, body)).await.unwrap();
        }
        let (completed, canceled) = tokio::join!(
            world.execute(&job, Some(&state), report(1, EventBody::Completed)),
            world.execute(&job, Some(&state), Command::Cancel)
        );
        assert!(completed.is_ok() != canceled.is_ok(), "{completed:?} {canceled:?}");
        let winner = completed.as_ref().or(canceled.as_ref()).unwrap().stage;
        let loser = completed.as_ref().err().or(canceled.as_ref().err()).unwrap();
        assert_eq!(*loser, ExecuteError::Refused(Refusal::Ended(winner)));
        world.assert_agreement(&job, &[completed, canceled]).await;
    }
}

#[tokio::test]
async fn a_job_is_submitted_once_whatever_the_submitter_knows() {
    let world = World::start().await;
    let job = id("job");
    let state = world.submit(&job).await;
    for known in [None, Some(&state)] {
        let again = world.execute(&job, known, Command::Submit(submission())).await;
        assert_eq!(again, Err(ExecuteError::Refused(Refusal::Exists)));
    }
    world.execute(&job, Some(&state), Command::Cancel).await.unwrap();
    let again = world.execute(&job, None, Command::Submit(submission())).await;
    assert_eq!(again, Err(ExecuteError::Refused(Refusal::Exists)), "also after its end");
    assert_eq!(world.messages().await, 2);
}

#[tokio::test]
async fn a_command_decided_on_a_stale_state_is_decided_anew() {
    let world = World::start().await;
    let job = id("job");
    let queued = world.submit(&job).await;
    let started = world.execute(&job, Some(&queued), claim(1, &queued)).await.unwrap();
    let info = world.execute(&job, Some(&started), report(1, info("x"))).await.unwrap();
    assert_eq!(info.stage, Stage::Downloading);
    // A second worker that still sees it queued: the first one has lost its lease.
    let taken = world.execute(&job, Some(&queued), claim(2, &queued)).await.unwrap();
    assert_eq!((taken.attempt, taken.worker.as_deref()), (2, Some("worker2")));
    // The first worker, with its stale state.
    let fenced = world.execute(&job, Some(&info), report(1, progress())).await;
    assert_eq!(fenced, Err(ExecuteError::Refused(Refusal::Fenced { current: 2 })));
    let canceled = world.execute(&job, Some(&queued), Command::Cancel).await.unwrap();
    assert_eq!((canceled.stage, canceled.attempt), (Stage::Canceled, 2));
    let ended = world.execute(&job, Some(&started), Command::Cancel).await;
    assert_eq!(ended, Err(ExecuteError::Refused(Refusal::Ended(Stage::Canceled))));
    world.assert_agreement(&job, &[Ok(queued), Ok(started), Ok(info), Ok(taken), Ok(canceled)]).await;
}

#[tokio::test]
async fn no_command_is_refused_only_because_what_was_known_is_stale() {
    let world = World::start().await;
    let job = id("job");
    let queued = world.submit(&job).await;
    let started = world.execute(&job, None, claim(1, &queued)).await.expect("a replica that did not know the job yet");
    world.execute(&job, Some(&queued), report(1, info("x"))).await.expect("the attempt has begun since");
    world.execute(&job, Some(&started), report(1, progress())).await.expect("the stage has advanced since");
    let taken = world.execute(&job, Some(&started), claim(2, &queued)).await.unwrap();
    world.execute(&job, Some(&queued), report(taken.attempt, info("x"))).await.expect("the attempt has advanced since");
    world.execute(&job, None, Command::Cancel).await.expect("a replica that did not know the job yet");
    let unknown = world.execute(&id("nobody"), None, Command::Cancel).await;
    assert_eq!(unknown, Err(ExecuteError::Refused(Refusal::Unknown)));
}

#[tokio::test]
async fn a_command_that_does_not_fit_is_refused_and_leaves_no_trace() {
    let world = World::start().await;
    let job = id("job");
    let queued = world.submit(&job).await;
    let started = world.execute(&job, Some(&queued), claim(1, &queued)).await.unwrap();
    let before = world.messages().await;
    let early = world.execute(&job, Some(&started), report(1, EventBody::Completed)).await;
    assert_eq!(early, Err(ExecuteError::Refused(Refusal::OutOfOrder(Stage::FetchingInfo))));
    let ahead = world.execute(&job, Some(&started), report(2, info("x"))).await;
    assert_eq!(ahead, Err(ExecuteError::Refused(Refusal::Fenced { current: 1 })));
    assert_eq!(world.messages().await, before);
}

#[tokio::test]
async fn a_worker_that_still_sees_the_end_before_a_retry_takes_the_job() {
    let world = World::start().await;
    let job = id("job");
    let queued = world.submit(&job).await;
    let canceled = world.execute(&job, Some(&queued), Command::Cancel).await.unwrap();
    let again = world.execute(&job, Some(&canceled), Command::Retry).await.unwrap();
    assert_eq!((again.stage, again.attempt), (Stage::Queued, 2));
    // The work item from before the retry, on any known state: the worker drops it, and does not take it for the end of
    // the job.
    let budget = millrace_domain::retry::Budget::default();
    let stale = Command::Claim { worker: "stale".into(), submitted_seq: queued.submitted_seq, budget };
    for known in [&queued, &canceled, &again] {
        let superseded = world.execute(&job, Some(known), stale.clone()).await;
        let newest = again.submitted_seq;
        assert_eq!(superseded, Err(ExecuteError::Refused(Refusal::Superseded { newest })));
    }
    let refused = world.execute(&job, Some(&canceled), Command::Retry).await;
    assert_eq!(refused, Err(ExecuteError::Refused(Refusal::NotEnded(Stage::Queued))));
    let started = world.execute(&job, Some(&canceled), claim(1, &again)).await.unwrap();
    assert_eq!((started.stage, started.attempt), (Stage::FetchingInfo, 2));
}

#[tokio::test]
async fn a_claim_is_refused_by_a_log_that_has_its_work_item_and_no_job_and_not_by_one_that_lags_behind_it() {
    let world = World::start().await;
    let garbled = id("garbled");
    let submitted_seq = world.publish(subjects::subject(Kind::Submitted, &garbled), "garbage").await;
    let budget = millrace_domain::retry::Budget::default();
    let claim_of = |submitted_seq| Command::Claim { worker: "w".into(), submitted_seq, budget };
    let refused = world.execute(&garbled, None, claim_of(submitted_seq)).await;
    assert_eq!(refused, Err(ExecuteError::Refused(Refusal::Unknown)));

    // A leader that lacks the retry has a job that has ended, or no job at all.
    let job = id("job");
    let queued = world.submit(&job).await;
    let canceled = world.execute(&job, Some(&queued), Command::Cancel).await.unwrap();
    let retried = canceled.seq + 1;
    for (job, known) in [(&job, Some(&canceled)), (&job, None), (&id("nobody"), None)] {
        let behind = world.execute(job, known, claim_of(retried)).await;
        assert!(matches!(behind, Err(ExecuteError::Unavailable(_))), "{behind:?}");
    }
    let again = world.execute(&job, Some(&canceled), Command::Retry).await.unwrap();
    assert_eq!(again.submitted_seq, retried);
    let started = world.execute(&job, Some(&canceled), claim_of(retried)).await.unwrap();
    assert_eq!((started.stage, started.attempt), (Stage::FetchingInfo, 2));
}

#[tokio::test]
async fn a_state_change_of_a_job_that_was_removed_from_the_log_does_not_wait_for_ever() {
    let world = World::start().await;
    let job = id("removed");
    let queued = world.submit(&job).await;
    let started = world.execute(&job, Some(&queued), claim(1, &queued)).await.unwrap();
    let log = world.context.get_stream(subjects::STREAM).await.unwrap();
    log.purge().filter(subjects::job_filter(&job)).await.unwrap();
    let written = world.jobs.execute(&job, Some(started), &report(1, info("a")), Patience::Endless).await;
    assert_eq!(written, Err(ExecuteError::Refused(Refusal::Unknown)));
}
