//! How long `cargo dev up` takes to become ready, when all programs are built and all tools installed.

use std::{
    path::{Path, PathBuf},
    sync::mpsc::{RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use millrace_harness::{
    output::Sink,
    ports::free_port,
    processes::{Service, ServiceOptions},
    programs::UP_READY,
};
use rustix::process::{Pid, Signal, kill_process};

const READY_MAX: Duration = Duration::from_secs(120);
const STOP_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

/// Runs `cargo dev up` once on free ports with an empty data folder; returns the seconds from the start of cargo to the
/// banner.
pub async fn run(root: &Path) -> anyhow::Result<Duration> {
    let data = tempfile::Builder::new().prefix("millrace-bench-").tempdir()?;
    let mut args = vec!["dev".to_owned(), "up".to_owned(), format!("--data={}", data.path().display())];
    args.extend(["port", "nats-port", "sample-port"].map(|flag| format!("--{flag}={}", free_port())));
    args.push(format!("--admin-port={}", three_free_ports()));
    let (sender, lines) = channel();
    let sink = Sink::new(move |line| {
        // Once it is ready, no receiver is left.
        let _ = sender.send((line.to_owned(), Instant::now()));
    });
    let options = ServiceOptions { args, dir: Some(root.to_owned()), sink: Some(sink), ..ServiceOptions::default() };
    let cargo = std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);

    let begun = Instant::now();
    let mut up = Service::spawn_program("cargo dev up", &cargo, options)?;
    let ready = loop {
        match lines.recv_timeout(POLL) {
            Ok((line, at)) if line.contains(UP_READY) => break at - begun,
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) if begun.elapsed() < READY_MAX && up.exit_status().is_none() => {}
            Err(_) => bail!("`cargo dev up` did not become ready; its last lines:\n{}", up.log_tail()),
        }
    };
    let pid = i32::try_from(up.pid()).ok().and_then(Pid::from_raw).context("no process id")?;
    kill_process(pid, Signal::INT)?;
    let status = up.wait(STOP_MAX).await?;
    if !status.success() {
        bail!("`cargo dev up` ended with {status} after Ctrl-C; its last lines:\n{}", up.log_tail());
    }
    Ok(ready)
}

/// The first of three free ports in a row: edge, worker and projector.
fn three_free_ports() -> u16 {
    loop {
        let first = free_port();
        if free_port() == first + 1 && free_port() == first + 2 {
            return first;
        }
    }
}
