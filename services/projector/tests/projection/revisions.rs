//! Records every state that is written to the bucket, in order.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use futures::StreamExt;
use millrace_domain::{
    JobId, JobState,
    subjects::{self, STATE_BUCKET},
};
use tokio::task::JoinHandle;

use crate::support::{LIMIT, World};

/// Records the writes, and panics, in [`Revisions::assert_rising`], if a state was replaced by one that is not newer.
pub struct Revisions {
    seen: Arc<AtomicUsize>,
    reading: JoinHandle<HashMap<JobId, u64>>,
}

impl Revisions {
    /// Records the writes from now on.
    pub async fn follow(world: &World) -> Self {
        let config =
            pull::Config { ack_policy: AckPolicy::None, deliver_policy: DeliverPolicy::All, ..pull::Config::default() };
        let bucket = world.context.get_stream(subjects::bucket_stream(STATE_BUCKET)).await.unwrap();
        let consumer: PullConsumer = bucket.create_consumer(config).await.unwrap();
        let mut messages = consumer.messages().await.unwrap();
        let seen = Arc::new(AtomicUsize::new(0));
        let count = seen.clone();
        let reading = tokio::spawn(async move {
            let mut newest: HashMap<JobId, u64> = HashMap::new();
            while let Some(message) = messages.next().await {
                let message = message.unwrap();
                if message.subject.ends_with(".stop") {
                    break;
                }
                if let Ok(state) = serde_json::from_slice::<JobState>(&message.payload) {
                    let before = newest.insert(state.job_id.clone(), state.seq);
                    assert!(before < Some(state.seq), "{}: {} was written over {before:?}", state.job_id, state.seq);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
            newest
        });
        Self { seen, reading }
    }

    /// The number of written states.
    pub fn count(&self) -> usize {
        self.seen.load(Ordering::Relaxed)
    }

    /// The newest sequence of each job in the writes so far.
    pub async fn assert_rising(self, world: &World) -> HashMap<JobId, u64> {
        world.context.publish(format!("$KV.{STATE_BUCKET}.stop"), "".into()).await.unwrap().await.unwrap();
        tokio::time::timeout(LIMIT, self.reading).await.expect("all revisions").expect("states only advance")
    }
}
