//! All clients reconnect at once, each to a job of its own; and what memory is left of that.

use std::time::Duration;

use super::super::super::stats::median;
use super::super::proc::rss_kib;
use super::Bench;

impl Bench<'_> {
    pub(super) async fn storm(&mut self) -> anyhow::Result<()> {
        let clients = self.scale.clients;
        self.fresh().await?;
        let pids = self.subject.serving();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let empty = rss_kib(&pids)?;
        self.open(clients, clients, false).await?;
        let (mut seconds, mut failures, mut requests) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.scale.storms {
            self.loads.close().await?;
            // A storm meets an edge that does not hold those clients already: they come from another one.
            self.gone().await?;
            let before = self.subject.requests().await?;
            let opened = self.open(clients, clients, true).await?;
            seconds.push(opened.seconds);
            failures.push(opened.failures.values().sum::<u64>() as f64);
            if !opened.failures.is_empty() {
                self.note(format!("in a storm: {:?}", opened.failures));
            }
            if let (Some(before), Some(after)) = (before, self.subject.requests().await?) {
                requests.push((after - before) as f64);
            }
        }
        self.set("storm.seconds", median(&seconds));
        self.set("storm.failures", median(&failures));
        if !requests.is_empty() {
            self.set("storm.nats_requests", median(&requests));
        }
        tokio::time::sleep(Duration::from_secs_f64(self.scale.after_storm_s)).await;
        self.set("storm.memory_after_kib", (rss_kib(&pids)? - empty) / clients as f64);
        let report = self.loads.report().await?;
        self.check("after the storm", &report);
        Ok(())
    }
}
