//! `cargo dev up` as a newcomer meets it: the real program, from the banner to the last process.

use std::{
    net::TcpListener,
    path::Path,
    process::{Command, Output},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use millrace_harness::{
    output::Sink,
    ports::free_port,
    processes::{Service, ServiceOptions, binary},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// A running `up`, on its own ports.
struct Up {
    service: Service,
    lines: Arc<Mutex<String>>,
    ports: Ports,
}

#[derive(Clone, Copy)]
struct Ports {
    edge: u16,
    nats: u16,
    sample: u16,
    admin: u16,
}

impl Ports {
    fn free() -> Self {
        Self { edge: free_port(), nats: free_port(), sample: free_port(), admin: three_in_a_row() }
    }

    fn args(self, data: &Path) -> Vec<String> {
        let flags =
            [("port", self.edge), ("nats-port", self.nats), ("sample-port", self.sample), ("admin-port", self.admin)];
        let mut args = vec!["up".to_owned(), "--no-build".to_owned(), format!("--data={}", data.display())];
        args.extend(flags.map(|(flag, port)| format!("--{flag}={port}")));
        args
    }
}

/// The first of three free ports, for edge, worker and projector.
fn three_in_a_row() -> u16 {
    loop {
        let first = free_port();
        if free_port() == first + 1 && free_port() == first + 2 {
            return first;
        }
    }
}

impl Up {
    /// Starts and waits for the banner.
    async fn start(data: &Path, ports: Ports) -> Self {
        let lines = Arc::new(Mutex::new(String::new()));
        let seen = Arc::clone(&lines);
        let sink = Sink::new(move |line| {
            eprintln!("{line}");
            *seen.lock().unwrap() += &format!("{line}\n");
        });
        let options = ServiceOptions { args: ports.args(data), sink: Some(sink), ..ServiceOptions::default() };
        let service = Service::spawn_program("dev", Path::new(env!("CARGO_BIN_EXE_dev")), options).unwrap();
        let mut up = Self { service, lines, ports };
        until("the banner", async || {
            assert_eq!(up.service.exit_status(), None, "{}", up.said());
            up.said().contains("Ctrl-C stops everything").then_some(())
        })
        .await;
        up
    }

    fn said(&self) -> String {
        self.lines.lock().unwrap().clone()
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports.edge)
    }

    async fn submit(&self) -> String {
        let page = format!("http://127.0.0.1:{}/page.html?rate=20000000", self.ports.sample);
        assert!(self.said().contains(&page[..page.len() - 8]), "the banner names the sample page");
        let answer = http().post(self.url("/api/download")).json(&json!({"url": page})).send().await.unwrap();
        assert_eq!(answer.status(), 202);
        answer.json::<Value>().await.unwrap()["jobId"].as_str().unwrap().to_owned()
    }

    async fn status(&self, id: &str) -> Value {
        http().get(self.url(&format!("/api/status/{id}"))).send().await.unwrap().json().await.unwrap()
    }

    /// Waits for its end; returns the exit code and everything that it printed.
    async fn end(&mut self) -> (Option<i32>, String) {
        let status = self.service.wait(LIMIT).await.unwrap();
        self.service.log_tail(); // waits for the last lines
        (status.code(), self.said())
    }

    /// The processes of this `up` that still run, with their command lines.
    fn left(&self) -> Vec<(u32, String)> {
        let mark = format!("127.0.0.1:{}", self.ports.nats);
        let port = format!("--port\0{}\0", self.ports.nats);
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        processes
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| *pid != self.service.pid())
            .filter_map(|pid| Some((pid, std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?)))
            .filter(|(_, line)| line.contains(&mark) || line.contains(&port))
            .collect()
    }
}

fn kill(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

fn http() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn dev(args: &[String]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dev")).args(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomers_job_completes_and_is_there_again_after_ctrl_c() {
    let data = tempfile::tempdir().unwrap();
    let mut up = Up::start(data.path(), Ports::free()).await;
    let id = up.submit().await;
    let status = until("the job's end", async || {
        let status = up.status(&id).await;
        assert_ne!(status["status"], "failed", "{status}");
        (status["status"] == "completed").then_some(status)
    })
    .await;
    assert_eq!(status["progress"], 100);
    assert_eq!(up.left().len(), 4, "{:?}", up.left());

    let mut verify = Command::new(binary("millrace").unwrap());
    let verify = verify.args(["verify", &format!("--nats-url=nats://127.0.0.1:{}", up.ports.nats)]).output().unwrap();
    assert!(verify.status.success(), "{}{}", String::from_utf8_lossy(&verify.stdout), stderr(&verify));

    // What Ctrl-C does: the signal goes to `dev` alone, since every service has a process group of its own.
    kill(up.service.pid(), Signal::INT);
    let (code, said) = up.end().await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(up.left(), []);

    let mut again = Up::start(data.path(), Ports::free()).await;
    assert_eq!(again.status(&id).await["fileSize"], status["fileSize"]);
    let file = http().get(again.url(&format!("/api/download/{id}/file"))).send().await.unwrap();
    assert_eq!(file.content_length(), status["fileSize"].as_u64());
    // As after a crash of the terminal: no process of `up` outlives it.
    kill(again.service.pid(), Signal::KILL);
    again.end().await;
    until("the end of every process", async || again.left().is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_dies_stops_everything_and_is_named() {
    let data = tempfile::tempdir().unwrap();
    let mut up = Up::start(data.path(), Ports::free()).await;
    let second = dev(&Ports::free().args(data.path()));
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains(&format!("process {}", up.service.pid())), "{}", stderr(&second));

    let projector = up.left().into_iter().find(|(_, line)| line.contains("millrace-projector")).unwrap();
    kill(projector.0, Signal::KILL);
    let (code, said) = up.end().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("error: projector has ended with signal: 9"), "{said}");
    assert_eq!(up.left(), []);
}

#[test]
fn a_taken_port_ends_it_with_one_sentence() {
    let data = tempfile::tempdir().unwrap();
    for flag in ["--port", "--nats-port", "--sample-port", "--admin-port"] {
        let number = three_in_a_row();
        let _taken = TcpListener::bind(("127.0.0.1", number)).unwrap();
        let mut ports = Ports::free();
        match flag {
            "--port" => ports.edge = number,
            "--nats-port" => ports.nats = number,
            "--sample-port" => ports.sample = number,
            _ => ports.admin = number,
        }
        let output = dev(&ports.args(data.path()));
        assert_eq!(output.status.code(), Some(1));
        let said = stderr(&output);
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(&number.to_string()) && said.contains(&format!("with {flag}")), "{said}");
    }
}

#[test]
fn a_data_folder_that_cannot_be_read_ends_it_with_one_sentence() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let output = dev(&Ports::free().args(&file));
    assert_eq!((output.status.code(), stderr(&output).lines().count()), (Some(1), 1), "{}", stderr(&output));

    // nats-server itself skips a stream that it cannot read; `up` does not create an empty one in its place.
    let stream = data.path().join("broken/nats/jetstream/$G/streams/JOBS");
    std::fs::create_dir_all(stream.join("msgs")).unwrap();
    std::fs::write(stream.join("meta.inf"), "x").unwrap();
    let output = dev(&Ports::free().args(&data.path().join("broken")));
    assert_eq!((output.status.code(), stderr(&output).lines().count()), (Some(1), 1), "{}", stderr(&output));
    assert!(stderr(&output).contains("JOBS"), "{}", stderr(&output));
}
