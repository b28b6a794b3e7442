//! The work queue: one worker at a time, and the death of a worker loses no job.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use async_nats::jetstream::consumer::{FromConsumer, PullConsumer, pull};
use millrace_domain::{
    EventBody, JobId,
    subjects::{self, STREAM, WORKERS_CONSUMER},
};
use millrace_runtime::queue::{Delivery, Queue};
use tokio::time::timeout;

use crate::support::{LIMIT, World, event, id, submitted, until};

impl World {
    /// The queue with a short lease for tests.
    async fn queue(&self, lease: Duration) -> Queue {
        let stream = self.context.get_stream(STREAM).await.unwrap();
        let consumer: PullConsumer = stream.get_consumer(WORKERS_CONSUMER).await.unwrap();
        let mut config = pull::Config::try_from_consumer_config(consumer.cached_info().config.clone()).unwrap();
        config.ack_wait = lease;
        stream.update_consumer(config).await.unwrap();
        let queue = Queue::open(&self.nats, self.log.clone()).await.unwrap();
        assert_eq!(queue.lease(), lease);
        queue
    }

    async fn enqueue(&self, job: &JobId) {
        self.append(job, 0, submitted()).await;
    }

    /// Deliveries that are not acknowledged, and pending jobs.
    async fn outstanding(&self) -> (usize, u64) {
        let consumer: PullConsumer = self.context.get_consumer_from_stream(WORKERS_CONSUMER, STREAM).await.unwrap();
        (consumer.cached_info().num_ack_pending, consumer.cached_info().num_pending)
    }
}

/// The next job; panics when none comes.
async fn next(queue: &Queue) -> Delivery {
    timeout(LIMIT, queue.next()).await.expect("a job").unwrap().expect("a job")
}

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_secs(2);

#[tokio::test]
async fn each_submission_is_delivered_once_to_workers_who_acknowledge() {
    let world = World::start().await;
    let queue = world.queue(LONG).await;
    let jobs: BTreeSet<JobId> = (0..60).map(|n| id(&format!("job{n}"))).collect();
    for job in &jobs {
        world.enqueue(job).await;
    }
    let workers = (0..6).map(|_| {
        let queue = queue.clone();
        tokio::spawn(async move {
            let mut taken = Vec::new();
            for _ in 0..10 {
                let delivery = next(&queue).await;
                assert_eq!(delivery.delivered, 1);
                taken.push(delivery.id.clone());
                delivery.ack().await;
            }
            taken
        })
    });
    let taken: Vec<JobId> =
        futures::future::join_all(workers).await.into_iter().flat_map(|taken| taken.unwrap()).collect();
    assert_eq!((taken.len(), taken.into_iter().collect::<BTreeSet<_>>()), (60, jobs));
    assert_eq!(world.outstanding().await, (0, 0));
}

#[tokio::test]
async fn only_submissions_are_delivered_and_as_the_log_holds_them() {
    let world = World::start().await;
    let queue = world.queue(LONG).await;
    let (first, second) = (id("first"), id("second"));
    world.append(&id("unsubmitted"), 0, EventBody::Canceled).await;
    world.publish("jobs.audit.first", "of another kind").await;
    world.job(&first, 5).await;
    world.publish("jobs.submitted.garbled", "{").await;
    let seq = world.append(&second, 0, submitted()).await;
    let deliveries = [next(&queue).await, next(&queue).await, next(&queue).await];
    assert_eq!(deliveries.each_ref().map(|delivery| delivery.id.as_str()), ["first", "garbled", "second"]);
    assert!(deliveries[1].entry.event.is_err());
    assert_eq!((deliveries[2].entry.seq, deliveries[2].entry.event.clone()), (seq, Ok(event(submitted()))));
    assert_eq!(world.outstanding().await, (3, 0));
}

#[tokio::test]
async fn a_job_that_comes_while_workers_wait_is_delivered_at_once() {
    let world = World::start().await;
    let queue = world.queue(LONG).await;
    let waiting = tokio::spawn(async move { next(&queue).await.id });
    let consumer: PullConsumer = world.context.get_consumer_from_stream(WORKERS_CONSUMER, STREAM).await.unwrap();
    until("the worker waits", async || consumer.get_info().await.unwrap().num_waiting == 1).await;
    world.enqueue(&id("job")).await;
    assert_eq!(waiting.await.unwrap(), id("job"));
}

#[tokio::test]
async fn a_delivery_that_is_dropped_comes_again_and_counts_up() {
    let world = World::start().await;
    let queue = world.queue(Duration::from_millis(300)).await;
    world.enqueue(&id("job")).await;
    for delivered in 1..=4 {
        let delivery = next(&queue).await;
        assert_eq!((delivery.id.as_str(), delivery.delivered), ("job", delivered));
    }
}

#[tokio::test]
async fn a_lease_that_is_renewed_holds_and_one_that_is_not_ends() {
    let world = World::start().await;
    let queue = world.queue(SHORT).await;
    world.enqueue(&id("job")).await;
    let mut delivery = next(&queue).await;
    let other = queue.clone();
    let mut second = tokio::spawn(async move { next(&other).await });
    let mut renewed = Instant::now();
    let mut held = Duration::ZERO;
    while held < 3 * SHORT {
        delivery.extend().await.unwrap();
        let since = renewed.elapsed();
        renewed = Instant::now();
        let came = timeout(SHORT / 10, &mut second).await;
        held += renewed.elapsed();
        if let Ok(again) = came {
            // A pause of the machine may have let the lease expire, which shows nothing. Once more.
            let stood_still = since.max(renewed.elapsed()) > SHORT / 2;
            assert!(stood_still, "it came again {held:?} after it was taken, though renewed {since:?} before");
            let other = queue.clone();
            (delivery, held) = (again.unwrap(), Duration::ZERO);
            second = tokio::spawn(async move { next(&other).await });
        }
    }
    let before = delivery.delivered;
    drop(delivery);
    assert_eq!(second.await.unwrap().delivered, before + 1);
}

#[tokio::test]
async fn a_job_that_is_given_back_comes_again_after_its_delay_and_not_before() {
    let world = World::start().await;
    let queue = world.queue(LONG).await;
    world.enqueue(&id("job")).await;
    let delivery = next(&queue).await;
    let given_back = Instant::now();
    delivery.give_back(Duration::from_millis(700)).await;
    let delivery = next(&queue).await;
    assert!(given_back.elapsed() >= Duration::from_millis(700), "{:?}", given_back.elapsed());
    assert_eq!(delivery.delivered, 2);
    delivery.give_back(Duration::ZERO).await;
    assert_eq!(next(&queue).await.delivered, 3, "without a delay at once, and not when the lease is over");
}

#[tokio::test]
async fn a_job_that_was_acknowledged_never_comes_again() {
    let world = World::start().await;
    let queue = world.queue(Duration::from_millis(200)).await;
    world.enqueue(&id("first")).await;
    next(&queue).await.ack().await;
    assert_eq!(world.outstanding().await, (0, 0), "an acknowledgement is with the server when ack returns");
    // Meanwhile the leases of a job that is dropped repeatedly expire; the first job is not redelivered.
    world.enqueue(&id("second")).await;
    for delivered in 1..=3 {
        let delivery = next(&queue).await;
        assert_eq!((delivery.id.as_str(), delivery.delivered), ("second", delivered));
    }
}

#[tokio::test]
async fn a_queue_outlives_a_restart_of_the_server() {
    let mut world = World::start().await;
    let queue = world.queue(Duration::from_secs(5)).await;
    world.enqueue(&id("acknowledged")).await;
    world.enqueue(&id("waiting")).await;
    next(&queue).await.ack().await;
    world.server.stop().await.unwrap();
    world.server.restart().await.unwrap();
    let delivery = loop {
        // A pull during the outage fails; the worker tries again.
        if let Ok(Some(delivery)) = timeout(LIMIT, queue.next()).await.expect("an answer") {
            break delivery;
        }
    };
    assert_eq!(delivery.id.as_str(), "waiting");
}

#[tokio::test]
async fn a_queue_that_is_not_there_cannot_be_opened() {
    let world = World::start().await;
    world.context.get_stream(STREAM).await.unwrap().delete_consumer(WORKERS_CONSUMER).await.unwrap();
    let error = format!("{:#}", Queue::open(&world.nats, world.log.clone()).await.err().unwrap());
    assert!(error.contains("workers"), "{error}");
}

#[tokio::test]
async fn a_job_that_is_removed_while_somebody_has_it_is_not_delivered_again() {
    let world = World::start().await;
    let queue = world.queue(LONG).await;
    let job = id("expired");
    world.enqueue(&job).await;
    let delivery = next(&queue).await;
    let stream = world.context.get_stream(STREAM).await.unwrap();
    stream.purge().filter(subjects::job_filter(&job)).await.unwrap();
    delivery.give_back(Duration::ZERO).await;
    until("nothing is outstanding", async || world.outstanding().await == (0, 0)).await;
    assert!(queue.next().await.unwrap().is_none());
}
