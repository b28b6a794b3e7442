//! A test can wait for a process, stop it and kill it, and the process never outlives the test.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use millrace_harness::{
    checkout,
    nats::{NatsOptions, NatsServer},
    ports::free_port,
    processes::{Service, ServiceOptions},
    tools::python_for_tests,
};

const LIMIT: Duration = Duration::from_secs(20);

fn shell(script: &str) -> Service {
    let options = ServiceOptions { args: vec!["-c".into(), script.into()], ..Default::default() };
    Service::spawn_program("shell", Path::new("/bin/sh"), options).unwrap()
}

fn runs(pid: u32) -> bool {
    // A zombie that its new parent has not yet reaped does not run.
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen within {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[tokio::test]
async fn readiness_is_awaited_through_503_and_sigterm_ends_it() {
    let port = free_port();
    let server = format!(
        "import http.server as h, time\nstart = time.time()\nclass H(h.BaseHTTPRequestHandler):\n  def \
        do_GET(self):\n    \
         ok = self.path == '/readyz' and time.time() > start + 0.3\n    self.send_response(200 if ok else 503); \
         self.end_headers()\n\
         h.HTTPServer(('127.0.0.1', {port}), H).serve_forever()"
    );
    let python = python_for_tests(&checkout(), &mut |words| eprintln!("{words}")).unwrap();
    let options = ServiceOptions { args: vec!["-c".into(), server], ..Default::default() };
    let mut service = Service::spawn_program("server", &python, options).unwrap();
    service.wait_ready(&format!("http://127.0.0.1:{port}"), LIMIT).await.unwrap();
    assert_eq!(service.exit_status(), None);
    let status = service.terminate(LIMIT).await.unwrap();
    assert!(!status.success());
    assert_eq!(service.exit_status(), Some(status));
}

#[tokio::test]
async fn ending_before_ready_fails_at_once_with_the_log() {
    let mut service = shell("echo first; echo the reason >&2; exit 7");
    let error = service.wait_ready("http://127.0.0.1:9", LIMIT).await.unwrap_err().to_string();
    assert!(error.contains("the reason") && error.contains("first") && error.contains('7'), "{error}");
}

#[tokio::test]
async fn a_process_that_ignores_sigterm_is_killed_and_that_is_an_error() {
    let mut service = shell("trap '' TERM; echo deaf; while :; do sleep 0.1; done");
    wait_until("the trap", || service.log_tail().contains("deaf"));
    let error = service.terminate(Duration::from_millis(300)).await.unwrap_err().to_string();
    assert!(error.contains("still runs") && error.contains("deaf"), "{error}");
    assert!(!service.exit_status().unwrap().success());
}

#[test]
fn kill9_and_drop_end_the_children_too() {
    for kill in [true, false] {
        let mut service = shell("sleep 300 & echo child $!; wait");
        let child = || service.log_tail().strip_prefix("child ")?.parse::<u32>().ok();
        wait_until("the child's start", || child().is_some());
        let child = child().unwrap();
        assert!(runs(child));
        if kill {
            service.kill9();
        } else {
            drop(service);
        }
        wait_until("the child's end", || !runs(child));
    }
}

#[test]
fn options_are_passed_and_our_own_variables_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().canonicalize().unwrap();
    let options = ServiceOptions {
        args: vec!["-c".into(), "echo \"$GIVEN $MILLRACE_GIVEN ${MILLRACE_TEST_LOGS-none} $PWD\"".into()],
        env: [("GIVEN".into(), "one".into()), ("MILLRACE_GIVEN".into(), "two".into())].into(),
        dir: Some(dir.clone()),
        ..Default::default()
    };
    let mut service = Service::spawn_program("shell", Path::new("/bin/sh"), options).unwrap();
    wait_until("the end", || service.exit_status().is_some());
    assert_eq!(service.log_tail(), format!("one two none {}", dir.display()));
}

/// Set only for the run that is to be killed: the folder of its nats-server.
const STORE_VARIABLE: &str = "MILLRACE_TEST_KILLED_RUN_STORE";

/// Tests nothing by itself: [`a_killed_test_run_leaves_no_process`] runs and kills it.
#[tokio::test]
async fn helper_that_waits_to_be_killed() {
    let Some(store) = std::env::var_os(STORE_VARIABLE) else { return };
    let server = NatsServer::start(NatsOptions { store: Some(store.into()), ..Default::default() }).await.unwrap();
    println!("\nnats-server {}", server.pid());
    std::future::pending().await
}

#[test]
fn a_killed_test_run_leaves_no_process() {
    let store = tempfile::tempdir().unwrap();
    let mut run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "helper_that_waits_to_be_killed", "--nocapture"])
        .env(STORE_VARIABLE, store.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(run.stdout.take().unwrap()).lines();
    let pid = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("nats-server ")?.parse().ok()).unwrap();
    assert!(runs(pid));
    run.kill().unwrap();
    run.wait().unwrap();
    wait_until("the end of nats-server", || !runs(pid));
}
