//! The projector: folds the log into the current state of each job, in a key-value bucket.
//!
//! One durable consumer without filter. Of several projectors one is pinned, the others stand by. A pin is no fence:
//! what makes two at once harmless is the compare-and-set of each write.

mod apply;
mod follow;
mod metrics;
mod projection;
mod quarantine;

use std::time::Duration;

use async_nats::jetstream;
use millrace_runtime::{
    config::Reader,
    log::Log,
    provision,
    service::{Service, Shell},
    snapshots::Snapshots,
};

/// The projector has no settings of its own.
pub struct Config;

/// How the process is run.
pub const SERVICE: Service<Config> = Service {
    name: "millrace-projector",
    about: "Folds Millrace's log into the current state of each job. Run two: one works, the other stands by.",
    admin_port: 9103,
    settings: &[],
    read: |_: &mut Reader<'_>| Some(Config),
    shutdown_max: |_| Duration::from_secs(10),
};

/// Starts the projector's task.
///
/// # Errors
/// When NATS is not set up as needed.
pub async fn start(_: Config, shell: Shell) -> anyhow::Result<()> {
    let context = jetstream::new(shell.nats.client.clone());
    provision::check_when_available(&context).await?;
    let log = Log::open(&shell.nats.client, &shell.registry).await?;
    let metrics = metrics::Metrics::register(&shell.registry)?;
    let snapshots = Snapshots::new(&shell.nats.client, log.clone());
    let check = shell.health.check("projection");
    let follower = follow::Follower {
        context,
        projection: projection::Projection {
            log: log.clone(),
            apply: apply::Apply::new(log, snapshots, metrics.clone(), check.clone()),
            quarantine: quarantine::Quarantine::new(shell.nats.client.clone(), metrics.clone()),
        },
        metrics,
        check,
        applied: 0,
    };
    shell.tasks.spawn("follow", follower.run(shell.tasks.shutdown()));
    Ok(())
}
