//! Records a run while it happens.

use std::{
    collections::HashMap,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use millrace_harness::output::Sink;
use serde::Deserialize;

use super::{
    history::{Accepted, Acked, Session},
    schedule::Fault,
};

/// The message with which services log each acknowledged append, at debug level. See `runtime::log`.
const APPENDED: &str = "event appended";

/// The record so far, and the folder for logs.
pub struct Recorder {
    kept: Mutex<Kept>,
    logs: PathBuf,
    files: Mutex<HashMap<String, File>>,
}

/// The record.
#[derive(Default)]
pub struct Kept {
    pub accepted: Vec<Accepted>,
    pub acked: Vec<Acked>,
    pub sessions: Vec<Session>,
    pub injected: Vec<Injected>,
    /// Processes that exited by themselves.
    pub own_ends: u64,
    /// Answers to submissions, by HTTP status; 0 stands for no answer.
    pub answers: HashMap<u16, u64>,
    /// Kills of workers: name and time.
    pub worker_kills: Vec<(String, u64)>,
}

/// A fault that took place.
#[derive(Clone, Copy, Debug)]
pub struct Injected {
    pub fault: Fault,
    pub from: u64,
    pub to: u64,
}

#[derive(Deserialize)]
struct Line {
    seq: u64,
    message_id: String,
}

/// Milliseconds since 1970.
pub fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0)
}

impl Recorder {
    /// Keeps the processes' logs in this folder.
    pub fn new(logs: &Path) -> anyhow::Result<Arc<Self>> {
        std::fs::create_dir_all(logs)?;
        Ok(Arc::new(Self { kept: Mutex::default(), logs: logs.to_owned(), files: Mutex::default() }))
    }

    /// Locks the record.
    pub fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sink for a process's output.
    pub fn sink(self: &Arc<Self>, name: &str) -> Sink {
        let (recorder, name) = (Arc::clone(self), name.to_owned());
        Sink::new(move |line| recorder.line(&name, line))
    }

    fn line(&self, name: &str, line: &str) {
        if line.contains(APPENDED) {
            // A line that a kill has truncated is ignored.
            if let Ok(Line { seq, message_id }) = serde_json::from_str(line) {
                self.kept().acked.push(Acked { seq, message_id });
            }
            return;
        }
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.logs.join(format!("{name}.log"));
        let open = || File::options().create(true).append(true).open(path);
        if !files.contains_key(name)
            && let Ok(file) = open()
        {
            files.insert(name.to_owned(), file);
        }
        if let Some(file) = files.get_mut(name) {
            // The file is only for readers of the logs; a full disk must not stop the run.
            let _ = writeln!(file, "{line}");
        }
    }
}
