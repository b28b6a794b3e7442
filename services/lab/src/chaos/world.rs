//! The system under test: nats-servers, services behind breakable links, an object store that can fail, and a source
//! of videos.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::bail;
use async_nats::jetstream::{
    self,
    consumer::{FromConsumer, PullConsumer, pull},
};
use futures::future::join_all;
use millrace_domain::subjects::{STREAM, WORKERS_CONSUMER};
use millrace_harness::{
    disk::Disk,
    media::{MediaFiles, MediaSpec},
    nats::NatsCluster,
    ports::free_port,
    programs::Programs,
    proxy::Proxy,
    s3::{ACCESS_KEY, BUCKET, REGION, S3Server, SECRET_KEY},
    tools::Tools,
};
use millrace_runtime::provision;
use tokio::sync::Mutex;

use super::{
    Args, downloader,
    process::{Plan, Process, label},
    recorder::Recorder,
    schedule::{EDGES, PROJECTORS, Target, WORKERS},
    source::Source,
};

/// Short, so that a killed worker's jobs are redelivered soon; the default is 30 s.
pub const LEASE: Duration = Duration::from_secs(5);
/// Short, so that the janitor also meets uploads of running attempts.
pub const JANITOR_INTERVAL: Duration = Duration::from_secs(3);
/// High, since a minute here has more faults than a month elsewhere: no job may fail only by exhausting its attempts.
const BUDGETS: [(&str, &str); 2] = [("MILLRACE_ATTEMPTS_MAX", "30"), ("MILLRACE_WORKERS_LOST_MAX", "50")];
const READY_MAX: Duration = Duration::from_secs(60);
/// Room for all downloads in flight.
const DISK_BYTES: u64 = 256 * 1024 * 1024;

/// The running system. Dropping it stops everything.
pub struct World {
    pub recorder: Arc<Recorder>,
    // Dropped before the servers that they write to.
    pub processes: Vec<Arc<Process>>,
    pub cluster: Mutex<NatsCluster>,
    /// A direct connection, without a proxy.
    pub client: async_nats::Client,
    pub s3: S3Server,
    pub source: Source,
    pub edges: Vec<SocketAddr>,
    pub base_url: String,
    /// `None` where mounts are not permitted: then no disk can be filled.
    pub disk: Option<Disk>,
    pub work: PathBuf,
}

impl World {
    /// Starts the system, with its files in `folder`, and waits until it is ready.
    pub async fn start(args: &Args, programs: &Programs, tools: &Tools, folder: &Path) -> anyhow::Result<Self> {
        let recorder = Recorder::new(&folder.join("logs"))?;
        let work = folder.join("work");
        std::fs::create_dir_all(&work)?;
        let disk = Disk::mount(&work, DISK_BYTES).ok();
        let cluster = NatsCluster::start(Some(tools.nats_server.clone()), args.nodes.into()).await?;
        let client = cluster.connect().await?;
        let context = jetstream::new(client.clone());
        provision::apply(&context, Some(args.nodes)).await?;
        shorten_lease(&context).await?;
        cluster.wait_for_stream(&client, STREAM).await?;
        let spec =
            MediaSpec { video_bytes: 200_000, duration_s: 2, height: 90, hls_heights: vec![90], hls_duration_s: 2 };
        let media = MediaFiles::make(&millrace_harness::checkout().join(".millrace/test-media"), &tools.ffmpeg, &spec)?;
        let edges: Vec<_> = (0..EDGES).map(|_| SocketAddr::from(([127, 0, 0, 1], free_port()))).collect();
        let mut world = Self {
            recorder,
            processes: Vec::new(),
            client,
            s3: S3Server::start()?,
            source: Source::start(&media.video()).await?,
            base_url: "http://millrace.test".to_owned(),
            edges,
            disk,
            work,
            cluster: Mutex::new(cluster),
        };
        let downloader = downloader::script(folder, &tools.yt_dlp)?;
        let targets = (0..PROJECTORS).map(Target::Projector);
        let targets = targets.chain((0..EDGES).map(Target::Edge)).chain((0..WORKERS).map(Target::Worker));
        for (number, target) in (0..).zip(targets) {
            let plan = world.plan(target, args.seed ^ number, programs, tools, &downloader).await?;
            let process = Process::start(plan, Arc::clone(&world.recorder))?;
            tokio::spawn(Arc::clone(&process).supervise());
            world.processes.push(process);
        }
        world.wait_ready().await?;
        Ok(world)
    }

    /// The process of this target.
    pub fn process(&self, target: Target) -> &Process {
        self.processes.iter().find(|process| process.plan.target == target).expect("each target is started")
    }

    /// Waits until every service is ready and the log has all of its replicas.
    pub async fn wait_ready(&self) -> anyhow::Result<()> {
        self.cluster.lock().await.wait_for_stream(&self.client, STREAM).await?;
        let ready = join_all(self.processes.iter().map(|process| process.wait_ready(READY_MAX))).await;
        if let Some(at) = ready.iter().position(|ready| !ready) {
            bail!("{} is not ready after {READY_MAX:?}", label(self.processes[at].plan.target));
        }
        Ok(())
    }

    async fn plan(
        &self,
        target: Target,
        seed: u64,
        programs: &Programs,
        tools: &Tools,
        downloader: &Path,
    ) -> anyhow::Result<Plan> {
        let ports: Vec<_> = self.cluster.lock().await.nodes().iter().map(|node| node.client_port()).collect();
        let mut links = Vec::new();
        for port in ports {
            links.push(Proxy::start(SocketAddr::from(([127, 0, 0, 1], port)), seed).await?);
        }
        let urls: Vec<_> = links.iter().map(|link| format!("nats://{}", link.address())).collect();
        let admin = format!("127.0.0.1:{}", free_port());
        let mut args = vec![
            format!("--nats-url={}", urls.join(",")),
            format!("--admin-listen={admin}"),
            "--log=info,async_nats=warn,millrace_runtime::log=debug".to_owned(),
            "--log-format=json".to_owned(),
        ];
        let mut store_link = None;
        let (program, endpoint) = match target {
            Target::Projector(_) => ("millrace-projector", None),
            Target::Edge(number) => {
                args.extend([
                    format!("--listen={}", self.edges[number]),
                    format!("--public-base-url={}", self.base_url),
                    format!("--storage=s3://{BUCKET}"),
                    "--drain-seconds=1".to_owned(),
                ]);
                ("millrace-edge", Some(self.s3.endpoint()))
            }
            Target::Worker(_) => {
                let link = store_link.insert(Proxy::start(self.s3.address(), seed).await?);
                args.extend([
                    format!("--storage=s3://{BUCKET}"),
                    format!("--work-dir={}", self.work.join(label(target)).display()),
                    format!("--janitor-minutes={}", JANITOR_INTERVAL.as_secs_f64() / 60.0),
                    format!("--yt-dlp={}", downloader.display()),
                    format!("--ffmpeg={}", tools.ffmpeg.display()),
                    format!("--ffprobe={}", tools.ffprobe.display()),
                ]);
                ("millrace-worker", Some(format!("http://{}", link.address())))
            }
        };
        let mut env = endpoint.map(store_variables).unwrap_or_default();
        env.extend(BUDGETS.map(|(name, value)| (name.to_owned(), value.to_owned())));
        Ok(Plan { target, program: programs.path(program)?, args, env, admin, links, store_link })
    }
}

fn store_variables(endpoint: String) -> BTreeMap<String, String> {
    let variables = [
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ("AWS_REGION", REGION.to_owned()),
        ("AWS_ENDPOINT", endpoint),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
    ];
    variables.map(|(name, value)| (name.to_owned(), value)).into()
}

async fn shorten_lease(context: &jetstream::Context) -> anyhow::Result<()> {
    let stream = context.get_stream(STREAM).await?;
    let consumer: PullConsumer = stream.get_consumer(WORKERS_CONSUMER).await.map_err(|error| anyhow::anyhow!(error))?;
    let config = consumer.cached_info().config.clone();
    let mut config = pull::Config::try_from_consumer_config(config).map_err(|error| anyhow::anyhow!(error))?;
    config.ack_wait = LEASE;
    stream.create_consumer(config).await?;
    Ok(())
}
