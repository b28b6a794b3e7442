//! The edge: accepts jobs over HTTP and shows them live over WebSocket. Stateless; run as many as needed.

mod config;
mod feed;
mod http;
mod metrics;
mod ws;

use std::sync::Arc;

use async_nats::jetstream;
use millrace_runtime::{
    admin,
    blobs::Blobs,
    jobs::Jobs,
    log::Log,
    provision,
    service::{Service, Shell},
    snapshots::Snapshots,
    tasks::Tasks,
};

pub use config::Config;
use feed::Feed;
use http::{idempotency::Keys, origin::Origins};
use metrics::Metrics;

/// How the process is run.
pub const SERVICE: Service<Config> = Service {
    name: "millrace-edge",
    about: "Accepts video downloads over HTTP and shows their progress live over WebSocket.",
    admin_port: 9101,
    settings: config::SETTINGS,
    read: config::read,
    shutdown_max: |config| config.drain + std::time::Duration::from_secs(10),
};

/// What every request may need.
pub(crate) struct App {
    jobs: Jobs,
    keys: Keys,
    feed: Feed,
    blobs: Blobs,
    origins: Origins,
    metrics: Metrics,
    tasks: Tasks,
    config: Config,
}

/// Starts the edge's tasks.
///
/// # Errors
/// When the port is taken, NATS is not set up as needed, or the storage cannot be opened.
pub async fn start(config: Config, shell: Shell) -> anyhow::Result<()> {
    let Shell { nats, health, registry, tasks } = shell;
    let listener = admin::bind(config::LISTEN.flag, config.listen).await?;
    let context = jetstream::new(nats.client.clone());
    provision::check(&context).await?;
    let blobs = Blobs::open(&config.storage)?;
    let log = Log::open(&nats.client, &registry).await?;
    let metrics = Metrics::register(&registry)?;
    let snapshots = Snapshots::new(&nats.client, log.clone());
    let base = config.public_base_url.clone();
    let (feed, parts) = Feed::new(nats.clone(), log.clone(), snapshots.clone(), base, metrics.clone());
    parts.spawn(&tasks).await?;
    let keys = Keys::open(&nats.client).await?;
    let origins = Origins::new(&config.public_base_url, config.allowed_origins.clone());
    let jobs = Jobs { log, snapshots };
    let app = Arc::new(App { jobs, keys, feed, blobs, origins, metrics, tasks: tasks.clone(), config });

    let router = http::router(app.clone());
    let shutdown = tasks.shutdown();
    tracing::info!(address = %app.config.listen, public = app.config.public_base_url, "the edge listens");
    health.check("http").pass();
    tasks.spawn("http", async move {
        let service = router.into_make_service();
        axum::serve(listener, service).with_graceful_shutdown(shutdown.cancelled_owned()).await?;
        Ok(())
    });
    Ok(())
}
