//! Closing all sockets, spread over a time, so that their clients reach the other edges one after the other.

use std::time::{Duration, Instant};

/// What is closed when.
#[derive(Debug)]
pub struct Drain {
    began: Instant,
    lasts: Duration,
    /// Sockets at the beginning.
    total: usize,
    closed: usize,
}

impl Drain {
    /// Of `total` sockets, from now on.
    pub const fn new(total: usize, lasts: Duration, now: Instant) -> Self {
        Self { began: now, lasts, total, closed: 0 }
    }

    /// How many more may be closed now. At the end all of them, also those that came in between.
    pub fn due(&self, now: Instant) -> usize {
        let share = now.duration_since(self.began).as_secs_f64() / self.lasts.as_secs_f64().max(0.001);
        if share >= 1.0 {
            return usize::MAX;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let due = (share * self.total as f64).ceil() as usize;
        due.saturating_sub(self.closed)
    }

    /// So many were closed.
    pub const fn closed(&mut self, count: usize) {
        self.closed += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_closed_evenly_over_the_time_and_none_is_left_after_it() {
        let (now, lasts) = (Instant::now(), Duration::from_secs(10));
        let mut drain = Drain::new(100, lasts, now);
        let mut most = 0;
        for tick in 1..100 {
            let due = drain.due(now + lasts * tick / 100);
            most = most.max(due);
            drain.closed(due);
        }
        assert!(most <= 2, "{most} at once");
        assert_eq!(drain.closed, 99);
        assert_eq!(drain.due(now + lasts), usize::MAX);
        assert_eq!(Drain::new(100, Duration::ZERO, now).due(now + Duration::from_millis(1)), usize::MAX);
    }
}
