//! The pending frames of one client: a few, or only the newest if the client reads too slowly.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use millrace_domain::limits::CLIENT_FRAMES_PENDING_MAX;
use tokio::sync::Notify;

use super::{Frame, Watcher};

/// One client's frames.
#[derive(Default)]
pub struct Mailbox {
    frames: Mutex<VecDeque<Arc<Frame>>>,
    arrived: Notify,
}

impl Watcher for Mailbox {
    /// Appends a frame; a full mailbox keeps only this one. The end of a job comes last, so it is never lost.
    fn put(&self, frame: Arc<Frame>) {
        let mut frames = self.frames.lock().expect("no panic while held");
        if frames.len() >= CLIENT_FRAMES_PENDING_MAX {
            frames.clear();
        }
        frames.push_back(frame);
        drop(frames);
        self.arrived.notify_one();
    }
}

impl Mailbox {
    /// Waits for the next frame. Cancel-safe.
    pub async fn next(&self) -> Arc<Frame> {
        loop {
            let frame = self.frames.lock().expect("no panic while held").pop_front();
            match frame {
                Some(frame) => return frame,
                None => self.arrived.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(seq: u64) -> Arc<Frame> {
        Arc::new(Frame::test(seq, false, String::new()))
    }

    #[tokio::test]
    async fn a_reader_that_keeps_up_gets_every_frame_in_order() {
        let mailbox = Mailbox::default();
        for seq in 1..=3 {
            mailbox.put(frame(seq));
        }
        for seq in 1..=3 {
            assert_eq!(mailbox.next().await.seq, seq);
        }
    }

    #[tokio::test]
    async fn a_slow_reader_gets_the_newest_and_memory_stays_bounded() {
        let mailbox = Mailbox::default();
        for seq in 1..=1000 {
            mailbox.put(frame(seq));
            assert!(mailbox.frames.lock().unwrap().len() <= CLIENT_FRAMES_PENDING_MAX);
        }
        let mut last = 0;
        while last < 1000 {
            let seq = mailbox.next().await.seq;
            assert!(seq > last);
            last = seq;
        }
    }
}
