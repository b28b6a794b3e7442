//! Generators.

use jiff::Timestamp;
use millrace_domain::{
    Entry, Event, EventBody, JobId, Provider, Submission, Undecodable, VideoInfo,
    event::{Failure, Progress, StoredFile},
    failure::FailureKind,
    subjects::Kind,
};
use proptest::{collection::vec, option, prelude::*, sample::select};

/// The job of every test.
pub fn job() -> JobId {
    "job_1-A".parse().unwrap()
}

/// A time that RFC 3339 can represent.
pub fn time() -> impl Strategy<Value = Timestamp> {
    (0_i64..=253_402_207_200, 0..1_000_000_000).prop_map(|(second, ns)| Timestamp::new(second, ns).unwrap())
}

/// The time of the `n`th step: distinct, so that `updatedAt` names the last event that fitted.
pub fn time_of(n: usize) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + i64::try_from(n).unwrap()).unwrap()
}

/// Texts with quotes, control characters and everything else that JSON must carry.
pub fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9]{0,8}", any::<String>()]
}

/// Numbers with the ends of their range.
pub fn number() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0_u64..5000, 1 => any::<u64>(), 1 => Just(u64::MAX), 1 => Just(0)]
}

pub fn submission() -> impl Strategy<Value = Submission> {
    let quality =
        option::of(16_u16..=8640).prop_map(|height| height.map(|height| format!("{height}p").parse().unwrap()));
    ("[a-z]{1,8}", "[ -~é\u{1}]{0,12}", quality).prop_map(|(host, path, quality)| Submission {
        url: format!("https://{host}.example/{path}").parse().unwrap(),
        quality,
    })
}

pub fn video_info() -> impl Strategy<Value = VideoInfo> {
    (option::of(text()), option::of(text()), option::of(text()), option::of(number()), option::of(text()))
        .prop_map(|(id, title, thumbnail, duration, quality)| VideoInfo { id, title, thumbnail, duration, quality })
}

pub fn provider() -> impl Strategy<Value = Provider> {
    select(vec![Provider::Gcs, Provider::Azure, Provider::S3, Provider::Local])
}

pub fn info() -> impl Strategy<Value = EventBody> {
    video_info().prop_map(|video_info| EventBody::Info { video_info })
}

pub fn progress() -> impl Strategy<Value = EventBody> {
    (number(), option::of(number()), option::of(number()), option::of(number())).prop_map(
        |(downloaded_bytes, total_bytes, bytes_per_second, eta_seconds)| {
            EventBody::Progress(Progress { downloaded_bytes, total_bytes, bytes_per_second, eta_seconds })
        },
    )
}

pub fn downloaded() -> impl Strategy<Value = EventBody> {
    (number(), provider(), option::of(video_info())).prop_map(|(file_size, storage_provider, video_info)| {
        EventBody::Downloaded { file_size, storage_provider, video_info }
    })
}

pub fn uploading() -> impl Strategy<Value = EventBody> {
    let key = option::of("jobs/job_1-A/[12]/(video|x).mp4");
    (provider(), key, option::of(text())).prop_map(|(storage_provider, key, upload_id)| EventBody::Uploading {
        storage_provider,
        key,
        upload_id,
    })
}

pub fn uploaded() -> impl Strategy<Value = EventBody> {
    (number(), "[0-9a-f]{64}", text()).prop_map(|(file_size, sha256, file_name)| {
        EventBody::Uploaded(StoredFile {
            key: "jobs/job_1-A/1/video.mp4".into(),
            file_size,
            sha256,
            content_type: "video/mp4".into(),
            file_name,
        })
    })
}

pub fn failed() -> impl Strategy<Value = EventBody> {
    prop_oneof![
        select(FailureKind::ALL).prop_map(|kind| EventBody::Failed(kind.failure())),
        ("[a-z_]{1,20}", text(), any::<bool>()).prop_map(|(code, message, retryable)| EventBody::Failed(Failure {
            code,
            message,
            retryable
        })),
    ]
}

pub fn retrying() -> impl Strategy<Value = EventBody> {
    ("[a-z_]{1,20}", text(), time()).prop_map(|(code, message, until)| EventBody::Retrying { code, message, until })
}

/// Any known event, in random order.
pub fn body() -> impl Strategy<Value = EventBody> {
    let attempt = prop_oneof![8 => 0_u32..5, 1 => any::<u32>(), 1 => Just(u32::MAX)];
    prop_oneof![
        1 => submission().prop_map(EventBody::Submitted),
        1 => Just(EventBody::Resubmitted),
        4 => ("[a-z]{1,4}", attempt).prop_map(|(worker, attempt)| EventBody::Started { worker, attempt }),
        2 => info(),
        4 => progress(),
        2 => downloaded(),
        2 => uploading(),
        2 => uploaded(),
        1 => Just(EventBody::Completed),
        1 => failed(),
        2 => retrying(),
        1 => Just(EventBody::Canceled),
    ]
}

pub fn event() -> impl Strategy<Value = Event> {
    (time(), body()).prop_map(|(at, body)| Event { at, body })
}

/// A payload that this version cannot decode as a known event.
pub fn noise() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        ("[a-z]{1,6}_v2", text()).prop_map(|(tag, text)| {
            serde_json::json!({"type": tag, "at": "2026-11-23T07:00:00Z", "worker": text, "attempt": 9})
                .to_string()
                .into()
        }),
        select(vec![
            "",
            "null",
            "[]",
            "\"completed\"",
            r#"{"type":"completed"}"#,
            r#"{"at":"2026-11-23T07:00:00Z"}"#,
            r#"{"type":"completed","at":"yesterday"}"#,
            r#"{"type":7,"at":"2026-11-23T07:00:00Z"}"#,
            r#"{"type":"started","at":"2026-11-23T07:00:00Z","worker":"w"}"#,
            r#"{"type":"started","at":"2026-11-23T07:00:00Z","worker":"w","attempt":-1}"#,
            r#"{"type":"uploading","at":"2026-11-23T07:00:00Z","storageProvider":"tape"}"#,
            r#"{"type":"submitted","at":"2026-11-23T07:00:00Z","url":"file:///etc/passwd"}"#,
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        vec(any::<u8>(), 0..20),
    ]
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![1 => Just(Kind::Submitted), 9 => Just(Kind::Events)]
}

/// The error for a message that is not an event.
pub fn undecodable() -> Result<Event, Undecodable> {
    Err(Undecodable("noise".into()))
}

/// Entries in random order, with rising sequences; mostly after a submission, so that some of them fit.
pub fn garbage() -> impl Strategy<Value = Vec<Entry>> {
    let entry = (1_u64..4, kind(), prop_oneof![9 => event().prop_map(Ok), 1 => Just(undecodable())]);
    let submitted = (time(), submission()).prop_map(|(at, submission)| Entry {
        seq: 0,
        kind: Kind::Submitted,
        event: Ok(Event { at, body: EventBody::Submitted(submission) }),
    });
    (vec(entry, 0..30), option::weighted(0.95, submitted), prop_oneof![4 => Just(0_usize), 1 => 0_usize..30]).prop_map(
        |(entries, submitted, place)| {
            let gaps: Vec<u64> = entries.iter().map(|(gap, ..)| *gap).chain([1]).collect();
            let mut entries: Vec<_> =
                entries.into_iter().map(|(_, kind, event)| Entry { seq: 0, kind, event }).collect();
            if let Some(submitted) = submitted {
                entries.insert(place.min(entries.len()), submitted);
            }
            let mut seq = 0;
            for (entry, gap) in entries.iter_mut().zip(gaps) {
                seq += gap;
                entry.seq = seq;
            }
            entries
        },
    )
}

/// The next step of a person or a worker.
#[derive(Clone, Debug)]
pub enum Step {
    /// The worker reports the next milestone.
    Next,
    Claim,
    /// A report of the attempt that is this far behind the current one.
    Report {
        behind: u32,
        body: Box<EventBody>,
    },
    /// The attempt that is this far behind the current one fails.
    Fail {
        behind: u32,
        kind: FailureKind,
    },
    /// The worker of the attempt that is this far behind the current one stops.
    Stop {
        behind: u32,
    },
    Cancel,
    Retry,
}

/// A job's life after its submission.
pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let behind = || prop_oneof![12 => Just(0_u32), 1 => 1_u32..3, 1 => Just(u32::MAX)];
    let report = prop_oneof![
        2 => info(),
        6 => progress(),
        1 => downloaded(),
        1 => uploading(),
        1 => uploaded(),
        1 => Just(EventBody::Completed),
        1 => body(),
    ];
    let step = prop_oneof![
        24 => Just(Step::Next),
        16 => (behind(), report).prop_map(|(behind, body)| Step::Report { behind, body: Box::new(body) }),
        4 => Just(Step::Claim),
        1 => behind().prop_map(|behind| Step::Stop { behind }),
        4 => (behind(), select(FailureKind::ALL)).prop_map(|(behind, kind)| Step::Fail { behind, kind }),
        1 => Just(Step::Cancel),
        3 => Just(Step::Retry),
    ];
    vec(step, 0..60)
}
