//! The worker: claims jobs, downloads and stores them, and reports every step to the log.
//!
//! The modules stand in the order in which a job meets them.

mod config;
mod metrics;
mod worker;

mod intake;
mod attempt;
mod journal;
mod workspace;
mod upload;
mod upkeep;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use async_nats::jetstream;
use millrace_runtime::{
    blobs::Blobs,
    jobs::Jobs,
    log::Log,
    provision,
    queue::Queue,
    service::{Service, Shell},
    snapshots::Snapshots,
};

pub use self::config::Config;
pub(crate) use self::worker::Worker;

/// How the process is run.
pub const SERVICE: Service<Config> = Service {
    name: "millrace-worker",
    about: "Takes jobs from Millrace's queue, downloads the videos and puts them into object storage.",
    admin_port: 9102,
    settings: config::SETTINGS,
    read: config::read,
    shutdown_max: |_| Duration::from_secs(25),
};

/// Starts the worker's tasks.
///
/// # Errors
/// A tool is missing or too old, the NATS setup does not match this version, or a folder cannot be used.
pub async fn start(config: Config, shell: Shell) -> anyhow::Result<()> {
    let Shell { nats, health, registry, tasks, .. } = shell;
    let tools = config.tools.resolve()?;
    let versions = tools.check().await?;
    tracing::info!(yt_dlp = versions.yt_dlp, ffmpeg = versions.ffmpeg, "found yt-dlp and ffmpeg");
    let context = jetstream::new(nats.client.clone());
    provision::check_when_available(&context).await?;
    let log = Log::open(&nats.client, &registry).await?;
    let queue = Queue::open(&nats, log.clone()).await?;
    let worker = Arc::new(Worker {
        name: config.name.clone(),
        jobs: Jobs { snapshots: Snapshots::new(&nats.client, log.clone(), &registry)?, log },
        queue,
        blobs: Blobs::open(&config.storage)?,
        tools,
        budget: config.budget,
        bounds: config.bounds,
        workspace: workspace::Workspace::open(&config.work_dir)
            .with_context(|| format!("cannot use the work folder {}", config.work_dir.display()))?,
        metrics: metrics::Metrics::register(&registry)?,
        shutdown: tasks.shutdown(),
    });
    tracing::info!(name = config.name, slots = config.slots, "worker ready to take jobs");
    if let Some(time) = config.retention {
        tasks.spawn("retention", upkeep::retention::run(worker.clone(), time));
    }
    if let Some(interval) = config.janitor_interval {
        tasks.spawn("janitor", upkeep::janitor::run(worker.clone(), interval));
    }
    tasks.spawn("parts", workspace::sweep::run(worker.clone()));
    for _ in 0..config.slots.get() {
        tasks.spawn("slot", intake::slot(worker.clone(), health.check("queue")));
    }
    Ok(())
}
