//! The connection of a command to a running NATS. Unlike a service's, it fails when no server answers.

use std::path::PathBuf;

use anyhow::Context;
use async_nats::ConnectOptions;
use millrace_runtime::nats::parse_urls;

/// Where NATS is.
#[derive(Debug, clap::Args)]
pub struct NatsArgs {
    /// The NATS servers
    #[arg(long, value_name = "URL[,URL…]", env = "MILLRACE_NATS_URL", default_value = "nats://127.0.0.1:4222")]
    pub nats_url: String,
    /// A NATS credentials file; without it no authentication is used
    #[arg(long, value_name = "FILE", env = "MILLRACE_NATS_CREDENTIALS")]
    pub nats_credentials: Option<PathBuf>,
}

impl NatsArgs {
    /// Connects; the error names the option to correct.
    pub async fn connect(&self) -> anyhow::Result<async_nats::Client> {
        let urls = parse_urls(&self.nats_url).map_err(|error| anyhow::anyhow!("--nats-url: {error}"))?;
        let mut options = ConnectOptions::new().name("millrace");
        if let Some(path) = &self.nats_credentials {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the NATS credentials {}", path.display()))?;
            options = options
                .credentials(&text)
                .with_context(|| format!("{} is no NATS credentials file", path.display()))?;
        }
        options.connect(&urls[..]).await.with_context(|| {
            format!("no NATS server answers at {}; start it, or name another with --nats-url", self.nats_url)
        })
    }
}
