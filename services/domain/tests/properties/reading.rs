//! Properties of reading and writing JSON: no data is lost, and unknown fields and tags do no harm.

use millrace_domain::{Event, EventBody, JobState, SourceUrl};
use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};

use crate::{
    generate::{event, garbage, text},
    log::Log,
};

/// Adds an unknown field to every object.
fn sprinkle(value: &mut Value, extra: &Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(|field| sprinkle(field, extra));
            fields.insert("addedLater".into(), extra.clone());
        }
        Value::Array(items) => items.iter_mut().for_each(|item| sprinkle(item, extra)),
        _ => {}
    }
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.values().any(has_null),
        Value::Array(items) => items.iter().any(has_null),
        _ => false,
    }
}

fn extra() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        text().prop_map(Value::from),
        vec(text(), 0..3).prop_map(|texts| json!({"type": "canceled", "texts": texts})),
    ]
}

proptest! {
    #[test]
    fn an_event_reads_back_as_it_was_written(event in event()) {
        prop_assert_eq!(Event::decode(&event.encode()), Ok(event));
    }

    #[test]
    fn unknown_fields_change_nothing_of_an_event(event in event(), extra in extra()) {
        let mut value: Value = serde_json::from_slice(&event.encode()).unwrap();
        sprinkle(&mut value, &extra);
        prop_assert_eq!(Event::decode(value.to_string().as_bytes()), Ok(event));
    }

    #[test]
    fn unknown_fields_change_nothing_of_a_state(entries in garbage(), extra in extra()) {
        let Some(state) = (Log { entries }).newest() else { return Ok(()) };
        let mut value = serde_json::to_value(&state).unwrap();
        sprinkle(&mut value, &extra);
        prop_assert_eq!(serde_json::from_value::<JobState>(value).unwrap(), state);
    }

    #[test]
    fn nothing_is_ever_written_as_null(event in event(), entries in garbage()) {
        prop_assert!(!has_null(&serde_json::to_value(&event).unwrap()), "{event:?}");
        if let Some(state) = (Log { entries }).newest() {
            prop_assert!(!has_null(&serde_json::to_value(&state).unwrap()), "{state:?}");
        }
    }

    #[test]
    fn no_payload_makes_a_reader_fall_over(payload in vec(any::<u8>(), 0..200)) {
        // Random bytes are almost never an event; the property is that the result is `Ok` or `Err`, and never a panic.
        if let Ok(event) = Event::decode(&payload) {
            prop_assert!(Event::decode(&event.encode()).is_ok());
        }
    }

    #[test]
    fn an_unknown_tag_reads_as_unknown_whatever_its_fields(tag in "[a-z]{1,10}_v2", extra in extra()) {
        let payload = json!({"at": "2026-11-23T07:00:00Z", "type": tag, "attempt": extra, "worker": extra, "url": 1});
        let body = Event::decode(payload.to_string().as_bytes()).map(|event| event.body);
        prop_assert_eq!(body, Ok(EventBody::Unknown));
    }

    #[test]
    fn a_source_address_that_was_taken_is_taken_again_unchanged(
        scheme in "[Hh][Tt]{2}[Pp][Ss]?:/{0,3}", rest in "[ -~]{1,30}|[a-z]{1,5}\\.[a-z]{2}[\\PC]{0,20}",
    ) {
        if let Ok(url) = format!("{scheme}{rest}").parse::<SourceUrl>() {
            prop_assert_eq!(url.as_str().parse::<SourceUrl>(), Ok(url.clone()));
        }
    }
}
