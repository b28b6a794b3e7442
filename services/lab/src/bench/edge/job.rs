//! The jobs of a measurement: their ids by number, their states and frames.

use jiff::Timestamp;
use millrace_domain::{Entry, Event, EventBody, JobId, Submission, VideoInfo, event::Progress, fold_all, wire};
use tokio::sync::Mutex;

use super::mark::Mark;

/// The edge's `--public-base-url`; links begin with it, and running jobs have no link.
pub const BASE_URL: &str = "http://127.0.0.1:3001";
/// Jobs without clients are numbered from here.
pub const UNWATCHED_FROM: usize = 1 << 32;
/// Sequences of events that are sent as if republished; no log reaches them.
const INVENTED_FROM: u64 = 1 << 40;

/// The id of job `number`, the same in every process and as long as real ids.
pub fn id(number: usize) -> JobId {
    let half = |salt: u64| {
        // splitmix64: ids that differ everywhere.
        let mut z = (number as u64).wrapping_add(salt).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)).to_be_bytes()
    };
    let mut entropy = [0; 16];
    entropy[..8].copy_from_slice(&half(1));
    entropy[8..].copy_from_slice(&half(2));
    JobId::from_entropy(entropy)
}

/// The subject on which job `id` is republished, with the partition that nats-server computes for `partition(64,2)`.
pub fn live_subject(id: &JobId) -> String {
    let hash =
        id.as_str().bytes().fold(0x811C_9DC5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("live.{}.events.{id}", hash % 64)
}

/// The events of each job before the measurements: submitted, started, and the video's description.
pub fn beginning() -> [EventBody; 3] {
    let url = "https://video.example/watch?v=dQw4w9WgXcQ".parse().expect("an address");
    [
        EventBody::Submitted(Submission { url, quality: None }),
        EventBody::Started { worker: "worker-1".into(), attempt: 1 },
        EventBody::Info {
            video_info: VideoInfo {
                id: Some("dQw4w9WgXcQ".into()),
                title: Some("How a millrace carries water to the wheel".into()),
                thumbnail: Some("https://video.example/vi/dQw4w9WgXcQ/maxresdefault.jpg".into()),
                duration: Some(212),
                quality: Some("1080p".into()),
            },
        },
    ]
}

/// A `progress` event with a mark.
pub fn progress(mark: Mark) -> EventBody {
    EventBody::Progress(Progress {
        downloaded_bytes: mark.encode(),
        total_bytes: Some(1 << 53),
        bytes_per_second: Some(12_345_678),
        eta_seconds: Some(42),
    })
}

/// The `status` message of the job at sequence `seq`: the same text for every system.
pub fn status_text(id: &JobId, seq: u64, mark: Option<Mark>) -> String {
    let bodies = beginning().into_iter().chain(mark.map(progress));
    let at = Timestamp::now();
    let entries: Vec<_> = bodies
        .enumerate()
        .map(|(number, body)| {
            let kind = body.kind();
            Entry { seq: number as u64 + 1, kind, event: Ok(Event { at, body }) }
        })
        .collect();
    let mut state = fold_all(None, id, &entries).expect("it begins with the submission");
    state.seq = seq;
    wire::status_frame(&state, BASE_URL)
}

/// A position in a job's events.
#[derive(Clone, Copy, Debug, Default)]
pub struct Position {
    /// Sequence of the last event on the job's events subject.
    pub seq: u64,
    /// Number of the last event with a mark.
    pub number: u64,
}

/// A publisher's record of a job. The lock is held while one of its events is published.
#[derive(Debug, Default)]
pub struct Track {
    /// The last stored event.
    pub stored: Position,
    /// The last event sent to the serving process: ahead of `stored` when events were only offered.
    pub seen: Position,
}

impl Track {
    /// Records the next event, stored or not, at sequence `seq`.
    pub fn advance(&mut self, seq: u64, is_stored: bool) {
        self.seen = Position { seq, number: self.seen.number + 1 };
        if is_stored {
            self.stored = self.seen;
        }
    }

    /// A sequence for an event that is not stored.
    pub fn invented(&self) -> u64 {
        self.seen.seq.max(INVENTED_FROM) + 1
    }
}

/// All jobs of a measurement.
#[derive(Debug, Default)]
pub struct Tracks(Vec<Mutex<Track>>);

impl Tracks {
    /// `count` jobs without events.
    pub fn new(count: usize) -> Self {
        Self((0..count).map(|_| Mutex::default()).collect())
    }

    /// The record of this job.
    pub fn get(&self, job: usize) -> &Mutex<Track> {
        &self.0[job]
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Resets to the stored events, which are all that a fresh serving process has seen.
    pub fn forget_offered(&mut self) {
        for track in &mut self.0 {
            let track = track.get_mut();
            track.seen = track.stored;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_carries_its_mark_and_an_id_its_number() {
        let mark = Mark { at_us: 5, number: 3 };
        let text = status_text(&id(7), 9, Some(mark));
        assert_eq!(Mark::find(text.as_bytes(), &mut 0), Some(mark), "{text}");
        assert!((350..500).contains(&text.len()), "{} bytes: {text}", text.len());
        assert_ne!(id(7), id(8));
    }

    #[test]
    fn the_partition_is_that_of_nats_server() {
        // Observed on nats-server 2.15.1.
        assert_eq!(live_subject(&"job0".parse().unwrap()), "live.4.events.job0");
    }
}
