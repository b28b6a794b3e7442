//! HTTP against the edge, every answer held against the published documents.

use std::{collections::HashMap, sync::Mutex};

use millrace_harness::checkout;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

/// A client of one edge.
pub struct Api {
    pub base: String,
    client: reqwest::Client,
    openapi: Value,
    validators: Mutex<HashMap<String, jsonschema::Validator>>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Api {
    pub fn new(base: String) -> Self {
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().expect("a client");
        let text = std::fs::read_to_string(checkout().join("schemas/openapi.json")).expect("schemas/openapi.json");
        let openapi = serde_json::from_str(&text).expect("OpenAPI is JSON");
        Self { base, client, openapi, validators: Mutex::default() }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path), Method::GET, path).await
    }

    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let request = headers
            .iter()
            .fold(self.request(Method::GET, path), |request, (name, value)| request.header(*name, *value));
        self.send(request, Method::GET, path).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).json(body), Method::POST, path).await
    }

    pub async fn post_with(&self, path: &str, body: &str, headers: &[(&str, &str)]) -> Answer {
        let request = self.request(Method::POST, path).body(body.to_owned());
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        self.send(request, Method::POST, path).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path), Method::DELETE, path).await
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    async fn send(&self, request: RequestBuilder, method: Method, path: &str) -> Answer {
        let response = request.send().await.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.expect("the body").to_vec();
        let answer = Answer { status, headers, body };
        self.assert_documented(&method, path, &answer);
        answer
    }

    /// Asserts that a WebSocket message matches the published schema.
    pub fn assert_message(&self, message: &Value) {
        self.assert_valid("message", message, || {
            let text =
                std::fs::read_to_string(checkout().join("schemas/server-message.schema.json")).expect("the schema");
            serde_json::from_str(&text).expect("JSON")
        });
    }

    fn assert_documented(&self, method: &Method, path: &str, answer: &Answer) {
        let path = path.split('?').next().unwrap_or_default();
        let Some((name, item)) =
            self.openapi["paths"].as_object().expect("paths").iter().find(|(name, _)| matches(name, path))
        else {
            return;
        };
        let operation = &item[method.as_str().to_ascii_lowercase()];
        if operation.is_null() {
            return;
        }
        let mut response = &operation["responses"][answer.status.to_string()];
        if let Some(reference) = response["$ref"].as_str() {
            response = self.openapi.pointer(reference.trim_start_matches('#')).expect("the reference resolves");
        }
        assert!(
            !response.is_null(),
            "{method} {name} answers {}, which is not documented: {}",
            answer.status,
            answer.text()
        );
        let Some(content) = response["content"].as_object() else { return };
        let kind = answer.header("content-type").split(';').next().unwrap_or_default().to_owned();
        let media = content.get(&kind).or_else(|| content.get("*/*"));
        let media = media.unwrap_or_else(|| panic!("{method} {name} {}: {kind:?} is not documented", answer.status));
        if kind.ends_with("json") && kind != "application/x-ndjson" && !media["schema"].is_null() {
            let key = format!("{method} {name} {}", answer.status);
            self.assert_valid(
                &key,
                &answer.json(),
                || json!({"allOf": [media["schema"].clone()], "components": self.openapi["components"]}),
            );
        }
    }

    fn assert_valid(&self, key: &str, value: &Value, schema: impl FnOnce() -> Value) {
        let mut validators = self.validators.lock().unwrap();
        let validator = validators
            .entry(key.to_owned())
            .or_insert_with(|| jsonschema::options().should_validate_formats(true).build(&schema()).expect("a schema"));
        let errors: Vec<_> = validator.iter_errors(value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{key}: {errors:?} in {value:#}");
    }
}

fn matches(template: &str, path: &str) -> bool {
    let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len() && template.iter().zip(&path).all(|(t, p)| t.starts_with('{') || t == p)
}
