//! The rules of one socket: what it is told, what it may send, when it is closed. Pure; time is given.

use std::time::Instant;

use millrace_domain::{
    limits::{
        FINISHED_JOB_LINGER, UNKNOWN_JOB_WAIT, WS_FRAMES_PER_WINDOW_MAX, WS_MESSAGES_PER_WINDOW_MAX, WS_PING_INTERVAL,
        WS_RATE_WINDOW, WS_SILENCE_MAX,
    },
    wire::{ClientMessage, close},
};

use super::decode::Received;

/// A close code and its reason.
pub type Close = (u16, &'static str);

/// One socket's session.
#[derive(Debug)]
pub struct Session {
    /// The newest sequence that the client has, from us or from another edge.
    seen: u64,
    /// Whether we have sent anything.
    told: bool,
    ended: bool,
    /// When the job must be known, or, after its end, when the socket is closed.
    deadline: Option<Instant>,
    heard_at: Instant,
    pinged_at: Instant,
    window_began: Instant,
    window_frames: u32,
    window_messages: u32,
}

/// What to do with a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Send it.
    Send,
    /// The client has it already.
    Skip,
    /// The client has seen a newer one elsewhere: this edge is behind.
    Behind,
}

/// What to do about something received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Nothing,
    /// The text `{"type":"pong"}`.
    Pong,
    /// A pong frame with the ping's payload.
    PongFrame,
    /// Close with this.
    Close(Close),
    /// The client closes: answer with its code.
    Closed(Option<u16>),
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// A ping frame.
    Ping,
    /// A close.
    Close(Close),
    /// The client is gone: nothing is worth sending.
    Gone,
}

impl Session {
    /// A session that begins.
    pub fn new(since: u64, now: Instant) -> Self {
        Self {
            seen: since,
            told: false,
            ended: false,
            deadline: Some(now + UNKNOWN_JOB_WAIT),
            heard_at: now,
            pinged_at: now,
            window_began: now,
            window_frames: 0,
            window_messages: 0,
        }
    }

    /// The newest sequence that the client has.
    pub const fn seen(&self) -> u64 {
        self.seen
    }

    /// Whether a state may be sent, and if so, that it will be.
    pub fn offer(&mut self, seq: u64, is_end: bool, now: Instant) -> Offer {
        if seq < self.seen {
            return if self.told { Offer::Skip } else { Offer::Behind };
        }
        if self.told && seq == self.seen {
            return Offer::Skip;
        }
        self.seen = seq;
        self.told = true;
        self.ended = is_end;
        self.deadline = is_end.then(|| now + FINISHED_JOB_LINGER);
        Offer::Send
    }

    /// Something has arrived.
    pub fn received(&mut self, received: &Received<'_>, now: Instant) -> Answer {
        self.heard_at = now;
        if let Received::Close(code) = received {
            return Answer::Closed(*code);
        }
        if now.duration_since(self.window_began) >= WS_RATE_WINDOW {
            (self.window_began, self.window_frames, self.window_messages) = (now, 0, 0);
        }
        // Pongs and parts of messages are no messages, but work all the same.
        self.window_frames += 1;
        self.window_messages += u32::from(!matches!(received, Received::Pong | Received::Part));
        if self.window_messages > WS_MESSAGES_PER_WINDOW_MAX || self.window_frames > WS_FRAMES_PER_WINDOW_MAX {
            return Answer::Close((close::POLICY, "too many messages"));
        }
        match received {
            Received::Ping(_) => Answer::PongFrame,
            Received::Text(text) if ClientMessage::parse(text) == Some(ClientMessage::Ping) => Answer::Pong,
            _ => Answer::Nothing,
        }
    }

    /// What time asks for. Called every second or so.
    pub fn tick(&mut self, now: Instant) -> Option<Due> {
        if now.duration_since(self.heard_at) >= WS_SILENCE_MAX {
            return Some(Due::Gone);
        }
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            return Some(Due::Close(if self.ended { close::FINISHED } else { close::UNKNOWN_JOB }));
        }
        if now.duration_since(self.pinged_at) >= WS_PING_INTERVAL {
            self.pinged_at = now;
            return Some(Due::Ping);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn no_state_older_than_the_client_has_seen_is_ever_sent() {
        let now = Instant::now();
        let mut session = Session::new(10, now);
        assert_eq!(session.offer(9, false, now), Offer::Behind);
        assert_eq!(session.offer(10, false, now), Offer::Send, "the state at once, also when it is known already");
        assert_eq!(session.offer(10, false, now), Offer::Skip);
        assert_eq!(session.offer(9, true, now), Offer::Skip);
        assert_eq!(session.offer(12, false, now), Offer::Send);
        assert_eq!(session.seen(), 12);
    }

    #[test]
    fn an_unknown_job_and_a_finished_one_have_their_deadlines() {
        let now = Instant::now();
        let keep = |session: &mut Session, at| session.received(&Received::Pong, at);
        let mut session = Session::new(0, now);
        keep(&mut session, now + UNKNOWN_JOB_WAIT / 2);
        assert_eq!(session.tick(now + UNKNOWN_JOB_WAIT), Some(Due::Close(close::UNKNOWN_JOB)));

        let mut session = Session::new(0, now);
        session.offer(1, false, now);
        let late = now + UNKNOWN_JOB_WAIT;
        keep(&mut session, late);
        assert_eq!(session.tick(late), Some(Due::Ping));
        session.offer(2, true, late);
        assert_eq!(session.tick(late + FINISHED_JOB_LINGER), Some(Due::Close(close::FINISHED)));
    }

    #[test]
    fn a_job_that_is_tried_again_after_its_end_has_no_deadline_until_its_next_end() {
        let now = Instant::now();
        let mut session = Session::new(0, now);
        session.offer(1, true, now);
        assert_eq!(session.offer(2, false, now), Offer::Send);
        let late = now + FINISHED_JOB_LINGER;
        session.received(&Received::Pong, late);
        assert_eq!(session.tick(late), Some(Due::Ping));
        session.offer(3, true, late);
        assert_eq!(session.tick(late + FINISHED_JOB_LINGER), Some(Due::Close(close::FINISHED)));
    }

    #[test]
    fn a_silent_client_is_pinged_and_then_gone() {
        let now = Instant::now();
        let mut session = Session::new(0, now);
        session.offer(1, false, now);
        assert_eq!(session.tick(now + WS_PING_INTERVAL), Some(Due::Ping));
        assert_eq!(session.tick(now + WS_PING_INTERVAL + Duration::from_secs(1)), None);
        assert_eq!(session.tick(now + WS_SILENCE_MAX), Some(Due::Gone));
    }

    #[test]
    fn the_rate_admits_a_bounded_number_in_each_window() {
        let now = Instant::now();
        let mut session = Session::new(0, now);
        for _ in 0..WS_MESSAGES_PER_WINDOW_MAX {
            assert_eq!(session.received(&Received::Text("ping"), now), Answer::Pong);
        }
        assert_eq!(session.received(&Received::Pong, now), Answer::Nothing);
        assert!(matches!(session.received(&Received::Ping(b""), now), Answer::Close((1008, _))));
        let next = now + WS_RATE_WINDOW;
        assert_eq!(session.received(&Received::Binary, next), Answer::Nothing);
        for _ in 1..WS_FRAMES_PER_WINDOW_MAX {
            assert_eq!(session.received(&Received::Part, next), Answer::Nothing);
        }
        assert!(matches!(session.received(&Received::Pong, next), Answer::Close((1008, _))));
    }
}
