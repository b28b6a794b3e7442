//! Detects lost events that no later message reveals.
//!
//! The log numbers its messages without holes. Therefore one read of its last sequence every few seconds shows whether
//! the edge heard every event, however many jobs are watched. After a loss, or a disturbance of the connection, the
//! sweep reads the last sequence of every watched job. It also reads that of each quiet job, less and less often: its
//! state may have come from a stale replica.

use std::collections::HashMap;

use millrace_domain::{
    JobId,
    limits::{SNAPSHOT_BATCH_MAX, SWEEP_GRACE, SWEEP_INTERVAL, SWEEP_INTERVAL_MAX, SWEEPS_FREQUENT},
    subjects,
};
use millrace_runtime::{direct::ReadError, log::Log, nats::Disturbance};
use tokio::{
    sync::broadcast,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::Feed;

/// When to read the last sequence of one quiet job.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    due: Instant,
    /// How often it was read since the watch began, or since the last doubt.
    asked: u32,
}

impl Schedule {
    /// The schedule of a job that is watched from now on.
    pub fn new(now: Instant) -> Self {
        Self { due: now + SWEEP_INTERVAL, asked: 0 }
    }

    /// An event of the job was heard, which reveals any lost event before it.
    pub fn heard(&mut self, now: Instant) {
        self.due = now + self.interval();
    }

    /// Due at the nearest tick: ticks come in whole intervals, never exactly on time.
    fn is_due(&self, now: Instant) -> bool {
        self.due <= now + SWEEP_INTERVAL / 2
    }

    fn asked(&mut self, now: Instant) {
        self.asked += 1;
        self.due = now + self.interval();
    }

    fn doubt(&mut self, now: Instant) {
        *self = Self { due: now, asked: 0 };
    }

    fn interval(&self) -> std::time::Duration {
        let doublings = self.asked.saturating_sub(SWEEPS_FREQUENT).min(16);
        (SWEEP_INTERVAL * (1 << doublings)).min(SWEEP_INTERVAL_MAX)
    }
}

pub async fn run(
    feed: Feed,
    log: Log,
    mut disturbances: broadcast::Receiver<Disturbance>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // Up to this sequence every event was heard, or the sweep has run since.
    let mut checked = None;
    loop {
        let disturbed = tokio::select! {
            _ = ticks.tick() => false,
            // Lagged: there was more than one. Closed cannot happen: the feed holds the connection.
            _ = disturbances.recv() => true,
            () = super::closed(&feed, &shutdown) => return Ok(()),
        };
        let doubt = if disturbed {
            // The next tick detects what is lost after this.
            checked = log.last_sequence().await.map_or(checked, Some);
            true
        } else {
            match has_heard_all(&feed, &log, &mut checked).await {
                Ok(all) => !all,
                Err(error) => {
                    // The next tick detects what was lost meanwhile.
                    tracing::warn!(%error, "cannot read the log's last sequence; checking again in 3 s");
                    false
                }
            }
        };
        for ids in due(&feed, doubt).chunks(SNAPSHOT_BATCH_MAX) {
            sweep(&feed, &log, ids).await;
        }
    }
}

async fn has_heard_all(feed: &Feed, log: &Log, checked: &mut Option<u64>) -> Result<bool, ReadError> {
    let heard = feed.recent().last();
    let last = log.last_sequence().await?;
    let Some(after) = checked.replace(last) else { return Ok(true) };
    if last < heard.max(after) {
        tracing::warn!(heard, last, "log was truncated or restored (last sequence fell); reloading all watched jobs");
        feed.recent().forget();
        return Ok(false);
    }
    if feed.recent().has_heard(after, last) {
        return Ok(true);
    }
    // The event may still be in flight.
    sleep(SWEEP_GRACE).await;
    let mut recent = feed.recent();
    let all = recent.has_heard(after, last);
    if !all {
        // Later watches must not rely on it either.
        recent.disturbed();
    }
    Ok(all)
}

fn due(feed: &Feed, doubt: bool) -> Vec<JobId> {
    let now = Instant::now();
    let mut table = feed.table();
    let mut due = Vec::new();
    for (id, watched) in table.iter_mut().filter(|(_, watched)| !watched.stitch.is_final()) {
        if doubt {
            watched.schedule.doubt(now);
        }
        if watched.schedule.is_due(now) {
            due.push(id.clone());
        }
    }
    due
}

async fn sweep(feed: &Feed, log: &Log, ids: &[JobId]) {
    let filters: Vec<_> = ids.iter().map(subjects::job_filter).collect();
    let last = match log.last(&filters).await {
        Ok(last) => last,
        // They stay due for the next sweep.
        Err(error) => return tracing::warn!(%error, jobs = ids.len(), "cannot sweep quiet jobs; retrying"),
    };
    feed.0.metrics.quiet_jobs_asked.inc_by(ids.len() as u64);
    let now = Instant::now();
    for id in ids {
        if let Some(watched) = feed.table().get_mut(id.as_str()) {
            watched.schedule.asked(now);
        }
    }
    let mut newest: HashMap<JobId, u64> = HashMap::new();
    for (id, stored) in last {
        let seq = newest.entry(id).or_default();
        *seq = stored.seq.max(*seq);
    }
    for (id, seq) in newest {
        feed.with(id.as_str(), |_, stitch| {
            let todo = stitch.swept(seq);
            if todo.load.is_some() {
                feed.0.metrics.sweep_finds.inc();
            }
            todo
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_job_is_asked_for_less_and_less_often_until_there_is_doubt() {
        let began = Instant::now();
        let mut schedule = Schedule::new(began);
        let mut now = began;
        let mut next = |schedule: &mut Schedule| {
            let pause = schedule.due - now;
            now = schedule.due;
            schedule.asked(now);
            pause.as_secs()
        };
        let pauses: Vec<_> = (0..10).map(|_| next(&mut schedule)).collect();
        assert_eq!(pauses, [3, 3, 3, 3, 6, 12, 24, 48, 96, 96]);
        schedule.heard(began);
        assert_eq!(schedule.due, began + SWEEP_INTERVAL_MAX);
        schedule.doubt(began);
        assert!(schedule.is_due(began));
        schedule.asked(began);
        assert_eq!(schedule.due, began + SWEEP_INTERVAL);
    }
}
