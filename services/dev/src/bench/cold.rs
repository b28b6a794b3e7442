//! How long `cargo dev up` takes until everything is ready, when everything is built and installed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use millrace_harness::processes::free_port;
use rustix::process::{Pid, Signal, kill_process};

use crate::programs::cargo;
use crate::up::READY;

const READY_MAX: Duration = Duration::from_secs(120);

/// Runs it once on free ports, with an empty data folder; how long it took from the start of cargo to the banner.
pub fn run(root: &Path) -> anyhow::Result<Duration> {
    let data = tempfile::Builder::new().prefix("millrace-bench-").tempdir()?;
    let mut command = cargo(root);
    command.args(["dev", "up"]).arg("--data").arg(data.path());
    for flag in ["--port", "--nats-port", "--sample-port"] {
        command.args([flag, &free_port().to_string()]);
    }
    command.args(["--admin-port", &three_free_ports().to_string()]);
    let begun = Instant::now();
    let mut up = Up::start(command)?;
    let ready = up.ready(begun)?;
    up.stop()?;
    Ok(ready)
}

/// The first of three free ports in a row.
fn three_free_ports() -> u16 {
    loop {
        let first = free_port();
        if free_port() == first + 1 && free_port() == first + 2 {
            return first;
        }
    }
}

struct Up {
    child: Child,
}

impl Up {
    fn start(mut command: Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        Ok(Self { child: command.spawn().context("cargo did not run")? })
    }

    /// Waits for the banner.
    fn ready(&mut self, begun: Instant) -> anyhow::Result<Duration> {
        let stdout = self.child.stdout.take().context("no standard output")?;
        let (sender, lines) = channel();
        // It reads on after the banner, so that the pipe does not fill; it ends with the process.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send((line, Instant::now()));
            }
        });
        loop {
            match lines.recv_timeout(READY_MAX) {
                Ok((line, at)) if line.contains(READY) => return Ok(at - begun),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => bail!("`cargo dev up` was not ready after {READY_MAX:?}"),
                Err(RecvTimeoutError::Disconnected) => bail!("`cargo dev up` has ended; run it to see why"),
            }
        }
    }

    /// As Ctrl-C would.
    fn stop(mut self) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::INT)?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("`cargo dev up` ended with {status} after Ctrl-C");
        }
        Ok(())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
            let _ = self.child.wait();
        }
    }
}
