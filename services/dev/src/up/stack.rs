//! The running processes: started, watched, and stopped in order.

use std::time::Duration;

use anyhow::bail;
use futures::future::try_join_all;
use millrace_harness::processes::Service;

/// How long a service may take to become ready.
const READY_MAX: Duration = Duration::from_secs(30);
/// How long a process may take to stop.
const STOP_MAX: Duration = Duration::from_secs(15);
const WATCH_INTERVAL: Duration = Duration::from_millis(100);
/// Last lines of a dead process that are shown again.
const LINES_SHOWN_MAX: usize = 15;

/// The order in which processes stop: first those that accept work, last the one that stores everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Edge,
    Worker,
    Projector,
    Nats,
}

struct Running {
    name: String,
    stage: Stage,
    service: Service,
}

/// All processes. Dropping it ends each.
#[derive(Default)]
pub struct Stack {
    running: Vec<Running>,
}

impl Stack {
    /// Adds a process.
    pub fn add(&mut self, name: &str, stage: Stage, service: Service) -> &mut Service {
        self.running.push(Running { name: name.to_owned(), stage, service });
        &mut self.running.last_mut().expect("just pushed").service
    }

    /// Waits until every process with an admin port is ready. `admin` returns the port's URL by the process's name.
    pub async fn wait_ready(&mut self, admin: impl Fn(&str) -> Option<String>) -> anyhow::Result<()> {
        let waits = self.running.iter_mut().filter_map(|running| {
            let url = admin(&running.name)?;
            Some(async move { running.service.wait_ready(&url, READY_MAX).await })
        });
        try_join_all(waits).await.map(drop)
    }

    /// Returns only when a process has ended, with its last lines.
    pub async fn watch(&mut self) -> anyhow::Error {
        loop {
            for running in &mut self.running {
                if let Some(status) = running.service.exit_status() {
                    let log = running.service.log_tail();
                    let lines: Vec<_> = log.lines().collect();
                    let last = lines[lines.len().saturating_sub(LINES_SHOWN_MAX)..].join("\n");
                    return anyhow::anyhow!("{} has ended with {status}; its last lines:\n{last}", running.name);
                }
            }
            tokio::time::sleep(WATCH_INTERVAL).await;
        }
    }

    /// Stops all running processes, stage by stage.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let mut unclean = Vec::new();
        self.running.sort_by_key(|running| running.stage);
        for group in self.running.chunk_by_mut(|a, b| a.stage == b.stage) {
            let mut alive = Vec::new();
            for running in group {
                if running.service.exit_status().is_none() {
                    running.service.request_stop();
                    alive.push(running);
                }
            }
            for running in alive {
                match running.service.wait(STOP_MAX).await {
                    Ok(status) if status.success() => {}
                    Ok(status) => unclean.push(format!("{} ended with {status}", running.name)),
                    Err(_) => {
                        running.service.kill9();
                        unclean.push(format!("{} had to be killed", running.name));
                    }
                }
            }
        }
        self.running.clear();
        if !unclean.is_empty() {
            bail!("not everything stopped cleanly: {}", unclean.join(", "));
        }
        Ok(())
    }

    /// Kills everything.
    pub fn kill(&mut self) {
        for running in &mut self.running {
            running.service.kill9();
        }
    }
}
