//! Properties of every message that a client can receive.

use std::sync::LazyLock;

use jsonschema::Validator;
use millrace_domain::{
    Entry, JobState, fold,
    wire::{ClientMessage, JobStatus, PONG, ServerMessage, status_frame},
};
use proptest::prelude::*;
use serde_json::{Map, Value};

use crate::{
    generate::{garbage, job, steps, submission},
    log::Log,
};

const BASE: &str = "https://millrace.example";

/// Every field of `data`, its JSON type, and whether it is always present. Frozen.
const FIELDS: [(&str, &str, bool); 17] = [
    ("jobId", "string", true),
    ("status", "string", true),
    ("progress", "integer", true),
    ("videoInfo", "object", false),
    ("downloadUrl", "string", false),
    ("error", "string", false),
    ("storageProvider", "string", false),
    ("fileSize", "integer", false),
    ("seq", "integer", true),
    ("stage", "string", true),
    ("attempt", "integer", true),
    ("errorCode", "string", false),
    ("downloadedBytes", "integer", false),
    ("totalBytes", "integer", false),
    ("bytesPerSecond", "integer", false),
    ("etaSeconds", "integer", false),
    ("retryAt", "string", false),
];

/// The fields of `videoInfo`. Frozen.
const VIDEO_FIELDS: [(&str, &str); 5] =
    [("id", "string"), ("title", "string"), ("thumbnail", "string"), ("duration", "integer"), ("quality", "string")];

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The `data` of the frame of `state`, after the checks that hold for every log.
fn data_of(state: &JobState) -> Result<Map<String, Value>, TestCaseError> {
    static SCHEMA: LazyLock<Validator> = LazyLock::new(|| {
        let schema = schemars::schema_for!(ServerMessage).to_value();
        jsonschema::options().should_validate_formats(true).build(&schema).unwrap()
    });
    let frame = status_frame(state, BASE);
    let message: Value = serde_json::from_str(&frame).unwrap();
    prop_assert!(SCHEMA.is_valid(&message), "{frame}: {:?}", SCHEMA.validate(&message).err());
    let read: ServerMessage = serde_json::from_str(&frame).unwrap();
    prop_assert_eq!(read, ServerMessage::Status(Box::new(JobStatus::new(state, BASE))));
    let message = message.as_object().unwrap();
    prop_assert_eq!((message.len(), &message["type"]), (2, &"status".into()));
    let data = message["data"].as_object().unwrap();

    for (field, value) in data {
        let known = FIELDS.iter().map(|(name, kind, _)| (*name, *kind)).chain([("updatedAt", "string")]);
        prop_assert!(known.clone().any(|known| known == (field, type_of(value))), "{field}: {value}");
    }
    for (field, ..) in FIELDS.iter().filter(|(.., always)| *always) {
        prop_assert!(data.contains_key(*field), "{field} is absent");
    }
    if let Some(Value::Object(video)) = data.get("videoInfo") {
        for (field, value) in video {
            prop_assert!(VIDEO_FIELDS.contains(&(field, type_of(value))), "videoInfo.{field}: {value}");
        }
    }
    prop_assert_eq!(&data["jobId"], "job_1-A");
    prop_assert_eq!(data["updatedAt"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap(), state.updated_at);
    prop_assert!(data["attempt"].as_u64() >= Some(1));

    let word = |field: &str| data[field].as_str().unwrap().to_owned();
    let (status, stage, progress) = (word("status"), word("stage"), data["progress"].as_u64().unwrap());
    let download = progress == 10 || (15..=89).contains(&progress);
    let (expected_status, in_range) = match stage.as_str() {
        "queued" | "retrying" => ("queued", progress == 0),
        "fetching_info" => ("processing", progress == 5),
        "downloading" => ("processing", download),
        "uploading" => ("processing", [90, 92].contains(&progress)),
        "finishing" => ("processing", progress == 98),
        "completed" => ("completed", progress == 100),
        "failed" | "canceled" => ("failed", download || [0, 5, 90, 92, 98].contains(&progress)),
        _ => return Err(TestCaseError::fail(format!("no such stage: {stage}"))),
    };
    prop_assert_eq!(&status, expected_status, "{}", frame);
    prop_assert!(in_range, "{frame}");
    let url = (status == "completed").then(|| format!("{BASE}/api/download/job_1-A/file").into());
    prop_assert_eq!(data.get("downloadUrl"), url.as_ref());
    prop_assert_eq!(data.contains_key("error"), status == "failed", "{}", frame);
    prop_assert_eq!(data.contains_key("retryAt"), stage == "retrying", "{}", frame);
    prop_assert_eq!(data.contains_key("errorCode"), status == "failed" || stage == "retrying", "{}", frame);
    prop_assert_eq!(data.get("errorCode") == Some(&"canceled".into()) || stage != "canceled", true, "{}", frame);
    Ok(data.clone())
}

/// The states after each entry, from the submission on.
fn states(entries: &[Entry]) -> impl Iterator<Item = JobState> {
    let step = |state: &mut Option<JobState>, entry: &Entry| {
        *state = fold(state.take(), &job(), entry);
        Some(state.clone())
    };
    entries.iter().scan(None, step).flatten()
}

proptest! {
    #[test]
    fn every_message_keeps_the_contract_whatever_the_log_holds(entries in garbage()) {
        for state in states(&entries) {
            data_of(&state)?;
        }
    }

    #[test]
    fn every_message_of_a_job_that_went_its_way_says_what_its_progress_promises(
        submission in submission(), steps in steps(),
    ) {
        let (mut video_known, mut seq) = (false, 0);
        for state in states(&Log::of(submission, &steps).entries) {
            let data = data_of(&state)?;
            let progress = data["progress"].as_u64().unwrap();
            let has = |field: &str| data.contains_key(field);
            video_known |= progress >= 10;
            prop_assert_eq!(has("videoInfo"), video_known, "{:?}", data);
            prop_assert_eq!(has("storageProvider"), progress >= 90, "{:?}", data);
            prop_assert_eq!(has("fileSize"), progress >= 90, "{:?}", data);
            prop_assert!(has("downloadedBytes") || !(15..100).contains(&progress), "{:?}", data);
            prop_assert!(data["seq"].as_u64() > Some(seq), "{:?}", data);
            seq = data["seq"].as_u64().unwrap();
        }
    }

    #[test]
    fn a_client_that_sends_anything_but_a_ping_is_not_understood(text in "[a-z{}\":, ]{0,16}|\\PC{0,8}") {
        let is_ping = text.trim() == "ping";
        prop_assert_eq!(ClientMessage::parse(&text).is_some(), is_ping, "{}", text);
    }
}

#[test]
fn the_answer_to_a_ping_is_pong_byte_for_byte() {
    assert_eq!(PONG.as_bytes(), br#"{"type":"pong"}"#);
    assert_eq!(serde_json::to_string(&ServerMessage::Pong).unwrap(), PONG);
    assert_eq!(serde_json::from_str::<ServerMessage>(PONG).unwrap(), ServerMessage::Pong);
    for ping in ["ping", " ping\n", r#"{"type":"ping"}"#, r#"{ "type" : "ping", "at": 7 }"#] {
        assert_eq!(ClientMessage::parse(ping), Some(ClientMessage::Ping), "{ping}");
    }
}
