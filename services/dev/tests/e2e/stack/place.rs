//! Starts each of a stack's services.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use millrace_harness::{
    ports::free_port,
    processes::{Service, ServiceOptions},
};

use super::tools;

/// The settings that all services of a stack share.
#[derive(Clone)]
pub struct Place {
    pub nats_url: String,
    pub storage: String,
    /// Work folders are made here.
    pub folder: PathBuf,
    pub env: Vec<(String, String)>,
}

impl Place {
    /// Starts a projector; its admin address. It may not be ready yet, as those below.
    pub fn projector(&self) -> (Service, String) {
        self.spawn("millrace-projector", &[], &[])
    }

    /// Starts an edge on a port, which closes its sockets over `drain` when it stops.
    pub fn edge(&self, port: u16, drain: Duration) -> (Service, String) {
        let address = format!("127.0.0.1:{port}");
        let url = format!("http://{address}");
        let drain = drain.as_secs().to_string();
        let args = ["--listen", &address, "--public-base-url", &url, "--drain-seconds", &drain];
        self.spawn("millrace-edge", &[&args[..], &["--storage", &self.storage]].concat(), &[])
    }

    /// Starts a worker on its own folder inside the stack's.
    pub fn worker(&self, work: &str, more: &[&str], env: &[(&str, &str)]) -> (Service, String) {
        let tools = tools();
        let work = self.folder.join(work);
        let path = |path: &'static Path| path.to_str().expect("UTF-8");
        let args = [
            &["--storage", &self.storage, "--work-dir", work.to_str().expect("UTF-8")][..],
            &["--name", "worker-under-test", "--yt-dlp", path(&tools.yt_dlp)],
            &["--ffmpeg", path(&tools.ffmpeg), "--ffprobe", path(&tools.ffprobe)],
            more,
        ];
        self.spawn("millrace-worker", &args.concat(), env)
    }

    fn spawn(&self, program: &str, more: &[&str], env: &[(&str, &str)]) -> (Service, String) {
        let admin = format!("127.0.0.1:{}", free_port());
        let args =
            ["--nats-url", &self.nats_url, "--admin-listen", &admin, "--log", "debug,async_nats=info,hyper=info"];
        let args = args.iter().chain(more).map(|&arg| arg.to_owned()).collect();
        let more = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let env = self.env.iter().cloned().chain(more).collect();
        let service = Service::spawn(program, ServiceOptions { args, env, ..Default::default() }).expect(program);
        (service, format!("http://{admin}"))
    }
}
