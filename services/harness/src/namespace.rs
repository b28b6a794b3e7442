//! Reruns a test in its own namespaces, when it needs root's rights or ports that no other process holds.

use std::{
    env,
    path::Path,
    process::{Command, Stdio},
    thread,
};

use anyhow::bail;

/// Set for a test that runs in its own namespaces.
const INSIDE: &str = "MILLRACE_TEST_NAMESPACE";
/// Sets IFF_UP by SIOCSIFFLAGS: `ip` is not on every machine.
const UP: &str = "import fcntl, socket, struct\n\
    fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh22x', b'lo', 1))";

/// Whether the calling test runs in its own namespaces.
#[must_use]
pub fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// Runs the calling test alone, once more, as root of a user namespace and of a second namespace, `--mount` or `--net`.
/// Call it on the test's own thread, which has the test's name.
///
/// # Panics
/// When the test fails there, or the namespaces cannot be made.
pub fn run_again(kind: &str) {
    let this = env::current_exe().expect("the test's program");
    let thread = thread::current();
    let test = thread.name().filter(|name| *name != "main").expect("a test's own thread");
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", kind, "--"]).arg(this);
    command.args([test, "--exact", "--nocapture"]).env(INSIDE, "1").stdin(Stdio::null());
    let output = command.output().expect("unshare, of util-linux");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let has_passed = output.status.success() && text.contains("1 passed");
    assert!(has_passed, "in a namespace of its own the test did not pass:\n{text}");
}

/// Brings up the loopback interface of a network namespace, which is down at first.
///
/// # Errors
/// When it stays down.
pub fn bring_up_loopback(python: &Path) -> anyhow::Result<()> {
    let output = Command::new(python).args(["-c", UP]).output()?;
    if !output.status.success() {
        bail!("the loopback interface stays down: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
