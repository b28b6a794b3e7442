//! The processes of `up`, with their ports and flags.

use std::{collections::BTreeMap, path::PathBuf};

use millrace_harness::{processes::ServiceOptions, programs::Programs, tools::Tools};

use super::{Args, data::Data, ports::Port, stack::Stage};

/// The settings that are fixed before the first process starts.
pub struct Layout {
    pub args: Args,
    pub root: PathBuf,
    pub data: Data,
    pub programs: Programs,
    pub tools: Tools,
}

/// A service to run.
pub struct Process {
    pub name: String,
    pub program: &'static str,
    pub stage: Stage,
    pub options: ServiceOptions,
}

/// Every port on which a process listens.
pub fn ports(args: &Args) -> Vec<Port> {
    let port = |number, user: &str, flag| Port { number, user: user.to_owned(), flag };
    let mut ports = vec![
        port(args.port, "the edge", "--port"),
        port(args.nats_port, "nats-server", "--nats-port"),
        port(args.sample_port, "the sample site", "--sample-port"),
    ];
    for name in service_names(args) {
        ports.extend(
            admin_port(args, &name).map(|number| port(number, &format!("the health checks of {name}"), "--admin-port")),
        );
    }
    ports
}

/// The services' names, in the order in which they start.
fn service_names(args: &Args) -> impl Iterator<Item = String> + use<> {
    let workers = (1..=args.workers).map(|number| format!("worker-{number}"));
    ["projector".to_owned()].into_iter().chain(workers).chain(["edge".to_owned()])
}

/// With the default first port, the ports are the services' own defaults.
fn admin_port(args: &Args, name: &str) -> Option<u16> {
    let offset = match name {
        "edge" => 0,
        "worker-1" => 1,
        "projector" => 2,
        _ => name.strip_prefix("worker-")?.parse::<u16>().ok()? + 1,
    };
    Some(args.admin_port + offset)
}

impl Layout {
    /// The address of nats-server.
    pub fn nats_url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.args.nats_port)
    }

    /// The edge's address for clients.
    pub fn base_url(&self) -> String {
        format!("http://localhost:{}", self.args.port)
    }

    /// The URL of a service's admin port; nats-server has none.
    pub fn admin_url(&self, name: &str) -> Option<String> {
        Some(format!("http://127.0.0.1:{}", admin_port(&self.args, name)?))
    }

    /// The services, in the order in which they are started.
    pub fn processes(&self) -> Vec<Process> {
        service_names(&self.args).map(|name| self.process(name)).collect()
    }

    fn process(&self, name: String) -> Process {
        let env = user_variables();
        let mut flags = Flags::default();
        flags.set("nats-url", self.nats_url());
        flags.set("log-format", "pretty");
        if let Some(port) = admin_port(&self.args, &name) {
            flags.set("admin-listen", format!("127.0.0.1:{port}"));
        }
        let (program, stage) = match name.as_str() {
            "projector" => ("millrace-projector", Stage::Projector),
            "edge" => {
                flags.set("listen", format!("127.0.0.1:{}", self.args.port));
                flags.set("drain-seconds", "0");
                flags.set_unless("MILLRACE_PUBLIC_BASE_URL", &env, "public-base-url", self.base_url());
                flags.set_unless("MILLRACE_STORAGE", &env, "storage", self.data.files().display());
                ("millrace-edge", Stage::Edge)
            }
            _ => {
                flags.set("name", &name);
                flags.set("work-dir", self.data.work().join(&name).display());
                flags.set("yt-dlp", self.tools.yt_dlp.display());
                flags.set("ffmpeg", self.tools.ffmpeg.display());
                flags.set("ffprobe", self.tools.ffprobe.display());
                flags.set_unless("MILLRACE_STORAGE", &env, "storage", self.data.files().display());
                ("millrace-worker", Stage::Worker)
            }
        };
        let options = ServiceOptions { args: flags.0, env, ..ServiceOptions::default() };
        Process { name, program, stage, options }
    }
}

/// The services' variables that the user has set. The harness starts processes without them.
fn user_variables() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, value)| name.starts_with("MILLRACE_") && !value.is_empty())
        .collect()
}

#[derive(Default)]
struct Flags(Vec<String>);

impl Flags {
    fn set(&mut self, flag: &str, value: impl std::fmt::Display) {
        self.0.extend([format!("--{flag}"), value.to_string()]);
    }

    /// A flag overrides a variable, so it is omitted where the user has set the variable.
    fn set_unless(
        &mut self,
        variable: &str,
        env: &BTreeMap<String, String>,
        flag: &str,
        value: impl std::fmt::Display,
    ) {
        if !env.contains_key(variable) {
            self.set(flag, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn admin_ports_are_the_services_defaults_and_do_not_collide() {
        let args = Cli::parse_from(["up", "--workers", "3"]).args;
        let port = |name| admin_port(&args, name);
        assert_eq!([port("edge"), port("worker-1"), port("projector")], [Some(9101), Some(9102), Some(9103)]);
        let mut numbers: Vec<_> = ports(&args).iter().map(|port| port.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 3 + 5, "{numbers:?}");
    }
}
