//! The documents for HTTP and for messages are consistent with each other and with the Rust types.

use std::collections::BTreeSet;

use millrace_domain::{
    JobId,
    close::{self, Close},
    failure::FailureKind,
    subjects::{self, Kind},
};
use serde_json::json;

use super::*;

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

/// Resolves a value of the document if it is a reference.
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
        "precondition_failed",
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
    for Close { code, reason, .. } in close::ALL {
        assert!(told.contains(&format!("| {code} | {reason} |")), "{code}");
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
