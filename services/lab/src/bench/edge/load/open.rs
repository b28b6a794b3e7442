//! Clients from their connection to their end.

use std::{
    cell::RefCell,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};

use super::{
    super::job,
    Shared,
    client::{Client, Ended},
    control::{Opened, Plan},
};

/// The most bytes that a client reads at once.
const READ_BYTES_MAX: usize = 64 * 1024;
/// A client whose attempt has failed waits once to twice this time.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

thread_local! {
    /// All clients read into the same buffer, and copy what they keep.
    static BYTES: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES_MAX]);
}

/// A client's report while clients are opened.
enum News {
    HasState,
    Failed(String),
}

/// Connects the clients of a plan; returns when each has its state, or after the plan's limit.
pub async fn open(plan: Plan, clients: &mut JoinSet<()>, shared: &Shared) -> Opened {
    let begun = Instant::now();
    let deadline = begun + Duration::from_secs_f64(plan.limit_s);
    let plan = Arc::new(plan);
    let slots = Arc::new(Semaphore::new(plan.at_once));
    let (news, mut received) = mpsc::unbounded_channel();
    for index in 0..plan.clients {
        let session = Session { plan: plan.clone(), number: plan.first_client + index, shared: shared.clone() };
        clients.spawn(session.run(slots.clone(), deadline, news.clone()));
    }
    drop(news);
    let mut opened = Opened::default();
    while opened.opened < plan.clients {
        match timeout_at(deadline, received.recv()).await {
            Ok(Some(News::HasState)) => {
                opened.opened += 1;
                opened.seconds = begun.elapsed().as_secs_f64();
            }
            Ok(Some(News::Failed(what))) => *opened.failures.entry(what).or_default() += 1,
            Ok(None) | Err(_) => break,
        }
    }
    opened
}

struct Session {
    plan: Arc<Plan>,
    number: usize,
    shared: Shared,
}

impl Session {
    /// Tries until it has its state or the deadline passes, then reads until the connection ends.
    async fn run(self, slots: Arc<Semaphore>, deadline: Instant, news: mpsc::UnboundedSender<News>) {
        // The receiver of the news may be gone.
        let Ok(slot) = slots.acquire_owned().await else { return };
        let mut attempt = 0;
        let (mut stream, mut client) = loop {
            match timeout_at(deadline, self.connect(attempt)).await {
                Ok(Ok(connected)) => break connected,
                Ok(Err(Ended(what))) => {
                    let _ = news.send(News::Failed(what));
                    attempt += 1;
                    sleep(RETRY_PAUSE + RETRY_PAUSE * (self.number % 16) as u32 / 16).await;
                }
                Err(_) => {
                    let _ = news.send(News::Failed("no state in time".into()));
                    return;
                }
            }
        };
        drop(slot);
        self.shared.tally().open += 1;
        let _ = news.send(News::HasState);
        drop(news);
        let Ended(what) = loop {
            if let Err(ended) = self.exchange(&mut stream, &mut client).await {
                break ended;
            }
        };
        let mut tally = self.shared.tally();
        tally.open -= 1;
        *tally.ended.entry(what).or_default() += 1;
    }

    async fn connect(&self, attempt: usize) -> Result<(TcpStream, Client), Ended> {
        let plan = &*self.plan;
        let target = plan.targets[self.number % plan.targets.len()];
        let socket = TcpSocket::new_v4().map_err(failed)?;
        socket.bind((self.address(attempt), 0).into()).map_err(failed)?;
        let mut stream = socket.connect(target).await.map_err(failed)?;
        let mut client = Client::new(plan.protocol, job::id(self.number % plan.jobs), self.number);
        stream.write_all(&client.request(&plan.path)).await.map_err(failed)?;
        while !client.has_state() {
            self.exchange(&mut stream, &mut client).await?;
        }
        Ok((stream, client))
    }

    /// Each client has its own loopback address, as real clients have their own address; so ports do not run out.
    fn address(&self, attempt: usize) -> IpAddr {
        let [_, high, middle, low] = (self.number as u32).to_be_bytes();
        // 127.16 to 127.255: two addresses of 65,536 clients each for 120 generations.
        let generation = (usize::from(self.plan.generation) + attempt * 7) % 120;
        Ipv4Addr::new(127, 16 + 2 * generation as u8 + (high & 1), middle, low).into()
    }

    /// Reads once and replies.
    async fn exchange(&self, stream: &mut TcpStream, client: &mut Client) -> Result<(), Ended> {
        stream.readable().await.map_err(failed)?;
        let mut reply = Vec::new();
        BYTES.with_borrow_mut(|bytes| match stream.try_read(bytes) {
            Ok(0) => Err(Ended("end of stream".into())),
            Ok(length) => client.take(&bytes[..length], &mut reply, &mut self.shared.tally()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(failed(error)),
        })?;
        if !reply.is_empty() {
            stream.write_all(&reply).await.map_err(failed)?;
        }
        Ok(())
    }
}

fn failed(error: std::io::Error) -> Ended {
    Ended(match error.kind() {
        ErrorKind::ConnectionReset => "reset".into(),
        ErrorKind::ConnectionRefused => "refused".into(),
        _ => error.to_string(),
    })
}
