//! The promises of `schemas/`: no drift from the Rust types, golden examples that every reader accepts, and consistent
//! documents.

mod documents;
mod golden;

use std::{
    fs,
    path::{Path, PathBuf},
};

use jsonschema::Validator;
use millrace_dev::schemas;
use serde_json::Value;

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
