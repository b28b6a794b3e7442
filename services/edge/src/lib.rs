//! The edge: accepts jobs over HTTP and shows them live over WebSocket. Stateless; run as many as needed.

mod api;
mod sockets;
mod feed;
mod websocket;
mod http;
mod admission;

mod config;
mod metrics;

use std::{sync::Arc, time::Duration};

use async_nats::jetstream;
use millrace_domain::limits::{FILES_RESERVED, UNSENT_BYTES_MAX};
use millrace_runtime::{
    admin,
    blobs::Blobs,
    jobs::Jobs,
    log::Log,
    provision,
    service::{Service, Shell},
    snapshots::Snapshots,
};
use tokio_util::sync::CancellationToken;

pub use self::config::Config;
use self::{
    admission::Admission,
    api::{app::App, idempotency::Keys},
    feed::Feed,
    http::{origin::Origins, server::Http},
    metrics::Metrics,
    sockets::Sockets,
    websocket::handshake::Handshakes,
};

/// How the process is run.
pub const SERVICE: Service<Config> = Service {
    name: "millrace-edge",
    about: "Accepts video downloads over HTTP and shows their progress live over WebSocket.",
    admin_port: 9101,
    settings: config::SETTINGS,
    read: config::read,
    shutdown_max: |config| config.drain + Duration::from_secs(10),
};

/// Starts the edge's tasks.
///
/// # Errors
/// The port is in use, the NATS setup does not match this version, or the storage cannot be opened.
pub async fn start(config: Config, shell: Shell) -> anyhow::Result<()> {
    let Shell { nats, health, registry, tasks, files_max } = shell;
    let listener = admin::bind(config::LISTEN.flag, config.listen)?.into_std()?;
    // Accepted connections inherit both options. Frames are small, and each must leave at once.
    let options = socket2::SockRef::from(&listener);
    options.set_tcp_nodelay(true)?;
    options.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    let context = jetstream::new(nats.client.clone());
    provision::check_when_available(&context).await?;
    let blobs = Blobs::open(&config.storage)?;
    let log = Log::open(&nats.client, &registry).await?;
    let metrics = Metrics::register(&registry)?;
    let snapshots = Snapshots::new(&nats.client, log.clone(), &registry)?;
    let base = config.public_base_url.clone();
    let (feed, parts) = Feed::new(nats.clone(), log.clone(), snapshots.clone(), base, metrics.clone());
    parts.spawn(&tasks).await?;
    let keys = Keys::open(&nats.client).await?;
    let origins = Origins::new(&config.public_base_url, config.allowed_origins.clone());
    let handshakes = Handshakes::new(origins.clone(), tasks.shutdown());
    let jobs = Jobs { log, snapshots };
    let (sockets, loops) = Sockets::new(config.socket_loops)?;
    // A connection above the limit of open files cannot even be answered with 503.
    let connections_max = config.connections_max.min(files_max.saturating_sub(FILES_RESERVED));
    if connections_max < config.connections_max {
        tracing::info!(connections_max, files_max, "open connections limited by the limit of open files (ulimit -n)");
    }
    let admission = Admission::new(connections_max, config.connections_per_address_max);
    let app =
        App { nats, jobs, keys, feed, blobs, origins, handshakes, metrics, sockets, tasks: tasks.clone(), config };
    let app = Arc::new(app);

    tracing::info!(address = %app.config.listen, public = app.config.public_base_url, "edge listening");
    health.check("http").pass();
    let http = Http::new(api::router(app.clone()), app.metrics.clone(), tasks.shutdown());
    let threads = loops.start(&listener, &admission, &app.handshakes, &http, &app.feed, &app.metrics)?;
    // Each loop has a handle of its own.
    drop(listener);
    tasks.spawn("http", drain(tasks.shutdown(), app.sockets.clone(), http, app.config.drain));
    tasks.spawn("sockets", async move {
        let joined = tokio::task::spawn_blocking(|| threads.into_iter().try_for_each(std::thread::JoinHandle::join));
        joined.await?.map_err(|_| anyhow::anyhow!("a socket loop panicked"))
    });
    Ok(())
}

/// On `stop`, the loops stop accepting and close their sockets, and requests in flight may end, both within `drain`.
async fn drain(stop: CancellationToken, sockets: Sockets, http: Http, drain: Duration) -> anyhow::Result<()> {
    stop.cancelled().await;
    sockets.drain(drain);
    http.end(drain).await;
    Ok(())
}
