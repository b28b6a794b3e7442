//! Folds the whole log from zero into a bucket beside the live one, once. No consumer is needed: the pages of the log
//! follow one another without a gap.

use std::time::Duration;

use anyhow::Context;
use async_nats::jetstream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use millrace_domain::{limits::REBUILD_WINDOW_MESSAGES_MAX, subjects};

use crate::projection::Projection;

/// How often it says how far it is.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// What is in the bucket already would not be from zero.
pub async fn assert_empty(context: &jetstream::Context, bucket: &str) -> anyhow::Result<()> {
    let stream = context.get_stream(subjects::bucket_stream(bucket)).await.with_context(|| {
        format!("the bucket {bucket} cannot be opened; it must be there and empty, as `millrace rebuild` makes it")
    })?;
    let messages = stream.cached_info().state.messages;
    anyhow::ensure!(messages == 0, "the bucket {bucket} is not empty: a rebuild begins from zero");
    Ok(())
}

/// Applies everything up to what is the log's last message now, then stops the process. The lines with `applied` and
/// `end` are read by `millrace rebuild`.
pub async fn run(mut projection: Projection, shutdown: CancellationToken) -> anyhow::Result<()> {
    let end = projection.log.last_sequence().await?;
    let mut applied = 0;
    let mut told = Instant::now();
    tracing::info!(applied, end, "folding the log from zero");
    while applied < end {
        tokio::select! {
            () = shutdown.cancelled() => anyhow::bail!("the rebuild was stopped at sequence {applied} of {end}"),
            through = projection.apply_from_log(applied, end, REBUILD_WINDOW_MESSAGES_MAX) => applied = through?,
        }
        if told.elapsed() >= TELL_INTERVAL {
            told = Instant::now();
            tracing::info!(applied, end, "folding the log from zero");
        }
    }
    tracing::info!(applied, end, "folded the whole log");
    shutdown.cancel();
    Ok(())
}
