//! Starts nats-server with the local configuration, waits until it is ready, and provisions its streams, buckets and
//! consumers.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use async_nats::jetstream;
use futures::TryStreamExt;
use millrace_harness::processes::{Service, ServiceOptions};
use millrace_runtime::provision;

use super::data::Data;

/// nats-server reads a long log slowly at its start; `up` watches the process meanwhile.
const READY_MAX: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(10);

/// How nats-server is run.
pub fn options(root: &std::path::Path, data: &Data, port: u16) -> ServiceOptions {
    let args = [
        "--config".to_owned(),
        root.join("nats/local.conf").display().to_string(),
        "--port".to_owned(),
        port.to_string(),
        "--store_dir".to_owned(),
        data.nats().display().to_string(),
    ];
    ServiceOptions { args: args.to_vec(), ..ServiceOptions::default() }
}

/// Waits until it serves, and applies the definitions in `nats/`. `before` are the streams that were stored before it
/// started.
pub async fn prepare(
    server: &mut Service,
    url: &str,
    data: &Data,
    before: impl IntoIterator<Item = String>,
) -> anyhow::Result<()> {
    let context = jetstream::new(connect(server, url, data).await?);
    let there: Vec<String> =
        context.stream_names().try_collect().await.context("nats-server does not list its streams")?;
    if let Some(lost) = before.into_iter().find(|name| !there.contains(name)) {
        bail!(
            "nats-server cannot read its stream {lost} in {}, and nothing was changed; repair it, or move that folder \
            away to \
             start afresh",
            data.nats().display()
        );
    }
    provision::apply(&context, None).await?;
    Ok(())
}

async fn connect(server: &mut Service, url: &str, data: &Data) -> anyhow::Result<async_nats::Client> {
    let deadline = Instant::now() + READY_MAX;
    loop {
        if server.exit_status().is_some() {
            bail!(
                "nats-server does not start with the data in {}: {}; repair that, or choose another folder with --data",
                data.nats().display(),
                reason(&server.log_tail())
            );
        }
        match async_nats::connect(url).await {
            Ok(client) => return Ok(client),
            Err(error) if Instant::now() > deadline => {
                bail!("nats-server was not ready after {READY_MAX:?}: {error}; its last lines:\n{}", server.log_tail())
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

/// The last fatal line of its log, or else the last line.
fn reason(log: &str) -> String {
    let fatal = log.lines().rev().find_map(|line| line.split_once("[FTL] ").map(|(_, words)| words));
    let last = log.lines().rev().find(|line| !line.trim().is_empty());
    fatal.or(last).unwrap_or("it logged nothing").trim().to_owned()
}

/// Whether `up` shows this line of its log: warnings, and lines without a level.
pub fn is_notable(line: &str) -> bool {
    !["[INF]", "[DBG]", "[TRC]"].iter().any(|level| line.contains(level))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_the_fatal_line_without_its_stamp() {
        let log = "[1] 2026/11/23 07:45:52 [INF] Starting\n[1] 2026/11/23 07:45:52 [FTL] Can't start JetStream: no\n\n";
        assert_eq!(reason(log), "Can't start JetStream: no");
        assert_eq!(reason("bad flag\n"), "bad flag");
    }
}
