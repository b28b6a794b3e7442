//! The rules of one socket: which states it gets, what the client may send, when it is closed. Pure; the caller passes
//! the time.

use std::time::Instant;

use millrace_domain::{
    close::{self, Close},
    limits::{
        FINISHED_JOB_LINGER, UNKNOWN_JOB_WAIT, WS_FRAMES_PER_WINDOW_MAX, WS_MESSAGES_PER_WINDOW_MAX, WS_PING_INTERVAL,
        WS_RATE_WINDOW, WS_SILENCE_MAX,
    },
    wire::ClientMessage,
};

use crate::{
    feed::{Claim, Frame, Verdict},
    websocket::decode::Received,
};

/// One socket's session.
#[derive(Debug)]
pub struct Session {
    /// The newest sequence that the client has, from this edge or another.
    seen: u64,
    standing: Standing,
    /// The state of the client's `since` claim.
    claim: Claim,
    /// When the job must be known; after the job's end, when to close the socket.
    deadline: Option<Instant>,
    heard_at: Instant,
    pinged_at: Instant,
    window_began: Instant,
    window_frames: u32,
    window_messages: u32,
}

/// What the client has received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// No state: the job is unknown, or this edge has less of it than the client claims to have seen.
    Nothing,
    /// A state.
    State,
    /// The job's last state.
    End,
}

/// What to do with a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Send it.
    Send,
    /// The client has it already, or must wait for a newer one.
    Skip,
    /// The client has seen a newer one at another edge: this edge may be stale.
    Behind,
}

/// What to do about a received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Nothing,
    /// The text `{"type":"pong"}`.
    Pong,
    /// A pong frame with the ping's payload.
    PongFrame,
    /// Close with this code.
    Close(Close),
    /// The client closes: answer with the same code.
    Closed(Option<u16>),
}

/// An action that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// A ping frame.
    Ping,
    /// Read from the log's leader what the client has seen.
    Ask,
    /// A close frame.
    Close(Close),
    /// The client does not respond: drop the connection without a close frame.
    Gone,
}

impl Session {
    /// A new session of a client that has seen `since`.
    pub fn new(since: u64, now: Instant) -> Self {
        Self {
            seen: since,
            standing: Standing::Nothing,
            claim: Claim::default(),
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

    /// Decides whether to send a state; `Send` also records it as sent. A state older than the client's `since` is sent
    /// only if it refutes the [`Claim`].
    pub fn offer(&mut self, frame: &Frame, now: Instant) -> Offer {
        let was_told = matches!(self.standing, Standing::State | Standing::End);
        if was_told && frame.seq <= self.seen {
            return Offer::Skip;
        }
        if frame.seq < self.seen {
            match self.claim.older(frame.is_last_word, now) {
                Verdict::Doubt => {
                    // The job is known.
                    self.deadline = None;
                    return Offer::Behind;
                }
                Verdict::Wait => return Offer::Skip,
                Verdict::Refuted => {}
            }
        }
        (self.seen, self.claim) = (frame.seq, Claim::Believed);
        self.standing = if frame.is_end { Standing::End } else { Standing::State };
        self.deadline = frame.is_end.then(|| now + FINISHED_JOB_LINGER);
        Offer::Send
    }

    /// Handles a received frame.
    pub fn received(&mut self, received: &Received<'_>, now: Instant) -> Answer {
        self.heard_at = now;
        if let Received::Close(code) = received {
            return Answer::Closed(*code);
        }
        if now.duration_since(self.window_began) >= WS_RATE_WINDOW {
            (self.window_began, self.window_frames, self.window_messages) = (now, 0, 0);
        }
        // Pongs and message fragments do not count as messages, but each costs work.
        self.window_frames += 1;
        self.window_messages += u32::from(!matches!(received, Received::Pong | Received::Part));
        if self.window_messages > WS_MESSAGES_PER_WINDOW_MAX || self.window_frames > WS_FRAMES_PER_WINDOW_MAX {
            return Answer::Close(close::TOO_MANY_MESSAGES);
        }
        match received {
            Received::Ping(_) => Answer::PongFrame,
            Received::Text(text) if ClientMessage::parse(text) == Some(ClientMessage::Ping) => Answer::Pong,
            _ => Answer::Nothing,
        }
    }

    /// The next action that is due. The loop calls it about twice a second.
    pub fn tick(&mut self, now: Instant) -> Option<Due> {
        if now.duration_since(self.heard_at) >= WS_SILENCE_MAX {
            return Some(Due::Gone);
        }
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            return Some(Due::Close(match self.standing {
                Standing::End => close::FINISHED,
                Standing::Nothing | Standing::State => close::UNKNOWN_JOB,
            }));
        }
        if self.claim.due().is_some_and(|due| now >= due) {
            // Repeat while the log does not answer: it may have what the client has seen.
            self.claim.ask(now);
            return Some(Due::Ask);
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

    use millrace_domain::limits::SINCE_DOUBT;

    use super::*;

    fn frame(seq: u64, is_end: bool) -> Frame {
        Frame::test(seq, is_end, String::new())
    }

    fn last_word(seq: u64) -> Frame {
        let mut frame = frame(seq, false);
        frame.is_last_word = true;
        frame
    }

    #[test]
    fn no_state_older_than_the_client_has_seen_is_ever_sent() {
        let now = Instant::now();
        let mut session = Session::new(10, now);
        assert_eq!(session.offer(&frame(9, false), now), Offer::Behind);
        assert_eq!(
            session.offer(&frame(10, false), now),
            Offer::Send,
            "the state at once, also when it is known already"
        );
        assert_eq!(session.offer(&frame(10, false), now), Offer::Skip);
        assert_eq!(session.offer(&frame(9, true), now), Offer::Skip);
        assert_eq!(session.offer(&frame(12, false), now), Offer::Send);
        assert_eq!(session.seen(), 12);
    }

    #[test]
    fn a_client_that_has_seen_more_than_the_log_has_is_told_what_there_is_once_the_leader_has_said_so_late_enough() {
        let now = Instant::now();
        let mut session = Session::new(10, now);
        assert_eq!(session.offer(&frame(8, false), now), Offer::Behind);
        assert_eq!(session.offer(&last_word(8), now), Offer::Skip, "a leader that was just elected may be behind");
        assert_eq!(session.offer(&frame(9, false), now), Offer::Skip, "the log is not asked for each event");
        let late = now + SINCE_DOUBT;
        assert_eq!(session.tick(late), Some(Due::Ask));
        assert_eq!(session.offer(&frame(9, false), late), Offer::Skip);
        assert_eq!(session.offer(&last_word(9), late), Offer::Send);
        assert_eq!(session.offer(&frame(9, false), late), Offer::Skip);
        assert_eq!(session.offer(&frame(11, false), late), Offer::Send);
        assert_eq!(session.offer(&last_word(10), late), Offer::Skip, "nobody goes back");

        let mut session = Session::new(10, now);
        session.offer(&frame(8, false), now);
        assert_eq!(session.offer(&frame(10, false), now), Offer::Send, "the log has it after all");

        // The log does not answer: the deadline for an unknown job does not apply, since the job is known.
        let mut session = Session::new(10, now);
        session.offer(&frame(8, false), now);
        session.received(&Received::Pong, now + UNKNOWN_JOB_WAIT);
        assert_eq!(session.tick(now + UNKNOWN_JOB_WAIT), Some(Due::Ask));
    }

    #[test]
    fn an_unknown_job_and_a_finished_one_have_their_deadlines() {
        let now = Instant::now();
        let keep = |session: &mut Session, at| session.received(&Received::Pong, at);
        let mut session = Session::new(0, now);
        keep(&mut session, now + UNKNOWN_JOB_WAIT / 2);
        assert_eq!(session.tick(now + UNKNOWN_JOB_WAIT), Some(Due::Close(close::UNKNOWN_JOB)));

        let mut session = Session::new(0, now);
        session.offer(&frame(1, false), now);
        let late = now + UNKNOWN_JOB_WAIT;
        keep(&mut session, late);
        assert_eq!(session.tick(late), Some(Due::Ping));
        session.offer(&frame(2, true), late);
        assert_eq!(session.tick(late + FINISHED_JOB_LINGER), Some(Due::Close(close::FINISHED)));
    }

    #[test]
    fn a_job_that_is_tried_again_after_its_end_has_no_deadline_until_its_next_end() {
        let now = Instant::now();
        let mut session = Session::new(0, now);
        session.offer(&frame(1, true), now);
        assert_eq!(session.offer(&frame(2, false), now), Offer::Send);
        let late = now + FINISHED_JOB_LINGER;
        session.received(&Received::Pong, late);
        assert_eq!(session.tick(late), Some(Due::Ping));
        session.offer(&frame(3, true), late);
        assert_eq!(session.tick(late + FINISHED_JOB_LINGER), Some(Due::Close(close::FINISHED)));
    }

    #[test]
    fn a_silent_client_is_pinged_and_then_gone() {
        let now = Instant::now();
        let mut session = Session::new(0, now);
        session.offer(&frame(1, false), now);
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
        assert!(matches!(session.received(&Received::Ping(b""), now), Answer::Close(Close { code: 1008, .. })));
        let next = now + WS_RATE_WINDOW;
        assert_eq!(session.received(&Received::Binary, next), Answer::Nothing);
        for _ in 1..WS_FRAMES_PER_WINDOW_MAX {
            assert_eq!(session.received(&Received::Part, next), Answer::Nothing);
        }
        assert!(matches!(session.received(&Received::Pong, next), Answer::Close(Close { code: 1008, .. })));
    }
}
