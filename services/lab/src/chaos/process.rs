//! A service process with its links, and the supervisor that restarts it.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use millrace_harness::{
    processes::{Service, ServiceOptions},
    proxy::Proxy,
};

use super::{
    recorder::{Recorder, now},
    schedule::Target,
};

const WATCH_INTERVAL: Duration = Duration::from_millis(50);
/// How long the supervisor waits before it restarts a process.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// How a process is run.
pub struct Plan {
    pub target: Target,
    pub program: PathBuf,
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub admin: String,
    /// To each nats-server.
    pub links: Vec<Proxy>,
    /// To the object store, of a worker.
    pub store_link: Option<Proxy>,
}

/// A process that its supervisor restarts after a kill.
pub struct Process {
    pub plan: Plan,
    recorder: Arc<Recorder>,
    running: Mutex<Running>,
}

struct Running {
    service: Service,
    life: u32,
    back_at: Option<Instant>,
    killed: bool,
    /// Set when the supervisor must not restart it.
    over: bool,
}

impl Process {
    /// Starts it.
    pub fn start(plan: Plan, recorder: Arc<Recorder>) -> anyhow::Result<Arc<Self>> {
        let service = spawn(&plan, &recorder, 0)?;
        let running = Running { service, life: 0, back_at: None, killed: false, over: false };
        Ok(Arc::new(Self { plan, recorder, running: Mutex::new(running) }))
    }

    /// Restarts it whenever it exits. Returns after [`Process::stop`].
    pub async fn supervise(self: Arc<Self>) {
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            let mut running = self.running();
            if running.over {
                return;
            }
            if running.service.exit_status().is_none() {
                continue;
            }
            let back_at = *running.back_at.get_or_insert_with(|| Instant::now() + RESTART_PAUSE);
            if Instant::now() < back_at {
                continue;
            }
            if !std::mem::take(&mut running.killed) {
                self.recorder.kept().own_ends += 1;
            }
            running.back_at = None;
            running.life += 1;
            match spawn(&self.plan, &self.recorder, running.life) {
                Ok(service) => running.service = service,
                // The next turn tries again: `service` still holds the process that exited.
                Err(error) => eprintln!("{error:#}"),
            }
        }
    }

    /// kill -9.
    pub fn kill(&self) {
        let mut running = self.running();
        if running.service.exit_status().is_some() {
            return;
        }
        if let Target::Worker(_) = self.plan.target {
            self.recorder.kept().worker_kills.push((name(&self.plan, running.life), now()));
        }
        running.service.kill9();
        running.killed = true;
    }

    /// SIGSTOP.
    pub fn freeze(&self) {
        self.running().service.pause();
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.running().service.resume();
    }

    /// Waits until it is ready; returns `false` after `limit`.
    pub async fn wait_ready(&self, limit: Duration) -> bool {
        let Ok(client) = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(1)).build() else {
            return false;
        };
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            let answer = client.get(format!("http://{}/readyz", self.plan.admin)).send().await;
            if answer.is_ok_and(|answer| answer.status() == reqwest::StatusCode::OK) {
                return true;
            }
            tokio::time::sleep(WATCH_INTERVAL).await;
        }
        false
    }

    /// Stops it as an operator would, for good. Blocks.
    pub fn stop(&self, limit: Duration) -> bool {
        let mut running = self.running();
        running.over = true;
        running.service.request_stop();
        let deadline = Instant::now() + limit;
        while running.service.exit_status().is_none() && Instant::now() < deadline {
            std::thread::sleep(WATCH_INTERVAL);
        }
        let ended = running.service.exit_status().is_some();
        running.service.kill9();
        ended
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The process's name in file names and flags.
pub fn label(target: Target) -> String {
    match target {
        Target::Worker(number) => format!("worker-{number}"),
        Target::Edge(number) => format!("edge-{number}"),
        Target::Projector(number) => format!("projector-{number}"),
    }
}

/// A worker gets a new name with each start, so that the jobs of two lives can be distinguished.
fn name(plan: &Plan, life: u32) -> String {
    format!("{}.{life}", label(plan.target))
}

fn spawn(plan: &Plan, recorder: &Arc<Recorder>, life: u32) -> anyhow::Result<Service> {
    let mut args = plan.args.clone();
    if let Target::Worker(_) = plan.target {
        args.push(format!("--name={}", name(plan, life)));
    }
    let sink = Some(recorder.sink(&label(plan.target)));
    let options = ServiceOptions { args, env: plan.env.clone(), dir: None, sink };
    Service::spawn_program(&name(plan, life), &plan.program, options)
}
