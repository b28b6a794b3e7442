//! A response body that is sent at a steady rate, and may end with a fault.

use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use tokio::time::Instant;

const STEPS_PER_S: u64 = 20;
const CHUNK_BYTES_MAX: u64 = 256 * 1024;

const FLUSH: Duration = Duration::from_millis(50);

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The whole body is sent.
    Whole,
    /// The connection is dropped.
    Drop,
    /// The rest is never sent, and the connection stays open.
    Hang,
}

/// Sends `bytes`, then ends as `end` says; at `rate` bytes a second in 20 steps a second, or without a limit.
pub(super) fn body(bytes: Bytes, rate: Option<u64>, end: End) -> impl Stream<Item = std::io::Result<Bytes>> {
    let rate = rate.map(|rate| rate.max(1));
    let chunk = rate.map_or(CHUNK_BYTES_MAX, |rate| (rate / STEPS_PER_S).clamp(1, CHUNK_BYTES_MAX));
    let chunk = usize::try_from(chunk).unwrap_or(usize::MAX);
    let start = Instant::now();
    futures::stream::unfold((bytes, 0_u64), move |(mut left, sent)| async move {
        if left.is_empty() {
            return match end {
                End::Whole => None,
                End::Drop => {
                    // Time for the server to send its buffered bytes, at least the headers: an error discards them.
                    tokio::time::sleep(FLUSH).await;
                    Some((Err(std::io::Error::other("dropped on purpose")), (left, sent)))
                }
                End::Hang => std::future::pending().await,
            };
        }
        let next = left.split_to(chunk.min(left.len()));
        let sent = sent + next.len() as u64;
        if let Some(rate) = rate {
            // From the start, so that late wake-ups do not add up.
            tokio::time::sleep_until(start + Duration::from_micros(sent.saturating_mul(1_000_000) / rate)).await;
        }
        Some((Ok(next), (left, sent)))
    })
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_comes_evenly_at_its_rate() {
        let start = Instant::now();
        let mut body = std::pin::pin!(body(Bytes::from(vec![0; 10_000]), Some(2_000), End::Whole));
        let (mut sent, mut gap_max, mut last) = (0, Duration::ZERO, start);
        while let Some(chunk) = body.next().await {
            sent += chunk.unwrap().len();
            gap_max = gap_max.max(last.elapsed());
            last = Instant::now();
        }
        assert_eq!(sent, 10_000);
        assert_eq!(start.elapsed().as_secs(), 5);
        assert!(gap_max <= Duration::from_millis(60), "{gap_max:?}");
    }
}
