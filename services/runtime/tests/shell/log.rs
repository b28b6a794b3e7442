//! Appending once, and reading back.

use futures::{StreamExt, stream};
use millrace_domain::{
    EventBody, JobId,
    event::Failure,
    fold_all,
    limits::{EVENT_BYTES_MAX, HISTORY_BATCH_MAX},
    subjects::{self, Kind, STREAM},
};
use millrace_runtime::log::{Append, AppendError};

use crate::support::{World, body, event, events_subject, id, seqs, submitted};

#[tokio::test]
async fn what_was_appended_is_read_back_in_order() {
    let world = World::start().await;
    let job = id("job");
    let submitted = Append::new(&job, 0, &event(submitted()));
    let started = Append::new(&job, 0, &event(body(0)));
    let first = world.log.append(&submitted).await.unwrap();
    let second = world.log.append(&started).await.unwrap();
    assert!(first < second);
    let both = vec![submitted.entry(first), started.entry(second)];
    assert_eq!(world.history(&job, 0).await.unwrap(), both);
    assert_eq!(world.history(&job, first).await.unwrap(), both[1..]);
    assert_eq!(world.history(&job, second).await.unwrap(), []);
    let last = world.log.last(&[subjects::job_filter(&job)]).await.unwrap();
    assert_eq!(last.iter().filter_map(|(_, stored)| world.log.entry(stored)).collect::<Vec<_>>(), both);
    let last = world.log.last(&[subjects::subject(Kind::Events, &job)]).await.unwrap();
    assert_eq!(last.iter().map(|(_, stored)| stored.seq).collect::<Vec<_>>(), [second]);
    assert_eq!(world.counter("millrace_log_appended_total"), 2);
}

#[tokio::test]
async fn an_append_that_is_sent_again_after_a_lost_reply_is_stored_once() {
    let world = World::start().await;
    for append in [Append::new(&id("job"), 0, &event(submitted())), Append::new(&id("job"), 0, &event(body(0)))] {
        let seq = world.log.append(&append).await.unwrap();
        let before = world.messages().await;
        assert_eq!(world.log.append(&append).await, Ok(seq));
        assert_eq!(world.log.append(&append).await, Ok(seq));
        assert_eq!(world.messages().await, before);
    }
}

#[tokio::test]
async fn an_append_that_is_sent_again_after_others_followed_it_still_returns_its_own_sequence() {
    let world = World::start().await;
    let job = id("job");
    world.append(&job, 0, submitted()).await;
    let append = Append::new(&job, 0, &event(body(0)));
    let seq = world.log.append(&append).await.unwrap();
    let next = world.append(&job, seq, body(1)).await;
    world.append(&job, next, body(2)).await;
    assert_eq!(world.log.append(&append).await, Ok(seq));
    assert_eq!(world.messages().await, 4);
}

#[tokio::test]
async fn of_two_writers_with_the_same_expectation_the_second_is_told_the_sequence_of_the_first() {
    let world = World::start().await;
    let job = id("job");
    world.append(&job, 0, submitted()).await;
    // The same event, with the same worker's name: only the message id distinguishes the writers.
    let [mine, other] = [0, 0].map(|expected| Append::new(&job, expected, &event(body(0))));
    let seq = world.log.append(&other).await.unwrap();
    world.append(&job, seq, body(1)).await;
    assert_eq!(world.log.append(&mine).await, Err(AppendError::Conflict { seq }));
    assert_eq!(world.log.append(&mine).await, Err(AppendError::Conflict { seq }), "it stays so");
    assert_eq!(world.messages().await, 3);
    assert_eq!(world.counter("millrace_log_conflicts_total"), 2);
}

#[tokio::test]
async fn of_many_writers_at_once_exactly_one_wins_and_the_others_learn_its_sequence() {
    let world = World::start().await;
    let job = id("job");
    let appends: Vec<_> = (0..50).map(|_| Append::new(&job, 0, &event(submitted()))).collect();
    let outcomes = futures::future::join_all(appends.iter().map(|append| world.log.append(append))).await;
    let won: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.clone().ok()).collect();
    assert_eq!(won.len(), 1, "{outcomes:?}");
    let lost = outcomes.iter().filter(|outcome| **outcome == Err(AppendError::Conflict { seq: won[0] })).count();
    assert_eq!(lost, 49, "{outcomes:?}");
}

#[tokio::test]
async fn an_event_that_is_too_large_is_refused_and_not_stored() {
    let world = World::start().await;
    let job = id("job");
    world.append(&job, 0, submitted()).await;
    let failed = |message: String| event(EventBody::Failed(Failure { code: "x".into(), message, retryable: false }));
    let overhead = failed(String::new()).encode().len();
    let fits = Append::new(&job, 0, &failed("x".repeat(EVENT_BYTES_MAX - overhead)));
    let seq = world.log.append(&fits).await.expect("the largest event that is allowed");
    let too_large = Append::new(&job, seq, &failed("x".repeat(EVENT_BYTES_MAX - overhead + 1)));
    assert!(matches!(world.log.append(&too_large).await, Err(AppendError::Refused(_))));

    // An operator allows smaller messages: the server refuses, and the append is not repeated.
    let stream = world.context.get_stream(STREAM).await.unwrap();
    let mut config = stream.cached_info().config.clone();
    config.max_message_size = 500;
    world.context.update_stream(config).await.unwrap();
    let refused = Append::new(&job, seq, &failed("x".repeat(1000)));
    let Err(AppendError::Refused(why)) = world.log.append(&refused).await else { panic!("not refused") };
    assert!(why.contains("10054"), "{why}");
    assert_eq!(world.messages().await, 2);
    assert_eq!(world.counter("millrace_log_repeated_total"), 0);
}

#[tokio::test]
async fn messages_that_are_no_events_are_counted_and_change_nothing_but_the_sequence() {
    let world = World::start().await;
    let job = id("job");
    let first = world.append(&job, 0, submitted()).await;
    let started = world.append(&job, 0, body(0)).await;
    let newer = r#"{"type":"thumbnailed","at":"2026-11-23T07:00:00Z","size":7}"#;
    let unknown = world.publish(events_subject(&job), newer).await;
    let garbage = world.publish(events_subject(&job), "\u{0}{").await;
    world.publish("jobs.audit.job", r#"{"type":"canceled","at":"2026-11-23T07:00:00Z"}"#).await;
    let empty = world.publish(events_subject(&job), "").await;

    let history = world.history(&job, 0).await.unwrap();
    assert_eq!(seqs(&history), [first, started, unknown, garbage, empty], "what is on no subject of a job is left out");
    assert_eq!(history[2].event.as_ref().unwrap().body, EventBody::Unknown);
    assert!(history[3].event.is_err() && history[4].event.is_err());
    assert_eq!(world.counter("millrace_log_undecodable_total"), 2);
    let before = fold_all(None, &job, &history[..2]).unwrap();
    let after = fold_all(None, &job, &history).unwrap();
    assert_eq!((after.seq, after.events_seq), (empty, empty));
    assert_eq!((after.stage, after.progress, &after.worker), (before.stage, before.progress, &before.worker));
    // The next writer expects this sequence.
    let seq = world.append(&job, after.events_seq, body(1)).await;
    assert_eq!(world.log.last(&[subjects::job_filter(&job)]).await.unwrap().last().unwrap().1.seq, seq);
}

#[tokio::test]
async fn a_history_of_more_than_one_page_is_complete_and_in_order() {
    let world = World::start().await;
    let (exact, long, other) = (id("exact"), id("long"), id("other"));
    let (exact_seqs, long_seqs, _) = tokio::join!(
        world.job(&exact, HISTORY_BATCH_MAX - 1),
        world.job(&long, 2 * HISTORY_BATCH_MAX + 10),
        world.job(&other, 300)
    );
    let pages = async |job: &JobId| {
        let mut cursor = world.log.read(subjects::job_filter(job), 0);
        let mut pages = vec![];
        loop {
            pages.push(cursor.next_page().await.unwrap().len());
            if pages.last() == Some(&0) {
                return pages;
            }
        }
    };
    assert_eq!(pages(&exact).await, [HISTORY_BATCH_MAX, 0]);
    assert_eq!(seqs(&world.history(&exact, 0).await.unwrap()), exact_seqs);
    assert_eq!(pages(&long).await, [HISTORY_BATCH_MAX, HISTORY_BATCH_MAX, 11, 0]);
    assert_eq!(seqs(&world.history(&long, 0).await.unwrap()), long_seqs);
    assert_eq!(seqs(&world.history(&long, long_seqs[400]).await.unwrap()), long_seqs[401..]);
}

#[tokio::test]
async fn the_leaders_history_equals_the_replicas() {
    let world = World::start().await;
    let (one, two) = (id("one"), id("two"));
    tokio::join!(world.job(&one, 40), world.job(&two, 40));
    world.publish(events_subject(&one), "garbage").await;
    world.publish("jobs.audit.one", "of another kind").await;
    world.publish(events_subject(&one), r#"{"type":"newer","at":"2026-11-23T07:00:00Z"}"#).await;
    for job in [&one, &two] {
        let history = world.history(job, 0).await.unwrap();
        assert_eq!(world.history_of_leader(job, 0).await.unwrap(), history);
        let middle = history[20].seq;
        assert_eq!(world.history_of_leader(job, middle).await.unwrap(), history[21..]);
    }
    assert_eq!(world.history_of_leader(&id("nobody"), 0).await.unwrap(), []);
}

#[tokio::test]
async fn a_cursor_over_all_jobs_leaves_out_nothing_and_goes_on_with_what_comes_later() {
    let world = World::start().await;
    let jobs: Vec<JobId> = (0..10).map(|n| id(&format!("job{n}"))).collect();
    futures::future::join_all(jobs.iter().map(|job| world.job(job, 40))).await;
    let mut all = Vec::new();
    let mut cursor = world.log.read(subjects::ALL, 0);
    loop {
        let page = cursor.next_page().await.unwrap();
        if page.is_empty() {
            break;
        }
        all.extend(page.iter().map(|stored| stored.seq));
    }
    assert_eq!(all, (1..=410).collect::<Vec<_>>());
    assert_eq!(world.log.last_sequence().await.unwrap(), 410);

    // The same cursor finds later messages, from a replica and from the leader.
    for seq in [411, 412] {
        world.publish(events_subject(&jobs[0]), "garbage").await;
        let mut behind = cursor.clone();
        assert_eq!(behind.next_of_leader().await.unwrap().unwrap().seq, seq);
        assert!(behind.next_page_or_leaders().await.unwrap().is_empty());
        assert_eq!(cursor.next_page_or_leaders().await.unwrap()[0].seq, seq);
        assert!(cursor.next_page().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn the_last_entries_of_a_thousand_jobs_are_found_among_many_unknown_ones() {
    let world = World::start().await;
    let jobs: Vec<JobId> = (0..1000).map(|n| id(&format!("job{n}"))).collect();
    // Every second job has events too.
    let made = jobs.iter().enumerate().map(|(n, job)| world.job(job, (n % 2) * 2));
    let made: Vec<Vec<u64>> = stream::iter(made).buffered(64).collect().await;
    world.publish("jobs.audit.job0", "of another kind").await;
    let unknown = (0..700).map(|n| id(&format!("unknown{n}")));
    let asked: Vec<JobId> = jobs.iter().cloned().zip(unknown.clone()).flat_map(|(a, b)| [a, b]).collect();
    let asked: Vec<JobId> = asked.into_iter().chain(jobs[700..].iter().cloned()).collect();

    let filters = |jobs: &[JobId]| jobs.iter().map(subjects::job_filter).collect::<Vec<_>>();
    let last = world.log.last(&filters(&asked)).await.unwrap();
    assert!(last.is_sorted_by_key(|(_, stored)| stored.seq), "in the order of their sequences");
    assert_eq!(last.len(), 1500);
    for (job, made) in jobs.iter().zip(&made) {
        let of_job: Vec<_> = last.iter().filter(|(id, _)| id == job).map(|(_, stored)| stored.seq).collect();
        let expected = if made.len() == 1 { vec![made[0]] } else { vec![made[0], made[2]] };
        assert_eq!(of_job, expected, "{job}");
    }
    assert!(world.log.last(&filters(&unknown.collect::<Vec<_>>())).await.unwrap().is_empty());
    assert!(world.log.last(&[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn every_append_names_its_expectation_and_its_writer() {
    let world = World::start().await;
    let job = id("job");
    let seq = world.append(&job, 0, submitted()).await;
    let page = world.log.read(subjects::job_filter(&job), 0).next_page().await.unwrap();
    assert_eq!((page[0].seq, page[0].subject.as_str()), (seq, subjects::subject(Kind::Submitted, &job).as_str()));
    let message_id = page[0].message_id.as_deref().unwrap();
    assert!(message_id.starts_with("job/0/") && message_id.len() > "job/0/".len() + 8, "{message_id}");
}
