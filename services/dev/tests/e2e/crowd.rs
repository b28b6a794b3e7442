//! A crowd of clients that never read, beside clients that do: its cost for them and for the edge.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::StreamExt;
use millrace_domain::limits::{CLIENT_CONTROL_BYTES_MAX, CLIENT_WRITE_MAX};
use millrace_harness::wait::until;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    stack::{Edge, Stack},
    support::{SOON, handshake},
};

const CROWD: usize = 1_000;
/// At each edge. Half of them watch the crowd's job, the others the other jobs.
const READERS: usize = 100;
const JOBS: usize = 10;
/// Events of a window; frames are some thousand.
const WINDOW: usize = 80;
const WINDOWS: usize = 3;
/// The pause between events: a busy machine still keeps up with it; otherwise the windows would only measure queues.
const PAUSE: Duration = Duration::from_millis(25);
/// The effect of a small machine's timers on a window, with or without a crowd.
const NOISE: Duration = Duration::from_millis(20);
/// Pending bytes for a client that does not read, and the memory of every client.
const MEMORY_EACH_MAX: usize = CLIENT_CONTROL_BYTES_MAX + 4 * 1024;
/// Bytes that both kernels and the edge hold for a client that does not read; states come by the megabyte.
const BACKLOG_MAX: usize = 100_000;

/// The states that readers of one edge have received, with their times.
type Seen = Arc<Mutex<Vec<(u64, Instant)>>>;

/// Jobs with readers at two edges, of which the first gets the crowd. The second one shows the machine's other load at
/// the same time.
struct World {
    stack: Stack,
    _quiet: Edge,
    log: async_nats::jetstream::Context,
    jobs: Vec<String>,
    /// When states left, by their sequence.
    sent: HashMap<u64, Instant>,
    seen: [Seen; 2],
    events: usize,
}

impl World {
    async fn start() -> Self {
        let stack = Stack::queue_only().await;
        let log = stack.jetstream().await;
        let quiet = stack.another_edge().await;
        let ports = [stack.port(), quiet.port];
        let (jobs, sent, seen) = (Vec::new(), HashMap::new(), Default::default());
        let mut world = Self { stack, _quiet: quiet, log, jobs, sent, seen, events: 0 };
        for _ in 0..JOBS {
            let id = world.stack.submit("/video.mp4").await;
            world.publish(&id, &json!({"type": "started", "worker": "test", "attempt": 1})).await;
            world.jobs.push(id);
        }
        for (number, edge) in (0..READERS).flat_map(|number| [(number, 0), (number, 1)]) {
            let job = if number % 2 == 0 { 0 } else { 1 + number / 2 % (JOBS - 1) };
            let url = format!("ws://127.0.0.1:{}/ws/download/{}", ports[edge], world.jobs[job]);
            let (mut socket, _) = tokio_tungstenite::connect_async(url).await.expect("a reader");
            let seen = world.seen[edge].clone();
            tokio::spawn(async move {
                while let Some(Ok(message)) = socket.next().await {
                    if let Message::Text(text) = message {
                        seen.lock().unwrap().push((seq(&text), Instant::now()));
                    }
                }
            });
        }
        world
    }

    /// The job that the crowd watches.
    fn crowds(&self) -> String {
        self.jobs[0].clone()
    }

    /// Its sequence.
    async fn publish(&mut self, id: &str, event: &Value) -> u64 {
        let mut event = event.clone();
        event["at"] = "2026-11-23T07:00:00Z".into();
        let at = Instant::now();
        let stored = self.log.publish(format!("jobs.events.{id}"), event.to_string().into()).await.unwrap();
        let seq = stored.await.expect("stored").sequence;
        self.sent.insert(seq, at);
        seq
    }

    /// One event on a job; the state that it makes is of some kilobytes.
    async fn event(&mut self, id: &str) -> u64 {
        self.events += 1;
        let (title, thumbnail) = ("x".repeat(300), format!("http://a/{}", "x".repeat(2000)));
        let info = json!({"id": self.events.to_string(), "title": title, "thumbnail": thumbnail});
        self.publish(id, &json!({"type": "info", "videoInfo": info})).await
    }

    /// Waits until all readers of the crowd's job have received a state of it.
    async fn all_have(&self, seq: u64) {
        let had = |seen: &Seen| seen.lock().unwrap().iter().filter(|(seen, _)| *seen == seq).count();
        let all = async || self.seen.iter().map(had).sum::<usize>() >= READERS;
        until("all of the readers have the state", SOON, all).await;
    }

    /// The p99 from append to frame at both edges while events flow. Every second event is on the crowd's job.
    async fn p99(&mut self) -> [Duration; 2] {
        let jobs = self.jobs.clone();
        self.seen.iter().for_each(|seen| seen.lock().unwrap().clear());
        for turn in 0..WINDOW {
            let job = if turn % 2 == 0 { 0 } else { 1 + turn / 2 % (JOBS - 1) };
            self.event(&jobs[job]).await;
            sleep(PAUSE).await;
        }
        let last = self.event(&jobs[0]).await;
        self.all_have(last).await;
        [0, 1].map(|edge| {
            let seen = self.seen[edge].lock().unwrap();
            let mut took: Vec<_> = seen.iter().map(|(seq, at)| at.duration_since(self.sent[seq])).collect();
            assert!(took.len() > WINDOW * READERS / 8, "only {} frames", took.len());
            took.sort();
            took[took.len() * 99 / 100]
        })
    }

    /// Some windows, of which one decides: other processes of the machine only add to a window, while each window
    /// contains the crowd's cost.
    async fn windows(&mut self) -> Vec<[Duration; 2]> {
        let mut windows = Vec::new();
        for _ in 0..WINDOWS {
            windows.push(self.p99().await);
        }
        windows
    }

    fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.stack.edge.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("kilobytes") * 1024
    }

    async fn sockets_are(&self, count: usize, limit: Duration) {
        #[allow(clippy::cast_precision_loss)]
        let count = count as f64;
        let are = async || self.stack.metric("millrace_edge_sockets").await == count;
        until(&format!("there are {count} sockets"), limit, are).await;
    }

    /// Sends states until the crowd's sockets are full: then the edge writes each state only to the readers.
    async fn until_the_crowd_is_full(&mut self) {
        let crowds = self.crowds();
        let deadline = Instant::now() + SOON;
        loop {
            let before = self.stack.metric("millrace_edge_frames_sent_total").await;
            let last = self.event(&crowds).await;
            self.all_have(last).await;
            let written = self.stack.metric("millrace_edge_frames_sent_total").await - before;
            #[allow(clippy::cast_precision_loss)]
            if written == (READERS / 2) as f64 {
                return;
            }
            assert!(Instant::now() < deadline, "a state is still written {written} times");
        }
    }
}

fn seq(text: &str) -> u64 {
    let (_, rest) = text.split_once("\"seq\":").expect("a state");
    rest.split([',', '}']).next().and_then(|seq| seq.parse().ok()).expect("a sequence")
}

/// A client that sends its handshake and reads nothing, with a small receive buffer.
async fn deaf(stack: &Stack, id: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(([127, 0, 0, 1], stack.port()).into()).await.expect("a connection");
    stream.write_all(handshake(&format!("/ws/download/{id}"), "").as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_thousand_sockets_that_never_read_cost_the_others_nothing_and_the_edge_little_and_are_closed() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).expect("file descriptors");
    let mut world = World::start().await;
    let crowds = world.crowds();
    let before = world.windows().await.into_iter().map(|[here, _]| here).min().expect("windows");

    let memory = world.memory();
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        crowd.push(deaf(&world.stack, &crowds).await);
    }
    world.sockets_are(READERS + CROWD, SOON).await;
    world.until_the_crowd_is_full().await;
    let full = Instant::now();

    let with = world.windows().await;
    let grown = world.memory().saturating_sub(memory);
    eprintln!("99 of 100 frames took {before:?} without the crowd, {with:?} with it and without it; {grown} bytes");
    let is_well = |[with, without]: &[Duration; 2]| *with <= NOISE.max(before.max(*without) * 2);
    assert!(with.iter().any(is_well), "99 of 100 frames took {before:?} before; then, with and without it, {with:?}");
    assert!(grown <= CROWD * MEMORY_EACH_MAX, "{grown} bytes for {CROWD} clients");

    // One of them reads again: it receives the kernel's pending bytes and the newest state, not the states between.
    let newest = world.event(&crowds).await;
    let mut late = crowd.pop().expect("a client");
    let (mut read, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    while !String::from_utf8_lossy(&read).contains(&format!("\"seq\":{newest},")) {
        let count = timeout(SOON, late.read(&mut buffer)).await.expect("the newest state").unwrap();
        assert!(count > 0, "closed before the newest state");
        read.extend_from_slice(&buffer[..count]);
    }
    assert!(read.len() < BACKLOG_MAX, "{} bytes of what is over", read.len());
    drop(late);

    world.sockets_are(READERS, CLIENT_WRITE_MAX.saturating_sub(full.elapsed()) + SOON).await;
    assert!(full.elapsed() > CLIENT_WRITE_MAX / 2, "closed after {:?}", full.elapsed());
    #[allow(clippy::cast_precision_loss)]
    let all = CROWD as f64;
    assert_eq!(world.stack.metric("millrace_edge_sockets_closed_total{code=\"1006\"}").await, all);
    let last = world.event(&crowds).await;
    world.all_have(last).await;
}
