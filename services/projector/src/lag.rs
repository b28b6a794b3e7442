//! Measures the projector's lag. The number comes from the consumer, so that it is current even while nothing can be
//! written, and on a projector that stands by.

use async_nats::jetstream::{self, consumer::PullConsumer};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use millrace_domain::{
    limits::PROJECTOR_LAG_INTERVAL,
    subjects::{PROJECTOR_CONSUMER, STREAM},
};

use crate::metrics::Metrics;

/// Reads the lag at an interval until `shutdown`. If the consumer's state cannot be read, the metric keeps its last
/// value, and the connection's check reports the failure.
pub async fn run(context: jetstream::Context, metrics: Metrics, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut ticks = interval(PROJECTOR_LAG_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        let asked =
            context.get_consumer_from_stream::<jetstream::consumer::pull::Config, _, _>(PROJECTOR_CONSUMER, STREAM);
        match shutdown.run_until_cancelled(asked).await {
            None => return Ok(()),
            Some(Ok(consumer)) => {
                let consumer: PullConsumer = consumer;
                let info = consumer.cached_info();
                let waiting = info.num_pending + info.num_ack_pending as u64;
                metrics.lag_entries.set(i64::try_from(waiting).unwrap_or(i64::MAX));
            }
            Some(Err(error)) => tracing::debug!(%error, "cannot read the consumer's state"),
        }
    }
}
