//! All clients reconnect at once, each to its own job; then the memory that the server still holds.

use std::time::{Duration, Instant};

use anyhow::bail;

use super::{
    super::proc::{open_files, rss_kib},
    Bench, Session,
};

/// How long a server may take to release disconnected clients.
const GONE_MAX: Duration = Duration::from_secs(60);
/// A server without clients has fewer files and sockets open.
const IDLE_FILES_MAX: usize = 100;

impl Bench<'_> {
    pub(super) async fn storm(&mut self, session: &Session) -> anyhow::Result<()> {
        let clients = session.layout.clients;
        self.loads.close().await?;
        // A storm's clients come from another server, so this one must have released them.
        self.gone().await?;
        let before = self.subject.requests().await?;
        let opened = self.open(session.layout, true).await?;
        if opened.opened < clients {
            bail!("{}", super::too_few(session.layout, &opened));
        }
        self.set("storm.seconds", opened.seconds);
        self.set("storm.failures", opened.failures.values().sum::<u64>() as f64);
        if !opened.failures.is_empty() {
            self.note(format!("in a storm: {:?}", opened.failures));
        }
        if let (Some(before), Some(after)) = (before, self.subject.requests().await?) {
            self.set("storm.nats_requests", (after - before) as f64);
        }
        tokio::time::sleep(Duration::from_secs_f64(self.scale.after_storm_s)).await;
        let each = (rss_kib(&self.subject.serving())? - session.empty_kib) / clients as f64;
        self.set("storm.memory_after_kib", each);
        let report = self.loads.report().await?;
        self.check("after the storm", &report);
        Ok(())
    }

    /// Waits until the server has released its clients.
    async fn gone(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + GONE_MAX;
        let pids = self.subject.serving();
        while open_files(&pids) > IDLE_FILES_MAX * pids.len().max(1) {
            if Instant::now() > deadline {
                bail!("the server still has {} files open {GONE_MAX:?} after its clients left", open_files(&pids));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}
