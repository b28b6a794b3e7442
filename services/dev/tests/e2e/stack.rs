//! One whole system for one test, on ports of its own.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use millrace_domain::subjects::{STREAM, WORKERS_CONSUMER};
use millrace_harness::{
    media::{MediaFiles, MediaServer, MediaSpec},
    nats::{NatsCluster, NatsOptions, NatsServer},
    ports::free_port,
    processes::{Service, ServiceOptions},
    tools::Tools,
    ws::{WatchOptions, Watcher},
};
use serde_json::{Value, json};

use crate::api::Api;

/// How long a job may take on a busy machine.
pub const JOB_MAX: Duration = Duration::from_secs(90);
const DRAIN: Duration = Duration::from_secs(1);
const READY_MAX: Duration = Duration::from_secs(30);

/// What a test wants different.
#[derive(Default)]
pub struct Options {
    /// More environment for edge and worker.
    pub env: Vec<(String, String)>,
    /// `--storage` instead of a folder.
    pub storage: Option<String>,
    /// No worker: jobs stay queued.
    pub without_worker: bool,
    /// Three nats-servers with three replicas, instead of one.
    pub cluster: bool,
    /// How the single nats-server is run.
    pub nats: NatsOptions,
    /// How long a worker's lease is; the provisioned one if `None`.
    pub lease: Option<Duration>,
    /// Over how long the edge closes its sockets when it stops; a second if `None`.
    pub drain: Option<Duration>,
}

/// What the log is kept by.
pub enum Nats {
    One(NatsServer),
    Three(NatsCluster),
}

impl Nats {
    async fn start(cluster: bool, options: NatsOptions) -> Self {
        let program = Some(tools().nats_server.clone());
        if cluster {
            return Self::Three(NatsCluster::start(program, 3).await.expect("a cluster"));
        }
        Self::One(NatsServer::start(NatsOptions { program, ..options }).await.expect("a nats-server"))
    }

    pub fn url(&self) -> String {
        match self {
            Self::One(server) => server.url(),
            Self::Three(cluster) => cluster.url(),
        }
    }

    pub async fn connect(&self) -> async_nats::Client {
        let urls: Vec<_> = self.url().split(',').map(|url| url.parse().expect("an address")).collect();
        async_nats::connect(&urls[..] as &[async_nats::ServerAddr]).await.expect("NATS")
    }

    /// The single one.
    pub fn one(&mut self) -> &mut NatsServer {
        match self {
            Self::One(server) => server,
            Self::Three(_) => panic!("there are three"),
        }
    }
}

/// The system. Dropped, all of it is gone.
pub struct Stack {
    pub api: Api,
    pub media: MediaServer,
    pub nats: Nats,
    pub edge: Service,
    pub edge_admin: String,
    pub worker: Option<Service>,
    pub projector: Service,
    pub folder: tempfile::TempDir,
    port: u16,
    storage: String,
    env: Vec<(String, String)>,
}

/// The outside programs, installed once.
pub fn tools() -> &'static Tools {
    static TOOLS: OnceLock<Tools> = OnceLock::new();
    TOOLS.get_or_init(|| {
        Tools::ensure_tests(&millrace_harness::checkout(), &mut |line| eprintln!("{line}")).expect("the tools")
    })
}

/// The media that all tests share, made once for the checkout.
pub fn media_files() -> &'static MediaFiles {
    static FILES: OnceLock<MediaFiles> = OnceLock::new();
    FILES.get_or_init(|| {
        let folder = millrace_harness::checkout().join(".millrace/test-media");
        MediaFiles::make(&folder, &tools().ffmpeg, &MediaSpec::default()).expect("media by ffmpeg")
    })
}

impl Stack {
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    pub async fn start_with(options: Options) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let media = MediaServer::start(media_files(), "127.0.0.1:0".parse().unwrap()).expect("the media server");
        let nats = Nats::start(options.cluster, options.nats).await;
        let context = async_nats::jetstream::new(nats.connect().await);
        millrace_runtime::provision::apply(&context, options.cluster.then_some(3)).await.expect("provisioned");

        if let Some(lease) = options.lease {
            let jobs = context.get_stream(STREAM).await.expect("the log");
            let mut config = jobs.consumer_info(WORKERS_CONSUMER).await.expect("the queue").config;
            config.ack_wait = lease;
            jobs.update_consumer(config).await.expect("a lease");
        }

        let storage = options.storage.clone().unwrap_or_else(|| folder.path().join("files").display().to_string());
        let port = free_port();
        let (projector_admin, edge_admin, worker_admin) = (free_port(), free_port(), free_port());
        let common = |admin: u16| {
            vec![
                "--nats-url".into(),
                nats.url(),
                "--admin-listen".into(),
                format!("127.0.0.1:{admin}"),
                "--log".into(),
                "debug,async_nats=info,hyper=info".into(),
            ]
        };
        let spawn = |name: &str, admin: u16, more: Vec<String>| {
            let env = options.env.iter().cloned().collect();
            let args = common(admin).into_iter().chain(more).collect();
            Service::spawn(name, ServiceOptions { args, env, ..Default::default() }).expect(name)
        };
        let mut projector = spawn("millrace-projector", projector_admin, vec![]);
        let drain = options.drain.unwrap_or(DRAIN);
        let mut edge = spawn("millrace-edge", edge_admin, edge_args(port, &storage, drain));
        let mut worker = (!options.without_worker)
            .then(|| spawn("millrace-worker", worker_admin, worker_args(&storage, &folder.path().join("work"))));
        let admin = |port: u16| format!("http://127.0.0.1:{port}");
        projector.wait_ready(&admin(projector_admin), READY_MAX).await.expect("the projector");
        edge.wait_ready(&admin(edge_admin), READY_MAX).await.expect("the edge");
        if let Some(worker) = &mut worker {
            worker.wait_ready(&admin(worker_admin), READY_MAX).await.expect("the worker");
        }
        let api = Api::new(format!("http://127.0.0.1:{port}"));
        Self {
            api,
            media,
            nats,
            edge,
            edge_admin: admin(edge_admin),
            worker,
            projector,
            folder,
            port,
            storage,
            env: options.env,
        }
    }

    /// One more edge on the same NATS and storage; its port.
    pub async fn another_edge(&self) -> (Service, u16) {
        let port = free_port();
        (self.edge_on(port).await.0, port)
    }

    /// One more edge, on this port; its admin address.
    pub async fn edge_on(&self, port: u16) -> (Service, String) {
        self.edge_through(&self.nats.url(), port).await
    }

    /// The same, which reaches NATS at another address.
    pub async fn edge_through(&self, nats: &str, port: u16) -> (Service, String) {
        let admin = free_port();
        let storage = self.folder.path().join("files").display().to_string();
        let mut args = edge_args(port, &storage, DRAIN);
        args.extend(["--nats-url".into(), nats.into(), "--admin-listen".into(), format!("127.0.0.1:{admin}")]);
        let mut edge = Service::spawn("millrace-edge", ServiceOptions { args, ..Default::default() }).expect("an edge");
        let admin = format!("http://127.0.0.1:{admin}");
        edge.wait_ready(&admin, READY_MAX).await.expect("the edge");
        (edge, admin)
    }

    /// One more worker on the same NATS and storage, with a work folder of its own.
    pub async fn another_worker(&self, name: &str, more: &[&str]) -> Service {
        let admin = free_port();
        let storage = self.folder.path().join("files").display().to_string();
        let mut args = worker_args(&storage, &self.folder.path().join(name));
        args.extend(["--nats-url".into(), self.nats.url(), "--admin-listen".into(), format!("127.0.0.1:{admin}")]);
        args.extend(more.iter().map(|&arg| arg.to_owned()));
        let mut worker = Service::spawn("millrace-worker", ServiceOptions { args, ..Default::default() }).expect(name);
        worker.wait_ready(&format!("http://127.0.0.1:{admin}"), READY_MAX).await.expect("the worker");
        worker
    }

    /// A client of JetStream beside the services.
    pub async fn jetstream(&self) -> async_nats::jetstream::Context {
        async_nats::jetstream::new(async_nats::connect(self.nats.url()).await.expect("NATS"))
    }

    /// A worker with one slot on a folder of its own inside the stack's; its admin address. It may not come up.
    pub fn spawn_worker(&self, work: &str, env: &[(&str, &str)]) -> (Service, String) {
        let admin = free_port();
        let mut args = worker_args(&self.storage, &self.folder.path().join(work));
        args.extend(
            ["--nats-url", &self.nats.url(), "--admin-listen", &format!("127.0.0.1:{admin}")].map(str::to_owned),
        );
        args.extend(["--slots", "1", "--log", "debug,async_nats=info,hyper=info"].map(str::to_owned));
        let given = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let env = self.env.iter().cloned().chain(given).collect();
        let worker = Service::spawn("millrace-worker", ServiceOptions { args, env, ..Default::default() });
        (worker.expect("a worker"), format!("http://127.0.0.1:{admin}"))
    }

    /// How many jobs the queue holds: waiting, and handed out without an acknowledgement.
    pub async fn queued(&self) -> (u64, usize) {
        let client = async_nats::connect(self.nats.url()).await.expect("NATS");
        let jobs = async_nats::jetstream::new(client).get_stream(STREAM).await.expect("the log");
        let info = jobs.consumer_info(WORKERS_CONSUMER).await.expect("the queue");
        (info.num_pending, info.num_ack_pending)
    }

    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Where the edge tells of itself.
    pub fn edge_admin(&self) -> &str {
        &self.edge_admin
    }

    /// The value of one of the edge's metrics, with its labels as they are printed; 0 when it is not there.
    pub async fn metric(&self, name: &str) -> f64 {
        Self::metric_at(&self.edge_admin, name).await
    }

    /// The same of another edge.
    pub async fn metric_at(admin: &str, name: &str) -> f64 {
        let text = reqwest::get(format!("{admin}/metrics")).await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// Submits a path of the media server; the job's id.
    pub async fn submit(&self, path: &str) -> String {
        self.submit_with(json!({"url": self.media.url(path)})).await
    }

    /// Submits; the job's id.
    pub async fn submit_with(&self, body: Value) -> String {
        let answer = self.api.post("/api/download", &body).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.json()["jobId"].as_str().expect("a job id").to_owned()
    }

    pub fn ws_url(&self, id: &str) -> String {
        format!("ws://127.0.0.1:{}/ws/download/{id}", self.port)
    }

    pub fn watch(&self, id: &str) -> Watcher {
        self.watch_with(id, WatchOptions::default())
    }

    pub fn watch_with(&self, id_and_query: &str, options: WatchOptions) -> Watcher {
        Watcher::connect(&tools().python, &self.ws_url(id_and_query), options).expect("a watcher")
    }

    /// Every `status` message's `data` up to the end of the job.
    pub async fn watch_to_end(&self, watcher: &mut Watcher) -> Vec<Value> {
        let mut statuses = Vec::new();
        loop {
            let message = watcher.next_json(JOB_MAX).await.unwrap_or_else(|error| {
                panic!(
                    "{error:#}\nso far: {statuses:#?}\nworker: {}",
                    self.worker.as_ref().map_or(String::new(), Service::log_tail)
                )
            });
            self.api.assert_message(&message);
            let data = message["data"].clone();
            let ended = matches!(data["status"].as_str(), Some("completed" | "failed"));
            statuses.push(data);
            if ended {
                return statuses;
            }
        }
    }

    /// Submits a path, watches it to its end and returns the last status.
    pub async fn end_of(&self, path: &str) -> Value {
        let id = self.submit(path).await;
        let mut watcher = self.watch(&id);
        self.watch_to_end(&mut watcher).await.pop().expect("a last message")
    }

    /// Nothing temporary is left and no tool runs for this system.
    pub fn assert_no_leftovers(&self) {
        let work = self.folder.path().join("work");
        let left: Vec<_> = files_under(&work).into_iter().filter(|path| !path.ends_with("lock")).collect();
        assert!(left.is_empty(), "temporary files are left: {left:?}");
        let running = processes_naming(&work);
        assert!(running.is_empty(), "processes are left: {running:?}");
    }

    /// The number of processes that work somewhere in a folder of the stack's.
    pub fn tools_in(&self, folder: &str) -> usize {
        let folder = self.folder.path().canonicalize().expect("the folder").join(folder);
        let entries = std::fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
        entries
            .filter(|entry| std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&folder)))
            .count()
    }

    /// What users have to check the projection: every state equals the fold of its log.
    pub fn verify(&self) {
        let output = Command::new(millrace_harness::processes::binary("millrace").expect("built"))
            .args(["verify", "--nats-url", &self.nats.url()])
            .output()
            .expect("millrace verify runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the projection differs from the log:\n{text}");
    }
}

fn edge_args(port: u16, storage: &str, drain: Duration) -> Vec<String> {
    let strings = [
        "--listen",
        &format!("127.0.0.1:{port}"),
        "--public-base-url",
        &format!("http://127.0.0.1:{port}"),
        "--storage",
        storage,
        "--drain-seconds",
        &drain.as_secs().to_string(),
    ];
    strings.map(str::to_owned).to_vec()
}

fn worker_args(storage: &str, work: &Path) -> Vec<String> {
    let tools = tools();
    let path = |path: &Path| path.display().to_string();
    vec![
        "--storage".into(),
        storage.into(),
        "--work-dir".into(),
        path(work),
        "--name".into(),
        "worker-under-test".into(),
        "--yt-dlp".into(),
        path(&tools.yt_dlp),
        "--ffmpeg".into(),
        path(&tools.ffmpeg),
        "--ffprobe".into(),
        path(&tools.ffprobe),
    ]
}

/// Every file under a folder.
pub fn files_under(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() { files_under(&path) } else { vec![path] }).collect()
}

/// Command lines of running processes, other than the worker itself, that name a folder.
fn processes_naming(folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    let entries = std::fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(&folder) && !line.contains("millrace-worker"))
        .collect()
}
