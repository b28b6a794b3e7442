//! Golden examples: every reader of events, states and messages accepts them, now and in later versions.

use std::collections::BTreeSet;

use millrace_domain::{
    Entry, Event, EventBody, JobId, JobState, Stage, fold_all,
    wire::{self, ClientMessage, JobStatus, PONG, ServerMessage},
};
use serde_json::json;

use super::*;

/// A golden example for each variant. A variant without an arm does not compile; an arm needs its file.
macro_rules! golden {
    ($function:ident, $files:ident, $of:ty: $($variant:pat => $file:literal,)*) => {
        fn $function(value: &$of) -> &'static str {
            match value { $($variant => $file,)* }
        }
        const $files: &[&str] = &[$($file,)*];
    };
}

golden! { event_file, EVENT_FILES, EventBody:
    EventBody::Submitted(_) => "submitted",
    EventBody::Resubmitted => "resubmitted",
    EventBody::Started { .. } => "started",
    EventBody::Info { .. } => "info",
    EventBody::Progress(_) => "progress",
    EventBody::Downloaded { .. } => "downloaded",
    EventBody::Uploading { .. } => "uploading",
    EventBody::Uploaded(_) => "uploaded",
    EventBody::Completed => "completed",
    EventBody::Failed(_) => "failed",
    EventBody::Retrying { .. } => "retrying",
    EventBody::Canceled => "canceled",
    EventBody::Unknown => "unknown-tag",
}

/// Events with fields that were added later: both forms stay readable.
const ADDED_FIELDS: &[&str] = &["uploading-key"];

golden! { stage_file, STAGE_FILES, Stage:
    Stage::Queued => "queued",
    Stage::FetchingInfo => "started",
    Stage::Downloading => "downloading",
    Stage::Uploading => "uploading",
    Stage::Finishing => "finishing",
    Stage::Completed => "completed",
    Stage::Failed => "failed",
    Stage::Canceled => "canceled",
    Stage::Retrying => "retrying",
}

fn event(name: &str) -> Event {
    Event::decode(text(&format!("golden/events/{name}.json")).as_bytes()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[test]
fn every_event_has_a_golden_example_that_is_read_written_back_and_valid() {
    let schema = json_of("event.schema.json");
    for name in EVENT_FILES.iter().chain(ADDED_FIELDS) {
        let event = event(name);
        assert!(name.starts_with(event_file(&event.body)), "{name}");
        if event.body != EventBody::Unknown {
            let golden = json_of(&format!("golden/events/{name}.json"));
            assert_eq!(serde_json::to_value(&event).unwrap(), golden, "{name}");
            assert_valid(&schema, &golden, name);
        }
    }
    let known = EVENT_FILES.len() - 1;
    assert_eq!(schema["oneOf"].as_array().unwrap().len(), known, "the schema lists every tag but the unknown one");
    assert_eq!(names("golden/events").len(), known + 2 + ADDED_FIELDS.len(), "golden examples that nothing tests");
}

#[test]
fn what_a_newer_version_may_write_is_read_without_harm() {
    let schema = json_of("event.schema.json");
    assert_valid(&schema, &json_of("golden/events/unknown-fields.json"), "unknown fields");
    assert_eq!(event("unknown-fields"), event("started"));
    assert!(!validator(&schema).is_valid(&json_of("golden/events/unknown-tag.json")), "no writer may make up a tag");
    let newer: ServerMessage = serde_json::from_str(&text("golden/messages/unknown-fields.json")).unwrap();
    assert_eq!(newer, serde_json::from_str(&text("golden/messages/queued.json")).unwrap());
}

#[test]
fn what_no_reader_takes_no_schema_allows() {
    let validator = validator(&json_of("event.schema.json"));
    let refused = [
        json!({"type": "completed"}),
        json!({"at": "2026-11-23T07:00:00Z"}),
        json!({"at": "yesterday", "type": "completed"}),
        json!({"at": "2026-11-23T07:00:00Z", "type": 7}),
        json!({"at": "2026-11-23T07:00:00Z", "type": "started", "worker": "w"}),
        json!({"at": "2026-11-23T07:00:00Z", "type": "started", "worker": "w", "attempt": -1}),
        json!({"at": "2026-11-23T07:00:00Z", "type": "started", "worker": "w", "attempt": 4_294_967_296_u64}),
        json!({"at": "2026-11-23T07:00:00Z", "type": "progress", "downloadedBytes": 1.5}),
        json!({"at": "2026-11-23T07:00:00Z", "type": "uploading", "storageProvider": "tape"}),
        json!({"at": "2026-11-23T07:00:00Z", "type": "submitted", "url": "ftp://example.org/v"}),
        json!({"at": "2026-11-23T07:00:00Z", "type": "submitted", "url": "http://a/", "quality": "best"}),
    ];
    for event in refused {
        assert!(Event::decode(event.to_string().as_bytes()).is_err(), "{event}");
        assert!(!validator.is_valid(&event), "{event}");
    }
    let null = json!({"at": "2026-11-23T07:00:00Z", "type": "progress", "downloadedBytes": 1, "totalBytes": null});
    assert!(!validator.is_valid(&null), "a writer leaves out what it does not know");
}

#[test]
fn every_stage_has_a_golden_message_that_is_read_written_back_and_valid() {
    let (message_schema, status_schema) = (json_of("server-message.schema.json"), json_of("job-status.schema.json"));
    for name in STAGE_FILES.iter().chain(&["info", "downloaded", "resubmitted"]) {
        let golden = json_of(&format!("golden/messages/{name}.json"));
        let message: ServerMessage = serde_json::from_value(golden.clone()).unwrap();
        assert_eq!(serde_json::to_value(&message).unwrap(), golden, "{name}");
        assert_valid(&message_schema, &golden, name);
        assert_valid(&status_schema, &golden["data"], name);
        let ServerMessage::Status(status) = message else { panic!("{name} is no status") };
        if STAGE_FILES.contains(name) {
            assert_eq!(stage_file(&status.stage), *name);
        }
    }
    // Beside them: info, downloaded, resubmitted, unknown-fields, pong and the two pings.
    assert_eq!(names("golden/messages").len(), STAGE_FILES.len() + 7, "golden examples that nothing tests");
}

#[test]
fn the_golden_pings_are_understood_and_the_golden_pong_is_what_is_sent() {
    for name in ["client-ping.json", "client-ping.txt"] {
        assert_eq!(
            ClientMessage::parse(&text(&format!("golden/messages/{name}"))),
            Some(ClientMessage::Ping),
            "{name}"
        );
    }
    assert_valid(&json_of("client-message.schema.json"), &json_of("golden/messages/client-ping.json"), "ping");
    assert_eq!(text("golden/messages/pong.json").trim_end(), PONG);
    assert_valid(&json_of("server-message.schema.json"), &json_of("golden/messages/pong.json"), "pong");
}

#[test]
fn the_golden_events_fold_into_the_golden_states_and_are_told_as_the_golden_messages() {
    let id: JobId = "b7k2m4n6pqrs3tuv5wxy7zabcd".parse().unwrap();
    let stories: [&[(&str, &str)]; 5] = [
        &[
            ("submitted", "queued"),
            ("started", "started"),
            ("info", "info"),
            ("progress", "downloading"),
            ("downloaded", "downloaded"),
            ("uploading", "uploading"),
            ("uploaded", "finishing"),
            ("completed", "completed"),
        ],
        &[("submitted", "queued"), ("started", "started"), ("failed", "failed")],
        &[("submitted", "queued"), ("unknown-fields", "started"), ("canceled", "canceled")],
        &[
            ("submitted", "queued"),
            ("started", "started"),
            ("info", "info"),
            ("progress", "downloading"),
            ("retrying", "retrying"),
        ],
        &[("submitted", "queued"), ("started", "started"), ("canceled", "canceled"), ("resubmitted", "resubmitted")],
    ];
    let (state_schema, line_schema) = (json_of("job-state.schema.json"), json_of("history-line.schema.json"));
    let stored: BTreeSet<_> = names("golden/states").into_iter().collect();
    let mut reached = BTreeSet::new();
    for story in stories {
        let mut state = None;
        for (seq, (name, message)) in (101..).zip(story) {
            let event = event(name);
            let line = wire::HistoryLine { seq, event: event.clone() };
            let line = serde_json::to_value(&line).unwrap();
            assert_valid(&line_schema, &line, name);
            assert_eq!(serde_json::from_value::<wire::HistoryLine>(line).unwrap().event, event);

            state = fold_all(state, &id, [&Entry { seq, kind: event.body.kind(), event: Ok(event) }]);
            let now: &JobState = state.as_ref().unwrap();
            let status = JobStatus::new(now, "https://millrace.example");
            let told = serde_json::to_value(ServerMessage::Status(Box::new(status))).unwrap();
            assert_eq!(told, json_of(&format!("golden/messages/{message}.json")), "{message}");

            let file = format!("{message}.json");
            if stored.contains(&file) {
                let golden = json_of(&format!("golden/states/{file}"));
                assert_valid(&state_schema, &golden, &file);
                let mut written = serde_json::to_value(now).unwrap();
                let mut expected = now.clone();
                if golden.get("submittedSeq").is_none() {
                    // Of a version that kept neither.
                    (expected.submitted_seq, expected.failures) = (0, 0);
                    for added in ["submittedSeq", "failures"] {
                        written.as_object_mut().unwrap().remove(added);
                    }
                }
                assert_eq!(written, golden, "{file}");
                assert_eq!(serde_json::from_value::<JobState>(golden).unwrap(), expected, "{file}");
                reached.insert(file);
            }
        }
    }
    assert_eq!(reached, stored, "golden states that no golden history reaches");
}
