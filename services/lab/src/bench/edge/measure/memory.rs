//! Memory for each idle client, and how fast clients connect.

use std::time::Duration;

use super::{super::proc::rss_kib, Bench, Session};

/// How long memory settles once all clients are connected.
const SETTLE: Duration = Duration::from_secs(3);

impl Bench<'_> {
    /// Records the measurements taken while the clients connected.
    pub(super) fn connects(&mut self, session: &Session) {
        let (name, opened) = (session.layout.name, &session.opened);
        self.set(format!("connects.{name}_per_s"), opened.opened as f64 / opened.seconds);
        self.set_cpu(&format!("connects.{name}"), session.used, opened.opened as u64);
        if let Some(requests) = session.requests {
            self.set(format!("connects.{name}.nats_requests"), requests as f64);
        }
    }

    /// Must run before the clients have received anything but their first states.
    pub(super) async fn memory(&mut self, session: &Session) -> anyhow::Result<()> {
        tokio::time::sleep(SETTLE).await;
        let each = (rss_kib(&self.subject.serving())? - session.empty_kib) / session.opened.opened as f64;
        self.set("memory.empty_kib", session.empty_kib);
        self.set(format!("memory.{}_kib", session.layout.name), each);
        let report = self.loads.report().await?;
        self.check(session.layout.name, &report);
        Ok(())
    }
}
