//! Reads the log in order, window by window, and acknowledges a window once its states are written.
//!
//! A projector may be killed at any point without leaving out an entry. The server does not redeliver a message of a
//! dead projector before `ack_wait` has passed; it continues after that message, and takes the next acknowledgement for
//! all messages before. So every window must follow what was applied; if it does not, the projector reads the entries
//! in between from the log itself. Sequences alone do not show a gap, since ended jobs are purged from the log. The
//! consumer's count of deliveries does: messages delivered to another projector are missing in it. That holds only for
//! first deliveries: after a redelivered message, the server may continue behind others whose lease has not expired
//! yet. Applying an entry twice changes nothing.

use std::time::Duration;

use anyhow::Context;
use async_nats::jetstream::{self, consumer::PullConsumer};
use futures::{Stream, StreamExt};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use millrace_domain::{
    limits::{PROJECTOR_WINDOW, PROJECTOR_WINDOW_MESSAGES_MAX},
    subjects::{PROJECTOR_CONSUMER, PROJECTOR_GROUP, STREAM},
};
use millrace_runtime::{admin::Check, log::Log};

use crate::{
    metrics::Metrics,
    projection::{Batch, Projection},
};

/// It must stay well below the consumer's `priority_timeout`, or the pin is lost between two pulls.
const PULL_EXPIRES: Duration = Duration::from_millis(500);

/// The loop that follows the log.
pub struct Follower {
    pub context: jetstream::Context,
    pub projection: Projection,
    pub metrics: Metrics,
    pub check: Check,
    /// The bucket is known to hold everything up to this sequence; 0 at the start of the process.
    pub applied: u64,
}

/// Messages that are applied together.
struct Window {
    batch: Batch,
    /// There are entries in between that were delivered to another projector.
    has_gap: bool,
    /// The newest of its messages, and that message's sequence.
    newest: jetstream::Message,
    end: u64,
    /// The consumer's delivery count at the last message, if that was a first delivery.
    delivery: Option<u64>,
}

/// Where a message stands in the log, and among the consumer's deliveries.
#[derive(Clone, Copy, Debug)]
struct Place {
    seq: u64,
    delivery: u64,
    is_first: bool,
}

impl Place {
    fn of(message: &jetstream::Message) -> anyhow::Result<Self> {
        let info = message.info().map_err(|error| anyhow::anyhow!(error))?;
        Ok(Self { seq: info.stream_sequence, delivery: info.consumer_sequence, is_first: info.delivered <= 1 })
    }

    /// Whether no message of the log lies between sequence `end` and this one. `last` is the delivery count of the last
    /// message up to `end`.
    fn follows(self, end: u64, last: Option<u64>) -> bool {
        self.seq <= end + 1 || self.is_first && last.is_some_and(|last| self.delivery == last + 1)
    }

    /// The delivery count that the next message may follow.
    fn count(self) -> Option<u64> {
        self.is_first.then_some(self.delivery)
    }
}

impl Window {
    /// A window that begins with `first`, after everything up to `applied` and after the consumer's delivery
    /// `delivery`.
    fn new(log: &Log, first: jetstream::Message, applied: u64, delivery: Option<u64>) -> anyhow::Result<Self> {
        let place = Place::of(&first)?;
        let has_gap = !place.follows(applied, delivery);
        let mut batch = Batch::default();
        batch.push(log, &first.subject, place.seq, &first.payload);
        Ok(Self { batch, has_gap, newest: first, end: place.seq.max(applied), delivery: place.count() })
    }

    fn push(&mut self, log: &Log, message: jetstream::Message) -> anyhow::Result<()> {
        let place = Place::of(&message)?;
        self.batch.push(log, &message.subject, place.seq, &message.payload);
        self.has_gap |= !place.follows(self.end, self.delivery);
        self.delivery = place.count();
        // Otherwise it is a redelivered message, whose lease had expired.
        if place.seq > self.end {
            (self.newest, self.end) = (message, place.seq);
        }
        Ok(())
    }
}

impl Follower {
    /// Follows the log until `shutdown`. After a failure it retries: the log keeps what was not acknowledged.
    pub async fn run(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        loop {
            let followed = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                followed = self.follow() => followed,
            };
            if let Err(error) = followed {
                self.check.fail(format!("{error:#}"));
                tracing::warn!(error = format!("{error:#}"), "cannot follow the log; retrying");
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = sleep(Duration::from_millis(500)) => {}
            }
        }
    }

    /// Returns when the consumer's stream of messages ends.
    async fn follow(&mut self) -> anyhow::Result<()> {
        let mut consumer: PullConsumer = self
            .context
            .get_consumer_from_stream(PROJECTOR_CONSUMER, STREAM)
            .await
            .with_context(|| format!("cannot open the consumer {PROJECTOR_CONSUMER}"))?;
        let mut messages = consumer
            .stream()
            .group(PROJECTOR_GROUP)
            .max_messages_per_batch(2 * PROJECTOR_WINDOW_MESSAGES_MAX)
            .expires(PULL_EXPIRES)
            .heartbeat(PULL_EXPIRES / 4)
            .messages()
            .await
            .context("cannot pull from the log")?;
        self.check.pass();
        // Unknown at first: earlier deliveries are not known to be applied.
        let mut delivery = None;
        while let Some(window) = self.next_window(&mut messages, delivery).await? {
            if window.has_gap {
                self.catch_up(&mut consumer, window.end).await?;
            } else {
                self.projection.apply(&window.batch).await;
            }
            self.applied = window.end;
            delivery = window.delivery;
            // With AckPolicy::All it covers the whole window. If it is lost, the window is repeated.
            window.newest.ack().await.map_err(|error| anyhow::anyhow!(error)).context("cannot acknowledge")?;
            self.metrics.position.set(i64::try_from(self.applied).unwrap_or(i64::MAX));
            self.check.pass();
        }
        Ok(())
    }

    /// Waits for a message, then takes those that arrive within the window's time.
    async fn next_window<E>(
        &self,
        messages: &mut (impl Stream<Item = Result<jetstream::Message, E>> + Unpin),
        delivery: Option<u64>,
    ) -> anyhow::Result<Option<Window>>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let Some(first) = messages.next().await.transpose()? else { return Ok(None) };
        let deadline = Instant::now() + PROJECTOR_WINDOW;
        let mut window = Window::new(&self.projection.log, first, self.applied, delivery)?;
        while window.batch.len() < PROJECTOR_WINDOW_MESSAGES_MAX {
            let Ok(next) = timeout_at(deadline, messages.next()).await else { break };
            let Some(message) = next.transpose()? else { break };
            window.push(&self.projection.log, message)?;
        }
        Ok(Some(window))
    }

    /// Applies the entries of the log up to `end` that no projector has acknowledged: an acknowledged entry has been
    /// applied.
    async fn catch_up(&mut self, consumer: &mut PullConsumer, end: u64) -> anyhow::Result<()> {
        let info = consumer.info().await.with_context(|| format!("cannot read the consumer {PROJECTOR_CONSUMER}"))?;
        let mut after = self.applied.max(info.ack_floor.stream_sequence);
        if after + 1 < end {
            self.metrics.gaps.inc();
            tracing::info!(after, end, "entries were delivered to another projector; reading them from the log");
        }
        while after < end {
            after = self.projection.apply_from_log(after, end, PROJECTOR_WINDOW_MESSAGES_MAX).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_to_a_dead_projector_is_missed_also_behind_a_message_of_its_that_comes_again() {
        let first = |seq, delivery| Place { seq, delivery, is_first: true };
        let again = |seq, delivery| Place { seq, delivery, is_first: false };
        // 6 and 7 were purged; or delivered to another projector.
        assert!(first(8, 6).follows(5, first(5, 5).count()));
        assert!(!first(8, 8).follows(5, first(5, 5).count()));
        // 1 to 7 were delivered to a projector that is dead; of these, 5 is redelivered, and then new ones follow.
        assert!(!again(5, 8).follows(0, None));
        assert!(!first(8, 9).follows(5, again(5, 8).count()));
        assert!(again(6, 9).follows(5, again(5, 8).count()));
        assert!(!again(7, 9).follows(5, again(5, 8).count()));
    }
}
