//! Deliveries at the server's maximum rate: a closed loop, so that no queue grows without bound.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{Bench, Layout};

/// Events of each job in flight: published, and not received by all its clients.
const EVENTS_IN_FLIGHT: u64 = 4;
const WARM_UP: Duration = Duration::from_secs(1);
/// After this time without a delivery, the rest counts as lost.
const STALL_MAX: Duration = Duration::from_secs(10);

impl Bench<'_> {
    pub(super) async fn saturation(&mut self, name: &str, layout: Layout) -> anyhow::Result<()> {
        let mut offered = 0;
        self.loads.begin(true).await?;
        self.offer(layout, &mut offered, WARM_UP).await?;
        // Counting begins here; events in flight stay in flight.
        let progress = self.loads.progress();
        let begun = (Instant::now(), *progress.borrow(), self.cpu()?);
        self.offer(layout, &mut offered, Duration::from_secs_f64(self.scale.seconds)).await?;
        let (seconds, now) = (begun.0.elapsed().as_secs_f64(), *progress.borrow());
        let frames = now.frames - begun.1.frames;
        let used = self.cpu_since(begun.2)?;
        self.set_cpu(name, used, frames);
        self.set(format!("{name}.deliveries_per_s"), frames as f64 / seconds);
        self.set(format!("{name}.covered_per_s"), (now.covered - begun.1.covered) as f64 / seconds);
        let cpu_us = self.metrics[&format!("{name}.cpu_us")];
        self.set(format!("{name}.deliveries_per_cpu_s"), 1e6 / cpu_us);
        let report = self.loads.report().await?;
        self.check(name, &report);
        Ok(())
    }

    async fn offer(&mut self, layout: Layout, offered: &mut u64, lasting: Duration) -> anyhow::Result<()> {
        let jobs = layout.jobs;
        let clients_each = (layout.clients / jobs) as u64;
        let window = EVENTS_IN_FLIGHT * jobs as u64 * clients_each;
        let deadline = Instant::now() + lasting;
        let mut progress = self.loads.progress();
        while Instant::now() < deadline {
            let covered = progress.borrow_and_update().covered;
            while *offered * clients_each < covered + window {
                self.subject.offer(*offered as usize % jobs).await?;
                *offered += 1;
            }
            match timeout(STALL_MAX, progress.changed()).await {
                Ok(changed) => changed?,
                Err(_) => {
                    let covered = progress.borrow().covered;
                    anyhow::bail!("of {} deliveries only {covered} have arrived", *offered * clients_each);
                }
            }
        }
        Ok(())
    }
}
