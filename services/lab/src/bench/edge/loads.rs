//! The bench's side of the load generators.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, bail};
use futures::future::try_join_all;
use millrace_harness::processes::{Service, ServiceOptions};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    time::timeout,
};

use super::load::control::{Answer, Opened, Order, Plan, Progress, Protocol, Report};

/// Clients of one process: the open-file limit is 20,000 where this was measured.
pub const CLIENTS_PER_PROCESS_MAX: usize = 19_800;
const START_MAX: Duration = Duration::from_secs(20);
/// How long an order may take in addition to its plan's limit.
const ORDER_MAX: Duration = Duration::from_secs(60);

/// Where and how clients connect.
#[derive(Clone, Debug)]
pub struct Access {
    pub protocol: Protocol,
    /// Every serving process.
    pub targets: Vec<SocketAddr>,
    /// With `{id}` for the job's id.
    pub path: String,
}

/// How clients connect.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub clients: usize,
    /// The number of jobs, over which the clients are spread evenly.
    pub jobs: usize,
    /// Handshakes in flight at once.
    pub at_once: usize,
    pub limit: Duration,
}

/// The processes, started for one subject.
pub struct Loads {
    processes: Vec<Process>,
    generation: u8,
}

struct Process {
    // Dropped last: it ends by itself when the connection does.
    write: OwnedWriteHalf,
    answers: mpsc::UnboundedReceiver<Answer>,
    progress: watch::Receiver<Progress>,
    service: Service,
}

impl Loads {
    /// Starts as many processes as this number of clients needs.
    pub async fn start(clients: usize, epoch_us: u64) -> anyhow::Result<Self> {
        let count = clients.div_ceil(CLIENTS_PER_PROCESS_MAX).max(1);
        let processes = try_join_all((0..count).map(|_| Process::start(epoch_us))).await?;
        Ok(Self { processes, generation: 0 })
    }

    /// Connects clients, spread over the processes; the longest time counts.
    pub async fn open(&mut self, access: &Access, arrival: Arrival) -> anyhow::Result<Opened> {
        self.generation = self.generation.wrapping_add(1);
        let count = self.processes.len();
        let share = arrival.clients.div_ceil(count);
        let plans = (0..count).map(|process| Plan {
            protocol: access.protocol,
            targets: access.targets.clone(),
            path: access.path.clone(),
            first_client: process * share,
            clients: share.min(arrival.clients.saturating_sub(process * share)),
            jobs: arrival.jobs,
            at_once: arrival.at_once.div_ceil(count),
            limit_s: arrival.limit.as_secs_f64(),
            generation: self.generation,
        });
        let orders: Vec<_> = plans.map(Order::Open).collect();
        let mut sum = Opened::default();
        for answer in self.order_each(orders, arrival.limit + ORDER_MAX).await? {
            let Answer::Opened(opened) = answer else { bail!("a load generator answers out of turn: {answer:?}") };
            sum.opened += opened.opened;
            sum.seconds = sum.seconds.max(opened.seconds);
            opened.failures.into_iter().for_each(|(what, count)| *sum.failures.entry(what).or_default() += count);
        }
        Ok(sum)
    }

    /// Drops all clients.
    pub async fn close(&mut self) -> anyhow::Result<()> {
        self.order(&Order::Close).await.map(drop)
    }

    /// Counts from zero. `is_paced`: [`Loads::progress`] follows.
    pub async fn begin(&mut self, is_paced: bool) -> anyhow::Result<()> {
        self.order(&Order::Begin { is_paced }).await.map(drop)
    }

    /// The counts, added over the processes; the latencies are those of the first process.
    pub async fn report(&mut self) -> anyhow::Result<Report> {
        let mut sum: Option<Report> = None;
        for answer in self.order(&Order::Report).await? {
            let Answer::Report(report) = answer else { bail!("a load generator answers out of turn: {answer:?}") };
            match &mut sum {
                None => sum = Some(report),
                Some(sum) => {
                    sum.progress.frames += report.progress.frames;
                    sum.progress.covered += report.progress.covered;
                    sum.open += report.open;
                    report.ended.into_iter().for_each(|(what, count)| *sum.ended.entry(what).or_default() += count);
                }
            }
        }
        sum.context("there is no load generator")
    }

    /// The progress of the first process's clients, reported every millisecond after [`Loads::begin`].
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.processes[0].progress.clone()
    }

    async fn order(&mut self, order: &Order) -> anyhow::Result<Vec<Answer>> {
        self.order_each(vec![order.clone(); self.processes.len()], ORDER_MAX).await
    }

    async fn order_each(&mut self, orders: Vec<Order>, limit: Duration) -> anyhow::Result<Vec<Answer>> {
        let each = self.processes.iter_mut().zip(orders);
        try_join_all(each.map(|(process, order)| process.order(order, limit))).await
    }
}

impl Process {
    async fn start(epoch_us: u64) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let args = [
            "bench",
            "edge-load",
            "--control",
            &listener.local_addr()?.to_string(),
            "--epoch-us",
            &epoch_us.to_string(),
        ];
        let options = ServiceOptions { args: args.map(str::to_owned).to_vec(), ..ServiceOptions::default() };
        let service = Service::spawn_program("load generator", &std::env::current_exe()?, options)?;
        let (stream, _) = timeout(START_MAX, listener.accept()).await.context("the load generator did not start")??;
        stream.set_nodelay(true)?;
        let (read, write) = TcpStream::into_split(stream);
        let (sender, answers) = mpsc::unbounded_channel();
        let (progress_sender, progress) = watch::channel(Progress::default());
        tokio::spawn(read_answers(read, sender, progress_sender));
        Ok(Self { write, answers, progress, service })
    }

    async fn order(&mut self, order: Order, limit: Duration) -> anyhow::Result<Answer> {
        let mut line = serde_json::to_vec(&order)?;
        line.push(b'\n');
        self.write.write_all(&line).await.context("the load generator has exited")?;
        match timeout(limit, self.answers.recv()).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => bail!("the load generator has ended; its last lines:\n{}", self.service.log_tail()),
            Err(_) => bail!("the load generator did not answer within {limit:?}"),
        }
    }
}

async fn read_answers(
    read: OwnedReadHalf,
    answers: mpsc::UnboundedSender<Answer>,
    progress: watch::Sender<Progress>,
) -> anyhow::Result<()> {
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        match serde_json::from_str(&line)? {
            Answer::Progress(told) => drop(progress.send_replace(told)),
            answer => {
                if matches!(answer, Answer::Begun) {
                    progress.send_replace(Progress::default());
                }
                answers.send(answer)?;
            }
        }
    }
    Ok(())
}
