//! A sound history has no violation; each kind of damage is reported as the promise that it breaks.

use millrace_domain::{
    Event, Provider, Submission,
    event::{Failure, StoredFile},
    subjects::Kind,
};
use serde_json::json;

use super::{
    super::history::{Acked, Death, Logged, Object, Seen},
    *,
};

const SHA: &str = "aa";

fn id(name: &str) -> JobId {
    name.parse().unwrap()
}

fn url(name: &str) -> String {
    format!("http://127.0.0.1:1/{name}.mp4")
}

/// A history of one completed job, `a`, whose first worker was killed, and one failed job, `b`.
struct Builder(History);

impl Builder {
    fn push(&mut self, job: &str, at: u64, body: EventBody) {
        let seq = self.0.log.len() as u64 + 1;
        let kind = body.kind();
        let at = jiff::Timestamp::from_millisecond(i64::try_from(at).unwrap()).unwrap();
        let message_id = format!("{job}/{seq}");
        self.0.acked.push(Acked { seq, message_id: message_id.clone() });
        self.0.log.push(Logged { seq, message_id, id: id(job), kind, event: Ok(Event { at, body }) });
    }

    /// Adds the states, and one client for each job that has seen its end.
    fn project(mut self) -> History {
        self.0.states.clear();
        self.0.sessions.clear();
        for name in ["a", "b"] {
            let state = Jobs::of(&self.0.log).state(&id(name)).unwrap();
            let status = JobStatus::new(&state, &self.0.base_url);
            self.0.states.insert(name.into(), serde_json::to_value(&state).unwrap());
            let seen =
                |connection, seq, attempt, progress, end| Seen { at: 30_000, connection, seq, attempt, progress, end };
            let last = seen(1, status.seq, u64::from(status.attempt), u64::from(status.progress), true);
            self.0.sessions.push(Session {
                client: 0,
                job: name.into(),
                began_at: 1_000,
                seen: vec![seen(0, status.seq - 1, 1, 0, false), seen(1, status.seq - 1, 1, 0, false), last],
                last: serde_json::to_value(status).ok(),
                closes: vec![],
            });
        }
        self.0
    }
}

fn submitted(name: &str) -> EventBody {
    EventBody::Submitted(Submission { url: url(name).parse().unwrap(), quality: None })
}

fn started(worker: &str, attempt: u32) -> EventBody {
    EventBody::Started { worker: worker.into(), attempt }
}

fn sound() -> History {
    let mut builder = Builder(History {
        calm_at: 28_000,
        lease_ms: 5_000,
        base_url: "http://x".into(),
        worker_deaths: vec![Death { worker: "w1".into(), at: 2_000, clear: true }],
        ..History::default()
    });
    builder.push("a", 1_000, submitted("a"));
    builder.push("a", 1_100, started("w1", 1));
    let until = jiff::Timestamp::UNIX_EPOCH;
    builder.push("a", 7_000, EventBody::Retrying { code: "worker_lost".into(), message: "lost".into(), until });
    builder.push("a", 7_001, started("w2", 2));
    builder.push("b", 7_100, submitted("b"));
    builder.push("a", 8_000, EventBody::Uploading { storage_provider: Provider::S3, key: None, upload_id: None });
    let file = StoredFile {
        key: "jobs/a/2/x.mp4".into(),
        file_size: 3,
        sha256: SHA.into(),
        content_type: "video/mp4".into(),
        file_name: "x.mp4".into(),
    };
    builder.push("a", 8_500, EventBody::Uploaded(file));
    builder.push("a", 9_000, EventBody::Completed);
    builder.push("b", 9_100, started("w2", 1));
    let failure = Failure { code: "source_not_found".into(), message: "gone".into(), retryable: false };
    builder.push("b", 9_200, EventBody::Failed(failure));
    let accepted = |name: &str, expected| Accepted { url: url(name), id: id(name), expected };
    builder.0.accepted = vec![
        accepted("a", Expected::File { sha256: SHA.into() }),
        accepted("b", Expected::Failure("source_not_found")),
    ];
    builder.0.objects.insert("jobs/a/2/x.mp4".into(), Object { size: 3, sha256: SHA.into() });
    builder.project()
}

/// The broken promises of a sound history with this damage.
fn said(damage: impl FnOnce(&mut History)) -> Vec<Promise> {
    let mut history = sound();
    damage(&mut history);
    let mut promises: Vec<_> = check(&history).into_iter().map(|violation| violation.promise).collect();
    promises.dedup();
    promises
}

/// The same, with states and clients that follow the damaged log.
fn said_of_log(damage: impl FnOnce(&mut Builder)) -> Vec<Promise> {
    let mut builder = Builder(sound());
    damage(&mut builder);
    let history = builder.project();
    check(&history).into_iter().map(|violation| violation.promise).collect()
}

#[test]
fn a_sound_history_has_no_violation() {
    assert_eq!(check(&sound()), []);
    let recovered: Vec<_> = recoveries(&sound()).iter().map(|(_, recovery)| recovery.took.as_millis()).collect();
    assert_eq!(recovered, [5_001]);
}

#[test]
fn a_run_in_which_nothing_was_recorded_is_no_success() {
    let promises: Vec<_> = check(&History::default()).into_iter().map(|violation| violation.promise).collect();
    assert_eq!(promises, [Promise::AckedIsStored, Promise::AcceptedIsStored, Promise::LastIsFold]);
}

#[test]
fn an_acknowledged_event_that_is_not_in_the_log_is_seen() {
    let lost = Acked { seq: 99, message_id: "a/99".into() };
    assert_eq!(said(|it| it.acked.push(lost)), [Promise::AckedIsStored]);
    // Another message has its sequence: the log was rolled back and continued.
    assert_eq!(said(|it| it.acked[3].message_id = "a/other".into()), [Promise::AckedIsStored]);
}

#[test]
fn an_event_that_is_stored_twice_is_seen() {
    let damage = |it: &mut History| {
        it.log[3].message_id = it.log[2].message_id.clone();
        it.acked.remove(3);
    };
    assert_eq!(said(damage), [Promise::StoredOnce]);
}

#[test]
fn an_accepted_submission_that_is_no_job_or_two_is_seen() {
    let lost = Accepted { url: url("c"), id: id("c"), expected: Expected::Failure("x") };
    assert_eq!(said(|it| it.accepted.push(lost)), [Promise::AcceptedIsStored]);
    let twice = |it: &mut Builder| {
        it.push("c", 9_300, submitted("a"));
        it.push("c", 9_400, EventBody::Canceled);
        let state = Jobs::of(&it.0.log).state(&id("c")).unwrap();
        it.0.states.insert("c".into(), serde_json::to_value(state).unwrap());
    };
    let said = said_of_log(twice);
    assert!(said.contains(&Promise::AcceptedIsStored), "{said:?}");
}

#[test]
fn a_job_without_an_end_is_seen() {
    let damage = |it: &mut Builder| {
        it.0.log.pop();
        it.0.acked.pop();
    };
    assert_eq!(said_of_log(damage), [Promise::Ends]);
}

#[test]
fn a_second_end_and_whatever_follows_an_end_is_seen() {
    assert_eq!(said_of_log(|it| it.push("b", 9_300, EventBody::Canceled)), [Promise::EndsOnce]);
    assert_eq!(said_of_log(|it| it.push("a", 9_300, started("w3", 3))), [Promise::EndsOnce]);
}

#[test]
fn a_job_that_fails_though_its_source_is_good_is_seen() {
    let damage = |it: &mut History| {
        it.accepted[1].expected = Expected::File { sha256: SHA.into() };
    };
    assert_eq!(said(damage), [Promise::EndsRight]);
    let mut history = sound();
    history.accepted[1].expected = Expected::File { sha256: SHA.into() };
    history.accepted.push(history.accepted[1].clone());
    assert_eq!(check(&history).len(), 1, "a repeated submission counts once");
    assert_eq!(said(|it| it.accepted[0].expected = Expected::CanceledOrFile { sha256: SHA.into() }), []);
}

#[test]
fn a_wrong_or_missing_file_is_seen_and_one_too_many() {
    let key = "jobs/a/2/x.mp4";
    assert_eq!(said(|it| drop(it.objects.remove(key))), [Promise::OneArtifact]);
    assert_eq!(said(|it| it.objects.get_mut(key).unwrap().sha256 = "bb".into()), [Promise::OneArtifact]);
    assert_eq!(said(|it| it.objects.get_mut(key).unwrap().size = 4), [Promise::OneArtifact]);
    let expected = Expected::File { sha256: "cc".into() };
    assert_eq!(said(|it| it.accepted[0].expected = expected), [Promise::OneArtifact]);
    let object = Object { size: 3, sha256: SHA.into() };
    assert_eq!(said(|it| drop(it.objects.insert("jobs/a/1/x.mp4".into(), object))), [Promise::NoOrphans]);
    assert_eq!(said(|it| it.uploads.push("part".into())), [Promise::NoUploads]);
}

#[test]
fn a_client_that_is_shown_the_past_or_the_same_twice_is_seen() {
    let with = |connection: u32, back: u64| {
        said(move |it| {
            let seen = &mut it.sessions[1].seen;
            let last = *seen.last().unwrap();
            seen.push(Seen { seq: last.seq - back, connection, ..last });
        })
    };
    assert_eq!(with(1, 0), [Promise::SeqRises]);
    assert_eq!(with(2, 1), [Promise::SeqRises]);
    assert_eq!(with(2, 0), [], "a new connection begins with the current state");
    assert_eq!(said(|it| it.sessions[1].seen[0].progress = 50), [Promise::ProgressRises]);
    assert_eq!(said(|it| it.sessions[0].seen[0].attempt = 9), [Promise::ProgressRises]);
}

#[test]
fn a_client_whose_last_message_is_not_the_fold_is_seen() {
    assert_eq!(said(|it| it.sessions[0].last.as_mut().unwrap()["progress"] = json!(99)), [Promise::LastIsFold]);
    assert_eq!(said(|it| it.sessions[0].last = None), [Promise::LastIsFold]);
    assert_eq!(said(|it| it.sessions[0].job = "unknown".into()), [Promise::LastIsFold]);
}

#[test]
fn a_client_that_is_told_of_an_unknown_or_finished_job_before_its_end_is_seen() {
    for code in [1000, 1008, 4404] {
        assert_eq!(said(|it| it.sessions[0].closes.push(code)), [Promise::ClosesRight]);
    }
    assert_eq!(said(|it| it.sessions[0].closes.extend([1012, 1013])), []);
}

#[test]
fn a_final_state_that_comes_late_is_seen() {
    assert_eq!(said(|it| it.sessions[0].seen[2].at = 33_001), [Promise::FinalInTime]);
    assert_eq!(said(|it| it.sessions[0].seen[2].at = 33_000), []);
}

#[test]
fn a_state_that_is_not_the_fold_missing_or_stray_is_seen() {
    assert_eq!(said(|it| it.states.get_mut("a").unwrap()["progress"] = json!(1)), [Promise::StateIsFold]);
    assert_eq!(said(|it| drop(it.states.remove("a"))), [Promise::StateIsFold]);
    assert_eq!(said(|it| drop(it.states.insert("c".into(), json!({})))), [Promise::StateIsFold]);
}

#[test]
fn a_job_that_runs_again_too_late_is_seen_where_nothing_else_was_in_the_way() {
    assert_eq!(said(|it| it.lease_ms = 0), [Promise::RecoversInTime]);
    let damage = |it: &mut History| {
        it.lease_ms = 0;
        it.worker_deaths[0].clear = false;
    };
    assert_eq!(said(damage), []);
    // The worker had no job in flight.
    assert_eq!(said(|it| it.worker_deaths.push(Death { worker: "w2".into(), at: 20_000, clear: true })), []);
}

#[test]
fn processes_and_files_that_are_left_are_seen() {
    assert_eq!(said(|it| it.processes.push("yt-dlp".into())), [Promise::NoProcesses]);
    assert_eq!(said(|it| it.files.push("media.mp4.part".into())), [Promise::NoFiles]);
}

#[test]
fn a_log_with_an_undecodable_message_still_folds() {
    let damage = |it: &mut Builder| {
        let seq = it.0.log.len() as u64 + 1;
        it.0.log.push(Logged {
            seq,
            message_id: "x".into(),
            id: id("b"),
            kind: Kind::Events,
            event: Err(millrace_domain::Undecodable("x".into())),
        });
    };
    assert_eq!(said_of_log(damage), [Promise::EndsOnce]);
}
