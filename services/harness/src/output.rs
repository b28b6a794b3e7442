//! Sinks for the lines that processes write.

use std::{fmt, sync::Arc};

/// The environment variable that copies the output of every process to the output of the test.
pub const LOGS_VARIABLE: &str = "MILLRACE_TEST_LOGS";

/// A sink that prints lines marked with `name`, if [`LOGS_VARIABLE`] is set.
pub(crate) fn echo(name: &str) -> Option<Sink> {
    let wanted = std::env::var_os(LOGS_VARIABLE).is_some_and(|value| !value.is_empty() && value != "0");
    let prefix = format!("[{name}] ");
    wanted.then(|| Sink::new(move |line| eprintln!("{prefix}{line}")))
}

/// Receives each line that a process writes, on separate threads.
#[derive(Clone)]
pub struct Sink(Arc<dyn Fn(&str) + Send + Sync>);

impl Sink {
    /// Calls `sink` for each line.
    pub fn new(sink: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(sink))
    }

    pub(crate) fn line(&self, line: &str) {
        (self.0)(line);
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sink")
    }
}
