//! The connection to NATS.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use async_nats::{Client, ConnectOptions, Event};
use millrace_domain::limits::NATS_REQUEST_MAX;
use tokio::{
    sync::{broadcast, watch},
    time::{Instant, timeout_at},
};

use crate::{
    admin::Check,
    config::{Reader, Setting},
};

/// `--nats-url`
///
/// Secret, since people write passwords into addresses; [`parse_urls`] refuses those.
pub const NATS_URL: Setting = Setting {
    secret: true,
    ..Setting::new("nats-url", "URL[,URL…]", "nats://127.0.0.1:4222", "The NATS servers; tls:// for TLS.")
};
/// `--nats-credentials`
pub const NATS_CREDENTIALS: Setting =
    Setting::optional("nats-credentials", "FILE", "A NATS credentials file; without it no authentication is used.");

/// The oldest supported nats-server.
const SERVER_VERSION_MIN: (i64, i64) = (2, 12);

/// How to reach NATS.
#[derive(Clone, Debug)]
pub struct Config {
    /// At least one server.
    pub urls: Vec<async_nats::ServerAddr>,
    /// The credentials file.
    pub credentials: Option<PathBuf>,
}

/// Reads the configuration.
pub fn read(reader: &mut Reader<'_>) -> Option<Config> {
    let urls = reader.parsed(&NATS_URL, parse_urls);
    let credentials = reader.optional(&NATS_CREDENTIALS);
    Some(Config { urls: urls?, credentials: credentials? })
}

/// Reads a comma-separated list of servers.
///
/// # Errors
/// When one of them is not a server address, or holds a user name or password: these would appear in every log, and the
/// client does not use them.
pub fn parse_urls(text: &str) -> Result<Vec<async_nats::ServerAddr>, String> {
    text.split(',').map(|url| parse_url(url.trim())).collect()
}

fn parse_url(text: &str) -> Result<async_nats::ServerAddr, String> {
    let url: async_nats::ServerAddr =
        text.parse().map_err(|error: std::io::Error| format!("{error}; write nats://host:4222"))?;
    if url.username().is_some() || url.password().is_some() {
        return Err(
            "an address holds a user name, password or token; give them in a file, by --nats-credentials".into()
        );
    }
    Ok(url)
}

/// A change of the connection that its messages do not show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// Connected again: plain subscriptions have lost the messages in between.
    Reconnected,
    /// A subscription's buffer was full, and messages were dropped.
    SlowConsumer,
}

/// A connection.
#[derive(Clone)]
pub struct Nats {
    /// The client; clones share the connection.
    pub client: Client,
    disturbances: broadcast::Sender<Disturbance>,
    lost: Lost,
}

/// Since when the connection is lost; `None` while it is up.
type Lost = watch::Sender<Option<Instant>>;

impl Nats {
    /// Connects, and waits for the server as long as it takes: an orchestrator may start the service first. `check`
    /// reports the state of the connection from then on.
    ///
    /// # Errors
    /// When the credentials cannot be read or the server is too old; not when the server cannot be reached.
    pub async fn connect(config: &Config, name: &str, check: Check) -> anyhow::Result<Self> {
        let (disturbances, _) = broadcast::channel(64);
        let lost = watch::Sender::new(None);
        let mut first = true;
        let client = loop {
            match options(config, name, &check, &disturbances, &lost)?.connect(&config.urls[..]).await {
                Ok(client) => break client,
                Err(error) => {
                    check.fail(format!("cannot connect: {error}"));
                    if std::mem::take(&mut first) {
                        tracing::warn!(urls = ?config.urls, %error, "cannot reach NATS; retrying");
                    }
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        };
        let version = client.server_info().version;
        let (major, minor) = SERVER_VERSION_MIN;
        if !client.is_server_compatible(major, minor, 0) {
            bail!("nats-server {version} is too old: {major}.{minor} or newer is needed");
        }
        tracing::info!(version, "connected to NATS");
        check.pass();
        Ok(Self { client, disturbances, lost })
    }

    /// Reconnects and slow consumers from now on.
    #[must_use]
    pub fn disturbances(&self) -> broadcast::Receiver<Disturbance> {
        self.disturbances.subscribe()
    }

    /// Resolves once the connection has been lost for `long`, at once if it already has. A connected server that does
    /// not respond, as during a leader election, is not a lost connection.
    pub async fn lost_for(&self, long: Duration) {
        let mut lost = self.lost.subscribe();
        loop {
            let since = *lost.borrow_and_update();
            // The sender cannot be dropped: `self` owns it.
            match since {
                None => drop(lost.changed().await),
                Some(since) if timeout_at(since + long, lost.changed()).await.is_err() => return,
                Some(_) => {}
            }
        }
    }
}

fn options(
    config: &Config,
    name: &str,
    check: &Check,
    disturbances: &broadcast::Sender<Disturbance>,
    lost: &Lost,
) -> anyhow::Result<ConnectOptions> {
    let mut options = ConnectOptions::new()
        .name(name)
        .request_timeout(Some(NATS_REQUEST_MAX))
        .connection_timeout(NATS_REQUEST_MAX)
        .ping_interval(Duration::from_secs(10))
        // Full jitter: a fleet that lost its server does not reconnect all at once.
        .reconnect_delay_callback(|attempts| {
            let ceiling = 50u64 << attempts.min(7);
            Duration::from_millis(rand::random_range(0..=ceiling))
        });
    if let Some(path) = &config.credentials {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the NATS credentials {}", path.display()))?;
        options =
            options.credentials(&text).with_context(|| format!("{} is not a NATS credentials file", path.display()))?;
    }
    let (check, disturbances, lost) = (check.clone(), disturbances.clone(), lost.clone());
    let connected_before = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    Ok(options.event_callback(move |event| {
        let (check, disturbances, connected_before) = (check.clone(), disturbances.clone(), connected_before.clone());
        let lost = lost.clone();
        async move {
            match event {
                Event::Connected => {
                    check.pass();
                    lost.send_replace(None);
                    if connected_before.swap(true, std::sync::atomic::Ordering::Relaxed) {
                        tracing::info!("reconnected to NATS");
                        // It fails only if there is no receiver.
                        let _ = disturbances.send(Disturbance::Reconnected);
                    }
                }
                Event::Disconnected => {
                    check.fail("disconnected");
                    lost.send_modify(|since| *since = since.or_else(|| Some(Instant::now())));
                    tracing::warn!("disconnected from NATS");
                }
                Event::SlowConsumer(subscription) => {
                    tracing::warn!(subscription, "subscription buffer full; messages dropped");
                    let _ = disturbances.send(Disturbance::SlowConsumer);
                }
                // The process is exiting.
                Event::Closed | Event::Draining => tracing::debug!(%event, "NATS connection closed or draining"),
                other => tracing::warn!(event = %other, "NATS client event"),
            }
        }
    }))
}
