//! How long hyper waits for the head of a request: one bound until its first byte, and [`HTTP_HEAD_MAX`] from there to
//! its end. hyper has one bound for both, so its timer here tracks the first byte. This file can go once hyper has a
//! time-out for idle connections: <https://github.com/hyperium/hyper/pull/3828>.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use millrace_domain::limits::HTTP_HEAD_MAX;

/// When the first byte of the next head arrived; `None` before it.
#[derive(Clone, Debug, Default)]
pub struct HeadTimer(Arc<Mutex<Option<Instant>>>);

impl HeadTimer {
    /// Whether a byte of it has arrived.
    pub fn has_begun(&self) -> bool {
        self.begun().is_some()
    }

    fn begun(&self) -> Option<Instant> {
        *self.0.lock().expect("no panic while held")
    }

    /// Records that a byte of it has arrived.
    pub fn came(&self) {
        self.0.lock().expect("no panic while held").get_or_insert_with(Instant::now);
    }

    /// Starts waiting for the next head.
    fn renew(&self) {
        *self.0.lock().expect("no panic while held") = None;
    }
}

/// The timer of one connection. hyper uses it for one thing: the wait for the next head.
#[derive(Debug)]
pub struct Timer(pub HeadTimer);

impl hyper::rt::Timer for Timer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.0.renew();
        let sleep = Box::pin(tokio::time::sleep_until(deadline.into()));
        Box::pin(Wait { head: self.0.clone(), sleep })
    }
}

/// Resolves at the deadline, or when a head that has begun takes too long. hyper polls it after each read.
struct Wait {
    head: HeadTimer,
    sleep: Pin<Box<tokio::time::Sleep>>,
}

impl hyper::rt::Sleep for Wait {}

impl Future for Wait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(begun) = self.head.begun() {
            let until = (begun + HTTP_HEAD_MAX).into();
            if self.sleep.deadline() != until {
                self.sleep.as_mut().reset(until);
            }
        }
        self.sleep.as_mut().poll(cx)
    }
}
