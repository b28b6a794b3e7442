//! Folds the whole log from zero into a bucket beside the live one, once. It needs no consumer: the pages of the log
//! follow one another without a gap.

use std::time::Duration;

use anyhow::Context;
use async_nats::jetstream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use millrace_domain::{limits::REBUILD_WINDOW_MESSAGES_MAX, subjects};

use crate::projection::Projection;

/// Time between two log lines that report the progress.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// Fails if the bucket has messages: they would not be folded from zero.
pub async fn assert_empty(context: &jetstream::Context, bucket: &str) -> anyhow::Result<()> {
    let stream = context.get_stream(subjects::bucket_stream(bucket)).await.with_context(|| {
        format!("cannot open the bucket {bucket}; it must exist and be empty, as `millrace rebuild` creates it")
    })?;
    let messages = stream.cached_info().state.messages;
    anyhow::ensure!(messages == 0, "the bucket {bucket} is not empty: a rebuild begins from zero");
    Ok(())
}

/// Applies everything up to the log's last message at the start, then stops the process. `millrace rebuild` reads the
/// log lines with `applied` and `end`.
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
