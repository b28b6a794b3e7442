//! From Rust types to JSON Schema 2020-12, in a form that other languages' generators take as it is.

use std::collections::BTreeSet;

use schemars::{
    JsonSchema,
    generate::{SchemaGenerator, SchemaSettings},
};
use serde_json::{Map, Value, json};

/// Where definitions are in a schema of its own.
const DEFS: &str = "#/$defs/";
/// Where definitions are in an OpenAPI or AsyncAPI document.
const COMPONENTS: &str = "#/components/schemas/";

/// The schema of `T` as a document of its own.
pub fn root<T: JsonSchema>(name: &str) -> Value {
    let mut schema = settings("/$defs").into_generator().into_root_schema_for::<T>().to_value();
    let definitions = schema.get("$defs").cloned().unwrap_or(json!({}));
    schema["$id"] = json!(format!("urn:millrace:schema:{name}"));
    let definitions = definitions.as_object().expect("definitions are an object");
    tidy(&mut schema, &Context { owner: &T::schema_name(), definitions, prefix: DEFS });
    prune(&mut schema);
    schema
}

/// Types that a document refers to, with all that they refer to.
pub struct Types {
    generator: SchemaGenerator,
    named: BTreeSet<String>,
}

impl Types {
    pub fn new() -> Self {
        Self { generator: settings("/components/schemas").into_generator(), named: BTreeSet::new() }
    }

    /// Adds `T` under its own name.
    pub fn add<T: JsonSchema>(&mut self) -> &mut Self {
        self.generator.subschema_for::<T>();
        self.named.insert(T::schema_name().into_owned());
        self
    }

    /// The `components.schemas` of the document.
    pub fn into_components(mut self) -> Value {
        let definitions = self.generator.take_definitions(true);
        let mut schemas = Value::Object(definitions.clone());
        for (owner, schema) in schemas.as_object_mut().expect("made above") {
            tidy(schema, &Context { owner, definitions: &definitions, prefix: COMPONENTS });
        }
        let mut used = self.named;
        loop {
            let found: BTreeSet<String> =
                used.iter().flat_map(|name| references(&schemas[name], COMPONENTS)).chain(used.clone()).collect();
            if found.len() == used.len() {
                break;
            }
            used = found;
        }
        let mut kept: Vec<_> = schemas
            .as_object()
            .expect("made above")
            .clone()
            .into_iter()
            .filter(|(name, _)| used.contains(name))
            .collect();
        kept.sort_by(|(a, _), (b, _)| a.cmp(b));
        Value::Object(kept.into_iter().collect())
    }
}

fn settings(definitions: &'static str) -> SchemaSettings {
    let mut settings = SchemaSettings::draft2020_12().for_serialize();
    settings.definitions_path = definitions.into();
    settings
}

/// What a schema is tidied in.
struct Context<'a> {
    /// The type that the schema is of.
    owner: &'a str,
    /// All definitions, as schemars made them.
    definitions: &'a Map<String, Value>,
    /// How references to definitions begin.
    prefix: &'a str,
}

/// Brings a schema and all in it into the form that this project publishes.
fn tidy(schema: &mut Value, context: &Context<'_>) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(|item| tidy(item, context)),
        Value::Object(fields) => {
            absent_not_null(fields);
            plain_numbers(fields);
            plain_description(fields);
            merge_variant(fields, context);
            title_of_variant(fields, context.owner);
            in_reading_order(fields);
            fields.values_mut().for_each(|field| tidy(field, context));
        }
        _ => {}
    }
}

/// An optional field is left out when there is nothing to say; `null` is never written.
fn absent_not_null(fields: &mut Map<String, Value>) {
    let null = json!("null");
    if let Some(Value::Array(types)) = fields.get_mut("type") {
        types.retain(|kind| *kind != null);
        if let [only] = &types[..] {
            let only = only.clone();
            fields.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(choices)) = fields.get_mut("anyOf") {
        choices.retain(|choice| choice.get("type") != Some(&null));
        if let [Value::Object(only)] = &choices[..] {
            let only = only.clone();
            fields.shift_remove("anyOf");
            fields.extend(only);
        }
    }
}

/// `uint32` and the like are no formats of the standard; the bounds say the same.
fn plain_numbers(fields: &mut Map<String, Value>) {
    let Some(format) = fields.get("format").and_then(Value::as_str).filter(|format| format.starts_with("uint")) else {
        return;
    };
    if format == "uint32" {
        fields.insert("maximum".into(), json!(u32::MAX));
    }
    fields.shift_remove("format");
}

/// Doc comments are wrapped and link to Rust items; a description is neither.
fn plain_description(fields: &mut Map<String, Value>) {
    if let Some(Value::String(text)) = fields.get_mut("description") {
        let paragraphs: Vec<_> = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect();
        *text = paragraphs.join("\n\n").replace("[`", "`").replace("`]", "`");
    }
}

/// A variant that holds a type refers to it beside its tag; many generators overlook one of the two. So the type's
/// fields are written out.
fn merge_variant(fields: &mut Map<String, Value>, context: &Context<'_>) {
    if !fields.contains_key("properties") {
        return;
    }
    let Some(name) = fields.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix(context.prefix))
    else {
        return;
    };
    let definition = context.definitions[name].clone();
    fields.shift_remove("$ref");
    let list = |of: &Value| of["required"].as_array().cloned().unwrap_or_default();
    let required = [list(&Value::Object(fields.clone())), list(&definition)].concat();
    let properties = fields["properties"].as_object_mut().expect("properties are an object");
    properties.extend(definition["properties"].as_object().cloned().unwrap_or_default());
    fields.insert("required".into(), Value::Array(required));
}

/// `submitted` gets the title `SubmittedEvent`: what generators name the variant's type after.
fn title_of_variant(fields: &mut Map<String, Value>, owner: &str) {
    let tag = fields.get("properties").and_then(|properties| properties["type"]["const"].as_str());
    if let Some(tag) = tag.filter(|_| !fields.contains_key("title")) {
        let kind = if owner.ends_with("Message") { "Message" } else { "Event" };
        let title = tag[..1].to_uppercase() + &tag[1..] + kind;
        fields.insert("title".into(), json!(title));
    }
}

/// What a schema is about comes before what it demands. A map of fields keeps its own order.
fn in_reading_order(fields: &mut Map<String, Value>) {
    if fields.values().all(Value::is_object) {
        return;
    }
    let mut rest = std::mem::take(fields);
    for key in ["$schema", "$id", "title", "description", "$ref", "type", "const", "format", "pattern", "required"] {
        if let Some(value) = rest.shift_remove(key) {
            fields.insert(key.into(), value);
        }
    }
    fields.extend(rest);
}

/// Drops definitions that nothing refers to any more.
fn prune(schema: &mut Value) {
    loop {
        let used = references(schema, DEFS);
        let Some(definitions) = schema.get_mut("$defs").and_then(Value::as_object_mut) else { return };
        let before = definitions.len();
        definitions.retain(|name, _| used.contains(name));
        let after = definitions.len();
        if after == 0 {
            schema.as_object_mut().expect("it has a field").shift_remove("$defs");
        }
        if after == before {
            return;
        }
    }
}

/// The names of all definitions that a schema refers to.
fn references(value: &Value, prefix: &str) -> BTreeSet<String> {
    match value {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(key, field)| match field.as_str().and_then(|path| path.strip_prefix(prefix)) {
                Some(name) if key == "$ref" => BTreeSet::from([name.to_owned()]),
                _ => references(field, prefix),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(|item| references(item, prefix)).collect(),
        _ => BTreeSet::new(),
    }
}
