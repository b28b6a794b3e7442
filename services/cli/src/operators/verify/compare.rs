//! Compares folded jobs with stored states.

use std::collections::HashMap;

use millrace_domain::{JobId, JobState};
use serde_json::Value;

use super::{Report, read::Reader};

/// How many differing fields of one job are shown.
const FIELDS_SHOWN_MAX: usize = 4;
/// Longer values are truncated.
const VALUE_CHARS_MAX: usize = 80;

/// Compares every job with its state in `bucket` and adds the outcome to `report`.
pub async fn run(
    reader: &Reader,
    bucket: &str,
    jobs: HashMap<JobId, Option<JobState>>,
    mut report: Report,
) -> anyhow::Result<Report> {
    let mut states = reader.states(bucket).await?;
    for (id, folded) in jobs {
        match (folded, states.remove(id.as_str())) {
            (None, None) => {}
            (None, Some(_)) => {
                report.stray(id.as_str(), &format!("{id}: has a state, but was never submitted"));
            }
            // Retention has removed the job's events and its state since the log was read.
            (Some(_), None) if reader.catch_up(&id, None, u64::MAX).await?.is_none() => {}
            (Some(_), None) => {
                report.jobs += 1;
                report.missing += 1;
                report.wrong(id.as_str(), format!("missing      {id}: has no state"));
            }
            (Some(folded), Some(stored)) => compare(reader, &id, folded, stored, &mut report).await?,
        }
    }
    // The jobs of the remaining states were submitted after the log was read, or never.
    for (key, stored) in states {
        let seq = stored.as_ref().map_or(0, seq);
        let folded = match key.parse::<JobId>() {
            Ok(id) => reader.catch_up(&id, None, seq).await?.map(|folded| (id, folded)),
            Err(_) => None,
        };
        match folded {
            Some((id, folded)) => compare(reader, &id, folded, stored, &mut report).await?,
            None => report.stray(&key, &format!("{key}: has a state, but no job in the log")),
        }
    }
    Ok(report)
}

async fn compare(
    reader: &Reader,
    id: &JobId,
    folded: JobState,
    stored: Result<Value, String>,
    report: &mut Report,
) -> anyhow::Result<()> {
    report.jobs += 1;
    let stored = match stored {
        Ok(stored) => stored,
        Err(why) => {
            report.different += 1;
            report.wrong(id.as_str(), format!("different    {id}: the state is not JSON: {why}"));
            return Ok(());
        }
    };
    // The job has gone on since the log was read.
    let folded =
        if seq(&stored) > folded.seq { reader.catch_up(id, Some(folded), seq(&stored)).await? } else { Some(folded) };
    let folded = serde_json::to_value(folded)?;
    if folded == stored {
        report.equal += 1;
        return Ok(());
    }
    report.different += 1;
    let mut fields = Vec::new();
    differences("", &folded, &stored, &mut fields);
    let more = fields.len().saturating_sub(FIELDS_SHOWN_MAX);
    fields.truncate(FIELDS_SHOWN_MAX);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    report.wrong(id.as_str(), format!("different    {id}: {}{more}", fields.join("; ")));
    Ok(())
}

impl Report {
    fn stray(&mut self, key: &str, sentence: &str) {
        self.stray += 1;
        self.wrong(key, format!("stray        {sentence}"));
    }

    fn wrong(&mut self, key: &str, sentence: String) {
        self.wrong.push(key.to_owned());
        self.show(sentence);
    }
}

fn seq(state: &Value) -> u64 {
    state["seq"].as_u64().unwrap_or(0)
}

/// The fields that differ, each as a phrase.
fn differences(path: &str, folded: &Value, stored: &Value, found: &mut Vec<String>) {
    match (folded, stored) {
        (Value::Object(folded), Value::Object(stored)) => {
            let only_stored = stored.keys().filter(|key| !folded.contains_key(*key));
            for key in folded.keys().chain(only_stored) {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let value = |of: &serde_json::Map<String, Value>| of.get(key).cloned().unwrap_or(Value::Null);
                differences(&path, &value(folded), &value(stored), found);
            }
        }
        _ if folded != stored => found.push(format!("{path} is {}, but {} by the log", short(stored), short(folded))),
        _ => {}
    }
}

fn short(value: &Value) -> String {
    match value {
        Value::Null => "absent".to_owned(),
        value => millrace_domain::limits::cut(&value.to_string(), VALUE_CHARS_MAX),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn differences_name_the_field_and_both_values() {
        let mut found = Vec::new();
        let folded = json!({"seq": 9, "stage": "queued", "file": {"key": "a", "size": 1}});
        let stored = json!({"seq": 9, "stage": "failed", "file": {"key": "b", "size": 1}, "worker": "w"});
        differences("", &folded, &stored, &mut found);
        assert_eq!(
            found,
            [
                r#"stage is "failed", but "queued" by the log"#,
                r#"file.key is "b", but "a" by the log"#,
                r#"worker is "w", but absent by the log"#
            ]
        );
    }
}
