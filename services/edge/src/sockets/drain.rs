//! The schedule of a drain: closes all sockets spread over a time, so that their clients reach the other edges one
//! after the other.

use std::time::{Duration, Instant};

/// The highest pace of a loop that catches up, relative to an even one.
const PACE_MAX: f64 = 1.4;

/// The schedule of one loop's drain.
#[derive(Debug)]
pub struct Drain {
    began: Instant,
    lasts: Duration,
    /// Sockets at the beginning.
    total: usize,
    closed: usize,
}

impl Drain {
    /// Starts the drain of `total` sockets now.
    pub const fn new(total: usize, lasts: Duration, now: Instant) -> Self {
        Self { began: now, lasts, total, closed: 0 }
    }

    /// How many sockets to close now, called every `tick`. At the end: all, including sockets that were added during
    /// the drain. A loop that was held up catches up at no more than `PACE_MAX`, not in one burst.
    pub fn due(&self, tick: Duration, now: Instant) -> usize {
        let part = |of: Duration| of.as_secs_f64() / self.lasts.as_secs_f64().max(0.001);
        let share = part(now.duration_since(self.began));
        if share >= 1.0 {
            return usize::MAX;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let sockets = |share: f64| (share * self.total as f64).ceil() as usize;
        sockets(share).saturating_sub(self.closed).min(sockets(part(tick) * PACE_MAX))
    }

    /// Records that `count` sockets were closed.
    pub const fn closed(&mut self, count: usize) {
        self.closed += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    #[test]
    fn sockets_are_closed_evenly_over_the_time_and_none_is_left_after_it() {
        let (now, lasts) = (Instant::now(), Duration::from_secs(10));
        let mut drain = Drain::new(100, lasts, now);
        let mut most = 0;
        for tick in 1..100 {
            let due = drain.due(TICK, now + TICK * tick);
            most = most.max(due);
            drain.closed(due);
        }
        assert!(most <= 2, "{most} at once");
        assert_eq!(drain.closed, 99);
        assert_eq!(drain.due(TICK, now + lasts), usize::MAX);
        assert_eq!(Drain::new(100, Duration::ZERO, now).due(TICK, now + Duration::from_millis(1)), usize::MAX);
    }

    #[test]
    fn a_loop_that_was_held_up_does_not_close_at_once_what_it_has_missed() {
        let (now, lasts) = (Instant::now(), Duration::from_secs(10));
        let mut drain = Drain::new(1000, lasts, now);
        let mut closed = 0;
        for tick in 21..80 {
            let due = drain.due(TICK, now + TICK * tick);
            assert!(due <= 14, "{due} at once");
            drain.closed(due);
            closed += due;
        }
        assert_eq!(closed, 790, "it has caught up");
    }
}
