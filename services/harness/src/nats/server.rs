//! One nats-server, which runs until its value is dropped.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::TcpStream,
};

use crate::{
    checkout,
    child::{Child, Stdout},
    output::echo,
    ports::free_port,
    tools,
};

const READY_LIMIT: Duration = Duration::from_secs(10);
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// Ports to try when another process takes the chosen port before nats-server listens on it.
const PORTS_TRIED_MAX: usize = 5;

/// How to run a [`NatsServer`]. The default suits most tests.
#[derive(Clone, Debug, Default)]
pub struct NatsOptions {
    /// The program; if `None`, the one that [`tools::nats_server`] finds or installs in this checkout.
    pub program: Option<PathBuf>,
    /// A configuration file, whose port, host and name are overridden. nats-server refuses a second `store_dir`, so the
    /// file may set it only to `$STORE_DIR`, which is set in the server's environment.
    pub config: Option<PathBuf>,
    /// The folder of JetStream's data, which is kept; if `None`, a temporary one, removed at the end.
    pub store: Option<PathBuf>,
    /// The client port; if `None`, a free one.
    pub port: Option<u16>,
    /// More command line arguments, such as `--user`.
    pub args: Vec<String>,
}

/// A nats-server with JetStream on 127.0.0.1. Dropping it kills the server and removes its temporary store.
#[derive(Debug)]
pub struct NatsServer {
    // Dropped before the store: the process must be gone before its files are removed.
    child: Child,
    program: PathBuf,
    config: Option<PathBuf>,
    args: Vec<String>,
    name: String,
    port: u16,
    store: Store,
}

#[derive(Debug)]
enum Store {
    Temporary(TempDir),
    Kept(PathBuf),
}

impl Store {
    fn path(&self) -> &Path {
        match self {
            Store::Temporary(dir) => dir.path(),
            Store::Kept(path) => path,
        }
    }
}

impl NatsServer {
    /// Starts a server and waits until it accepts connections, with JetStream ready.
    pub async fn start(options: NatsOptions) -> anyhow::Result<Self> {
        let program = match options.program {
            Some(program) => program,
            None => tools::nats_server(&checkout(), &mut |words| eprintln!("{words}"))?,
        };
        let store = match options.store {
            Some(path) => Store::Kept(path),
            None => Store::Temporary(
                tempfile::Builder::new().prefix("millrace-nats-").tempdir().context("cannot make a temporary store")?,
            ),
        };
        let name = unique_name();
        let port = options.port.unwrap_or_else(free_port);
        let child = spawn(&program, options.config.as_deref(), &options.args, &name, port, store.path())?;
        let mut server = Self { child, program, config: options.config, args: options.args, name, port, store };
        for tries_left in (0..if options.port.is_some() { 1 } else { PORTS_TRIED_MAX }).rev() {
            match server.ready().await {
                Err(_) if tries_left > 0 && server.log_tail().contains("address already in use") => {
                    server.port = free_port();
                    server.child = server.spawn()?;
                }
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        Ok(server)
    }

    /// The URL for clients, `nats://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The client port. It stays the same over restarts.
    pub fn client_port(&self) -> u16 {
        self.port
    }

    /// The name that it announces to clients and other servers. It stays the same over restarts.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id, a new one after each restart.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// The folder of JetStream's data.
    pub fn store(&self) -> &Path {
        self.store.path()
    }

    /// The last lines that the server logged.
    pub fn log_tail(&self) -> String {
        self.child.log_tail()
    }

    /// Kills the server (SIGKILL). Unlike a power cut, this loses no data in the system's page cache.
    pub fn kill(&mut self) {
        self.child.kill();
    }

    /// Stops the server as an operator would (SIGTERM) and waits for its end.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.child.signal(Signal::TERM);
        match self.child.wait(STOP_LIMIT).await {
            Some(_) => Ok(()),
            None => bail!("nats-server still runs {STOP_LIMIT:?} after SIGTERM; its last lines:\n{}", self.log_tail()),
        }
    }

    /// Freezes the server (SIGSTOP): connections stay open, and the server does not answer.
    pub fn pause(&self) {
        self.child.freeze();
    }

    /// Resumes a frozen server (SIGCONT).
    pub fn resume(&self) {
        self.child.signal(Signal::CONT);
    }

    /// Restarts the server on the same port and store, and waits until it is ready. Kills it first if it runs.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.child.kill();
        self.child = self.spawn()?;
        self.ready().await
    }

    fn spawn(&self) -> anyhow::Result<Child> {
        spawn(&self.program, self.config.as_deref(), &self.args, &self.name, self.port, self.store.path())
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        while !self.greets().await {
            if let Some(status) = self.child.status() {
                bail!("nats-server ended before it was ready, with {status}; its last lines:\n{}", self.log_tail());
            }
            if Instant::now() > deadline {
                bail!("nats-server was not ready after {READY_LIMIT:?}; its last lines:\n{}", self.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Whether this server, rather than another one on its port, greets a client with JetStream enabled.
    async fn greets(&self) -> bool {
        let greeting = async {
            let stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
            let mut line = String::new();
            BufReader::new(stream.take(64 * 1024)).read_line(&mut line).await.ok()?;
            let info: serde_json::Value = serde_json::from_str(line.strip_prefix("INFO ")?).ok()?;
            Some(info["jetstream"] == true && info["server_name"] == self.name.as_str())
        };
        tokio::time::timeout(Duration::from_secs(1), greeting).await.ok().flatten().unwrap_or(false)
    }
}

fn spawn(
    program: &Path,
    config: Option<&Path>,
    args: &[String],
    name: &str,
    port: u16,
    store: &Path,
) -> anyhow::Result<Child> {
    let mut command = Command::new(program);
    command.args(["--addr", "127.0.0.1", "--jetstream", "--name", name, "--port", &port.to_string()]);
    let mut store_in_config = false;
    if let Some(config) = config {
        let text = std::fs::read_to_string(config)
            .with_context(|| format!("cannot read the nats-server configuration {}", config.display()))?;
        // A comment may mention store_dir.
        let mut settings = text.lines().filter(|line| !line.trim_start().starts_with(['#', '/']));
        store_in_config = settings.any(|line| line.contains("store_dir"));
        if store_in_config && !text.contains("$STORE_DIR") {
            bail!("{} sets store_dir to another folder; make it `store_dir: $STORE_DIR`, or omit it", config.display());
        }
        command.arg("--config").arg(config);
    }
    if !store_in_config {
        command.arg("--store_dir").arg(store);
    }
    command.args(args).env("STORE_DIR", store).stdin(Stdio::null());
    Child::spawn(command, "nats-server", echo("nats-server"), Stdout::Log)
}

/// A unique server name, which the greeting contains.
fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("millrace-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
