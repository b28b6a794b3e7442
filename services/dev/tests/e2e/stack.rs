//! One whole system for one test, on its own ports.

mod place;

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use async_nats::jetstream;
use millrace_domain::subjects::{STREAM, WORKERS_CONSUMER};
use millrace_harness::{
    media::{MediaFiles, MediaServer, MediaSpec},
    nats::{NatsCluster, NatsOptions, NatsServer},
    ports::free_port,
    processes::Service,
    tools::Tools,
    ws::{WatchOptions, Watcher},
};
use millrace_runtime::log::Log;
use serde_json::{Value, json};

use self::place::Place;
use crate::api::Api;

/// How long a job may take on a busy machine.
pub const JOB_MAX: Duration = Duration::from_secs(90);
const DRAIN: Duration = Duration::from_secs(1);
const READY_MAX: Duration = Duration::from_secs(30);

/// A test's deviations from the default system.
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
    /// The options of the single nats-server.
    pub nats: NatsOptions,
    /// The length of a worker's lease; if `None`, the provisioned one.
    pub lease: Option<Duration>,
    /// The time over which a stopping edge closes its sockets; if `None`, a second.
    pub drain: Option<Duration>,
}

/// The servers that keep the log.
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

    /// The single server.
    pub fn one(&mut self) -> &mut NatsServer {
        match self {
            Self::One(server) => server,
            Self::Three(_) => panic!("there are three"),
        }
    }
}

/// The system. Dropping it stops everything.
pub struct Stack {
    pub api: Api,
    pub media: MediaServer,
    pub nats: Nats,
    pub edge: Service,
    pub edge_admin: String,
    pub worker: Option<Service>,
    pub worker_admin: String,
    pub projector: Service,
    pub folder: tempfile::TempDir,
    port: u16,
    place: Place,
}

/// One more edge.
pub struct Edge {
    pub service: Service,
    pub port: u16,
    pub admin: String,
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

    /// Without a worker: jobs stay queued.
    pub async fn queue_only() -> Self {
        Self::start_with(Options { without_worker: true, ..Default::default() }).await
    }

    pub async fn start_with(options: Options) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let media = MediaServer::start(media_files(), "127.0.0.1:0".parse().unwrap()).expect("the media server");
        let nats = Nats::start(options.cluster, options.nats).await;
        let context = jetstream::new(nats.connect().await);
        millrace_runtime::provision::apply(&context, options.cluster.then_some(3)).await.expect("provisioned");

        if let Some(lease) = options.lease {
            let jobs = context.get_stream(STREAM).await.expect("the log");
            let mut config = jobs.consumer_info(WORKERS_CONSUMER).await.expect("the queue").config;
            config.ack_wait = lease;
            jobs.update_consumer(config).await.expect("a lease");
        }

        let place = Place {
            nats_url: nats.url(),
            storage: options.storage.unwrap_or_else(|| folder.path().join("files").display().to_string()),
            folder: folder.path().to_owned(),
            env: options.env,
        };
        let port = free_port();
        let (mut projector, projector_admin) = place.projector();
        let (mut edge, edge_admin) = place.edge(port, options.drain.unwrap_or(DRAIN));
        let worker = (!options.without_worker).then(|| place.worker("work", &[], &[]));
        let (mut worker, worker_admin) = worker.unzip();
        projector.wait_ready(&projector_admin, READY_MAX).await.expect("the projector");
        edge.wait_ready(&edge_admin, READY_MAX).await.expect("the edge");
        if let (Some(worker), Some(admin)) = (&mut worker, &worker_admin) {
            worker.wait_ready(admin, READY_MAX).await.expect("the worker");
        }
        let api = Api::new(format!("http://127.0.0.1:{port}"));
        let worker_admin = worker_admin.unwrap_or_default();
        Self { api, media, nats, edge, edge_admin, worker, worker_admin, projector, folder, port, place }
    }

    /// One more edge on the same NATS and storage.
    pub async fn another_edge(&self) -> Edge {
        self.edge_on(free_port()).await
    }

    /// One more edge, on this port.
    pub async fn edge_on(&self, port: u16) -> Edge {
        let (mut service, admin) = self.place.edge(port, DRAIN);
        service.wait_ready(&admin, READY_MAX).await.expect("the edge");
        Edge { service, port, admin }
    }

    /// One more edge, which reaches NATS at another address.
    pub async fn edge_through(&self, nats_url: String) -> Edge {
        let port = free_port();
        let (mut service, admin) = Place { nats_url, ..self.place.clone() }.edge(port, DRAIN);
        service.wait_ready(&admin, READY_MAX).await.expect("the edge");
        Edge { service, port, admin }
    }

    /// One more worker on the same NATS and storage, with its own work folder.
    pub async fn another_worker(&self, work: &str, more: &[&str]) -> Service {
        let (mut worker, admin) = self.place.worker(work, more, &[]);
        worker.wait_ready(&admin, READY_MAX).await.expect(work);
        worker
    }

    /// The same with one slot; its admin address. It may not come up.
    pub fn spawn_worker(&self, work: &str, env: &[(&str, &str)]) -> (Service, String) {
        self.place.worker(work, &["--slots", "1"], env)
    }

    /// A client of JetStream beside the services.
    pub async fn jetstream(&self) -> jetstream::Context {
        jetstream::new(self.nats.connect().await)
    }

    /// The log, for a test that writes what a worker would, or another producer.
    pub async fn log(&self) -> Log {
        Log::open(&self.nats.connect().await, &prometheus::Registry::new()).await.expect("the log")
    }

    /// Sets the maximum of messages in the log, -1 for none: beyond it, the log refuses each append, as on a full disk.
    pub async fn limit_log(&self, messages: i64) {
        let context = self.jetstream().await;
        let mut config = context.get_stream(STREAM).await.expect("the log").cached_info().config.clone();
        config.max_messages = messages;
        context.update_stream(config).await.expect("a bound");
    }

    /// The number of jobs in the queue: waiting, or delivered and not acknowledged.
    pub async fn queued(&self) -> (u64, usize) {
        let jobs = self.jetstream().await.get_stream(STREAM).await.expect("the log");
        let info = jobs.consumer_info(WORKERS_CONSUMER).await.expect("the queue");
        (info.num_pending, info.num_ack_pending)
    }

    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The value of one of the edge's metrics, with its labels as they are printed; 0 when it does not exist.
    pub async fn metric(&self, name: &str) -> f64 {
        Self::metric_at(&self.edge_admin, name).await
    }

    /// The value of a metric of another process, by its admin address.
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

    /// Whether no temporary file is left and no tool runs for this system.
    pub fn is_clean(&self) -> bool {
        self.left_in("work").is_empty() && processes_naming(&self.folder.path().join("work")).is_empty()
    }

    pub fn assert_no_leftovers(&self) {
        let left = self.left_in("work");
        assert!(left.is_empty(), "temporary files are left: {left:?}");
        let running = processes_naming(&self.folder.path().join("work"));
        assert!(running.is_empty(), "processes are left: {running:?}");
    }

    /// Files in a work folder that are more than a worker's lock.
    pub fn left_in(&self, work: &str) -> Vec<PathBuf> {
        let files = files_under(&self.folder.path().join(work)).into_iter();
        files.filter(|path| !path.ends_with("lock")).collect()
    }

    /// A job's state, by HTTP.
    pub async fn status(&self, id: &str) -> Value {
        self.api.get(&format!("/api/status/{id}")).await.json()
    }

    /// A job's events, by HTTP.
    pub async fn history(&self, id: &str) -> Vec<Value> {
        let history = self.api.get(&format!("/api/download/{id}/events")).await.text();
        history.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// The number of processes whose working directory is in a folder of the stack.
    pub fn tools_in(&self, folder: &str) -> usize {
        let folder = self.folder.path().canonicalize().expect("the folder").join(folder);
        let entries = std::fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
        entries
            .filter(|entry| std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&folder)))
            .count()
    }

    /// Runs `millrace verify`: every state must equal the fold of its log.
    pub fn verify(&self) {
        let output = Command::new(millrace_harness::processes::binary("millrace").expect("built"))
            .args(["verify", "--nats-url", &self.nats.url()])
            .output()
            .expect("millrace verify runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the projection differs from the log:\n{text}");
    }
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
