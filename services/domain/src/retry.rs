//! When a failed attempt is followed by another, and after what pause. Pure: the caller passes the random number.

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    failure::{FailureKind, Nature},
    limits::{
        ATTEMPTS_MAX, RETRY_AFTER_MAX, RETRY_GROWTH, RETRY_PAUSE, RETRY_PAUSE_MAX, RETRY_PAUSE_MIN, WORKERS_LOST_MAX,
    },
};

/// The longest delay of any retry. A time beyond it was written by a wrong clock and is ignored.
pub const RETRY_DELAY_MAX: Duration = RETRY_AFTER_MAX.saturating_add(RETRY_PAUSE_MAX);

/// The failures and lost workers that a job may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The transient failure with this number fails the job. At least 1.
    pub attempts_max: u32,
    /// The lost worker with this number fails the job. At least 1.
    pub workers_lost_max: u32,
}

impl Budget {
    /// Whether an attempt that fails with `kind` is followed by another one, after `failures` failed attempts before
    /// it.
    #[must_use]
    pub fn allows_another(self, kind: FailureKind, failures: u32) -> bool {
        kind.nature() == Nature::Transient && failures.saturating_add(1) < self.attempts_max
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self { attempts_max: ATTEMPTS_MAX, workers_lost_max: WORKERS_LOST_MAX }
    }
}

/// The pause before the next attempt of a job, after `failures` failed attempts before this one.
///
/// A random length up to a bound that grows with each failure, so that jobs that failed together do not retry together.
/// The source's `Retry-After` is added. `random` is drawn evenly from 0 to 1.
#[must_use]
pub fn delay(failures: u32, retry_after: Option<Duration>, random: f64) -> Duration {
    let growth = RETRY_GROWTH.saturating_pow(failures);
    let longest = RETRY_PAUSE.saturating_mul(growth).min(RETRY_PAUSE_MAX);
    let pause = RETRY_PAUSE_MIN + (longest - RETRY_PAUSE_MIN).mul_f64(random.clamp(0.0, 1.0));
    pause + retry_after.unwrap_or_default().min(RETRY_AFTER_MAX)
}

/// How long from `now` until `retry_at`; `None` if that time has passed, or is too far away to be true.
#[must_use]
pub fn wait(retry_at: Timestamp, now: Timestamp) -> Option<Duration> {
    let wait = Duration::try_from(retry_at.duration_since(now)).ok()?;
    (!wait.is_zero() && wait <= RETRY_DELAY_MAX).then_some(wait)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_pause_is_within_its_bounds_and_never_before_what_the_source_asks_for(
            failures: u32, asked in prop::option::of(any::<u64>()), random in -1.0..2.0,
        ) {
            let asked = asked.map(Duration::from_secs);
            let delay = delay(failures, asked, random);
            let asked = asked.unwrap_or_default().min(RETRY_AFTER_MAX);
            prop_assert!(delay >= asked + RETRY_PAUSE_MIN && delay <= asked + RETRY_PAUSE_MAX, "{delay:?}");
            prop_assert!(delay <= RETRY_DELAY_MAX);
        }

        #[test]
        fn a_wait_ends_at_its_time_and_no_clock_makes_it_longer_than_the_longest(
            now in 0_i64..200_000_000_000, ahead in -10_000_i64..10_000,
        ) {
            let now = Timestamp::from_second(now).unwrap();
            let at = Timestamp::from_second(now.as_second() + ahead).unwrap();
            let max = i64::try_from(RETRY_DELAY_MAX.as_secs()).unwrap();
            let expected = (1..=max).contains(&ahead).then(|| Duration::from_secs(ahead.unsigned_abs()));
            prop_assert_eq!(wait(at, now), expected);
        }
    }

    #[test]
    fn pauses_grow_up_to_a_bound_and_differ_by_chance() {
        let longest = |failures| delay(failures, None, 1.0).as_secs();
        assert_eq!([0, 1, 2, 3, 4, 5, 100].map(longest), [2, 6, 18, 54, 162, 300, 300]);
        assert_eq!(delay(7, None, 0.0), RETRY_PAUSE_MIN);
        assert_eq!(delay(1, Some(Duration::from_secs(30)), 0.5), Duration::from_secs_f64(33.5));
    }
}
