//! The measurements of a subject. Clients that are connected the same way serve several measurements, one after the
//! other.

mod latency;
mod memory;
mod saturation;
mod storm;
mod unwatched;

use std::{collections::BTreeMap, time::Duration};

pub use self::unwatched::send_unwatched;
use super::{
    load::control::{Opened, Report},
    loads::{Arrival, Loads},
    proc::{Cpu, rss_kib},
    subject::{Name, Subject},
};

/// Handshakes in flight at once while clients connect steadily.
const STEADY_AT_ONCE: usize = 256;
/// How long all clients may take to connect.
const OPEN_MAX: Duration = Duration::from_secs(90);
/// The time between a process's start and the reading of its memory.
const START_SETTLE: Duration = Duration::from_millis(500);
/// Clients where their number does not matter.
const FEW: usize = 1_000;

/// A measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Measure {
    /// Connects with the state received, per second
    Connects,
    /// Memory for each idle client
    Memory,
    /// All clients reconnect at once; memory afterwards
    Storm,
    /// From the publish to the client
    Latency,
    /// Deliveries at the maximum rate, all clients on one job
    Hot,
    /// Deliveries at the maximum rate, on many jobs
    Spread,
    /// Events of jobs without clients
    Unwatched,
}

impl Measure {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Connects, Self::Memory, Self::Storm, Self::Latency, Self::Hot, Self::Spread, Self::Unwatched];

    /// The measurements of this subject.
    pub fn of(name: Name) -> &'static [Self] {
        match name {
            // Its clients receive every state a second late, under any load that it can serve.
            Name::FastapiPoll => &[Self::Connects, Self::Memory, Self::Latency],
            // It differs from the floor only when several frames are due.
            Name::FloorMerged => &[Self::Hot, Self::Spread],
            _ => &Self::ALL,
        }
    }

    /// Whether it is meaningful with fewer clients than requested.
    fn takes_fewer(self) -> bool {
        matches!(self, Self::Connects | Self::Memory)
    }
}

/// The size of the measurements.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Scale {
    /// Clients of most measurements.
    pub clients: usize,
    /// Clients of the largest memory measurement; equal to `clients` to omit it.
    pub clients_max: usize,
    /// Jobs in measurements with many jobs.
    pub jobs: usize,
    /// How long a load lasts.
    pub seconds: f64,
    /// How long memory settles after a storm.
    pub after_storm_s: f64,
}

/// Numbers by name. The unit is the end of the name.
pub type Metrics = BTreeMap<String, f64>;

/// The number of connected clients, and of the jobs over which they are spread evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    name: &'static str,
    clients: usize,
    jobs: usize,
}

/// Clients that are connected to a fresh serving process.
#[derive(Clone, Debug)]
struct Session {
    layout: Layout,
    /// Memory of the process without clients.
    empty_kib: f64,
    opened: Opened,
    /// Processor time of the serving process, and of those behind it, while the clients connected.
    used: (Cpu, Cpu),
    /// Messages to nats-server meanwhile, where there is one.
    requests: Option<u64>,
}

/// One subject being measured.
pub struct Bench<'a> {
    subject: &'a mut dyn Subject,
    loads: Loads,
    scale: Scale,
    epoch_us: u64,
    /// The numbers.
    pub metrics: Metrics,
    /// Failures, and measurements that were omitted because of them.
    pub notes: Vec<String>,
    /// Whether a measurement failed.
    pub has_failed: bool,
}

impl<'a> Bench<'a> {
    /// Starts load generators for this subject.
    pub async fn new(subject: &'a mut dyn Subject, scale: Scale, epoch_us: u64) -> anyhow::Result<Self> {
        let loads = Loads::start(scale.clients_max, epoch_us).await?;
        let (metrics, notes, has_failed) = (Metrics::new(), Vec::new(), false);
        Ok(Self { subject, loads, scale, epoch_us, metrics, notes, has_failed })
    }

    /// Takes the measurements. A failure becomes a note.
    pub async fn run(&mut self, measures: &[Measure]) {
        for (layout, of_layout) in self.plan() {
            let wanted: Vec<_> = of_layout.iter().copied().filter(|measure| measures.contains(measure)).collect();
            if let Err(error) = self.with(layout, &wanted).await {
                self.fail(format!("{}: {error:#}", layout.name));
            }
        }
    }

    /// Measurements that share clients: in this order, since events that were only offered are ahead of the stored
    /// ones.
    fn plan(&self) -> Vec<(Layout, &'static [Measure])> {
        use Measure::{Connects, Hot, Latency, Memory, Spread, Storm, Unwatched};
        let Scale { clients, clients_max, jobs, .. } = self.scale;
        let layout = |name, clients, jobs| Layout { name, clients, jobs };
        let few = FEW.min(clients);
        let mut plan: Vec<(Layout, &'static [Measure])> = vec![
            (layout("one", clients, 1), &[Connects, Memory, Latency, Hot]),
            (layout("ten", clients, jobs), &[Connects, Memory, Latency, Spread]),
            (layout("each", clients, clients), &[Connects, Memory, Storm]),
            (layout("few", few, few), &[Latency, Unwatched]),
        ];
        if clients_max > clients {
            plan.extend([
                (layout("max.one", clients_max, 1), &[Connects, Memory][..]),
                (layout("max.ten", clients_max, clients_max / 10), &[Connects, Memory]),
                (layout("max.each", clients_max, clients_max), &[Connects, Memory]),
            ]);
        }
        plan
    }

    /// Takes measurements with clients in this layout. After a failed one, the next gets fresh clients.
    async fn with(&mut self, layout: Layout, measures: &[Measure]) -> anyhow::Result<()> {
        let mut session = None;
        for measure in measures {
            let connected = match &session {
                Some(session) => session,
                None => session.insert(self.connect(layout).await?),
            };
            if connected.opened.opened < layout.clients && !measure.takes_fewer() {
                self.note(format!("{measure:?} is omitted: {}", too_few(layout, &connected.opened)));
                continue;
            }
            let connected = connected.clone();
            if let Err(error) = self.measure(*measure, &connected).await {
                self.fail(format!("{measure:?}, {}: {error:#}", layout.name));
                // Fresh load generators, instead of waiting for late answers of the old ones.
                self.loads = Loads::start(self.scale.clients_max, self.epoch_us).await?;
                session = None;
            }
        }
        self.loads.close().await
    }

    async fn measure(&mut self, measure: Measure, session: &Session) -> anyhow::Result<()> {
        match measure {
            Measure::Connects => self.connects(session),
            Measure::Memory => self.memory(session).await?,
            Measure::Storm => self.storm(session).await?,
            Measure::Latency => self.latency(session.layout).await?,
            Measure::Hot => self.saturation("hot", session.layout).await?,
            Measure::Spread => self.saturation("spread", session.layout).await?,
            Measure::Unwatched => self.unwatched().await?,
        }
        Ok(())
    }

    /// A fresh serving process, and clients that connect to it a few at a time.
    async fn connect(&mut self, layout: Layout) -> anyhow::Result<Session> {
        self.loads.close().await?;
        self.subject.renew().await?;
        tokio::time::sleep(START_SETTLE).await;
        let empty_kib = rss_kib(&self.subject.serving())?;
        let asked = self.subject.requests().await?;
        let before = self.cpu()?;
        let opened = self.open(layout, false).await?;
        let used = self.cpu_since(before)?;
        let requests = self.subject.requests().await?.zip(asked).map(|(after, before)| after - before);
        if opened.opened == 0 {
            anyhow::bail!("{}", too_few(layout, &opened));
        }
        if opened.opened < layout.clients || !opened.failures.is_empty() {
            self.note(too_few(layout, &opened));
        }
        Ok(Session { layout, empty_kib, opened, used, requests })
    }

    async fn open(&mut self, layout: Layout, is_at_once: bool) -> anyhow::Result<Opened> {
        let Layout { clients, jobs, .. } = layout;
        let at_once = if is_at_once { clients } else { STEADY_AT_ONCE };
        self.loads.open(&self.subject.access(), Arrival { clients, jobs, at_once, limit: OPEN_MAX }).await
    }

    fn set(&mut self, name: impl Into<String>, value: f64) {
        self.metrics.insert(name.into(), value);
    }

    fn note(&mut self, note: String) {
        println!("    note: {note}");
        self.notes.push(note);
    }

    fn fail(&mut self, note: String) {
        self.has_failed = true;
        self.note(note);
    }

    /// Notes clients that were disconnected.
    fn check(&mut self, what: &str, report: &Report) {
        if !report.ended.is_empty() {
            self.note(format!("{what}: clients were disconnected: {:?}", report.ended));
        }
    }

    /// Processor time of the serving process, and of those behind it.
    fn cpu(&self) -> anyhow::Result<(Cpu, Cpu)> {
        Ok((Cpu::of(&self.subject.serving())?, Cpu::of(&self.subject.behind())?))
    }

    fn cpu_since(&self, before: (Cpu, Cpu)) -> anyhow::Result<(Cpu, Cpu)> {
        let (serving, behind) = self.cpu()?;
        Ok((serving.since(before.0), behind.since(before.1)))
    }

    /// Sets the processor time for each of `count` things.
    fn set_cpu(&mut self, name: &str, used: (Cpu, Cpu), count: u64) {
        let each_us = |seconds: f64| seconds * 1e6 / count.max(1) as f64;
        self.set(format!("{name}.cpu_us"), each_us(used.0.total_s()));
        self.set(format!("{name}.user_us"), each_us(used.0.user_s));
        self.set(format!("{name}.behind_us"), each_us(used.1.total_s()));
    }
}

fn too_few(layout: Layout, opened: &Opened) -> String {
    let Layout { name, clients, .. } = layout;
    format!(
        "{name}: {} of {clients} clients received their state within {OPEN_MAX:?}; failed attempts: {:?}",
        opened.opened, opened.failures
    )
}
