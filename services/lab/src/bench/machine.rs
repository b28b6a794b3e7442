//! The machine on which the numbers were measured.

use serde::Serialize;

/// The machine.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    pub cores: usize,
    pub processor: String,
    pub memory_gib: u64,
    pub kernel: String,
    pub nats_server: String,
}

impl Machine {
    /// Reads what Linux reports.
    pub fn here(nats_server: &str) -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let after = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory_kib = after(&read("/proc/meminfo"), "MemTotal");
        let memory_kib = memory_kib.and_then(|text| text.split(' ').next()?.parse::<u64>().ok()).unwrap_or(0);
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            processor: after(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".to_owned()),
            memory_gib: memory_kib.div_ceil(1024 * 1024),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            nats_server: nats_server.to_owned(),
        }
    }

    /// A description in one line.
    pub fn line(&self) -> String {
        format!(
            "{} cores of {}, {} GiB, Linux {}, nats-server {}",
            self.cores, self.processor, self.memory_gib, self.kernel, self.nats_server
        )
    }
}
