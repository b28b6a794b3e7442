//! The bucket beside the live one, and the projector that fills it.

use std::{path::Path, process::Stdio};

use anyhow::{Context, bail};
use async_nats::jetstream;
use millrace_domain::subjects::{self, REBUILD_BUCKET, STATE_BUCKET};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

use crate::connect::NatsArgs;

/// Makes an empty bucket configured like the live one, and deletes the one that an earlier rebuild left.
pub async fn make_bucket(context: &jetstream::Context) -> anyhow::Result<()> {
    let live = context
        .get_stream(subjects::bucket_stream(STATE_BUCKET))
        .await
        .with_context(|| format!("NATS has no bucket {STATE_BUCKET}; `millrace provision` makes it"))?;
    let name = subjects::bucket_stream(REBUILD_BUCKET);
    // The bucket exists only if an earlier rebuild was stopped or found a difference.
    let _ = context.delete_stream(&name).await;
    let mut config = live.cached_info().config.clone();
    config.subjects = vec![format!("$KV.{REBUILD_BUCKET}.>")];
    config.description = Some("The states of all jobs, folded from zero by `millrace rebuild`".to_owned());
    config.name = name;
    context.create_stream(config).await.with_context(|| format!("cannot make the bucket {REBUILD_BUCKET}"))?;
    Ok(())
}

/// Runs the projector until it has folded the whole log; returns the last sequence that it folded.
pub async fn run(nats: &NatsArgs, program: &Path, say: &dyn Fn(&str)) -> anyhow::Result<u64> {
    let mut command = Command::new(program);
    command.args(["--nats-url", &nats.nats_url, "--rebuild", REBUILD_BUCKET]);
    command.args(["--admin-listen", "127.0.0.1:0", "--log-format", "json", "--log", "info,async_nats=warn"]);
    if let Some(path) = &nats.nats_credentials {
        command.arg("--nats-credentials").arg(path);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child =
        command.spawn().with_context(|| format!("cannot run {}; give its path with --projector", program.display()))?;
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut done = (0, u64::MAX);
    while let Some(line) = lines.next_line().await? {
        let Ok(line) = serde_json::from_str::<Value>(&line) else { continue };
        match (line["applied"].as_u64(), line["end"].as_u64()) {
            (Some(applied), Some(end)) => {
                say(&format!("folded {applied} of {end} messages in the log"));
                done = (applied, end);
            }
            _ if line["level"] != "INFO" => say(&line.to_string()),
            _ => {}
        }
    }
    let status = child.wait().await?;
    if !status.success() || done.0 < done.1 {
        bail!("the projector exited with {status} before it had folded the whole log; its log lines are above");
    }
    Ok(done.1)
}
