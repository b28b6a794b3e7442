//! Records when each event was sent, and when an observer first saw it or a later one.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use millrace_domain::JobId;

use super::stats::Latencies;

/// The events of one run. An event is identified by its job and its number, from 1, which it carries as
/// `downloadedBytes`.
pub struct Events {
    start: Instant,
    by_id: HashMap<JobId, usize>,
    /// When each event was sent, in nanoseconds since `start`, by job and number.
    sent_ns: Vec<Vec<AtomicU64>>,
    /// Events up to this number are sent, but not counted.
    warm_up: u64,
}

impl Events {
    /// No event is sent yet; `each` events for each job.
    pub fn new(ids: &[JobId], each: u64, warm_up: u64) -> Self {
        let times = || (0..each).map(|_| AtomicU64::new(0)).collect();
        Self {
            start: Instant::now(),
            by_id: ids.iter().cloned().enumerate().map(|(job, id)| (id, job)).collect(),
            sent_ns: ids.iter().map(|_| times()).collect(),
            warm_up,
        }
    }

    /// The index of the job with this id.
    pub fn job(&self, id: &str) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    /// How many jobs there are.
    pub fn jobs(&self) -> usize {
        self.sent_ns.len()
    }

    /// How many events each job has.
    pub fn each(&self) -> u64 {
        self.sent_ns.first().map_or(0, |times| times.len() as u64)
    }

    /// Whether the event of this number is counted, rather than part of the warm-up.
    pub fn counts(&self, number: u64) -> bool {
        number > self.warm_up
    }

    /// Records that the event is sent now.
    pub fn sent(&self, job: usize, number: u64) {
        let now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.sent_ns[job][number as usize - 1].store(now, Ordering::Release);
    }

    fn latency(&self, job: usize, number: u64, seen: Instant) -> Duration {
        let sent = Duration::from_nanos(self.sent_ns[job][number as usize - 1].load(Ordering::Acquire));
        (seen - self.start).saturating_sub(sent)
    }
}

/// An observer's record of one job.
pub struct Seen {
    /// From the sending of an event until it, or a later state, was seen.
    pub latencies: Latencies,
    /// Events of which only a later state was seen.
    pub conflated: u64,
    newest: u64,
}

impl Seen {
    /// An empty record.
    pub fn new() -> Self {
        Self { latencies: Latencies::new(), conflated: 0, newest: 0 }
    }

    /// Records that the state after event `number` of `job` was seen at `at`; ignores a stale one.
    pub fn note(&mut self, events: &Events, job: usize, number: u64, at: Instant) {
        let number = number.min(events.each());
        for seen in (self.newest + 1).max(events.warm_up + 1)..=number {
            self.latencies.record(events.latency(job, seen, at));
            self.conflated += u64::from(seen < number);
        }
        self.newest = self.newest.max(number);
    }

    /// Whether the last event was seen.
    pub fn is_complete(&self, events: &Events) -> bool {
        self.newest >= events.each()
    }

    /// Adds the record of another job.
    pub fn add(&mut self, other: &Self) {
        self.latencies.add(&other.latencies);
        self.conflated += other.conflated;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_was_skipped_counts_until_a_later_one_is_seen() {
        let id: JobId = "a".parse().unwrap();
        let events = Events::new(std::slice::from_ref(&id), 4, 1);
        let job = events.job("a").unwrap();
        (1..=4).for_each(|number| events.sent(job, number));
        let mut seen = Seen::new();
        for number in [1, 3, 2] {
            seen.note(&events, job, number, Instant::now());
        }
        assert_eq!((seen.latencies.summary().count, seen.conflated, seen.is_complete(&events)), (2, 1, false));
        seen.note(&events, job, 4, Instant::now());
        assert_eq!((seen.latencies.summary().count, seen.conflated, seen.is_complete(&events)), (3, 1, true));
    }
}
