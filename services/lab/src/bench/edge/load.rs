//! The load generator: a separate process with many clients, which follows the bench's orders.
//!
//! It uses one thread, plain TCP and a tiny frame reader, to leave most of the machine to the measured subject.

mod client;
pub mod control;
mod open;
mod tally;

use std::{
    net::SocketAddr,
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use anyhow::Context;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::mpsc,
    task::JoinSet,
};

use self::{
    control::{Answer, Order},
    tally::Tally,
};

/// The interval of progress reports.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(1);

/// Clients for `cargo dev bench edge`, which starts them by itself
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the bench listens
    #[arg(long)]
    control: SocketAddr,
    /// Marks count from this time, in microseconds of the monotonic clock
    #[arg(long)]
    epoch_us: u64,
}

/// The counts that the clients share.
#[derive(Clone)]
struct Shared(Arc<Mutex<Tally>>);

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.0.lock().expect("no panic while held")
    }
}

/// Serves the bench until it closes the connection.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(args))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(args: &Args) -> anyhow::Result<()> {
    let (read, write) = TcpStream::connect(args.control).await.context("cannot connect to the bench")?.into_split();
    let shared = Shared(Arc::new(Mutex::new(Tally::new(args.epoch_us))));
    let (answers, outgoing) = mpsc::unbounded_channel();
    tokio::spawn(answer(write, outgoing));
    tokio::spawn(tell_progress(shared.clone(), answers.clone()));
    let mut clients = JoinSet::new();
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        let answer = match serde_json::from_str(&line)? {
            Order::Open(plan) => Answer::Opened(open::open(plan, &mut clients, &shared).await),
            Order::Close => {
                clients.shutdown().await;
                shared.tally().open = 0;
                Answer::Closed
            }
            Order::Begin { is_paced } => {
                shared.tally().begin(is_paced);
                Answer::Begun
            }
            Order::Report => {
                let mut tally = shared.tally();
                tally.is_paced = false;
                Answer::Report(tally.report())
            }
        };
        answers.send(answer)?;
    }
    Ok(())
}

async fn answer(
    mut write: tokio::net::tcp::OwnedWriteHalf,
    mut outgoing: mpsc::UnboundedReceiver<Answer>,
) -> anyhow::Result<()> {
    write.as_ref().set_nodelay(true)?;
    while let Some(answer) = outgoing.recv().await {
        let mut line = serde_json::to_vec(&answer)?;
        line.push(b'\n');
        write.write_all(&line).await?;
    }
    Ok(())
}

async fn tell_progress(shared: Shared, answers: mpsc::UnboundedSender<Answer>) {
    let mut told = control::Progress::default();
    let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let progress = {
            let tally = shared.tally();
            tally.is_paced.then_some(tally.progress)
        };
        if let Some(progress) = progress.filter(|progress| *progress != told) {
            told = progress;
            if answers.send(Answer::Progress(progress)).is_err() {
                return;
            }
        }
    }
}
