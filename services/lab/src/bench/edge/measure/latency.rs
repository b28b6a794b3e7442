//! The latency from just before an event's publication to the frame read by a client, at rates far below the limit.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Bench, Layout};

/// The wait after the last event of a load, for its frames.
const TAIL: Duration = Duration::from_secs(2);
const WARM_UP: Duration = Duration::from_secs(1);

impl Bench<'_> {
    /// Measures at a rate that fits the layout: few clients, all on one job, or ten a job.
    pub(super) async fn latency(&mut self, layout: Layout) -> anyhow::Result<()> {
        let Layout { clients, jobs, .. } = layout;
        let (name, jobs, events_per_s) = match jobs {
            1 => ("latency.hot", 1, 2.0),
            _ if jobs == clients => ("latency.low", 100.min(jobs), 200.0),
            // As many deliveries a second as clients.
            _ => ("latency.spread", jobs, jobs as f64),
        };
        let clients_each = clients / layout.jobs;
        self.publish_evenly(jobs, events_per_s, WARM_UP).await?;
        sleep(TAIL).await;
        self.loads.begin(false).await?;
        let before = self.cpu()?;
        let events = self.publish_evenly(jobs, events_per_s, Duration::from_secs_f64(self.scale.seconds)).await?;
        sleep(TAIL).await;
        let report = self.loads.report().await?;
        let used = self.cpu_since(before)?;
        self.set_cpu(name, used, report.progress.frames);
        self.set(format!("{name}.p50_ms"), report.latency.p50_ms);
        self.set(format!("{name}.p99_ms"), report.latency.p99_ms);
        self.set(format!("{name}.p999_ms"), report.latency.p999_ms);
        self.set(format!("{name}.max_ms"), report.latency.max_ms);
        let expected = events * clients_each as u64;
        if report.progress.covered != expected {
            self.note(format!("{name}: {} of {expected} deliveries arrived or were followed", report.progress.covered));
        }
        self.check(name, &report);
        Ok(())
    }

    /// Publishes at even intervals, each job in turn, without waiting for answers; returns the number of events.
    async fn publish_evenly(&self, jobs: usize, events_per_s: f64, lasting: Duration) -> anyhow::Result<u64> {
        let events = (events_per_s * lasting.as_secs_f64()) as u64;
        let begun = Instant::now();
        let mut under_way = FuturesUnordered::new();
        for event in 0..events {
            let due = begun + Duration::from_secs_f64(event as f64 / events_per_s);
            loop {
                tokio::select! {
                    biased;
                    Some(published) = under_way.next() => published?,
                    () = sleep_until(due) => break,
                }
            }
            under_way.push(self.subject.publish(event as usize % jobs));
        }
        under_way.try_collect::<()>().await?;
        Ok(events)
    }
}
