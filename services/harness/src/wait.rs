//! Waiting for what can be observed, instead of for a time.

use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(20);

/// Whether something holds within `limit`; it is looked at again every few milliseconds.
pub async fn holds_within(limit: Duration, mut holds: impl AsyncFnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !holds().await {
        if Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
    true
}

/// Waits until something holds.
///
/// # Panics
/// When it does not hold within `limit`; `what` says what was waited for.
pub async fn until(what: &str, limit: Duration, holds: impl AsyncFnMut() -> bool) {
    assert!(holds_within(limit, holds).await, "not within {limit:?}: {what}");
}
