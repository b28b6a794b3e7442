//! What every service does around its own work: configuration, logs, admin port, NATS, tasks, exit code.

use std::{future::Future, net::SocketAddr, process::ExitCode, time::Duration};

use prometheus::Registry;

use crate::{
    admin::{self, Health},
    config::{self, Reader, Setting},
    nats::{self, Nats},
    tasks::Tasks,
    telemetry,
};

/// `--admin-listen`
pub const ADMIN_LISTEN: Setting = Setting::optional(
    "admin-listen",
    "ADDRESS",
    "Address that serves /livez, /readyz and /metrics; not for clients. Default: 127.0.0.1 and the service's own port.",
);

/// A service: its name and its settings.
pub struct Service<C> {
    /// The name of the binary.
    pub name: &'static str,
    /// One sentence for `--help`.
    pub about: &'static str,
    /// The port of the admin address, unless configured.
    pub admin_port: u16,
    /// The service's own settings.
    pub settings: &'static [&'static Setting],
    /// Reads the service's own settings.
    pub read: fn(&mut Reader<'_>) -> Option<C>,
    /// How long tasks may take to stop.
    pub shutdown_max: fn(&C) -> Duration,
}

/// What a service receives at its start.
pub struct Shell {
    /// The connection.
    pub nats: Nats,
    /// Readiness.
    pub health: Health,
    /// Metrics.
    pub registry: Registry,
    /// Tasks and shutdown.
    pub tasks: Tasks,
    /// The maximum number of open files and connections of the process.
    pub files_max: usize,
}

struct Common {
    telemetry: telemetry::Config,
    nats: nats::Config,
    admin_listen: Option<SocketAddr>,
}

/// Settings of every service.
pub const COMMON_SETTINGS: &[&Setting] =
    &[&nats::NATS_URL, &nats::NATS_CREDENTIALS, &ADMIN_LISTEN, &telemetry::LOG, &telemetry::LOG_FORMAT];

/// Runs a service until it ends. `start` spawns its tasks and returns.
pub fn main<C, F>(service: &Service<C>, start: impl FnOnce(C, Shell) -> F) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    let settings: Vec<_> = service.settings.iter().chain(COMMON_SETTINGS).copied().collect();
    let loaded = config::load(service.name, service.about, &settings, |reader| {
        let own = (service.read)(reader);
        let (telemetry, nats) = (telemetry::read(reader), nats::read(reader));
        let admin_listen = reader.optional(&ADMIN_LISTEN);
        Some((own?, Common { telemetry: telemetry?, nats: nats?, admin_listen: admin_listen? }))
    });
    let (own, common) = match loaded {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    telemetry::install(&common.telemetry);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{}: cannot start: {error}", service.name);
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(service, own, common, start)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(service = service.name, error = format!("{error:#}"), "service failed");
            ExitCode::FAILURE
        }
    }
}

/// Raises the limit of open files to the hard limit; returns it. The soft limit of a shell or a container is meant for
/// programs with few files.
fn raise_file_limit() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    getrlimit(Resource::Nofile).current.and_then(|current| current.try_into().ok()).unwrap_or(usize::MAX)
}

async fn run<C, F>(
    service: &Service<C>,
    own: C,
    common: Common,
    start: impl FnOnce(C, Shell) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let files_max = raise_file_limit();
    let (tasks, ended) = Tasks::new();
    let health = Health::default();
    let registry = Registry::new();
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    let shutdown_max = (service.shutdown_max)(&own);

    let address = common.admin_listen.unwrap_or_else(|| ([127, 0, 0, 1], service.admin_port).into());
    let listener = admin::bind(ADMIN_LISTEN.flag, address)?;
    let stopping = health.check("shutdown");
    stopping.pass();
    // Registered before the port responds: a connection to NATS alone does not make a service ready.
    let started = health.check("start");
    // The admin port responds until the process ends, so that a probe sees readiness fail during the drain.
    tokio::spawn(admin::serve(listener, health.clone(), registry.clone(), Default::default()));
    let shutdown = tasks.shutdown();
    tasks.spawn_short(async move {
        shutdown.cancelled().await;
        stopping.fail("the process is stopping");
    });

    let check = health.check("nats");
    let starting = async {
        let nats = Nats::connect(&common.nats, service.name, check).await?;
        start(own, Shell { nats, health, registry, tasks: tasks.clone(), files_max }).await?;
        started.pass();
        anyhow::Ok(())
    };
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        outcome = starting => outcome?,
        _ = terminate.recv() => return Ok(()),
        _ = tokio::signal::ctrl_c() => return Ok(()),
    }
    tasks.run(ended, shutdown_max).await
}
