//! Every command of README.md, as it stands, in its order, against a system as `cargo dev up` starts it. In a network
//! namespace, where the default ports are free.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use millrace_harness::{
    checkout,
    namespace::{bring_up_loopback, is_inside, run_again},
    output::Sink,
    processes::{Service, ServiceOptions, binary},
    tools::{self, Tools},
    wait::until,
};

/// Commands that are not run here, and why. Each is in README.md.
const ELSEWHERE: [(&str, &str); 2] = [
    ("cargo dev up", "started by this test, without the build, which would replace what other tests run"),
    ("cargo dev test", "runs this test"),
];
/// Not run here, since it takes minutes: what it installs was built with the tests, and is copied to the PATH.
const INSTALL: &str = "cargo install --locked --path services/";
/// The id of the job in README.md.
const JOB: &str = "d4wq2444nihz22vrcyxeqltzwa";
const LIMIT: Duration = Duration::from_secs(60);

/// The blocks marked `sh`.
fn blocks(text: &str) -> Vec<String> {
    let parts = text.split("```sh\n").skip(1);
    parts.map(|part| part.split("```").next().expect("the end of a block").trim().to_owned()).collect()
}

/// A shell as a reader has it: wscat and what README.md has installed are at hand, the folder is empty.
struct Shell {
    folder: tempfile::TempDir,
    path: OsString,
}

impl Shell {
    /// With the programs of these crates on its PATH, and no other of ours.
    fn new<'a>(node_modules: &Path, installed: impl Iterator<Item = &'a str>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink(node_modules, folder.path().join("node_modules")).expect("a link");
        let ours = folder.path().join("bin");
        fs::create_dir(&ours).expect("a folder");
        for name in installed {
            let program = if name == "cli" { "millrace".to_owned() } else { format!("millrace-{name}") };
            // Not a link, which a program would follow to find others beside it.
            fs::copy(binary(&program).expect("built"), ours.join(program)).expect("a copy");
        }
        let others = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([ours].into_iter().chain(env::split_paths(&others))).expect("a PATH");
        Self { folder, path }
    }

    fn command(&self, words: &str) -> Command {
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", words]).current_dir(self.folder.path()).env("PATH", &self.path);
        // npx looks into the folder and asks no registry.
        command.env("npm_config_offline", "true").env("npm_config_cache", self.folder.path().join(".npm"));
        command
    }

    /// Runs a command to its end; what it prints.
    fn run(&self, words: &str) -> String {
        let output = self.command(words).stdin(Stdio::null()).output().expect("bash");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{words}\n{text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// The files that commands have made here.
    fn files(&self) -> Vec<PathBuf> {
        let entries =
            fs::read_dir(self.folder.path()).expect("the folder").map(|entry| entry.expect("an entry").path());
        entries.filter(|path| path.is_file()).collect()
    }
}

/// A client that stays connected, and what it has printed so far.
struct Watching(Child, Arc<Mutex<String>>);

impl Watching {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("bash");
        let printed = Arc::new(Mutex::new(String::new()));
        let (lines, into) = (BufReader::new(child.stdout.take().expect("piped")), printed.clone());
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                *into.lock().unwrap() += &(line + "\n");
            }
        });
        Self(child, printed)
    }

    fn printed(&self) -> String {
        self.1.lock().unwrap().clone()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn every_command_of_the_readme_does_what_it_says() {
    let root = checkout();
    let (_curl, node_modules) = tools::for_readme(&root, &mut |words| eprintln!("{words}")).expect("curl and wscat");
    let tools = Tools::ensure(&root, &mut |words| eprintln!("{words}")).expect("the tools");
    if !is_inside() {
        return run_again("--net");
    }
    bring_up_loopback(&tools.python).expect("a network of its own");
    let readme = fs::read_to_string(root.join("README.md")).expect("README.md");
    let blocks = blocks(&readme);
    for (command, _) in ELSEWHERE {
        assert!(blocks.iter().any(|block| block == command), "README.md has no `{command}` any more");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let installed = blocks.iter().filter_map(|block| block.strip_prefix(INSTALL));
    runtime.block_on(run(&Shell::new(&node_modules, installed), &blocks));
}

async fn run(shell: &Shell, blocks: &[String]) {
    let data = tempfile::tempdir().expect("a folder");
    let args = ["up", "--no-build", "--data", data.path().to_str().expect("UTF-8")].map(str::to_owned).to_vec();
    let options = ServiceOptions { args, sink: Some(Sink::new(|line| eprintln!("{line}"))), ..Default::default() };
    let mut up = Service::spawn_program("dev", Path::new(env!("CARGO_BIN_EXE_dev")), options).expect("dev up");
    let mut id = None;
    let mut seen = Vec::new();
    until("the page", LIMIT, async || {
        assert_eq!(up.exit_status(), None, "{}", up.log_tail());
        reqwest::get("http://localhost:3001").await.is_ok_and(|page| page.status().is_success())
    })
    .await;
    let is_run =
        |block: &&String| !block.starts_with(INSTALL) && !ELSEWHERE.iter().any(|(command, _)| command == block);
    for block in blocks.iter().filter(is_run) {
        let command = id.as_ref().map_or(block.clone(), |id: &String| block.replace(JOB, id));
        eprintln!("$ {command}");
        let what = match block.as_str() {
            submit if submit.contains("-d '{") => {
                let job: serde_json::Value = serde_json::from_str(&shell.run(&command)).expect("JSON");
                id = Some(job["jobId"].as_str().expect("an id").to_owned());
                "submit"
            }
            watch if watch.starts_with("npx wscat") => {
                let mut client = Watching::start(shell.command(&command));
                let mut input = client.0.stdin.take().expect("piped");
                until("a status", LIMIT, async || client.printed().contains("\"type\":\"status\"")).await;
                input.write_all(b"ping\n").expect("a client that reads");
                until("a pong", LIMIT, async || client.printed().contains("{\"type\":\"pong\"}")).await;
                until("the end", LIMIT, async || client.printed().contains("\"status\":\"completed\"")).await;
                "watch"
            }
            save if save.starts_with("curl -sOJ") => {
                shell.run(&command);
                let files = shell.files();
                assert_eq!(files.len(), 1, "{files:?}");
                assert!(files[0].metadata().expect("the file").len() > 1_000_000, "a video");
                "save"
            }
            unknown if unknown.ends_with("/api/status/x") => {
                assert!(shell.run(&command).contains("\"code\":\"unknown_job\""));
                "unknown"
            }
            ready if ready.ends_with("/readyz") => {
                assert_eq!(shell.run(&command), "ok\n");
                "ready"
            }
            operate if operate.starts_with("millrace ") => {
                assert!(!shell.run(&command).is_empty());
                operate.split(' ').nth(1).expect("a verb")
            }
            other => panic!("say here what `{other}` is to do"),
        };
        seen.push(what.to_owned());
    }
    seen.sort();
    assert_eq!(seen, ["provision", "ready", "rebuild", "save", "submit", "unknown", "verify", "watch"]);
    up.request_stop();
    assert!(up.wait(LIMIT).await.expect("it stops").success());
}
