//! Runs a program to its end, within a time limit, with an error that shows the program's last lines.

use std::{
    fs::File,
    io::{Read, Seek},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

/// Last lines of standard error that an error shows.
const LINES_SHOWN_MAX: usize = 15;

/// Runs `command` and returns its standard output. `what` names the task in errors, as in "install yt-dlp".
///
/// Output goes through files, so that neither a full pipe nor a surviving grandchild can block the caller.
pub(crate) fn run(command: &mut Command, what: &str, limit: Duration) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut stdout = tempfile::tempfile().context("cannot make a temporary file for a program's output")?;
    let mut stderr = tempfile::tempfile().context("cannot make a temporary file for a program's output")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?)
        .spawn()
        .with_context(|| format!("cannot {what}: {program} did not start"))?;
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            let last = tail(&mut stderr)?;
            bail!("cannot {what}: {program} was stopped after {} s; its last lines:\n{last}", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    if !status.success() {
        bail!("cannot {what}: {program} ended with {status}; its last lines:\n{}", tail(&mut stderr)?);
    }
    read(&mut stdout)
}

fn tail(file: &mut File) -> anyhow::Result<String> {
    let text = read(file)?;
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    Ok(lines[lines.len().saturating_sub(LINES_SHOWN_MAX)..].join("\n"))
}

fn read(file: &mut File) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_last_lines_of_stderr() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo fine; echo the reason >&2; exit 3"]);
        let error = run(&mut command, "try it", Duration::from_secs(10)).unwrap_err().to_string();
        assert!(error.contains("cannot try it") && error.contains("the reason") && error.contains('3'), "{error}");
    }

    #[test]
    fn a_program_that_hangs_is_stopped() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo waiting >&2; sleep 60"]);
        let error = run(&mut command, "wait", Duration::from_millis(200)).unwrap_err().to_string();
        assert!(error.contains("was stopped") && error.contains("waiting"), "{error}");
    }
}
