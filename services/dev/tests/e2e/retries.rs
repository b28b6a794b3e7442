//! The system retries a transient failure by itself, a user retries a failed job, and each retry runs only once.

use std::time::Duration;

use async_nats::jetstream::{AckKind, consumer::PullConsumer};
use futures::{StreamExt, future::join_all};
use jiff::Timestamp;
use millrace_domain::{EventBody, failure::FailureKind};
use millrace_harness::wait::until;
use serde_json::{Value, json};

use crate::{
    api::Api,
    stack::{JOB_MAX, Options, Stack},
    support::{append_all, started},
};

/// A short lease, since the test waits for its end after each worker's death.
const LEASE: Duration = Duration::from_secs(2);

async fn with_budget(attempts_max: u32) -> Stack {
    let env = vec![("MILLRACE_ATTEMPTS_MAX".into(), attempts_max.to_string())];
    Stack::start_with(Options { env, ..Default::default() }).await
}

fn time(status: &Value, field: &str) -> Timestamp {
    status[field].as_str().unwrap_or_else(|| panic!("no {field}: {status}")).parse().expect("a time")
}

/// The statuses of the stage `retrying`, each with the next one, which must not be earlier than announced.
fn pauses(statuses: &[Value]) -> Vec<&Value> {
    let mut pauses = Vec::new();
    for pair in statuses.windows(2).filter(|pair| pair[0]["stage"] == "retrying") {
        let (waits, next) = (&pair[0], &pair[1]);
        assert_eq!((&waits["status"], &waits["progress"]), (&"queued".into(), &0.into()), "{waits}");
        assert_eq!((&next["stage"], &next["attempt"]), (&"fetching_info".into(), &waits["attempt"]), "{next}");
        assert!(time(next, "updatedAt") >= time(waits, "retryAt"), "too early: {waits} {next}");
        pauses.push(waits);
    }
    pauses
}

fn seconds_of_pause(waits: &Value) -> f64 {
    time(waits, "retryAt").duration_since(time(waits, "updatedAt")).as_secs_f64()
}

/// The tags in a job's history, in their order.
async fn tags(stack: &Stack, id: &str) -> Vec<String> {
    let history = stack.history(id).await.into_iter();
    history.map(|event| event["type"].as_str().expect("a tag").to_owned()).collect()
}

fn count(tags: &[String], tag: &str) -> usize {
    tags.iter().filter(|other| *other == tag).count()
}

async fn retry(api: &Api, id: &str) -> crate::api::Answer {
    api.post_with(&format!("/api/download/{id}/retry"), "", &[]).await
}

fn retrying(kind: FailureKind, until: Timestamp) -> EventBody {
    EventBody::Retrying { code: kind.code().into(), message: kind.sentence().into(), until }
}

#[tokio::test]
async fn a_source_that_is_away_twice_is_asked_a_third_time_and_then_the_job_completes() {
    let stack = Stack::start().await;
    let id = stack.submit("/video.mp4?fails=2").await;
    let mut watcher = stack.watch(&id);
    let statuses = stack.watch_to_end(&mut watcher).await;
    let end = statuses.last().unwrap();
    assert_eq!((&end["status"], &end["attempt"]), (&"completed".into(), &3.into()), "{end}");
    let pauses = pauses(&statuses);
    assert_eq!(pauses.len(), 2, "{statuses:#?}");
    for (waits, attempt, longest) in [(pauses[0], 2, 2.0), (pauses[1], 3, 6.0)] {
        assert_eq!((&waits["errorCode"], &waits["attempt"]), (&"source_unavailable".into(), &attempt.into()));
        assert!((1.0..=longest).contains(&seconds_of_pause(waits)), "{waits}");
        assert!(waits.get("error").is_none(), "it has not failed: {waits}");
    }
    assert!(end.get("retryAt").is_none() && end.get("errorCode").is_none(), "{end}");
    stack.assert_no_leftovers();
    stack.verify();
}

#[tokio::test]
async fn a_source_that_says_when_to_come_back_is_left_alone_until_then() {
    let stack = Stack::start().await;
    let id = stack.submit("/video.mp4?fails=1&status=429&retry_after=5").await;
    let mut watcher = stack.watch(&id);
    let statuses = stack.watch_to_end(&mut watcher).await;
    let end = statuses.last().unwrap();
    assert_eq!((&end["status"], &end["attempt"]), (&"completed".into(), &2.into()), "{end}");
    let pauses = pauses(&statuses);
    assert_eq!(pauses.len(), 1, "{statuses:#?}");
    assert_eq!(pauses[0]["errorCode"], "source_rate_limited");
    assert!((6.0..=7.0).contains(&seconds_of_pause(pauses[0])), "{}", pauses[0]);
    stack.verify();
}

#[tokio::test]
async fn a_source_that_stays_away_fails_the_job_with_the_last_attempt() {
    let stack = with_budget(2).await;
    let id = stack.submit("/unavailable.mp4").await;
    let mut watcher = stack.watch(&id);
    let statuses = stack.watch_to_end(&mut watcher).await;
    let end = statuses.last().unwrap();
    assert_eq!((&end["status"], &end["attempt"]), (&"failed".into(), &2.into()), "{end}");
    assert_eq!(end["errorCode"], "source_unavailable");
    assert_eq!(pauses(&statuses).len(), 1);
    assert_eq!(count(&tags(&stack, &id).await, "started"), 2);
    stack.assert_no_leftovers();
    stack.verify();
}

#[tokio::test]
async fn what_will_not_pass_fails_at_once() {
    let env = [("MILLRACE_FILE_MIB_MAX", "5"), ("MILLRACE_DURATION_SECONDS_MAX", "10")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let stack = Stack::start_with(Options { env, ..Default::default() }).await;
    for (path, code) in [
        ("/missing.mp4", "source_not_found"),
        ("/forbidden.mp4", "source_forbidden"),
        ("/article.html", "unsupported"),
        ("/thumb.jpg", "not_media"),
        ("/video.mp4", "too_large"),
    ] {
        let end = stack.end_of(path).await;
        assert_eq!((&end["status"], &end["attempt"]), (&"failed".into(), &1.into()), "{path}: {end}");
        assert_eq!(end["errorCode"], code, "{path}: {end}");
    }
    // 8 s and a few MB.
    assert_eq!(stack.end_of("/hls/240p/index.m3u8").await["status"], "completed");
    stack.assert_no_leftovers();
    stack.verify();
}

#[tokio::test]
async fn a_person_has_a_failed_job_tried_again_and_its_watchers_see_it_complete() {
    let stack = with_budget(1).await;
    let id = stack.submit("/video.mp4?fails=1").await;
    let mut watcher = stack.watch(&id);
    let failed = stack.watch_to_end(&mut watcher).await.pop().unwrap();
    assert_eq!(failed["errorCode"], "source_unavailable");

    let answer = retry(&stack.api, &id).await;
    let queued = answer.json();
    assert_eq!((answer.status, &queued["stage"], &queued["attempt"]), (202, &"queued".into(), &2.into()), "{answer:?}");
    assert!(queued.get("error").is_none() && queued.get("errorCode").is_none(), "{queued}");
    let statuses = stack.watch_to_end(&mut watcher).await;
    assert!(statuses.iter().all(|status| status["seq"].as_u64() > failed["seq"].as_u64()), "{statuses:#?}");
    let end = statuses.last().unwrap();
    assert_eq!((&end["status"], &end["attempt"], &end["jobId"]), (&"completed".into(), &2.into(), &json!(id)), "{end}");

    let refused = retry(&stack.api, &id).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (409, Some("already_ended")));
    assert_eq!(retry(&stack.api, "unknown").await.status, 404);
    assert_eq!(retry(&stack.api, "a.b").await.status, 400);
    stack.assert_no_leftovers();
    stack.verify();
}

#[tokio::test]
async fn retries_by_many_at_once_on_several_edges_make_one_attempt() {
    let stack = Stack::queue_only().await;
    let second = stack.another_edge().await;
    let apis = [Api::new(stack.api.base.clone()), Api::new(format!("http://127.0.0.1:{}", second.port))];
    let id = stack.submit("/video.mp4").await;
    let early = retry(&stack.api, &id).await;
    assert_eq!((early.status, early.json()["code"].as_str()), (409, Some("not_ended")));
    for round in 1..=3 {
        assert_eq!(stack.api.delete(&format!("/api/download/{id}")).await.status, 202);
        let answers = join_all((0..10).map(|n| retry(&apis[n % 2], &id))).await;
        let taken: Vec<_> = answers.iter().filter(|answer| answer.status == 202).collect();
        assert_eq!(taken.len(), 1, "{answers:?}");
        assert_eq!(taken[0].json()["attempt"], round + 1);
        for refused in answers.iter().filter(|answer| answer.status != 202) {
            assert_eq!((refused.status, refused.json()["code"].as_str()), (409, Some("not_ended")));
        }
    }
    assert_eq!(
        tags(&stack, &id).await,
        ["submitted"].iter().chain(&["canceled", "resubmitted"].repeat(3)).copied().collect::<Vec<_>>()
    );
    // Four work items, of which the last one counts.
    let _worker = stack.another_worker("late", &[]).await;
    let mut watcher = stack.watch(&id);
    let end = stack.watch_to_end(&mut watcher).await.pop().unwrap();
    assert_eq!((&end["status"], &end["attempt"]), (&"completed".into(), &4.into()), "{end}");
    assert_eq!(count(&tags(&stack, &id).await, "started"), 1);
    stack.verify();
}

#[tokio::test]
async fn a_work_item_of_before_the_retry_changes_nothing_when_it_comes_again() {
    let stack = Stack::queue_only().await;
    let id = stack.submit("/video.mp4?rate=4000000").await;
    // A worker that has the job and keeps it.
    let consumer: PullConsumer = stack.jetstream().await.get_consumer_from_stream("workers", "JOBS").await.unwrap();
    let mut pulled = consumer.fetch().max_messages(1).messages().await.unwrap();
    let stale = pulled.next().await.unwrap().unwrap();
    assert_eq!(stack.api.delete(&format!("/api/download/{id}")).await.status, 202);
    assert_eq!(retry(&stack.api, &id).await.status, 202);

    let _worker = stack.another_worker("late", &[]).await;
    let mut watcher = stack.watch(&id);
    while watcher.next_json(JOB_MAX).await.unwrap()["data"]["stage"] != "downloading" {}
    stale.ack_with(AckKind::Nak(None)).await.unwrap();
    // The other slot is free: it takes the stale item at once and finishes it before the download ends.
    until("the stale item is done with", JOB_MAX, async || stack.queued().await == (0, 1)).await;
    let end = stack.watch_to_end(&mut watcher).await.pop().unwrap();
    assert_eq!((&end["status"], &end["attempt"]), (&"completed".into(), &2.into()), "{end}");
    let tags = tags(&stack, &id).await;
    assert_eq!((count(&tags, "started"), count(&tags, "retrying"), count(&tags, "completed")), (1, 0, 1), "{tags:?}");
    stack.verify();
}

#[tokio::test]
async fn a_delivery_before_its_time_is_given_back_and_one_of_a_wrong_clock_is_not_waited_for() {
    let stack = Stack::queue_only().await;
    let log = stack.log().await;
    let until = millrace_runtime::now() + Duration::from_secs(8);
    let never = millrace_runtime::now() + Duration::from_secs(100 * 24 * 3600);
    let early = stack.submit("/video.mp4").await;
    append_all(&log, &early, vec![started(), retrying(FailureKind::SourceBroken, until)]).await;
    let misdated = stack.submit("/page.html").await;
    append_all(&log, &misdated, vec![started(), retrying(FailureKind::SourceBroken, never)]).await;

    let mut watchers = [stack.watch(&early), stack.watch(&misdated)];
    let _worker = stack.another_worker("late", &[]).await;
    let mut all = Vec::new();
    for watcher in &mut watchers {
        all.push(stack.watch_to_end(watcher).await);
    }
    for statuses in &all {
        let end = statuses.last().unwrap();
        assert_eq!((&end["status"], &end["attempt"]), (&"completed".into(), &2.into()), "{end}");
    }
    assert_eq!(pauses(&all[0]).len(), 1, "{:#?}", all[0]);
    assert!(time(all[1].last().unwrap(), "updatedAt") < never);
    stack.verify();
}

#[tokio::test]
async fn a_job_that_brings_down_its_workers_fails_after_as_many_of_them_as_it_may_cost() {
    let options = Options { without_worker: true, lease: Some(LEASE), ..Default::default() };
    let stack = Stack::start_with(options).await;
    let id = stack.submit("/stall.mp4").await;
    let mut watcher = stack.watch(&id);
    for attempt in 1..=3 {
        let mut worker = stack.another_worker(&format!("victim-{attempt}"), &["--workers-lost-max", "3"]).await;
        loop {
            let status = watcher.next_json(JOB_MAX).await.unwrap()["data"].clone();
            if status["stage"] == "downloading" && status["attempt"] == attempt {
                break;
            }
        }
        worker.kill9();
    }
    let _last = stack.another_worker("last", &["--workers-lost-max", "3"]).await;
    let end = stack.watch_to_end(&mut watcher).await.pop().unwrap();
    assert_eq!((&end["errorCode"], &end["attempt"]), (&"too_many_attempts".into(), &3.into()), "{end}");
    let tags = tags(&stack, &id).await;
    assert_eq!((count(&tags, "started"), count(&tags, "retrying")), (3, 2), "{tags:?}");

    // A user may still retry it, which allows the same number of lost workers again.
    assert_eq!(retry(&stack.api, &id).await.json()["attempt"], 4);
    while watcher.next_json(JOB_MAX).await.unwrap()["data"]["stage"] != "downloading" {}
    assert_eq!(stack.api.delete(&format!("/api/download/{id}")).await.status, 202);
    stack.verify();
}

#[tokio::test]
async fn a_retry_while_the_log_is_away_is_refused_and_can_be_repeated() {
    let stack = Stack::queue_only().await;
    let id = stack.submit("/video.mp4").await;
    assert_eq!(stack.api.delete(&format!("/api/download/{id}")).await.status, 202);
    stack.limit_log(2).await;
    let refused = retry(&stack.api, &id).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (503, Some("no_room")), "{refused:?}");
    stack.limit_log(-1).await;
    assert_eq!(retry(&stack.api, &id).await.status, 202);
    stack.verify();
}
