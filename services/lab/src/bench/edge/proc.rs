//! Linux's accounting of a process.

use std::fs;

use anyhow::{Context, bail};
use rustix::param::clock_ticks_per_second;

/// Processor time, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cpu {
    pub user_s: f64,
    pub system_s: f64,
}

impl Cpu {
    /// The processes' use so far.
    pub fn of(pids: &[u32]) -> anyhow::Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("a measured process is gone")?;
            // The name, in parentheses, may hold anything.
            let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
            let (Some(user), Some(system)) = (ticks(11), ticks(12)) else {
                bail!("/proc/{pid}/stat is not as expected")
            };
            let second = clock_ticks_per_second() as f64;
            sum.user_s += user as f64 / second;
            sum.system_s += system as f64 / second;
        }
        Ok(sum)
    }

    /// User and system time together.
    pub fn total_s(self) -> f64 {
        self.user_s + self.system_s
    }

    /// The use since `before`.
    pub fn since(self, before: Self) -> Self {
        Self { user_s: self.user_s - before.user_s, system_s: self.system_s - before.system_s }
    }
}

/// Resident memory of the processes, in KiB.
pub fn rss_kib(pids: &[u32]) -> anyhow::Result<f64> {
    let mut sum = 0;
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).context("a measured process is gone")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
        sum += kib.with_context(|| format!("/proc/{pid}/status is not as expected"))?;
    }
    Ok(sum as f64)
}

/// How many files and sockets the processes have open.
pub fn open_files(pids: &[u32]) -> usize {
    pids.iter().filter_map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).ok()).map(Iterator::count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_files_and_time() {
        let pids = [std::process::id()];
        assert!(rss_kib(&pids).unwrap() > 100.0);
        assert!(open_files(&pids) > 2);
        let before = Cpu::of(&pids).unwrap();
        assert!(before.since(before).total_s().abs() < f64::EPSILON);
    }
}
