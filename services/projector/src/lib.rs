//! The projector: folds the log into the current state of each job, in a key-value bucket.
//!
//! It reads one durable consumer without filter. The server pins one of several projectors, and the others stand by. A
//! pin is not a fence: the compare-and-set of each write makes two active projectors harmless.

mod apply;
mod follow;
mod lag;
mod metrics;
mod projection;
mod quarantine;
mod rebuild;

use std::time::Duration;

use async_nats::jetstream;
use millrace_domain::subjects::STATE_BUCKET;
use millrace_runtime::{
    config::{Reader, Setting},
    log::Log,
    provision,
    service::{Service, Shell},
    snapshots::Snapshots,
};

/// `--rebuild`
const REBUILD: Setting = Setting::optional(
    "rebuild",
    "BUCKET",
    "Folds the whole log from zero into this empty bucket, beside the live projector, then exits. `millrace \
    rebuild` runs it.",
);

/// The projector's settings.
pub struct Config {
    /// The bucket to fill from zero; if absent, the projector keeps the live bucket up to date.
    rebuild: Option<String>,
}

/// The definition of the service.
pub const SERVICE: Service<Config> = Service {
    name: "millrace-projector",
    about: "Folds Millrace's log into the current state of each job. Run two: one works, the other stands by.",
    admin_port: 9103,
    settings: &[&REBUILD],
    read,
    shutdown_max: |_| Duration::from_secs(10),
};

fn read(reader: &mut Reader<'_>) -> Option<Config> {
    let rebuild: Option<String> = reader.optional(&REBUILD)?;
    if rebuild.as_deref() == Some(STATE_BUCKET) {
        reader.error(format!("--rebuild: {STATE_BUCKET} is the live bucket; name another one"));
    }
    Some(Config { rebuild })
}

/// Starts the projector's task.
///
/// # Errors
/// When NATS is not set up as the projector needs it.
pub async fn start(config: Config, shell: Shell) -> anyhow::Result<()> {
    let client = &shell.nats.client;
    let context = jetstream::new(client.clone());
    provision::check_when_available(&context).await?;
    let log = Log::open(client, &shell.registry).await?;
    let metrics = metrics::Metrics::register(&shell.registry)?;
    let bucket = config.rebuild.as_deref().unwrap_or(STATE_BUCKET);
    let snapshots = Snapshots::of_bucket(client, log.clone(), bucket, &shell.registry)?;
    let check = shell.health.check("projection");
    let projection = projection::Projection {
        log: log.clone(),
        apply: apply::Apply::new(log, snapshots, metrics.clone(), check.clone()),
        quarantine: quarantine::Quarantine::new(client.clone(), metrics.clone()),
    };
    let shutdown = shell.tasks.shutdown();
    if config.rebuild.is_some() {
        rebuild::assert_empty(&context, bucket).await?;
        check.pass();
        shell.tasks.spawn("rebuild", rebuild::run(projection, shutdown));
    } else {
        shell.tasks.spawn("lag", lag::run(context.clone(), metrics.clone(), shutdown.clone()));
        let follower = follow::Follower { context, projection, metrics, check, applied: 0 };
        shell.tasks.spawn("follow", follower.run(shutdown));
    }
    Ok(())
}
