//! Runs a process in a group of its own that never outlives the call.

mod lines;

use std::{
    collections::VecDeque,
    io,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use millrace_domain::limits::{TOOL_STDERR_LINES_MAX, TOOL_TERMINATE_GRACE, TOOL_VANISH_MAX};
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, test_kill_process_group, waitpgid};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio_util::sync::CancellationToken;

use self::lines::Lines;

/// Interval of the check whether a group has vanished. The system lets us wait for the leader only.
const VANISH_POLL: Duration = Duration::from_millis(2);
/// How long a drop may block its thread. A killed process is gone after about a millisecond.
const DROP_WAIT_MAX: Duration = Duration::from_millis(100);

/// A process that ended by itself.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// The last lines of its error output, oldest first.
    pub(crate) stderr: Vec<String>,
}

/// Why a run returned no [`Ended`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("canceled")]
    Canceled,
    #[error("cannot start or follow the process: {0}")]
    Io(#[from] io::Error),
}

/// Runs `command` without input, and passes each line of its output to `on_line`.
///
/// When it has returned or is dropped, no process of the command's group is left. Canceling sends SIGTERM, and SIGKILL
/// after [`TOOL_TERMINATE_GRACE`]. Dropping sends SIGKILL and blocks the thread for a few milliseconds, until the group
/// has vanished. A process that leaves the group (`setsid`) is out of reach.
pub(crate) async fn run(
    command: Command,
    mut on_line: impl FnMut(&str),
    cancel: &CancellationToken,
) -> Result<Ended, RunError> {
    if cancel.is_cancelled() {
        return Err(RunError::Canceled);
    }
    let (mut group, output) = Group::start(command)?;
    let ended = tokio::select! {
        biased;
        () = cancel.cancelled() => None,
        ended = group.follow(output, &mut on_line) => Some(ended),
    };
    match ended {
        Some(ended) => {
            // End what the process left running in its group.
            group.kill().await;
            Ok(ended?)
        }
        None => {
            group.terminate().await;
            Err(RunError::Canceled)
        }
    }
}

struct Output {
    stdout: Lines<ChildStdout>,
    stderr: Lines<ChildStderr>,
}

/// A process and its descendants. Killed on drop, unless the group has vanished.
struct Group {
    leader: Child,
    /// The leader's process id, which is the group's as well. The system does not reuse it while the group has a
    /// member.
    id: Pid,
    vanished: bool,
}

impl Group {
    fn start(mut command: Command) -> io::Result<(Self, Output)> {
        adopt_orphans();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut leader = command.spawn()?;
        let id = leader.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let id = id.expect("a child that was not waited for has an id");
        let stdout = leader.stdout.take().expect("stdout is piped");
        let stderr = leader.stderr.take().expect("stderr is piped");
        let output = Output { stdout: Lines::new(stdout), stderr: Lines::new(stderr) };
        Ok((Self { leader, id, vanished: false }, output))
    }

    /// Reads until the leader has ended and its pipes are empty.
    async fn follow(&mut self, output: Output, on_line: &mut impl FnMut(&str)) -> io::Result<Ended> {
        let Output { mut stdout, mut stderr } = output;
        let (mut stdout_open, mut stderr_open) = (true, true);
        let mut last = VecDeque::with_capacity(TOOL_STDERR_LINES_MAX);
        // A process that left the group may hold the pipes open for ever.
        let mut status: Option<(ExitStatus, tokio::time::Instant)> = None;
        while status.is_none() || stdout_open || stderr_open {
            let drained_by = status.map_or_else(tokio::time::Instant::now, |(_, drained_by)| drained_by);
            tokio::select! {
                line = stdout.next(), if stdout_open => match line? {
                    Some(line) => on_line(&line),
                    None => stdout_open = false,
                },
                line = stderr.next(), if stderr_open => match line? {
                    Some(line) => {
                        if last.len() == TOOL_STDERR_LINES_MAX {
                            last.pop_front();
                        }
                        last.push_back(line);
                    }
                    None => stderr_open = false,
                },
                ended = self.leader.wait(), if status.is_none() => {
                    status = Some((ended?, tokio::time::Instant::now() + TOOL_TERMINATE_GRACE));
                    self.signal(Signal::KILL);
                }
                () = tokio::time::sleep_until(drained_by), if status.is_some() => break,
            }
        }
        let (status, _) = status.expect("the loop ends after the leader only");
        Ok(Ended { status, stderr: last.into() })
    }

    /// Asks the group to end, then makes it.
    async fn terminate(&mut self) {
        self.signal(Signal::TERM);
        if tokio::time::timeout(TOOL_TERMINATE_GRACE, self.wait()).await.is_err() {
            self.kill().await;
        }
    }

    async fn kill(&mut self) {
        self.signal(Signal::KILL);
        if tokio::time::timeout(TOOL_VANISH_MAX, self.wait()).await.is_err() {
            tracing::error!(group = %self.id, "killed process group does not vanish; leaving it to the system");
        }
    }

    /// Waits until the group has no member.
    async fn wait(&mut self) {
        // This fails only if the leader was reaped already.
        let _ = self.leader.wait().await;
        while self.has_members() {
            tokio::time::sleep(VANISH_POLL).await;
        }
        self.vanished = true;
    }

    fn signal(&self, signal: Signal) {
        if !self.vanished {
            // This fails if no member is left.
            let _ = kill_process_group(self.id, signal);
        }
    }

    /// Whether the group has a member. A dead one counts until it is reaped; this process reaps orphans, see
    /// [`adopt_orphans`].
    fn has_members(&self) -> bool {
        while let Ok(Some(_)) = waitpgid(self.id, WaitOptions::NOHANG) {}
        test_kill_process_group(self.id).is_ok()
    }
}

/// Makes this process, instead of process 1, the parent of orphaned descendants. Process 1 may reap late (every other
/// second on one machine) or never (as in many containers), and then a dead process looks alive.
///
/// This applies to the whole process and its later children. A descendant that leaves its group is not reaped before
/// this process ends.
fn adopt_orphans() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        tracing::debug!(%error, "cannot adopt orphans; process 1 gets them");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.vanished {
            return;
        }
        self.signal(Signal::KILL);
        let begun = Instant::now();
        while self.has_members() && begun.elapsed() < DROP_WAIT_MAX {
            std::thread::sleep(VANISH_POLL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    /// Runs the script until its first line of output, which is a process id; returns the id.
    async fn first_pid(script: &str, cancel: &CancellationToken) -> (i32, Result<Ended, RunError>) {
        let mut pid = 0;
        let result = run(
            shell(script),
            |line| {
                pid = line.parse().unwrap();
                cancel.cancel();
            },
            cancel,
        )
        .await;
        (pid, result)
    }

    fn group_exists(id: i32) -> bool {
        test_kill_process_group(Pid::from_raw(id).unwrap()).is_ok()
    }

    #[tokio::test]
    async fn output_arrives_by_line_and_the_last_errors_are_kept() {
        let mut lines = Vec::new();
        let script = "echo one; echo two; for i in $(seq 100); do echo e$i >&2; done; exit 3";
        let ended = run(shell(script), |line| lines.push(line.to_owned()), &CancellationToken::new()).await.unwrap();
        assert_eq!((lines, ended.status.code()), (vec!["one".to_owned(), "two".to_owned()], Some(3)));
        assert_eq!((ended.stderr.len(), ended.stderr[39].as_str()), (TOOL_STDERR_LINES_MAX, "e100"));
    }

    #[tokio::test]
    async fn canceling_kills_also_those_who_ignore_sigterm() {
        let begun = Instant::now();
        let script = "trap '' TERM; (while :; do sleep 100; done) & echo $$; while :; do sleep 100; done";
        let (pid, result) = first_pid(script, &CancellationToken::new()).await;
        assert!(matches!(result, Err(RunError::Canceled)));
        assert!(!group_exists(pid));
        let took = begun.elapsed();
        assert!(took >= TOOL_TERMINATE_GRACE && took < Duration::from_secs(2), "{took:?}");
    }

    #[tokio::test]
    async fn dropping_leaves_no_process() {
        let (send, mut receive) = tokio::sync::mpsc::unbounded_channel();
        let cancel = CancellationToken::new();
        let running = run(
            shell("sleep 100 & echo $$; wait"),
            move |line| send.send(line.parse::<i32>().unwrap()).unwrap(),
            &cancel,
        );
        let pid = tokio::select! {
            pid = receive.recv() => pid.unwrap(),
            ended = running => panic!("{ended:?}"),
        };
        assert!(!group_exists(pid));
    }

    #[tokio::test]
    async fn what_a_process_leaves_behind_ends_with_it_even_if_it_holds_the_pipes() {
        let begun = Instant::now();
        let mut pid = 0;
        let script = "sleep 100 & echo $$";
        run(shell(script), |line| pid = line.parse().unwrap(), &CancellationToken::new()).await.unwrap();
        assert!(!group_exists(pid) && begun.elapsed() < Duration::from_secs(2));
    }

    #[tokio::test]
    async fn a_missing_program_is_an_error() {
        let result = run(Command::new("/nowhere/tool"), |_| (), &CancellationToken::new()).await;
        assert!(matches!(result, Err(RunError::Io(error)) if error.kind() == io::ErrorKind::NotFound));
    }
}
