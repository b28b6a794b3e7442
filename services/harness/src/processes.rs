//! The workspace's own binaries, run as processes, which a test observes from outside.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::process::Signal;

use crate::{
    child::{Child, Stdout},
    output::{Sink, echo},
};

/// How long a dropped service may take to end by itself before it is killed.
const DROP_GRACE: Duration = Duration::from_secs(3);

/// How to run a [`Service`].
#[derive(Clone, Debug, Default)]
pub struct ServiceOptions {
    /// The command line arguments.
    pub args: Vec<String>,
    /// Added to this process's environment, from which every `MILLRACE_` variable is removed first.
    pub env: BTreeMap<String, String>,
    /// The working folder; this process's own if `None`.
    pub dir: Option<PathBuf>,
    /// Receives its output line by line; if `None`, [`LOGS_VARIABLE`](crate::output::LOGS_VARIABLE) may show it.
    pub sink: Option<Sink>,
}

/// A running binary in its own process group.
///
/// Dropping it sends SIGTERM and waits some seconds for its end; in a panicking test it is killed at once.
#[derive(Debug)]
pub struct Service {
    name: String,
    child: Child,
}

impl Service {
    /// Starts the binary of this name, such as `millrace-edge`, from the target folder in which this program was built.
    pub fn spawn(name: &str, options: ServiceOptions) -> anyhow::Result<Self> {
        Self::spawn_program(name, &binary(name)?, options)
    }

    /// Starts any program the same way. `name` stands for it in errors and logs.
    pub fn spawn_program(name: &str, program: &Path, options: ServiceOptions) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        for (variable, _) in
            std::env::vars_os().filter(|(variable, _)| variable.as_encoded_bytes().starts_with(b"MILLRACE_"))
        {
            command.env_remove(variable);
        }
        command.args(&options.args).envs(&options.env).stdin(Stdio::null());
        if let Some(dir) = &options.dir {
            command.current_dir(dir);
        }
        let child = Child::spawn(command, name, options.sink.or_else(|| echo(name)), Stdout::Log)?;
        Ok(Self { name: name.to_owned(), child })
    }

    /// Waits until `<admin_url>/readyz` answers 200. Fails with the last log lines if the process ends or `limit`
    /// passes.
    pub async fn wait_ready(&mut self, admin_url: &str, limit: Duration) -> anyhow::Result<()> {
        let url = format!("{}/readyz", admin_url.trim_end_matches('/'));
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(1)).build()?;
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.status() {
                bail!("{} ended before it was ready, with {status}; its last lines:\n{}", self.name, self.log_tail());
            }
            let answer = match client.get(&url).send().await {
                Ok(response) if response.status() == reqwest::StatusCode::OK => return Ok(()),
                Ok(response) => {
                    let status = response.status();
                    format!("{status} {}", response.text().await.unwrap_or_default().trim())
                }
                Err(_) => "no answer".to_owned(),
            };
            if Instant::now() > deadline {
                bail!(
                    "{} was not ready after {limit:?}: {url} gave {answer}; its last lines:\n{}",
                    self.name,
                    self.log_tail()
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends SIGTERM and waits for the end. After `limit` it kills the process and returns an error.
    pub async fn terminate(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        self.request_stop();
        let ended = self.wait(limit).await;
        if ended.is_err() {
            self.child.kill();
        }
        ended
    }

    /// Sends SIGTERM and returns at once.
    pub fn request_stop(&self) {
        self.child.signal(Signal::TERM);
    }

    /// Waits until the process ends by itself.
    pub async fn wait(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        match self.child.wait(limit).await {
            Some(status) => Ok(status),
            None => bail!("{} still runs after {limit:?}; its last lines:\n{}", self.name, self.log_tail()),
        }
    }

    /// Kills the process and its group at once (SIGKILL).
    pub fn kill9(&mut self) {
        self.child.kill();
    }

    /// Freezes the process (SIGSTOP).
    pub fn pause(&self) {
        self.child.freeze();
    }

    /// Resumes a frozen process (SIGCONT).
    pub fn resume(&self) {
        self.child.signal(Signal::CONT);
    }

    /// The process's exit status, or `None` while it runs.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.status()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// The last lines that the process wrote, standard output and standard error mixed.
    pub fn log_tail(&self) -> String {
        self.child.log_tail()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.child.end(DROP_GRACE);
        }
    }
}

/// The path of one of the workspace's binaries, in the target folder in which this program was built.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe().context("cannot determine the path of this program")?;
    // A test is in target/debug/deps, `cargo dev` in target/debug.
    let folders = this.ancestors().skip(1).take(2);
    match folders.map(|folder| folder.join(name)).find(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => bail!("{name} is not built beside {}; run `cargo dev test`, which builds it", this.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_binary_says_how_to_build_it() {
        let error = binary("millrace-nonesuch").unwrap_err().to_string();
        assert!(error.contains("cargo dev test"), "{error}");
    }
}
