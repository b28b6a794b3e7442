//! Memory for each idle client, and how fast clients connect.

use std::time::Duration;

use super::super::proc::rss_kib;
use super::Bench;

/// How long memory may settle once all are connected.
const SETTLE: Duration = Duration::from_secs(3);

impl Bench<'_> {
    /// All on one job, ten a job, and a job each; for memory also with as many as the open-file limit allows.
    pub(super) async fn memory(&mut self, with_memory: bool) -> anyhow::Result<()> {
        let clients = self.scale.clients;
        let layouts = [("one", 1), ("ten", clients / 10), ("each", clients)];
        for (layout, jobs) in layouts {
            self.layout(layout, clients, jobs.max(1), with_memory).await?;
        }
        if with_memory && self.scale.clients_max > clients {
            let clients = self.scale.clients_max;
            for (layout, jobs) in [("one", 1), ("ten", clients / 10), ("each", clients)] {
                self.layout(&format!("max.{layout}"), clients, jobs.max(1), true).await?;
            }
        }
        Ok(())
    }

    async fn layout(&mut self, layout: &str, clients: usize, jobs: usize, with_memory: bool) -> anyhow::Result<()> {
        self.fresh().await?;
        let pids = self.subject.serving();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let empty = rss_kib(&pids)?;
        let before = self.cpu()?;
        let opened = self.open(clients, jobs, false).await?;
        self.set(format!("connects.{layout}_per_s"), clients as f64 / opened.seconds);
        self.set_cpu(&format!("connects.{layout}"), before, clients as u64)?;
        if with_memory {
            self.set("memory.empty_kib", empty);
            tokio::time::sleep(SETTLE).await;
            self.set(format!("memory.{layout}_kib"), (rss_kib(&pids)? - empty) / clients as f64);
        }
        let report = self.loads.report().await?;
        self.check(layout, &report);
        Ok(())
    }
}
