//! Counts of what the clients of one load generator have received.

use std::{collections::BTreeMap, time::Duration};

use super::{
    super::mark::{Mark, now_us},
    control::{Progress, Report},
};
use crate::bench::stats::Latencies;

/// The counts of all clients, which run on one thread.
pub struct Tally {
    epoch_us: u64,
    /// Only events published from this time on count for the latency.
    begun_us: u64,
    latencies: Latencies,
    /// See [`Progress`].
    pub progress: Progress,
    /// Whether progress is reported all the time.
    pub is_paced: bool,
    /// Clients that have their state and are connected.
    pub open: usize,
    /// Clients that were disconnected, by reason.
    pub ended: BTreeMap<String, u64>,
    /// The mark's position in the last frame.
    pub hint: usize,
}

impl Tally {
    /// All counts are zero. Marks count from `epoch_us`.
    pub fn new(epoch_us: u64) -> Self {
        Self {
            epoch_us,
            begun_us: 0,
            latencies: Latencies::new(),
            progress: Progress::default(),
            is_paced: false,
            open: 0,
            ended: BTreeMap::new(),
            hint: 0,
        }
    }

    /// Resets all counts but that of connected clients.
    pub fn begin(&mut self, is_paced: bool) {
        let open = self.open;
        *self = Self { open, is_paced, begun_us: now_us() - self.epoch_us, ..Self::new(self.epoch_us) };
    }

    /// Counts the frame `message`, received by a client that has seen event `last` of its job, or no event yet.
    pub fn frame(&mut self, message: &[u8], last: &mut Option<u64>) {
        let mark = Mark::find(message, &mut self.hint);
        let number = mark.map_or(0, |mark| mark.number);
        let Some(before) = last.replace(number) else { return };
        self.progress.frames += 1;
        self.progress.covered += number.saturating_sub(before);
        if let Some(mark) = mark.filter(|mark| mark.at_us >= self.begun_us) {
            let now = now_us() - self.epoch_us;
            self.latencies.record(Duration::from_micros(now.saturating_sub(mark.at_us)));
        }
    }

    /// The counts.
    pub fn report(&self) -> Report {
        Report {
            progress: self.progress,
            latency: self.latencies.summary(),
            open: self.open,
            ended: self.ended.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merged_event_is_covered_and_a_first_state_is_not_counted() {
        let mut tally = Tally::new(now_us() - 1_000);
        let mut last = None;
        for number in [4, 5, 8] {
            let mark = Mark { at_us: 900, number };
            tally.frame(format!("{{\"downloadedBytes\":{}}}", mark.encode()).as_bytes(), &mut last);
        }
        assert_eq!(tally.progress, Progress { frames: 2, covered: 4 });
        assert_eq!(tally.report().latency.count, 2);
    }
}
