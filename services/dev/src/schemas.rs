//! What crosses a process boundary, in `schemas/`: made from the Rust types, and checked for drift.
//!
//! The JSON Schemas come from the types alone. The OpenAPI and AsyncAPI documents are templates beside this file,
//! written by hand; the schemas that they refer to are filled in, and so are the numbers and codes that the domain
//! defines.

mod from_types;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context;
use from_types::Types;
use millrace_domain::{
    Event, JobState, Submission,
    close::{self, Close, Reconnect},
    failure::{FailureKind, Nature},
    limits, retry, subjects,
    wire::{ClientMessage, HistoryLine, JobStatus, Problem, ServerMessage},
};
use serde_json::{Value, json};

const OPENAPI: &str = include_str!("schemas/openapi.json");
const ASYNCAPI: &str = include_str!("schemas/asyncapi.json");
/// How a worker in any language takes part; the description of the AsyncAPI document.
const WORKERS: &str = include_str!("schemas/workers.md");

/// Every generated file, by its name in `schemas/`.
///
/// # Panics
/// When a template is not JSON: a defect of this source, found by every test.
#[must_use]
pub fn generate() -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut schema = |name: &str, schema: Value| {
        files.insert(format!("{name}.schema.json"), text(&schema));
    };
    schema("event", from_types::root::<Event>("event"));
    schema("job-state", from_types::root::<JobState>("job-state"));
    schema("server-message", from_types::root::<ServerMessage>("server-message"));
    schema("client-message", from_types::root::<ClientMessage>("client-message"));
    schema("job-status", from_types::root::<JobStatus>("job-status"));
    schema("submission", from_types::root::<Submission>("submission"));
    schema("problem", from_types::root::<Problem>("problem"));
    schema("history-line", from_types::root::<HistoryLine>("history-line"));

    let mut http = Types::new();
    http.add::<Submission>().add::<JobStatus>().add::<HistoryLine>().add::<Problem>();
    files.insert("openapi.json".into(), text(&document(OPENAPI, http)));
    let mut messages = Types::new();
    messages.add::<Event>().add::<ServerMessage>().add::<ClientMessage>();
    files.insert("asyncapi.json".into(), text(&document(ASYNCAPI, messages)));
    files
}

/// Brings `schemas/` under the workspace's `root` up to date; returns the files that were changed.
///
/// # Errors
/// When a file cannot be read, written or removed.
pub fn write(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let folder = root.join("schemas");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let generated = generate();
    let mut changed = Vec::new();
    for (name, wanted) in &generated {
        let path = folder.join(name);
        if read(&path)?.as_ref() != Some(wanted) {
            fs::write(&path, wanted).with_context(|| format!("cannot write {}", path.display()))?;
            changed.push(path);
        }
    }
    for name in present(&folder)?.into_iter().filter(|name| !generated.contains_key(name)) {
        let path = folder.join(name);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        changed.push(path);
    }
    Ok(changed)
}

/// What in `schemas/` under the workspace's `root` is not as [`generate`] makes it: a sentence for each file.
///
/// # Errors
/// When a file is there and cannot be read.
pub fn drift(root: &Path) -> anyhow::Result<Vec<String>> {
    let folder = root.join("schemas");
    let generated = generate();
    let mut found = Vec::new();
    for (name, wanted) in &generated {
        match read(&folder.join(name))? {
            None => found.push(format!("schemas/{name} is missing: run `cargo dev schemas`")),
            Some(text) if text != *wanted => {
                found.push(format!("schemas/{name} differs from the Rust types: run `cargo dev schemas`"));
            }
            Some(_) => {}
        }
    }
    for name in present(&folder)?.into_iter().filter(|name| !generated.contains_key(name)) {
        found.push(format!("schemas/{name} is made from no Rust type: run `cargo dev schemas` to remove it"));
    }
    Ok(found)
}

/// The JSON files right in the folder, generated or not. What is hand-written is in folders of its own.
fn present(folder: &Path) -> anyhow::Result<Vec<String>> {
    let listing = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing.with_context(|| format!("cannot list {}", folder.display()))?,
    };
    let mut names = Vec::new();
    for entry in listing {
        let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".json") && entry.path().is_file() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn read(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn text(value: &Value) -> String {
    serde_json::to_string_pretty(value).expect("a JSON value can be written") + "\n"
}

/// A template with its `{{words}}` replaced and its schemas filled in.
fn document(template: &str, types: Types) -> Value {
    let mut document: Value = serde_json::from_str(template).expect("the template is JSON");
    replace(&mut document, "{{workers}}", WORKERS.trim_end());
    for (word, value) in words() {
        replace(&mut document, word, &value);
    }
    document["components"]["schemas"] = types.into_components();
    document
}

/// What the templates leave to the domain to say.
fn words() -> Vec<(&'static str, String)> {
    vec![
        ("{{failure codes}}", failure_codes()),
        ("{{close codes}}", close_codes()),
        ("{{stream}}", subjects::STREAM.into()),
        ("{{consumer}}", subjects::WORKERS_CONSUMER.into()),
        ("{{event bytes}}", limits::EVENT_BYTES_MAX.to_string()),
        ("{{body bytes}}", limits::HTTP_BODY_BYTES_MAX.to_string()),
        ("{{workers lost}}", limits::WORKERS_LOST_MAX.to_string()),
        ("{{attempts}}", limits::ATTEMPTS_MAX.to_string()),
        ("{{retry seconds}}", retry::RETRY_DELAY_MAX.as_secs().to_string()),
        ("{{retry after}}", limits::RETRY_AFTER_MAX.as_secs().to_string()),
        ("{{pause}}", limits::RETRY_PAUSE.as_secs().to_string()),
        ("{{pause min}}", limits::RETRY_PAUSE_MIN.as_secs().to_string()),
        ("{{pause max}}", limits::RETRY_PAUSE_MAX.as_secs().to_string()),
        ("{{growth}}", limits::RETRY_GROWTH.to_string()),
        ("{{append seconds}}", limits::APPEND_RETRY_MAX.as_secs().to_string()),
        ("{{progress ms}}", limits::PROGRESS_INTERVAL_MIN.as_millis().to_string()),
        ("{{frame bytes}}", limits::WS_FRAME_BYTES_MAX.to_string()),
        ("{{frames}}", limits::WS_MESSAGES_PER_WINDOW_MAX.to_string()),
        ("{{frames seconds}}", limits::WS_RATE_WINDOW.as_secs().to_string()),
        ("{{silence seconds}}", limits::WS_SILENCE_MAX.as_secs().to_string()),
        ("{{ping seconds}}", limits::WS_PING_INTERVAL.as_secs().to_string()),
        ("{{unknown seconds}}", limits::UNKNOWN_JOB_WAIT.as_secs().to_string()),
        ("{{doubt seconds}}", limits::SINCE_DOUBT.as_secs().to_string()),
        ("{{linger seconds}}", limits::FINISHED_JOB_LINGER.as_secs().to_string()),
        ("{{title chars}}", limits::TITLE_CHARS_MAX.to_string()),
        ("{{error chars}}", limits::ERROR_CHARS_MAX.to_string()),
    ]
}

fn failure_codes() -> String {
    let row = |kind: &FailureKind| {
        let retryable = if kind.nature() == Nature::Transient { "yes" } else { "no" };
        format!("| `{}` | {retryable} | {} |\n", kind.code(), kind.sentence())
    };
    let rows: String = FailureKind::ALL.iter().map(row).collect();
    format!("| code | may pass | sentence |\n|---|---|---|\n{}", rows.trim_end())
}

fn close_codes() -> String {
    let row = |Close { code, reason, reconnect }: &Close| {
        let reconnect = match reconnect {
            Reconnect::Never => "no",
            Reconnect::Spread => "yes, after a random pause within the time that an edge takes to drain",
            Reconnect::Backoff => "yes, after a random pause, whose bound doubles with each try",
        };
        format!("| {code} | {reason} | {reconnect} |\n")
    };
    let rows: String = close::ALL.iter().map(row).collect();
    format!("| code | reason | reconnect |\n|---|---|---|\n{}", rows.trim_end())
}

fn replace(value: &mut Value, word: &str, by: &str) {
    match value {
        Value::String(text) if text.contains(word) => *value = json!(text.replace(word, by)),
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, word, by)),
        Value::Object(fields) => fields.values_mut().for_each(|field| replace(field, word, by)),
        _ => {}
    }
}
