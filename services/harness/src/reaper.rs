//! Ends the processes that this process started, if it is killed and no `Drop` runs, as on Ctrl-C.
//!
//! Each process starts one small shell, and sends it each process group through a pipe. When the pipe closes, because
//! the process has died, the shell kills the remaining groups.

use std::{
    io::Write,
    os::unix::process::CommandExt,
    process::{ChildStdin, Command, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
};

const SCRIPT: &str = r#"
all=
while read -r what group; do
  case $what in
    add) all="$all $group" ;;
    remove) rest=; for one in $all; do [ "$one" = "$group" ] || rest="$rest $one"; done; all=$rest ;;
  esac
done
for one in $all; do kill -KILL "-$one"; done
"#;

/// From now on, the process group ends with this process.
pub(crate) fn add(group: u32) {
    tell(format!("add {group}\n"));
}

/// Forgets a process group that has ended; the system may reuse its id.
pub(crate) fn remove(group: u32) {
    tell(format!("remove {group}\n"));
}

/// Best effort: without the shell, only a killed test run leaves processes behind.
fn tell(line: String) {
    static PIPE: OnceLock<Option<Mutex<ChildStdin>>> = OnceLock::new();
    let start = || {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        command.spawn().ok().and_then(|mut child| child.stdin.take()).map(Mutex::new)
    };
    if let Some(pipe) = PIPE.get_or_init(start) {
        let _ = pipe.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
    }
}
