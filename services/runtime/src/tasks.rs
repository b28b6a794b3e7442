//! Named tasks. None is detached: if one ends before shutdown, the process stops and reports its name.

use std::{future::Future, time::Duration};

use anyhow::{Context, bail};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The tasks of a process, and its shutdown signal.
#[derive(Clone)]
pub struct Tasks {
    shutdown: CancellationToken,
    tracker: TaskTracker,
    ended: mpsc::Sender<anyhow::Error>,
}

/// Receives the first task that ended before shutdown.
pub struct Ended(mpsc::Receiver<anyhow::Error>);

impl Tasks {
    /// No tasks yet.
    #[must_use]
    pub fn new() -> (Self, Ended) {
        let (ended, receiver) = mpsc::channel(1);
        (Self { shutdown: CancellationToken::new(), tracker: TaskTracker::new(), ended }, Ended(receiver))
    }

    /// Cancelled when the process must stop.
    #[must_use]
    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Runs a task that lives as long as the process: it may end only after [`Tasks::shutdown`] was cancelled.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let (shutdown, ended) = (self.shutdown.clone(), self.ended.clone());
        let handle: JoinHandle<anyhow::Result<()>> = tokio::spawn(task);
        self.tracker.spawn(async move {
            let error = match handle.await {
                Ok(Ok(())) if shutdown.is_cancelled() => return,
                Ok(Ok(())) => anyhow::anyhow!("the task returned"),
                Ok(Err(error)) => error,
                Err(panic) => panic.into(),
            };
            let error = error.context(format!("task {name:?} ended before shutdown"));
            tracing::error!(task = name, error = format!("{error:#}"), "task failed");
            // Full: another task has ended before this one, and is the one to report.
            let _ = ended.try_send(error);
            shutdown.cancel();
        });
    }

    /// Runs a task that may end by itself, like the session of one client. Shutdown waits for it too.
    pub fn spawn_short(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }

    /// Makes shutdown wait for a future that the caller runs.
    pub fn track<F: Future>(&self, task: F) -> impl Future<Output = F::Output> + use<F> {
        self.tracker.track_future(task)
    }

    /// Waits for a signal (SIGTERM, SIGINT) or for a task that ends too early, then stops all tasks and waits for them
    /// until the deadline.
    ///
    /// # Errors
    /// The error of the task that ended too early, or the number of tasks that were still running at the deadline.
    pub async fn run(self, mut ended: Ended, shutdown_max: Duration) -> anyhow::Result<()> {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
            .context("cannot listen for SIGTERM")?;
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
            _ = tokio::signal::ctrl_c() => tracing::info!("SIGINT: stopping"),
            () = self.shutdown.cancelled() => {}
        }
        self.shutdown.cancel();
        self.tracker.close();
        let deadline = Instant::now() + shutdown_max;
        let drained = timeout_at(deadline, self.tracker.wait()).await;
        if let Ok(error) = ended.0.try_recv() {
            return Err(error);
        }
        if drained.is_err() {
            bail!("{} tasks were still running {} s after the stop", self.tracker.len(), shutdown_max.as_secs());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_too_early_stops_the_process_and_is_named() {
        let (tasks, ended) = Tasks::new();
        let shutdown = tasks.shutdown();
        tasks.spawn("waits", async move {
            shutdown.cancelled().await;
            Ok(())
        });
        tasks.spawn("dies", async { bail!("no more") });
        let error = tasks.run(ended, Duration::from_secs(5)).await.unwrap_err();
        assert!(format!("{error:#}").contains("\"dies\""), "{error:#}");
    }

    #[tokio::test]
    async fn a_panic_counts_as_an_early_end() {
        let (tasks, ended) = Tasks::new();
        tasks.spawn("panics", async { panic!("on purpose") });
        assert!(tasks.run(ended, Duration::from_secs(5)).await.is_err());
    }

    #[tokio::test]
    async fn a_task_that_does_not_stop_is_reported_at_the_deadline() {
        let (tasks, ended) = Tasks::new();
        tasks.spawn_short(std::future::pending());
        tasks.shutdown().cancel();
        let error = tasks.run(ended, Duration::from_millis(20)).await.unwrap_err();
        assert!(error.to_string().contains("1 tasks were still running"), "{error}");
    }
}
