//! The cost of events whose jobs have no client on the server.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{super::subject::Subject, Bench};

const EVENTS_PER_S: u64 = 20_000;
/// Distinct jobs of the events.
const JOBS: u64 = 10_000;
/// Events that take longer to arrive are not counted.
const ARRIVAL: Duration = Duration::from_millis(200);
const TICK: Duration = Duration::from_millis(2);

impl Bench<'_> {
    /// The clients that are connected watch other jobs, and stay idle.
    pub(super) async fn unwatched(&mut self) -> anyhow::Result<()> {
        if self.subject.offer_unwatched(0).is_none() {
            return Ok(());
        }
        let lasting = Duration::from_secs_f64(self.scale.seconds);
        // The cost of an idle second is subtracted from that of the events.
        let before = self.cpu()?;
        sleep(lasting).await;
        let idle = self.cpu_since(before)?;
        send_unwatched(self.subject, EVENTS_PER_S, Duration::from_secs(1)).await?;
        sleep(ARRIVAL).await;
        let before = self.cpu()?;
        let events = send_unwatched(self.subject, EVENTS_PER_S, lasting).await?;
        sleep(ARRIVAL).await;
        let busy = self.cpu_since(before)?;
        let each_us = |seconds: f64| seconds * 1e6 / events as f64;
        self.set("unwatched.cpu_us", each_us(busy.0.total_s() - idle.0.total_s()));
        self.set("unwatched.user_us", each_us(busy.0.user_s - idle.0.user_s));
        self.set("unwatched.behind_us", each_us(busy.1.total_s() - idle.1.total_s()));
        self.set("unwatched.events_per_s", events as f64 / lasting.as_secs_f64());
        Ok(())
    }
}

/// Sends events evenly; returns how many it sent within the time, which is fewer when the sender is too slow.
pub async fn send_unwatched(subject: &dyn Subject, events_per_s: u64, lasting: Duration) -> anyhow::Result<u64> {
    let begun = Instant::now();
    let mut sent = 0;
    while begun.elapsed() < lasting {
        let due = (begun.elapsed().as_secs_f64() * events_per_s as f64) as u64;
        while sent < due && begun.elapsed() < lasting {
            if let Some(offer) = subject.offer_unwatched((sent % JOBS) as usize) {
                offer.await?;
            }
            sent += 1;
        }
        sleep(TICK).await;
    }
    Ok(sent)
}
