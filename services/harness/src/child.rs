//! A child process with its own process group. Keeps its last lines of output, and ends when dropped.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    process::{ChildStdin, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::{output::Sink, reaper};

const LINES_KEPT_MAX: usize = 400;
const LINES_SHOWN_MAX: usize = 40;
const POLL: Duration = Duration::from_millis(5);
/// How long a process may take to freeze.
const FREEZE_MAX: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Child {
    inner: std::process::Child,
    group: Pid,
    status: Option<ExitStatus>,
    log: Arc<Log>,
}

/// The destination of the lines of standard output.
pub(crate) enum Stdout {
    /// To the log, together with standard error.
    Log,
    /// To this function, called on its own thread, until it returns false.
    Lines(Box<dyn FnMut(String) -> bool + Send>),
}

impl Child {
    /// Starts `command`. The lines of its log also go to `sink`.
    pub(crate) fn spawn(mut command: Command, name: &str, sink: Option<Sink>, stdout: Stdout) -> anyhow::Result<Self> {
        command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut inner = command
            .spawn()
            .with_context(|| format!("cannot start {name}: {} did not run", command.get_program().to_string_lossy()))?;
        let group = Pid::from_child(&inner);
        reaper::add(inner.id());
        let log = Arc::new(Log { lines: Mutex::default(), readers: AtomicUsize::new(0) });
        let to_log = || {
            let (log, sink) = (Arc::clone(&log), sink.clone());
            move |line: String| {
                if let Some(sink) = &sink {
                    sink.line(&line);
                }
                log.push(line);
                true
            }
        };
        if let Some(pipe) = inner.stderr.take() {
            Log::read(&log, pipe, to_log());
        }
        match (inner.stdout.take(), stdout) {
            (Some(pipe), Stdout::Log) => Log::read(&log, pipe, to_log()),
            (Some(pipe), Stdout::Lines(lines)) => Log::read(&log, pipe, lines),
            (None, _) => {}
        }
        Ok(Self { inner, group, status: None, log })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.inner.id()
    }

    pub(crate) fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.inner.stdin.take()
    }

    /// Sends a signal to the whole process group; nothing if it has ended.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.status.is_none() {
            let _ = kill_process_group(self.group, signal);
        }
    }

    /// Freezes the process group; returns once every thread of the process has stopped, since a request may arrive
    /// before a signal takes effect.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
        let deadline = Instant::now() + FREEZE_MAX;
        while !self.is_frozen() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether every thread has stopped, or the process is gone.
    fn is_frozen(&self) -> bool {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", self.pid())) else { return true };
        threads.flatten().all(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            // A thread that has ended meanwhile has no state.
            stat.rsplit(") ").next().is_some_and(|rest| rest.is_empty() || rest.starts_with(['T', 'Z']))
        })
    }

    /// The exit status, or `None` while it runs. Kills the rest of its group once it has ended.
    pub(crate) fn status(&mut self) -> Option<ExitStatus> {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if self.status.is_none() && !matches!(waitid(WaitId::Pid(self.group), look), Ok(None)) {
            self.reap();
        }
        self.status
    }

    /// Waits for its end; returns `None` after `limit`.
    pub(crate) async fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        while self.status().is_none() && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
        }
        self.status
    }

    /// Kills the group at once and waits for its leader.
    pub(crate) fn kill(&mut self) {
        if self.status.is_none() {
            self.reap();
        }
    }

    /// SIGTERM, then SIGKILL if it still runs after `grace`. Blocks.
    pub(crate) fn end(&mut self, grace: Duration) {
        self.signal(Signal::TERM);
        self.signal(Signal::CONT);
        let deadline = Instant::now() + grace;
        while self.status().is_none() && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
        self.kill();
    }

    /// The last lines that it wrote; complete once it has ended.
    pub(crate) fn log_tail(&self) -> String {
        let deadline = Instant::now() + Duration::from_millis(500);
        while self.status.is_some() && self.log.readers.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
        self.log.tail()
    }

    /// Kills the group while its leader's id is still in use, so that no other process is hit.
    fn reap(&mut self) {
        let _ = kill_process_group(self.group, Signal::KILL);
        self.status = self.inner.wait().ok();
        reaper::remove(self.inner.id());
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

#[derive(Debug)]
struct Log {
    lines: Mutex<VecDeque<String>>,
    readers: AtomicUsize,
}

impl Log {
    fn read(log: &Arc<Self>, pipe: impl Read + Send + 'static, mut line: impl FnMut(String) -> bool + Send + 'static) {
        let log = Arc::clone(log);
        log.readers.fetch_add(1, Ordering::AcqRel);
        std::thread::spawn(move || {
            let mut wanted = true;
            for bytes in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                // Keep reading when the lines are no longer wanted: a full pipe would block the child.
                wanted = wanted && line(String::from_utf8_lossy(&bytes).into_owned());
            }
            log.readers.fetch_sub(1, Ordering::AcqRel);
        });
    }

    fn push(&self, line: String) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES_KEPT_MAX {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    fn tail(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let skip = lines.len().saturating_sub(LINES_SHOWN_MAX);
        lines.iter().skip(skip).map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}
