//! From just before an event is published to the frame read by a client, at rates that are far from the limit.

use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};
use tokio::time::{Instant, sleep, sleep_until};

use super::Bench;

/// After the last event of a load, for its frames.
const TAIL: Duration = Duration::from_secs(2);
const WARM_UP: Duration = Duration::from_secs(1);

impl Bench<'_> {
    pub(super) async fn latency(&mut self) -> anyhow::Result<()> {
        let clients = self.scale.clients;
        let jobs = self.scale.jobs;
        // Few clients, few events; all clients on one job; ten clients a job, as many deliveries a second as clients.
        self.latency_at("low", 100.min(clients), 100.min(jobs), 200.0).await?;
        self.latency_at("hot", clients, 1, 2.0).await?;
        self.latency_at("spread", clients, jobs, jobs as f64).await
    }

    async fn latency_at(&mut self, name: &str, clients: usize, jobs: usize, events_per_s: f64) -> anyhow::Result<()> {
        self.fresh().await?;
        self.open(clients, jobs, false).await?;
        self.publish_evenly(jobs, events_per_s, WARM_UP).await?;
        sleep(TAIL).await;
        self.loads.begin(false).await?;
        let before = self.cpu()?;
        let events = self.publish_evenly(jobs, events_per_s, Duration::from_secs_f64(self.scale.seconds)).await?;
        sleep(TAIL).await;
        let report = self.loads.report().await?;
        let name = format!("latency.{name}");
        self.set_cpu(&name, before, report.progress.frames)?;
        self.set(format!("{name}.p50_ms"), report.latency.p50_ms);
        self.set(format!("{name}.p99_ms"), report.latency.p99_ms);
        self.set(format!("{name}.p999_ms"), report.latency.p999_ms);
        self.set(format!("{name}.max_ms"), report.latency.max_ms);
        let expected = events * (clients / jobs) as u64;
        if report.progress.covered != expected {
            self.note(format!("{name}: {} of {expected} deliveries arrived or were followed", report.progress.covered));
        }
        self.check(&name, &report);
        Ok(())
    }

    /// Publishes at even distances, each job in turn, whatever the answers take; how many events.
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
