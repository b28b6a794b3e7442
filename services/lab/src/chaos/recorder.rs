//! Takes down what happens while it happens.

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

/// What the services say of each acknowledged append, at debug level. See `runtime::log`.
const APPENDED: &str = "event appended";

/// Everything so far.
pub struct Recorder {
    kept: Mutex<Kept>,
    logs: PathBuf,
    files: Mutex<HashMap<String, File>>,
}

/// What is taken down.
#[derive(Default)]
pub struct Kept {
    pub accepted: Vec<Accepted>,
    pub acked: Vec<Acked>,
    pub sessions: Vec<Session>,
    pub injected: Vec<Injected>,
    /// Processes that ended by themselves.
    pub own_ends: u64,
    /// Answers to submissions, by HTTP status; 0 is none.
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

    /// What is kept, to add to it or to read it.
    pub fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a process's output.
    pub fn sink(self: &Arc<Self>, name: &str) -> Sink {
        let (recorder, name) = (Arc::clone(self), name.to_owned());
        Sink::new(move |line| recorder.line(&name, line))
    }

    fn line(&self, name: &str, line: &str) {
        if line.contains(APPENDED) {
            // A line that a kill has cut tells of nothing.
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
            // Logs are for people; a full disk takes none.
            let _ = writeln!(file, "{line}");
        }
    }
}
