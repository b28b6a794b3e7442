//! What `schemas/` promises: no drift from the Rust types, golden examples that every reader takes, documents that hold
//! together.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use jsonschema::Validator;
use millrace_dev::schemas;
use millrace_domain::{
    Entry, Event, EventBody, JobId, JobState, Stage,
    failure::FailureKind,
    fold_all,
    subjects::{self, Kind},
    wire::{self, ClientMessage, JobStatus, PONG, ServerMessage},
};
use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn text(name: &str) -> String {
    let path = root().join("schemas").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json_of(name: &str) -> Value {
    serde_json::from_str(&text(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn names(folder: &str) -> Vec<String> {
    let listing = fs::read_dir(root().join("schemas").join(folder)).unwrap();
    listing.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn validator(schema: &Value) -> Validator {
    jsonschema::options().should_validate_formats(true).build(schema).unwrap()
}

fn assert_valid(schema: &Value, value: &Value, what: &str) {
    let errors: Vec<_> = validator(schema).iter_errors(value).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{what}: {errors:?}");
}

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
fn the_schemas_in_the_repository_are_those_of_the_rust_types() {
    assert_eq!(schemas::drift(&root()).unwrap(), Vec::<String>::new());
}

#[test]
fn drift_names_each_file_that_is_missing_changed_or_superfluous_and_writing_repairs_it() {
    let root = tempfile::tempdir().unwrap();
    let count = schemas::generate().len();
    assert_eq!(schemas::drift(root.path()).unwrap().len(), count);
    assert_eq!(schemas::write(root.path()).unwrap().len(), count);
    assert_eq!(schemas::drift(root.path()).unwrap(), Vec::<String>::new());

    let folder = root.path().join("schemas");
    fs::remove_file(folder.join("event.schema.json")).unwrap();
    fs::write(folder.join("openapi.json"), "{}").unwrap();
    fs::write(folder.join("old.schema.json"), "{}").unwrap();
    fs::create_dir(folder.join("golden")).unwrap();
    fs::write(folder.join("golden/kept.json"), "{}").unwrap();
    let found = schemas::drift(root.path()).unwrap();
    for (sentence, about) in
        found.iter().zip(["event.schema.json is missing", "openapi.json differs", "old.schema.json"])
    {
        assert!(sentence.starts_with(&format!("schemas/{about}")), "{sentence}");
    }
    assert_eq!((found.len(), schemas::write(root.path()).unwrap().len()), (3, 3));
    assert_eq!(schemas::drift(root.path()).unwrap(), Vec::<String>::new());
    assert!(folder.join("golden/kept.json").exists());
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

            state = fold_all(state, &id, [&Entry { seq, kind: event.body.kind(), event: Some(event) }]);
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

/// All objects in a document, with the path to each.
fn objects<'a>(value: &'a Value, path: &str, found: &mut Vec<(String, &'a Value)>) {
    match value {
        Value::Object(fields) => {
            found.push((path.to_owned(), value));
            fields.iter().for_each(|(name, field)| objects(field, &format!("{path}/{name}"), found));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| objects(item, &format!("{path}/{index}"), found));
        }
        _ => {}
    }
}

/// What a value of the document stands for, when it is a reference.
fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let Some(reference) = value["$ref"].as_str() else { return value };
    let target = reference.strip_prefix('#').and_then(|pointer| document.pointer(pointer));
    resolve(document, target.unwrap_or_else(|| panic!("nothing is at {reference}")))
}

/// A schema of the document, able to stand alone.
fn standalone(document: &Value, schema: &Value) -> Value {
    json!({"allOf": [schema], "components": document["components"]})
}

#[test]
fn every_reference_of_both_documents_resolves_and_no_word_is_left_to_fill_in() {
    for name in ["openapi.json", "asyncapi.json"] {
        let document = json_of(name);
        let mut found = Vec::new();
        objects(&document, "", &mut found);
        let references: Vec<_> = found.iter().filter(|(_, value)| value.get("$ref").is_some()).collect();
        assert!(references.len() > 20, "{name}");
        for (_, value) in references {
            resolve(&document, value);
        }
    }
    for (name, file) in schemas::generate() {
        assert!(!file.contains("{{"), "{name}");
    }
}

#[test]
fn every_example_of_the_http_document_is_valid_and_every_json_body_has_one() {
    let document = json_of("openapi.json");
    let mut found = Vec::new();
    objects(&document, "", &mut found);
    for (path, value) in found {
        let Some(schema) = value.get("schema") else { continue };
        let listed = value["examples"].as_object().into_iter().flatten().map(|(_, example)| &example["value"]);
        let examples: Vec<_> = listed.chain(value.get("example")).collect();
        assert!(!path.ends_with("json") || !examples.is_empty(), "{path} has no example");
        examples.iter().for_each(|example| assert_valid(&standalone(&document, schema), example, &path));
    }
}

#[test]
fn every_error_answer_is_a_problem_whose_examples_name_the_codes() {
    let document = json_of("openapi.json");
    let (mut codes, mut operations) = (BTreeSet::new(), Vec::new());
    let methods = |item: &'static str| ["get", "post", "delete"].map(|method| (item, method));
    let paths = ["/", "/api/download", "/api/status/{job_id}", "/api/download/{job_id}"];
    let more = ["/api/download/{job_id}/file", "/api/download/{job_id}/events", "/api/download/{job_id}/retry"];
    assert_eq!(document["paths"].as_object().unwrap().len(), paths.len() + more.len());
    for (path, method) in paths.into_iter().chain(more).flat_map(methods) {
        let Some(operation) = document["paths"][path].get(method) else { continue };
        operations.push(operation["operationId"].as_str().unwrap());
        for (status, response) in operation["responses"].as_object().unwrap() {
            let response = resolve(&document, response);
            assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{path} {status}");
            if status.as_str() < "400" {
                continue;
            }
            assert_eq!(response["content"].as_object().unwrap().len(), 1, "{path} {status}");
            for (code, example) in response["content"]["application/problem+json"]["examples"].as_object().unwrap() {
                assert_eq!(example["value"]["code"], json!(code), "{path} {status}");
                assert_eq!(example["value"]["status"].to_string(), *status, "{path} {code}");
                codes.insert(code.clone());
            }
            assert_eq!(status == "503", response["headers"].get("Retry-After").is_some(), "{path} {status}");
        }
    }
    assert_eq!(operations.iter().collect::<BTreeSet<_>>().len(), operations.len(), "{operations:?}");
    assert_eq!(operations.len(), 7, "{operations:?}");
    let expected = [
        "already_ended",
        "body_too_large",
        "body_too_slow",
        "file_gone",
        "idempotency_key_reused",
        "invalid_idempotency_key",
        "invalid_job_id",
        "invalid_quality",
        "invalid_since",
        "invalid_url",
        "log_unavailable",
        "malformed_body",
        "no_room",
        "not_completed",
        "not_ended",
        "origin_not_allowed",
        "range_not_satisfiable",
        "storage_unavailable",
        "unknown_job",
        "unsupported_media_type",
    ];
    assert_eq!(codes, expected.map(str::to_owned).into());
}

#[test]
fn both_documents_tell_every_code_that_a_job_fails_with() {
    for name in ["openapi.json", "asyncapi.json"] {
        let description = json_of(name)["info"]["description"].as_str().unwrap().to_owned();
        for kind in FailureKind::ALL {
            assert!(description.contains(&format!("`{}`", kind.code())), "{name} lacks {}", kind.code());
        }
    }
}

#[test]
fn the_message_document_names_the_subjects_and_close_codes_of_the_domain_and_its_examples_are_valid() {
    let document = json_of("asyncapi.json");
    let id: JobId = "job-1".parse().unwrap();
    let address =
        |channel: &str| document["channels"][channel]["address"].as_str().unwrap().replace("{job_id}", "job-1");
    assert_eq!(address("submitted"), subjects::subject(Kind::Submitted, &id));
    assert_eq!(address("events"), subjects::subject(Kind::Events, &id));
    let live = address("live").replace("{shard}", "7").replace("{kind}", "events");
    assert_eq!(subjects::parse_live(&live), Some((Kind::Events, "job-1")));
    let told = document["channels"]["watch"]["description"].as_str().unwrap();
    use wire::close::{FINISHED, GOING_AWAY, OVERLOADED, POLICY, UNKNOWN_JOB};
    for code in [FINISHED.0, GOING_AWAY.0, OVERLOADED.0, POLICY, UNKNOWN_JOB.0] {
        assert!(told.contains(&format!("| {code} |")), "{code}");
    }
    for (name, message) in document["components"]["messages"].as_object().unwrap() {
        let examples = message["examples"].as_array().unwrap();
        assert!(!examples.is_empty(), "{name}");
        for (part, example) in examples.iter().flat_map(|example| example.as_object().unwrap()) {
            if ["payload", "headers"].contains(&part.as_str()) {
                assert_valid(&standalone(&document, &message[part]), example, name);
            }
        }
    }
}
