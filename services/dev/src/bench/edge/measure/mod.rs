//! What is measured of a subject. Each measurement begins with a fresh serving process and leaves no client.

mod latency;
mod memory;
mod saturation;
mod storm;
mod unwatched;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::bail;

use super::load::control::{Opened, Report};
use super::loads::{Arrival, Loads};
use super::proc::{Cpu, open_files};
use super::subject::Subject;

/// Clients that connect one after the other: so many handshakes are under way at once.
const STEADY_AT_ONCE: usize = 256;
const OPEN_MAX: Duration = Duration::from_secs(180);
/// How long a server may take to let go of clients that have gone.
const GONE_MAX: Duration = Duration::from_secs(60);
/// A server without clients has fewer files and sockets open.
const IDLE_FILES_MAX: usize = 100;

/// A measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Measure {
    /// Connects with the state received, per second
    Connects,
    /// Memory for each idle client, and connects on the way
    Memory,
    /// All clients reconnect at once; memory afterwards
    Storm,
    /// From the publish to the client
    Latency,
    /// As many deliveries as it takes, all clients on one job
    Hot,
    /// The same on many jobs
    Spread,
    /// Events of jobs that nobody watches
    Unwatched,
}

impl Measure {
    /// All of them, in their order.
    pub const ALL: [Self; 7] =
        [Self::Connects, Self::Memory, Self::Storm, Self::Latency, Self::Hot, Self::Spread, Self::Unwatched];
}

/// How much of it.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Scale {
    /// Clients of most measurements.
    pub clients: usize,
    /// Clients of the largest memory measurement; as `clients` to leave it out.
    pub clients_max: usize,
    /// Clients are on so many jobs where there are many jobs.
    pub jobs: usize,
    /// How long a load lasts.
    pub seconds: f64,
    /// How long memory may settle after a storm.
    pub after_storm_s: f64,
    /// Reconnects of all clients.
    pub storms: usize,
}

/// Numbers by name. The unit is the end of the name.
pub type Metrics = BTreeMap<String, f64>;

/// One subject being measured.
pub struct Bench<'a> {
    pub subject: &'a mut dyn Subject,
    pub loads: &'a mut Loads,
    pub scale: Scale,
    pub metrics: Metrics,
    /// What went wrong without ending the measurement.
    pub notes: Vec<String>,
}

impl Bench<'_> {
    /// Measures.
    pub async fn run(&mut self, measures: &[Measure]) -> anyhow::Result<()> {
        for measure in Measure::ALL {
            match measure {
                _ if !measures.contains(&measure) => continue,
                // The memory measurement connects the same clients.
                Measure::Connects if measures.contains(&Measure::Memory) => continue,
                Measure::Connects => self.memory(false).await?,
                Measure::Memory => self.memory(true).await?,
                Measure::Storm => self.storm().await?,
                Measure::Latency => self.latency().await?,
                Measure::Hot => self.saturation("hot", 1).await?,
                Measure::Spread => self.saturation("spread", self.scale.jobs).await?,
                Measure::Unwatched => self.unwatched().await?,
            }
            self.loads.close().await?;
        }
        Ok(())
    }

    fn set(&mut self, name: impl Into<String>, value: f64) {
        self.metrics.insert(name.into(), value);
    }

    fn note(&mut self, note: String) {
        println!("    note: {note}");
        self.notes.push(note);
    }

    /// A fresh serving process without clients.
    async fn fresh(&mut self) -> anyhow::Result<()> {
        self.loads.close().await?;
        self.gone().await?;
        self.subject.renew().await
    }

    /// Waits until the server has let go of its clients.
    async fn gone(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + GONE_MAX;
        let pids = self.subject.serving();
        while open_files(&pids) > IDLE_FILES_MAX * pids.len().max(1) {
            if Instant::now() > deadline {
                bail!("the server still has {} files open {GONE_MAX:?} after its clients went", open_files(&pids));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Connects clients, a few at a time, or all at once.
    async fn open(&mut self, clients: usize, jobs: usize, at_once: bool) -> anyhow::Result<Opened> {
        let arrival =
            Arrival { clients, jobs, at_once: if at_once { clients } else { STEADY_AT_ONCE }, limit: OPEN_MAX };
        let opened = self.loads.open(&self.subject.access(), arrival).await?;
        if opened.opened < clients {
            bail!("only {} of {clients} clients got their state; failures: {:?}", opened.opened, opened.failures);
        }
        if !at_once && !opened.failures.is_empty() {
            self.note(format!("while clients connected: {:?}", opened.failures));
        }
        Ok(opened)
    }

    /// Clients that should have stayed.
    fn check(&mut self, what: &str, report: &Report) {
        if !report.ended.is_empty() {
            self.note(format!("{what}: clients were disconnected: {:?}", report.ended));
        }
    }

    fn cpu(&self) -> anyhow::Result<(Cpu, Cpu)> {
        Ok((Cpu::of(&self.subject.serving())?, Cpu::of(&self.subject.behind())?))
    }

    /// What each of `count` things took of the processors since `before`.
    fn set_cpu(&mut self, name: &str, before: (Cpu, Cpu), count: u64) -> anyhow::Result<()> {
        let (serving, behind) = self.cpu()?;
        let (serving, behind) = (serving.since(before.0), behind.since(before.1));
        let each_us = |seconds: f64| seconds * 1e6 / count.max(1) as f64;
        self.set(format!("{name}.cpu_us"), each_us(serving.total_s()));
        self.set(format!("{name}.user_us"), each_us(serving.user_s));
        self.set(format!("{name}.behind_us"), each_us(behind.total_s()));
        Ok(())
    }
}
