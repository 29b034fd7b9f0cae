//! The JSON Schema of the file, derived from its types. Editors read it, and so does the check of the structure: what
//! the one accepts the other does.

use std::sync::OnceLock;

use serde_json::Value;

use super::file::Spec;

/// Draft 2020-12, as `schemas/devstack.schema.json` has it.
pub fn schema_json() -> String {
    format!("{:#}\n", schema())
}

pub(super) fn schema() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let mut schema = schemars::schema_for!(Spec).to_value();
        forbid_nothing(&mut schema);
        schema["title"] = "devstack.yaml".into();
        schema
    })
}

/// A key that may be absent must not be there without a value: `retention:` with its lines forgotten would otherwise be
/// taken for "keep everything".
fn forbid_nothing(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(forbid_nothing),
        Value::Object(fields) => {
            fields.values_mut().for_each(forbid_nothing);
            if let Some(Value::Array(types)) = fields.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    fields.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(options)) = fields.get_mut("anyOf") {
                options.retain(|option| option["type"] != "null");
                if let [Value::Object(only)] = options.as_slice() {
                    let only = only.clone();
                    fields.remove("anyOf");
                    fields.extend(only);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_schema_is_what_the_program_checks_by() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/devstack.schema.json");
        let published = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            published == schema_json(),
            "schemas/devstack.schema.json is not up to date; renew it: devstack schema > schemas/devstack.schema.json"
        );
    }

    #[test]
    fn no_key_may_be_there_without_a_value() {
        assert!(!schema_json().contains("null"));
    }
}
