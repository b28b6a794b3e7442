//! Finds and kills the processes that a killed worker has left behind.

use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

use millrace_domain::limits::TOOL_VANISH_MAX;
use rustix::process::{Pid, Signal, kill_process};

const VANISH_POLL: Duration = Duration::from_millis(5);

/// Kills each process whose working directory is `folder` or below it, and waits until there is none. Tools and their
/// children have their attempt's folder as working directory. Without a `/proc` it does nothing.
pub fn kill_in(folder: &Path) -> io::Result<()> {
    let deadline = Instant::now() + TOOL_VANISH_MAX;
    // Repeat until none is found: a process may have started another in between.
    loop {
        let found = working_in(folder);
        if found.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(io::Error::other(format!("processes {found:?} do not end")));
        }
        for pid in found {
            tracing::info!(
                pid = pid.as_raw_nonzero(),
                folder = %folder.display(),
                "killing processes of a dead worker"
            );
            // This fails if the process has ended.
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(VANISH_POLL);
    }
}

/// Whether [`kill_in`] finds every such process: only then may another worker use the folder.
pub fn can_be_found() -> bool {
    fs::read_link("/proc/self/cwd").is_ok()
}

fn working_in(folder: &Path) -> Vec<Pid> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    // The link of an ended process, or of another user's, is not readable.
    let here = |pid: &i32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
    ids.filter(here).filter_map(Pid::from_raw).collect()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{os::unix::process::ExitStatusExt, process::Command};

    use super::*;

    #[test]
    fn what_works_in_the_folder_is_killed_and_what_works_beside_it_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let sleep = |name: &str| {
            let folder = dir.join(name);
            fs::create_dir_all(&folder).unwrap();
            Command::new("sleep").arg("60").current_dir(folder).spawn().unwrap()
        };
        let (mut inside, mut beside) = (sleep("dead/job.1"), sleep("deadly"));
        kill_in(&dir.join("dead")).unwrap();
        assert_eq!(inside.wait().unwrap().signal(), Some(9));
        assert!(beside.try_wait().unwrap().is_none());
        beside.kill().unwrap();
        beside.wait().unwrap();
    }
}
