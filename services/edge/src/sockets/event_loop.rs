//! One thread that serves many sockets. A socket has no task, timer or buffer of its own, so an idle client costs
//! little more than its entry in the slab.

pub mod lobby;
mod arrivals;
mod deadlines;

use std::{
    collections::{HashMap, VecDeque},
    io::{self, ErrorKind, Read},
    sync::Arc,
    time::{Duration, Instant},
};

use millrace_domain::{
    JobId,
    limits::{CLOSE_ANSWER_MAX, WS_READS_PER_TURN_MAX},
    wire::PONG,
};
use mio::{Events, Poll, Token, net::TcpStream};
use slab::Slab;

use self::lobby::Lobby;
use super::{
    acceptor::LISTENER,
    drain::Drain,
    inbox::{Inbox, Message, WAKER},
    outbox::Outbox,
    session::{Answer, Offer, Session},
};
use crate::{
    admission::Permit,
    feed::{Feed, Frame, Watcher},
    metrics::{CloseCode, Metrics},
    websocket::{
        close::{self, Closing},
        decode::{Decoder, Received},
        encode,
    },
};

/// Interval of the check of all deadlines.
const TICK: Duration = Duration::from_millis(500);
/// Interval of the closes during a drain.
const DRAIN_TICK: Duration = Duration::from_millis(100);
/// Size of the read buffer.
const READ_BYTES: usize = 16 * 1024;
/// Most events of one poll.
const EVENTS_MAX: usize = 1024;

/// One event loop.
pub struct EventLoop {
    poll: Poll,
    inbox: Arc<Inbox>,
    feed: Feed,
    metrics: Metrics,
    lobby: Lobby,
    sockets: Slab<Socket>,
    /// Sockets whose handshake response may still be held for a state, and until when, oldest first.
    held: VecDeque<(usize, Instant)>,
    jobs: HashMap<JobId, Watched>,
    /// Sockets that ended in this turn. They are removed at its end, so that a late event cannot reach a new socket
    /// with the same token.
    over: Vec<(usize, u16)>,
    /// Jobs with new states in this turn.
    touched: Vec<JobId>,
    /// States that the leader confirmed as the newest, for clients that claim to have seen more.
    last_words: Vec<Arc<Frame>>,
    /// Sockets with more to read than one turn allows. The poll reports readiness only once, so the loop keeps them
    /// here.
    unfinished: Vec<usize>,
    scratch: Vec<u8>,
    drain: Option<Drain>,
}

struct Socket {
    stream: TcpStream,
    job: JobId,
    /// Its index in the job's list of sockets.
    place: usize,
    session: Session,
    decoder: Decoder,
    outbox: Outbox,
    /// Set after our close frame: until when to read and drop, and the close code.
    closing: Option<(Instant, u16)>,
    is_over: bool,
    _permit: Permit,
}

/// A job that sockets of this loop watch.
#[derive(Default)]
struct Watched {
    sockets: Vec<usize>,
    newest: Option<Arc<Frame>>,
    /// New states in this turn, oldest first.
    fresh: Vec<Arc<Frame>>,
}

impl EventLoop {
    /// A loop without sockets.
    pub fn new(poll: Poll, inbox: Arc<Inbox>, lobby: Lobby, feed: Feed, metrics: Metrics) -> Self {
        Self {
            poll,
            inbox,
            feed,
            metrics,
            lobby,
            sockets: Slab::new(),
            held: VecDeque::new(),
            jobs: HashMap::new(),
            over: Vec::new(),
            touched: Vec::new(),
            last_words: Vec::new(),
            unfinished: Vec::new(),
            scratch: vec![0; READ_BYTES],
            drain: None,
        }
    }

    /// Runs until the drain has closed all sockets.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut messages = Vec::new();
        let mut ticked_at = Instant::now();
        loop {
            let tick = if self.drain.is_some() { DRAIN_TICK } else { TICK };
            let may_sleep = self.unfinished.is_empty() && !self.lobby.may_accept();
            let left = tick.saturating_sub(ticked_at.elapsed());
            let held = self.held.front().map_or(left, |(_, until)| until.saturating_duration_since(Instant::now()));
            let wait = if may_sleep { left.min(held) } else { Duration::ZERO };
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            let now = Instant::now();
            for token in std::mem::take(&mut self.unfinished) {
                self.read(token, now);
            }
            for event in &events {
                match event.token() {
                    WAKER => {}
                    LISTENER => self.lobby.look_again(),
                    Token(token @ lobby::FIRST_TOKEN..) => {
                        if let Some(arrival) = self.lobby.ready(token, self.poll.registry(), &mut self.scratch) {
                            self.welcome(arrival, now);
                        }
                    }
                    Token(token) => self.ready(token, event.is_readable(), event.is_writable(), now),
                }
            }
            self.accept(now);
            self.inbox.take(&mut messages);
            for message in messages.drain(..) {
                match message {
                    Message::Admit(admitted) => drop(self.admit(*admitted, Outbox::default(), now)),
                    Message::State(frame) => self.state(frame),
                    Message::Drain(lasts) => {
                        self.lobby.close(self.poll.registry());
                        self.drain = Some(Drain::new(self.sockets.len(), lasts, now));
                    }
                }
            }
            self.tell(now);
            self.release(now);
            if now.duration_since(ticked_at) >= tick {
                ticked_at = now;
                self.tick(now);
                self.lobby.look_again();
                self.lobby.tick(now);
                self.drain(now);
            }
            self.sweep_out();
            if self.drain.is_some() && self.sockets.is_empty() {
                return Ok(());
            }
        }
    }

    fn state(&mut self, frame: Arc<Frame>) {
        let Some(watched) = self.jobs.get_mut(&frame.job) else { return };
        if frame.is_last_word {
            return self.last_words.push(frame);
        }
        if watched.newest.as_ref().is_some_and(|newest| newest.seq >= frame.seq) {
            return;
        }
        if watched.fresh.is_empty() {
            self.touched.push(frame.job.clone());
        }
        watched.newest = Some(frame.clone());
        watched.fresh.push(frame);
    }

    /// Sends this turn's states to their sockets, with one write per socket.
    fn tell(&mut self, now: Instant) {
        // First, since a client that falls back to one of them may get a newer state in the same turn.
        for frame in std::mem::take(&mut self.last_words) {
            let Some(watched) = self.jobs.get(&frame.job) else { continue };
            for token in watched.sockets.clone() {
                self.offer(token, std::slice::from_ref(&frame), now);
            }
        }
        for id in std::mem::take(&mut self.touched) {
            let Some(watched) = self.jobs.get_mut(&id) else { continue };
            let fresh = std::mem::take(&mut watched.fresh);
            let sockets = std::mem::take(&mut watched.sockets);
            for token in &sockets {
                self.offer(*token, &fresh, now);
            }
            if let Some(watched) = self.jobs.get_mut(&id) {
                watched.sockets = sockets;
            }
        }
    }

    /// Sends the states that the client does not have.
    fn offer(&mut self, token: usize, frames: &[Arc<Frame>], now: Instant) {
        let Some(socket) = self.sockets.get_mut(token) else { return };
        if socket.closing.is_some() || socket.is_over {
            return;
        }
        let mut from = frames.len();
        for (at, frame) in frames.iter().enumerate() {
            match socket.session.offer(frame, now) {
                Offer::Send => from = from.min(at),
                Offer::Skip => {}
                Offer::Behind => self.feed.refresh(&frame.job, socket.session.seen()),
            }
        }
        let sent = socket.outbox.send(&mut socket.stream, &frames[from..], now);
        self.sent(token, sent);
    }

    fn ready(&mut self, token: usize, readable: bool, writable: bool, now: Instant) {
        let Some(socket) = self.sockets.get_mut(token) else { return };
        if writable {
            let sent = socket.outbox.flush(&mut socket.stream, now);
            self.sent(token, sent);
        }
        if readable {
            self.read(token, now);
        }
    }

    /// Counts the written states, or ends a broken socket.
    fn sent(&mut self, token: usize, sent: io::Result<u64>) {
        match sent {
            Ok(frames) => self.metrics.frames_sent.inc_by(frames),
            Err(error) => self.gone(token, &error),
        }
    }

    /// Reads until the socket would block, or has used up its reads for this turn.
    fn read(&mut self, token: usize, now: Instant) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut reads = 0;
        while let Some(socket) = self.sockets.get_mut(token).filter(|socket| !socket.is_over) {
            if reads == WS_READS_PER_TURN_MAX {
                self.unfinished.push(token);
                break;
            }
            reads += 1;
            match socket.stream.read(&mut scratch) {
                Ok(0) => self.end(token),
                Ok(count) => self.decode(token, &mut scratch[..count], now),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => self.gone(token, &error),
            }
        }
        self.scratch = scratch;
    }

    fn decode(&mut self, token: usize, bytes: &mut [u8], now: Instant) {
        let Some(Socket { stream, session, decoder, outbox, closing, .. }) = self.sockets.get_mut(token) else {
            return;
        };
        if closing.is_some() {
            // After our close only the client's close frame counts. Read and drop everything else, even the rest of an
            // oversized message: closing with unread bytes would reset the connection.
            let mut answered = false;
            let _ = decoder.decode(bytes, |received| answered |= matches!(received, Received::Close(_)));
            if answered {
                let _ = stream.shutdown(std::net::Shutdown::Write);
                self.end(token);
            }
            return;
        }
        let mut close = None;
        let mut broken = None;
        let decoded = decoder.decode(bytes, |received| {
            if close.is_some() || broken.is_some() {
                return;
            }
            let sent = match (session.received(&received, now), &received) {
                (Answer::Nothing, _) => Ok(()),
                (Answer::Pong, _) => outbox.control(stream, &encode::text(PONG), now),
                (Answer::PongFrame, Received::Ping(payload)) => outbox.control(stream, &encode::pong(payload), now),
                (Answer::PongFrame, _) => Ok(()),
                (Answer::Close(with), _) => {
                    close = Some(Closing::Ours(with));
                    Ok(())
                }
                (Answer::Closed(code), _) => {
                    close = Some(Closing::Theirs(code));
                    Ok(())
                }
            };
            broken = sent.err();
        });
        if let Some(error) = broken {
            return self.gone(token, &error);
        }
        match (close, decoded) {
            (Some(closing), _) => self.close(token, closing, now),
            (None, Err(violation)) => self.close(token, Closing::Ours(violation.close()), now),
            (None, Ok(())) => {}
        }
    }

    /// Sends a close frame. The loop then reads and drops for a while: closing with unread bytes would reset the
    /// connection, and the client might miss the frame.
    fn close(&mut self, token: usize, closing: Closing, now: Instant) {
        let Some(socket) = self.sockets.get_mut(token) else { return };
        if socket.closing.is_some() {
            return;
        }
        socket.closing = Some((now + CLOSE_ANSWER_MAX, closing.code()));
        if let Err(error) = socket.outbox.close(&mut socket.stream, &encode::close(closing), now) {
            return self.gone(token, &error);
        }
        if matches!(closing, Closing::Theirs(_)) && socket.outbox.blocked_since().is_none() {
            // The client has closed and our answer is written: the server ends the connection.
            let _ = socket.stream.shutdown(std::net::Shutdown::Write);
        }
    }

    fn gone(&mut self, token: usize, error: &io::Error) {
        tracing::debug!(%error, "client connection broke");
        self.end(token);
    }

    /// Marks a socket as ended. After a close frame it counts by that frame's code, even if the connection breaks.
    fn end(&mut self, token: usize) {
        if let Some(socket) = self.sockets.get_mut(token)
            && !std::mem::replace(&mut socket.is_over, true)
        {
            let code = socket.closing.map_or(close::ABNORMAL, |(_, code)| code);
            self.over.push((token, code));
        }
    }

    /// Removes the sockets that have ended.
    fn sweep_out(&mut self) {
        for (token, code) in std::mem::take(&mut self.over) {
            let mut socket = self.sockets.remove(token);
            let _ = self.poll.registry().deregister(&mut socket.stream);
            self.metrics.sockets.dec();
            self.metrics.sockets_closed.of(&CloseCode::from(code)).inc();
            let Some(watched) = self.jobs.get_mut(&socket.job) else { continue };
            watched.sockets.swap_remove(socket.place);
            if let Some(moved) = watched.sockets.get(socket.place) {
                self.sockets[*moved].place = socket.place;
            } else if watched.sockets.is_empty() {
                self.jobs.remove(&socket.job);
                let inbox: Arc<dyn Watcher> = self.inbox.clone();
                self.feed.unwatch(&socket.job, &inbox);
            }
        }
    }
}
