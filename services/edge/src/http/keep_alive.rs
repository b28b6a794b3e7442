//! How long hyper waits for the head of a request: one bound for it to begin, and [`HTTP_HEAD_MAX`] from then to
//! its end. hyper has one bound for both, so it is given a timer that knows the difference. This file can go once hyper
//! has a time-out for idle connections: <https://github.com/hyperium/hyper/pull/3828>.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use millrace_domain::limits::HTTP_HEAD_MAX;

/// When the head that a connection waits for has begun; `None` before its first byte.
#[derive(Clone, Debug, Default)]
pub struct HeadTimer(Arc<Mutex<Option<Instant>>>);

impl HeadTimer {
    /// Whether anything of it has come.
    pub fn has_begun(&self) -> bool {
        self.begun().is_some()
    }

    fn begun(&self) -> Option<Instant> {
        *self.0.lock().expect("no panic while held")
    }

    /// Something of it has come.
    pub fn came(&self) {
        self.0.lock().expect("no panic while held").get_or_insert_with(Instant::now);
    }

    /// The next one is waited for.
    fn renew(&self) {
        *self.0.lock().expect("no panic while held") = None;
    }
}

/// The timer of one connection. hyper asks it for one thing: how long to wait for the next head.
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

/// Until the deadline, or until a head that has begun takes too long. Polled after whatever was read.
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
