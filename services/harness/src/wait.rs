//! Waits for an observable condition, instead of for a time.

use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(20);

/// Whether a condition holds within `limit`; it is checked every few milliseconds.
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

/// Waits until a condition holds.
///
/// # Panics
/// When the condition does not hold within `limit`; `what` names it.
pub async fn until(what: &str, limit: Duration, holds: impl AsyncFnMut() -> bool) {
    assert!(holds_within(limit, holds).await, "not within {limit:?}: {what}");
}
