//! Definitions as RabbitMQ exports them: one JSON object with a list for each kind of thing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{BufReader, Read};

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::engines::inspect::Counts;

/// What every export has, whatever the server holds.
const ALWAYS: &[&str] = &["users", "vhosts", "permissions", "queues", "exchanges", "bindings"];

/// What a server makes anew for itself, or counts for nobody.
const OF_THE_SERVER: &[&str] = &["internal_cluster_id", "cluster_name"];

/// Reads definitions to their end and counts what is in each list; of the queues, those that stay are named too. Only the
/// present element is kept.
pub(super) fn inspect(from: &mut dyn Read) -> Result<Counts, String> {
    let mut reader = serde_json::Deserializer::from_reader(BufReader::new(from));
    let Lists(lists) = Lists::deserialize(&mut reader).map_err(|error| error.to_string())?;
    reader.end().map_err(|error| error.to_string())?;
    match ALWAYS.iter().find(|name| !lists.contains_key(**name)) {
        Some(missing) => Err(format!("it has no {missing}")),
        None => Ok(lists.into_iter().collect()),
    }
}

/// The length of each list of an object.
struct Lists(BTreeMap<String, u64>);

impl<'de> Deserialize<'de> for Lists {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl<'de> Visitor<'de> for Reading {
            type Value = Lists;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of definitions")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Lists, A::Error> {
                let mut lists = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    if key == "queues" {
                        let Queues { all, lasting } = map.next_value()?;
                        lists.insert(key, all);
                        lists.extend(lasting.into_iter().map(|name| (format!("{QUEUE}{name}"), 1)));
                        continue;
                    }
                    if let Length(Some(length)) = map.next_value()? {
                        lists.insert(key, length);
                    }
                }
                Ok(Lists(lists))
            }
        }
        deserializer.deserialize_map(Reading)
    }
}

/// Begins the name of the count of a queue that stays.
const QUEUE: &str = "queue ";

/// How many there are, and the names of those that no restart, no idle time and no last consumer takes away.
struct Queues {
    all: u64,
    lasting: Vec<String>,
}

impl<'de> Deserialize<'de> for Queues {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl<'de> Visitor<'de> for Reading {
            type Value = Queues;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of queues")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Queues, A::Error> {
                let (mut all, mut lasting) = (0, Vec::new());
                while let Some(mut queue) = list.next_element::<Value>()? {
                    all += 1;
                    pairs_to_object(&mut queue["arguments"]);
                    lasting.extend(stays(&queue));
                }
                Ok(Queues { all, lasting })
            }
        }
        deserializer.deserialize_seq(Reading)
    }
}

/// The queue's name, if it is one that is missed when it is gone. One that the server named is a consumer's own.
fn stays(queue: &Value) -> Option<String> {
    let goes = queue["durable"] == false || queue["auto_delete"] == true || queue["exclusive"] == true;
    let name = queue["name"].as_str()?;
    if goes || !queue["arguments"]["x-expires"].is_null() || name.starts_with("amq.gen-") {
        return None;
    }
    Some(match queue["vhost"].as_str() {
        None | Some("/") => name.to_owned(),
        Some(vhost) => format!("{name} in the vhost {vhost}"),
    })
}

/// Of a list its length; nothing of anything else.
struct Length(Option<u64>);

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl<'de> Visitor<'de> for Reading {
            type Value = Length;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list or a value")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Length, A::Error> {
                let mut length = 0;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    length += 1;
                }
                Ok(Length(Some(length)))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Length, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Length(None))
            }

            fn visit_str<E>(self, _: &str) -> Result<Length, E> {
                Ok(Length(None))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Length, E> {
                Ok(Length(None))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Length, E> {
                Ok(Length(None))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Length, E> {
                Ok(Length(None))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Length, E> {
                Ok(Length(None))
            }

            fn visit_unit<E>(self) -> Result<Length, E> {
                Ok(Length(None))
            }
        }
        deserializer.deserialize_any(Reading)
    }
}

/// Definitions as an import takes them: some versions write the objects within a parameter's value as lists of pairs
/// (`[["max-length", 5]]`), which none of them reads back.
pub(super) fn repaired(mut definitions: Value) -> Value {
    for list in ["parameters", "global_parameters"] {
        let values = definitions.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for value in values.filter_map(|parameter| parameter.get_mut("value")) {
            pairs_to_object(value);
        }
    }
    definitions
}

fn pairs_to_object(value: &mut Value) {
    let is_pair = |pair: &Value| pair.as_array().is_some_and(|pair| pair.len() == 2 && pair[0].is_string());
    if let Some(list) = value.as_array().filter(|list| !list.is_empty() && list.iter().all(is_pair)) {
        let pairs = list.iter().map(|pair| (pair[0].as_str().unwrap_or_default().to_owned(), pair[1].clone()));
        *value = Value::Object(pairs.collect());
    }
    match value {
        Value::Object(object) => object.values_mut().for_each(pairs_to_object),
        Value::Array(list) => list.iter_mut().for_each(pairs_to_object),
        _ => {}
    }
}

/// Whether nothing is in it but what a new server makes: one user, one vhost.
pub(super) fn is_bare(counts: &Counts) -> bool {
    counts.iter().all(|(name, count)| match name.as_str() {
        "users" | "vhosts" | "permissions" => *count <= 1,
        // The cluster's own name and id.
        "global_parameters" => true,
        _ => *count == 0,
    })
}

/// What only a plugin brings along: kinds of exchanges, and of parameters (shovels, upstreams).
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Kinds {
    pub exchanges: BTreeSet<String>,
    pub parameters: BTreeSet<String>,
}

/// The kinds that the definitions need.
pub(super) fn kinds(definitions: &Value) -> Kinds {
    let of = |list: &str, field: &str| -> BTreeSet<String> {
        let all = definitions[list].as_array().into_iter().flatten();
        all.filter_map(|one| one[field].as_str()).map(str::to_owned).collect()
    };
    Kinds { exchanges: of("exchanges", "type"), parameters: of("parameters", "component") }
}

/// What the server lacks of the backup, and how much it has beside it.
pub(super) struct Difference {
    pub missing: Vec<String>,
    pub beside: Vec<String>,
}

/// Compares everything of the backup with what the server says now, value by value.
pub(super) fn compare(backup: &Value, now: &Value) -> Difference {
    let (mut missing, mut beside) = (Vec::new(), Vec::new());
    let empty = serde_json::Map::new();
    let (backup, now) = (backup.as_object().unwrap_or(&empty), now.as_object().unwrap_or(&empty));
    let list = |object: &serde_json::Map<String, Value>, name: &str| -> BTreeMap<String, Value> {
        let all = object.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let own = |value: &&Value| value["name"].as_str().is_some_and(|name| OF_THE_SERVER.contains(&name));
        // Objects are written with their keys in order, so that equal ones are equal texts.
        all.iter().filter(|value| !own(value)).map(plain).map(|value| (value.to_string(), value)).collect()
    };
    let mut names: Vec<&String> = backup.keys().chain(now.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let (then, there) = (list(backup, name), list(now, name));
        let others: Vec<&Value> =
            there.iter().filter(|(text, _)| !then.contains_key(*text)).map(|(_, value)| value).collect();
        for (_, lacking) in then.iter().filter(|(text, _)| !there.contains_key(*text)) {
            let known_as = named(lacking);
            let fields = match others.iter().find(|other| named(other) == known_as) {
                Some(other) => format!(" (other {})", differing("", lacking, other).join(", ")),
                None => String::new(),
            };
            missing.push(format!("{name} {known_as}{fields}"));
        }
        if !others.is_empty() {
            beside.push(format!("{} {name}", others.len()));
        }
    }
    Difference { missing, beside }
}

/// The fields that differ, by their names alone: their values may be hashes of passwords.
fn differing(within: &str, then: &Value, now: &Value) -> Vec<String> {
    let (Some(then), Some(now)) = (then.as_object(), now.as_object()) else { return vec![within.to_owned()] };
    let mut fields: Vec<&String> = then.keys().chain(now.keys()).collect();
    fields.sort();
    fields.dedup();
    let inside = |field: &String| if within.is_empty() { field.clone() } else { format!("{within}.{field}") };
    let differ = fields.into_iter().filter(|field| then.get(*field) != now.get(*field));
    let null = Value::Null;
    differ
        .flat_map(|field| differing(&inside(field), then.get(field).unwrap_or(&null), now.get(field).unwrap_or(&null)))
        .collect()
}

/// A definition without what says nothing: an import into 4.0 writes down that a queue is a classic one, which a queue is
/// that says nothing.
fn plain(value: &Value) -> Value {
    let mut value = value.clone();
    // The limits of a vhost are pairs in the order in which they were set.
    pairs_to_object(&mut value);
    if let Some(limits) = value.get_mut("limits").and_then(Value::as_array_mut) {
        limits.sort_by_key(Value::to_string);
    }
    if let Some(arguments) = value.get_mut("arguments").and_then(Value::as_object_mut)
        && arguments.get("x-queue-type").and_then(Value::as_str) == Some("classic")
    {
        arguments.remove("x-queue-type");
    }
    value
}

/// What a person knows a definition by. Nothing else of it is shown: there are hashes of passwords among it.
fn named(value: &Value) -> String {
    let keys = ["name", "user", "source", "destination", "routing_key"];
    let parts: Vec<&str> = keys.iter().filter_map(|key| value[*key].as_str()).collect();
    let name = if parts.is_empty() { "without a name".to_owned() } else { parts.join(" ") };
    match value["vhost"].as_str() {
        Some(vhost) => format!("{name} in the vhost {vhost}"),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"{"rabbit_version":"4.0.5","product":{"a":[1]},"users":[{"name":"shop","tags":["a","b"]}],"vhosts":[{"name":"/"}],
        "permissions":[{"user":"shop","vhost":"/"}],"queues":[{"name":"q","arguments":{"x":[1,2]}},{"name":"r"}],
        "exchanges":[],"bindings":[],"policies":[],"n":null,"t":true,"f":1.5,"i":-3}"#;

    fn count(text: &str) -> Result<Counts, String> {
        inspect(&mut text.as_bytes())
    }

    #[test]
    fn lists_are_counted() {
        let counts: BTreeMap<String, u64> = count(WHOLE).unwrap().into_iter().collect();
        assert_eq!((counts["users"], counts["queues"], counts["policies"]), (1, 2, 0));
        assert!(!counts.contains_key("product") && !counts.contains_key("i"));
        assert_eq!((counts["queue q"], counts["queue r"]), (1, 1));
        assert!(!is_bare(&count(WHOLE).unwrap()));
        let bare = WHOLE.replace(r#"{"name":"q","arguments":{"x":[1,2]}},{"name":"r"}"#, "");
        assert!(is_bare(&count(&bare).unwrap()));
    }

    #[test]
    fn queues_are_named_that_stay() {
        let queues = r#"{"name":"orders","vhost":"/","durable":true,"auto_delete":false,"arguments":{}},
            {"name":"mail","vhost":"shop","durable":true,"arguments":[["x-queue-type","quorum"]]},
            {"name":"a","durable":false},{"name":"b","durable":true,"auto_delete":true},{"name":"amq.gen-x","durable":true},
            {"name":"c","durable":true,"arguments":{"x-expires":1000}},{"name":"d","durable":true,"arguments":[["x-expires",1000]]}"#;
        let whole = WHOLE.replace(r#"{"name":"q","arguments":{"x":[1,2]}},{"name":"r"}"#, queues);
        let counts: Vec<_> = count(&whole).unwrap().into_iter().filter(|(name, _)| name.starts_with("queue")).collect();
        let named = |name: &str, count: u64| (name.to_owned(), count);
        assert_eq!(counts, [named("queue mail in the vhost shop", 1), named("queue orders", 1), named("queues", 7)]);
    }

    #[test]
    fn cut_anywhere_it_is_not_whole() {
        for length in 0..WHOLE.len() {
            assert!(count(&WHOLE[..length]).is_err(), "cut at {length}");
        }
        assert!(count(&format!("{WHOLE} more")).is_err());
        assert!(count("{}").is_err());
        assert!(count(&WHOLE.replace("bindings", "bondings")).is_err());
    }

    #[test]
    fn pairs_become_the_objects_that_they_were() {
        let pairs = serde_json::json!({
            "parameters": [{ "name": "p", "value": { "definition": [["max-length", 5]], "uris": ["a", "b"] } }],
            "global_parameters": [{ "name": "g", "value": [["1883", "v"]] }, { "name": "cluster_tags", "value": [] }],
            "queues": [{ "arguments": [["a", 1]] }],
        });
        let whole = serde_json::json!({
            "parameters": [{ "name": "p", "value": { "definition": { "max-length": 5 }, "uris": ["a", "b"] } }],
            "global_parameters": [{ "name": "g", "value": { "1883": "v" } }, { "name": "cluster_tags", "value": [] }],
            "queues": [{ "arguments": [["a", 1]] }],
        });
        assert_eq!(repaired(pairs), whole);
        assert_eq!(repaired(whole.clone()), whole);
    }

    #[test]
    fn a_queue_that_says_nothing_of_its_type_is_a_classic_one() {
        let queues = |arguments: Value| serde_json::json!({ "queues": [{ "name": "q", "arguments": arguments }] });
        let silent = queues(serde_json::json!({}));
        assert!(compare(&silent, &queues(serde_json::json!({ "x-queue-type": "classic" }))).missing.is_empty());
        let quorum = compare(&silent, &queues(serde_json::json!({ "x-queue-type": "quorum" })));
        assert_eq!(quorum.missing, ["queues q (other arguments.x-queue-type)"]);
    }

    #[test]
    fn limits_are_the_same_in_any_order() {
        let vhosts = |limits: Value| serde_json::json!({ "vhosts": [{ "name": "/", "limits": limits }] });
        let one = vhosts(serde_json::json!([["max-connections", 5], ["max-queues", 7]]));
        for same in [
            serde_json::json!([["max-queues", 7], ["max-connections", 5]]),
            serde_json::json!({ "max-queues": 7, "max-connections": 5 }),
        ] {
            assert!(compare(&one, &vhosts(same)).missing.is_empty());
        }
        let listed = |first: &str, second: &str| vhosts(serde_json::json!([{ "name": first }, { "name": second }]));
        assert!(compare(&listed("a", "b"), &listed("b", "a")).missing.is_empty());
        let other = compare(&one, &vhosts(serde_json::json!([["max-queues", 8], ["max-connections", 5]])));
        assert_eq!(other.missing, ["vhosts / (other limits.max-queues)"]);
        let fewer = compare(&one, &vhosts(serde_json::json!([["max-queues", 7]])));
        assert_eq!(fewer.missing, ["vhosts / (other limits.max-connections)"]);
    }

    #[test]
    fn what_only_a_plugin_brings_is_known_by_its_kind() {
        let needed = kinds(&serde_json::json!({
            "exchanges": [{ "name": "e", "type": "x-delayed-message" }, { "name": "f", "type": "topic" }],
            "parameters": [{ "component": "shovel", "name": "s" }, { "component": "vhost-limits" }],
        }));
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let expected =
            Kinds { exchanges: set(&["topic", "x-delayed-message"]), parameters: set(&["shovel", "vhost-limits"]) };
        assert_eq!(needed, expected);
        assert_eq!(kinds(&serde_json::json!({})), Kinds::default());
    }

    #[test]
    fn what_a_server_lacks_is_named_without_its_secrets() {
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let same = compare(&read(WHOLE), &read(WHOLE));
        assert!(same.missing.is_empty() && same.beside.is_empty());
        let other = WHOLE.replace(r#"{"name":"r"}"#, r#"{"name":"s","password_hash":"x"}"#);
        let difference = compare(&read(WHOLE), &read(&other));
        assert_eq!(difference.missing, ["queues r"]);
        assert_eq!(difference.beside, ["1 queues"]);
    }
}
