//! The streams, the buckets and the consumers, from the files in `nats/`, which an operator's `nats` CLI reads too.
//!
//! Provisioning is idempotent: it creates missing definitions, updates what it may and refuses changes that would lose
//! data. Services do not provision; they check, and do not start if a setting differs that they depend on.

use anyhow::{Context, bail};
use async_nats::jetstream;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use millrace_domain::limits::{JETSTREAM_RETRY_PAUSE, JETSTREAM_WAIT_MAX};

/// One definition.
struct Definition {
    file: &'static str,
    text: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Stream,
    /// Of the stream `JOBS`.
    Consumer,
}

macro_rules! definition {
    ($kind:ident, $file:literal) => {
        Definition { file: $file, text: include_str!(concat!("../../../nats/", $file)), kind: Kind::$kind }
    };
}

/// In the order of creation.
const DEFINITIONS: &[Definition] = &[
    definition!(Stream, "stream-JOBS.json"),
    definition!(Stream, "stream-KV_JOB_STATE.json"),
    definition!(Stream, "stream-KV_JOB_KEYS.json"),
    definition!(Stream, "stream-JOBS_QUARANTINE.json"),
    definition!(Consumer, "consumer-workers.json"),
    definition!(Consumer, "consumer-projector.json"),
];

/// Keys that an operator may change without breaking a service: a starting service does not compare them.
const TUNABLE: &[&str] = &[
    "description",
    "num_replicas",
    "max_age",
    "max_bytes",
    "max_msgs",
    "max_msg_size",
    "duplicate_window",
    "ack_wait",
    "max_ack_pending",
    "max_waiting",
    "priority_timeout",
    "metadata",
];

/// Limits whose lowering makes the server delete messages; -1 and 0 mean none.
const LIMITS: &[&str] = &["max_age", "max_bytes", "max_msgs", "max_msgs_per_subject"];

/// Keys that cannot be changed without losing existing data or its meaning.
const IMMUTABLE: &[&str] =
    &["retention", "storage", "discard", "deliver_policy", "ack_policy", "filter_subject", "filter_subjects"];

/// Keys that the server does not change on existing streams and consumers. The number of waiting pulls is an operator's
/// choice, so it remains.
const FIXED: &[&str] = &["max_waiting"];

/// Keys that no file sets, since services would not receive what they need: they would get only some of the messages,
/// or no payloads, or redeliveries at other times than `ack_wait`.
const ABSENT: &[&str] = &[
    "filter_subject",
    "filter_subjects",
    "headers_only",
    "backoff",
    "deliver_subject",
    "mirror",
    "sources",
    "subject_transform",
];

/// The change that provisioning makes to one definition.
#[derive(Debug, PartialEq)]
enum Plan {
    Keep,
    Create(Value),
    Update(Value),
    Refuse(Vec<String>),
}

/// The change that was made to one definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// It existed.
    Kept,
    /// It was missing.
    Created,
    /// It differed from the file.
    Updated,
}

/// Creates and updates all definitions. `replicas` sets how many servers keep each stream; `None` keeps the current
/// number.
///
/// # Errors
/// When an update would lose data, or the server refuses one.
pub async fn apply(context: &jetstream::Context, replicas: Option<u8>) -> anyhow::Result<Vec<(&'static str, Done)>> {
    let mut done = Vec::new();
    for definition in DEFINITIONS {
        let mut wanted = definition.parse();
        if definition.kind == Kind::Stream {
            match replicas {
                Some(replicas) => wanted["num_replicas"] = json!(replicas),
                None => drop(wanted.as_object_mut().and_then(|wanted| wanted.remove("num_replicas"))),
            }
        }
        let actual = definition.get(context).await?;
        done.push((
            definition.file,
            match plan(&wanted, actual.as_ref()) {
                Plan::Keep => Done::Kept,
                Plan::Create(config) => definition.set(context, config, "create").await.map(|()| Done::Created)?,
                Plan::Update(config) => definition.set(context, config, "update").await.map(|()| Done::Updated)?,
                Plan::Refuse(reasons) => bail!(
                    "cannot apply nats/{}: it would lose data or change its meaning: {}. Change the file, or migrate \
                     the data by hand",
                    definition.file,
                    reasons.join("; ")
                ),
            },
        ));
    }
    Ok(done)
}

/// Why a service cannot start on the existing definitions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// JetStream is unavailable, or has no leader at the moment.
    #[error("{0}")]
    Unavailable(String),
    /// What is missing or different, and what to do.
    #[error(
        "NATS is not set up as needed: {0}. Apply the files in nats/: `millrace provision`, or `nats stream add|edit \
         NAME --config FILE` and `nats consumer add JOBS NAME --config FILE`"
    )]
    Differs(String),
}

/// Waits until JetStream responds, then checks that everything exists as the services need it. The service does not
/// exit during an election, or while a cluster starts with it: an orchestrator would restart it with growing delays.
///
/// # Errors
/// See [`CheckError`]; `Unavailable` only after [`JETSTREAM_WAIT_MAX`].
pub async fn check_when_available(context: &jetstream::Context) -> Result<(), CheckError> {
    let deadline = Instant::now() + JETSTREAM_WAIT_MAX;
    let mut first = true;
    loop {
        match check(context).await {
            Err(CheckError::Unavailable(why)) if Instant::now() < deadline => {
                if std::mem::take(&mut first) {
                    tracing::warn!(why, "JetStream unavailable; waiting");
                }
                sleep(JETSTREAM_RETRY_PAUSE).await;
            }
            checked => return checked,
        }
    }
}

/// Checks that everything exists as the services need it.
///
/// # Errors
/// See [`CheckError`].
pub async fn check(context: &jetstream::Context) -> Result<(), CheckError> {
    let mut problems = Vec::new();
    for definition in DEFINITIONS {
        match definition.get(context).await? {
            None => problems.push(format!("{} is missing", definition.name())),
            Some(actual) => problems.extend(
                differences(&definition.parse(), &actual)
                    .filter(|key| !TUNABLE.contains(key))
                    .map(|key| describe(&definition.name(), key, &definition.parse(), &actual)),
            ),
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(CheckError::Differs(problems.join("; "))) }
}

impl Definition {
    fn parse(&self) -> Value {
        serde_json::from_str(self.text).expect("the files in nats/ are JSON: a test reads them")
    }

    fn name(&self) -> String {
        let config = self.parse();
        match self.kind {
            Kind::Stream => format!("stream {}", config["name"].as_str().unwrap_or_default()),
            Kind::Consumer => format!("consumer {}", config["name"].as_str().unwrap_or_default()),
        }
    }

    fn subject(&self, verb: &str) -> String {
        let config = self.parse();
        let name = config["name"].as_str().unwrap_or_default().to_owned();
        match self.kind {
            Kind::Stream => format!("STREAM.{verb}.{name}"),
            Kind::Consumer if verb == "INFO" => format!("CONSUMER.INFO.{}.{name}", millrace_domain::subjects::STREAM),
            Kind::Consumer => format!("CONSUMER.DURABLE.CREATE.{}.{name}", millrace_domain::subjects::STREAM),
        }
    }

    async fn get(&self, context: &jetstream::Context) -> Result<Option<Value>, CheckError> {
        let unavailable = |why| CheckError::Unavailable(format!("cannot read {}: {why}", self.name()));
        match request(context, self.subject("INFO"), &json!({})).await {
            Ok(Ok(mut info)) => Ok(Some(info["config"].take())),
            Ok(Err(error)) if error["code"] == 404 => Ok(None),
            Ok(Err(error)) => Err(unavailable(error["description"].to_string())),
            Err(error) => Err(unavailable(format!("{error:#}"))),
        }
    }

    async fn set(&self, context: &jetstream::Context, config: Value, action: &str) -> anyhow::Result<()> {
        let body = match self.kind {
            Kind::Stream => config,
            Kind::Consumer => {
                json!({"stream_name": millrace_domain::subjects::STREAM, "config": config, "action": action})
            }
        };
        match request(context, self.subject(&action.to_ascii_uppercase()), &body).await? {
            Ok(_) => Ok(()),
            Err(error) => bail!("cannot {action} {} from nats/{}: {}", self.name(), self.file, error["description"]),
        }
    }
}

async fn request(context: &jetstream::Context, subject: String, body: &Value) -> anyhow::Result<Result<Value, Value>> {
    let mut answer: Value = context
        .request(subject, body)
        .await
        .context("JetStream does not respond: is it enabled on the server (nats-server --jetstream)?")?;
    Ok(match answer.get_mut("error") {
        Some(error) => Err(error.take()),
        None => Ok(answer),
    })
}

/// Keys of `wanted` whose values differ in `actual`, and keys that `actual` must not have.
fn differences<'a>(wanted: &'a Value, actual: &'a Value) -> impl Iterator<Item = &'a str> {
    let absent = ABSENT.iter().copied().filter(|key| wanted.get(key).is_none());
    wanted
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key.as_str())
        .chain(absent)
        .filter(|key| !same(&wanted[*key], actual.get(key).unwrap_or(&Value::Null)))
}

/// The server omits empty values and adds fields of its own.
fn same(wanted: &Value, actual: &Value) -> bool {
    match (wanted, actual) {
        (Value::Object(wanted), Value::Object(actual)) => {
            wanted.iter().all(|(key, value)| same(value, actual.get(key).unwrap_or(&Value::Null)))
        }
        (Value::Null, value) | (value, Value::Null) => {
            [json!(null), json!(false), json!(0), json!(""), json!([])].contains(value)
        }
        _ => wanted == actual,
    }
}

fn describe(name: &str, key: &str, wanted: &Value, actual: &Value) -> String {
    let shown = |value: Option<&Value>| match value {
        None | Some(Value::Null) => "nothing".to_owned(),
        Some(value) => value.to_string(),
    };
    format!("{name} has {key} {} where {} is needed", shown(actual.get(key)), shown(wanted.get(key)))
}

fn plan(wanted: &Value, actual: Option<&Value>) -> Plan {
    let Some(actual) = actual else { return Plan::Create(wanted.clone()) };
    let changed: Vec<_> = differences(wanted, actual).filter(|key| !FIXED.contains(key)).collect();
    if changed.is_empty() {
        return Plan::Keep;
    }
    let reasons: Vec<_> = changed
        .iter()
        .filter(|key| loses(key, wanted.get(**key), actual.get(**key)))
        .map(|key| describe("the existing definition", key, wanted, actual))
        .collect();
    if !reasons.is_empty() {
        return Plan::Refuse(reasons);
    }
    // Keys that are not in the file keep the operator's values.
    let mut config: Map<String, Value> = actual.as_object().cloned().unwrap_or_default();
    for key in changed {
        match wanted.get(key) {
            Some(value) => drop(config.insert(key.to_owned(), value.clone())),
            None => drop(config.remove(key)),
        }
    }
    Plan::Update(Value::Object(config))
}

/// Whether the change of one key would lose data or its meaning.
fn loses(key: &str, wanted: Option<&Value>, actual: Option<&Value>) -> bool {
    if IMMUTABLE.contains(&key) {
        return true;
    }
    if LIMITS.contains(&key) {
        let limit = |value: Option<&Value>| match value.and_then(Value::as_i64) {
            Some(limit) if limit > 0 => limit,
            _ => i64::MAX,
        };
        return limit(wanted) < limit(actual);
    }
    if key == "subjects" {
        let of = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
        let wanted = of(wanted);
        return of(actual).iter().any(|subject| !wanted.contains(subject));
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Value {
        DEFINITIONS[0].parse()
    }

    #[test]
    fn every_definition_is_json_with_a_name_that_the_code_uses() {
        use millrace_domain::subjects::{
            KEY_BUCKET, PROJECTOR_CONSUMER, PROJECTOR_GROUP, QUARANTINE_ALL, QUARANTINE_STREAM, STATE_BUCKET, STREAM,
            WORKERS_CONSUMER, bucket_stream,
        };
        let names: Vec<_> = DEFINITIONS.iter().map(|d| d.parse()["name"].as_str().unwrap().to_owned()).collect();
        let buckets = [bucket_stream(STATE_BUCKET), bucket_stream(KEY_BUCKET)];
        assert_eq!(names, [STREAM, &buckets[0], &buckets[1], QUARANTINE_STREAM, WORKERS_CONSUMER, PROJECTOR_CONSUMER]);
        let of = |name: &str| DEFINITIONS.iter().find(|d| d.parse()["name"] == name).unwrap().parse();
        assert_eq!(of(STREAM)["subjects"], json!([millrace_domain::subjects::ALL]));
        assert_eq!(of(QUARANTINE_STREAM)["subjects"], json!([QUARANTINE_ALL]));
        assert_eq!(of(WORKERS_CONSUMER)["filter_subject"], millrace_domain::subjects::SUBMITTED_ALL);
        assert_eq!(of(PROJECTOR_CONSUMER)["priority_groups"], json!([PROJECTOR_GROUP]));
    }

    #[test]
    fn what_is_there_already_is_kept_whatever_the_server_adds() {
        let mut actual = stream();
        actual["metadata"] = json!({"_nats.level": "1"});
        actual["sealed"] = json!(false);
        assert_eq!(plan(&stream(), Some(&actual)), Plan::Keep);
        assert_eq!(plan(&stream(), None), Plan::Create(stream()));
    }

    #[test]
    fn an_update_keeps_what_the_file_does_not_speak_of() {
        let mut actual = stream();
        actual["duplicate_window"] = json!(1_000_000_000);
        actual["placement"] = json!({"tags": ["ssd"]});
        let Plan::Update(config) = plan(&stream(), Some(&actual)) else { panic!("no update") };
        assert_eq!(config["duplicate_window"], stream()["duplicate_window"]);
        assert_eq!(config["placement"], json!({"tags": ["ssd"]}));
    }

    #[test]
    fn what_would_lose_data_is_refused() {
        for (key, value) in [
            ("storage", json!("memory")),
            ("retention", json!("workqueue")),
            ("max_age", json!(1)),
            ("max_bytes", json!(1000)),
            ("max_msgs_per_subject", json!(1)),
            ("subjects", json!(["jobs.events.*"])),
        ] {
            let mut wanted = stream();
            wanted[key] = value;
            assert!(matches!(plan(&wanted, Some(&stream())), Plan::Refuse(_)), "{key}");
        }
        let mut wanted = stream();
        wanted["subjects"] = json!(["jobs.*.*", "jobs.audit"]);
        assert!(matches!(plan(&wanted, Some(&stream())), Plan::Update(_)), "more subjects lose nothing");
    }
}
