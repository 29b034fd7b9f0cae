//! The tree against the schema: every key, type and unit that is wrong, all at once.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde_json::Value;

use super::diagnostic::{Diagnostic, Severity};
use super::mask::tells_a_secret;
use super::nearest::nearest;
use super::node::{Kind, Node, Place};
use super::schema::schema;
use crate::model::shrink::Percent;
use crate::model::units::{Size, Span};

/// What the walk found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub diagnostics: Vec<Diagnostic>,
    /// Values that may be secrets: to be masked.
    pub secrets: Vec<Range<usize>>,
}

pub(super) fn check(root: &Node, text: &str) -> Found {
    let mut walk = Walk { text, definitions: &schema()["$defs"], found: Found::default() };
    walk.value(root, schema(), &Place::default(), &root.caret());
    walk.found
}

struct Walk<'s> {
    text: &'s str,
    definitions: &'s Value,
    found: Found,
}

/// A file with more faults than this is no file of ours, and finding the rest takes time.
pub(super) const MOST: usize = 1_000;

/// The kinds of secret reference, by the name of their definition.
const SECRETS: [&str; 4] = ["SecretRef", "SecretId", "Passphrase", "UnsealKeys"];

impl<'s> Walk<'s> {
    /// `named` is where the value's key stands, for a value that is nothing.
    fn value(&mut self, node: &Node, schema: &'s Value, place: &Place, named: &Range<usize>) {
        let (name, schema) = self.resolve(schema);
        if let Kind::Nothing = node.kind {
            return self.nothing(name, place, named);
        }
        if SECRETS.contains(&name) && !matches!(node.kind, Kind::Map(_)) {
            return self.literal_secret(node, name, place);
        }
        if let Some(options) = schema["oneOf"].as_array() {
            return match options.iter().all(|option| option["type"] == "object") {
                true => self.tagged(node, name, options, place),
                false => self.word_or_list(node, options, place, named),
            };
        }
        match schema["type"].as_str() {
            Some("object") if schema["properties"].is_object() => self.object(node, name, schema, place, named),
            Some("object") => self.names(node, &schema["additionalProperties"], place),
            Some("array") => self.list(node, &schema["items"], place),
            Some("string") if schema["enum"].is_array() => self.word(node, schema, place),
            Some("string") => self.text(node, name, place),
            Some("integer") => self.whole_number(node, schema, place),
            Some("boolean") if !matches!(node.kind, Kind::Bool) => {
                self.wrong(
                    place,
                    node.caret(),
                    "must be true or false",
                    node.describe(),
                    "write true or false, without quotes",
                );
            }
            _ => {}
        }
    }

    /// The definition behind a reference, with its name.
    fn resolve(&self, schema: &'s Value) -> (&'s str, &'s Value) {
        match schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
            Some(name) => (name, &self.definitions[name]),
            None => ("", schema),
        }
    }

    fn is_full(&self) -> bool {
        self.found.diagnostics.len() >= MOST
    }

    fn push(&mut self, place: &Place, span: Range<usize>, message: String, label: &str, help: String) {
        if self.is_full() {
            return;
        }
        self.found.diagnostics.push(Diagnostic {
            severity: Severity::Error,
            place: place.to_string(),
            message,
            label: label.to_owned(),
            help: Some(help),
            span,
            related: None,
        });
    }

    fn wrong(&mut self, place: &Place, span: Range<usize>, what: &str, is: &str, help: impl Into<String>) {
        self.push(place, span, format!("`{place}` {what}"), &format!("this is {is}"), help.into());
    }

    fn nothing(&mut self, name: &str, place: &Place, named: &Range<usize>) {
        let text = place.to_string();
        match text.as_str() {
            "" => self.push(
                place,
                0..0,
                "the file says nothing".to_owned(),
                "no stack is declared",
                "write one with `devstack init`".to_owned(),
            ),
            _ => {
                let help = match name {
                    "Duration" => "write a duration such as 24h after the colon, or remove the key",
                    _ => "write its value after the colon or indented below it, or remove the key",
                };
                self.push(place, named.clone(), format!("`{text}` has no value"), "nothing follows", help.to_owned());
            }
        }
    }

    fn literal_secret(&mut self, node: &Node, name: &str, place: &Place) {
        node.scalars(&mut self.found.secrets);
        let help = match name {
            "Passphrase" => {
                "{ file: ~/.config/devstack/passphrase }, { env: NAME }, { env_file: .env, name: NAME } or { prompt: true }"
            }
            "UnsealKeys" => "{ file: PATH } or { env: NAME }",
            _ => "{ file: PATH }, { env: NAME } or { env_file: .env, name: NAME }",
        };
        self.push(
            place,
            node.caret(),
            format!("`{place}` gives a secret as a literal"),
            "the value itself, which is not shown here",
            format!(
                "say where the secret is found instead: {help}. Take the one that stood here for known, and change it: \
                 this file is meant to be shared"
            ),
        );
    }

    /// A mapping with exactly one of the keys that name a kind.
    fn tagged(&mut self, node: &Node, name: &str, options: &'s [Value], place: &Place) {
        let kinds: BTreeMap<&str, &Value> = options
            .iter()
            .filter_map(|option| option["properties"].as_object())
            .flat_map(|fields| fields.iter().map(|(kind, schema)| (kind.as_str(), schema)))
            .collect();
        let list = listing(kinds.keys().copied());
        let of_key = name == "Key";
        let what = match name {
            "Key" => "key",
            "Assertion" => "assertion",
            _ => "source",
        };
        let Kind::Map(entries) = &node.kind else {
            if of_key {
                // Whatever stands in place of a key may be one.
                node.scalars(&mut self.found.secrets);
            }
            let help = match node.text().filter(|_| !of_key).and_then(|text| nearest(text, kinds.keys().copied())) {
                Some(kind) => format!("write it as a mapping: {kind}: {{ … }}"),
                None => format!("write one of {list} and a colon, and what belongs to it"),
            };
            return self.wrong(
                place,
                node.caret(),
                &format!("must be a mapping with one of {list}"),
                node.describe(),
                help,
            );
        };
        if entries.len() > 1 {
            let help = match what {
                "key" => "begin each key with a dash of its own: they are items of a list",
                "assertion" => "begin each assertion with a dash of its own: they are items of a list",
                _ => "keep one; a second kind of data is a second service",
            };
            let given = listing(entries.iter().map(|(key, _)| key.name.as_str()));
            self.push(
                place,
                entries[1].0.span.clone(),
                format!("`{place}` has {} kinds, {given}, and must have one", entries.len()),
                "one too many",
                help.to_owned(),
            );
        }
        if entries.is_empty() {
            return self.wrong(
                place,
                node.caret(),
                &format!("must have one of {list}"),
                "empty",
                format!("write one of {list}"),
            );
        }
        for (key, value) in entries {
            match kinds.get(key.name.as_str()) {
                Some(schema) => self.value(value, schema, &place.key(&key.name), &key.span),
                None => {
                    if of_key {
                        value.scalars(&mut self.found.secrets);
                    }
                    if self.is_full() {
                        continue;
                    }
                    let meant = nearest(&key.name, kinds.keys().copied());
                    self.push(
                        place,
                        key.span.clone(),
                        format!("`{}` is no kind of {what}", key.name),
                        "not known here",
                        did_you_mean(meant, &format!("devstack knows {list}")),
                    );
                }
            }
        }
    }

    /// `all`, or a list.
    fn word_or_list(&mut self, node: &Node, options: &'s [Value], place: &Place, named: &Range<usize>) {
        let words: Vec<&str> = options.iter().filter_map(|option| option["const"].as_str()).collect();
        let word = words.first().copied().unwrap_or("");
        match (&node.kind, options.iter().find(|option| option["type"] == "array")) {
            (Kind::Text(text), _) if words.contains(&text.as_str()) => {}
            (Kind::List(_), Some(list)) => self.value(node, list, place, named),
            (Kind::Text(text), _) => {
                let help = match nearest(text, words) {
                    Some(word) => format!("did you mean `{word}`? Or as a list: [{text}]"),
                    None => format!("for one service, write a list of one: [{text}]"),
                };
                self.wrong(place, node.caret(), &format!("must be `{word}` or a list"), "one word", help);
            }
            _ => {
                let help = format!("write `{word}`, or a list such as [web, database]");
                self.wrong(place, node.caret(), &format!("must be `{word}` or a list"), node.describe(), help);
            }
        }
    }

    fn object(&mut self, node: &Node, name: &str, schema: &'s Value, place: &Place, named: &Range<usize>) {
        let known =
            || schema["properties"].as_object().into_iter().flat_map(|fields| fields.keys().map(String::as_str));
        let list = listing(known());
        let Kind::Map(entries) = &node.kind else {
            if place.to_string().is_empty() {
                return self.push(
                    place,
                    node.caret(),
                    format!("the file must be a mapping with {list}"),
                    &format!("this is {}", node.describe()),
                    "look at a whole file with `devstack init`".to_owned(),
                );
            }
            let help = format!("its keys are {list}");
            return self.wrong(place, node.caret(), "must be a mapping", node.describe(), help);
        };
        self.doubles(node, place);
        let secret = SECRETS.contains(&name);
        let present: BTreeSet<&str> = entries.iter().map(|(key, _)| key.name.as_str()).collect();
        for (key, value) in entries {
            let at = place.key(&key.name);
            match schema["properties"].get(&key.name) {
                Some(field) => self.value(value, field, &at, &key.span),
                None => {
                    if secret || tells_a_secret(&key.name) {
                        value.scalars(&mut self.found.secrets);
                    }
                    if self.is_full() {
                        continue;
                    }
                    let meant = nearest(&key.name, known().filter(|name| !present.contains(name)));
                    let inside = if place.to_string().is_empty() { "here".to_owned() } else { format!("in `{place}`") };
                    self.push(
                        &at,
                        key.span.clone(),
                        format!("`{}` is not a key {inside}", key.name),
                        "not known here",
                        did_you_mean(meant, &format!("the keys here are {list}")),
                    );
                }
            }
        }
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        for missing in required.filter(|name| !present.contains(name)) {
            let (subject, span) = match place.to_string() {
                root if root.is_empty() => ("the file".to_owned(), 0..0),
                path => (format!("`{path}`"), named.clone()),
            };
            self.push(
                &place.key(missing),
                span,
                format!("{subject} has no `{missing}`"),
                &format!("`{missing}` belongs to this"),
                format!("add `{missing}:`{}", about(&schema["properties"][missing])),
            );
        }
    }

    /// A mapping whose keys are names of the user's own.
    fn names(&mut self, node: &Node, item: &'s Value, place: &Place) {
        let Kind::Map(entries) = &node.kind else {
            let help = match place.to_string().as_str() {
                "services" => "write each service's name and a colon, and its source below: `web: { source: … }`",
                "repositories" => "write each repository's name and a colon, and its path and keys below",
                _ => "write a name and a colon, and what belongs to it below",
            };
            return self.wrong(place, node.caret(), "must be a mapping of names", node.describe(), help);
        };
        self.doubles(node, place);
        for (key, value) in entries {
            self.value(value, item, &place.key(&key.name), &key.span);
        }
    }

    /// YAML lets a later key silently win over an earlier one.
    fn doubles(&mut self, node: &Node, place: &Place) {
        let mut seen: BTreeMap<&str, Range<usize>> = BTreeMap::new();
        for (key, _) in node.entries() {
            match seen.get(key.name.as_str()) {
                None => {
                    seen.insert(&key.name, key.span.clone());
                }
                Some(_) if self.is_full() => {}
                Some(first) => self.found.diagnostics.push(Diagnostic {
                    severity: Severity::Error,
                    place: place.key(&key.name).to_string(),
                    message: format!("the key `{}` stands here twice", key.name),
                    label: "and again".to_owned(),
                    help: Some("keep one of the two, or give one another name".to_owned()),
                    span: key.span.clone(),
                    related: Some((first.clone(), "first here".to_owned())),
                }),
            }
        }
    }

    fn list(&mut self, node: &Node, item: &'s Value, place: &Place) {
        let Kind::List(items) = &node.kind else {
            let (name, _) = self.resolve(item);
            if name == "Key" {
                node.scalars(&mut self.found.secrets);
            }
            let help = match (&node.kind, name) {
                (Kind::Map(_), _) => "begin the item with a dash: `- …`".to_owned(),
                (Kind::Text(text), name) if name != "Key" => format!("for one, write a list of one: [{text}]"),
                _ => "write a list: [ … ], or a line with a dash for each item".to_owned(),
            };
            return self.wrong(place, node.caret(), "must be a list", node.describe(), help);
        };
        for (index, node) in items.iter().enumerate() {
            self.value(node, item, &place.index(index), &node.caret());
        }
    }

    fn text(&mut self, node: &Node, name: &str, place: &Place) {
        let duration = name == "Duration";
        match &node.kind {
            Kind::Text(text) if name == "Size" => {
                if let Err(error) = text.parse::<Size>() {
                    let message = format!("`{place}` is no size");
                    self.push(place, node.caret(), message, "cannot be read", error.to_string());
                }
            }
            Kind::Number(number) if name == "Size" => {
                let example = number.unwrap_or(8);
                let help = format!("write the unit behind it: {example}MiB or {example}GiB");
                self.wrong(place, node.caret(), "has no unit", "a bare number", help);
            }
            Kind::Text(text) if name == "Percent" => {
                if let Err(error) = text.parse::<Percent>() {
                    let message = format!("`{place}` is no share");
                    self.push(place, node.caret(), message, "cannot be read", error.to_string());
                }
            }
            Kind::Number(number) if name == "Percent" => {
                let help = format!("write the percent sign behind it: {}%", number.unwrap_or(50));
                self.wrong(place, node.caret(), "has no percent sign", "a bare number", help);
            }
            Kind::Text(text) if duration => {
                if let Err(error) = text.parse::<Span>() {
                    let message = format!("`{place}` is no duration");
                    self.push(place, node.caret(), message, "cannot be read", error.to_string());
                }
            }
            Kind::Text(_) => {}
            Kind::Number(number) if duration => {
                let example = number.unwrap_or(24);
                let help = format!("write the unit behind it: {example}m, {example}h or {example}d");
                self.wrong(place, node.caret(), "has no unit", "a bare number", help);
            }
            Kind::Number(_) | Kind::Bool => {
                let help = "put it in quotes: YAML reads it as something else than text";
                self.wrong(place, node.caret(), "must be text", node.describe(), help);
            }
            Kind::List(_) | Kind::Map(_) | Kind::Nothing => {
                let (must, help) = match duration {
                    true => ("must be a duration", "write a number and a unit, such as 15m, 24h or 30d"),
                    false => ("must be text", "write one value here"),
                };
                self.wrong(place, node.caret(), must, node.describe(), help);
            }
        }
    }

    /// One of few.
    fn word(&mut self, node: &Node, schema: &Value, place: &Place) {
        let words: Vec<&str> = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if !matches!(&node.kind, Kind::Text(text) if words.contains(&text.as_str())) {
            let must = format!("must be {}", words.join(" or "));
            self.wrong(place, node.caret(), &must, node.describe(), format!("write {}", words.join(" or ")));
        }
    }

    fn whole_number(&mut self, node: &Node, schema: &Value, place: &Place) {
        let smallest = schema["minimum"].as_u64().unwrap_or(0);
        let largest = schema["maximum"].as_u64().unwrap_or(u32::MAX.into());
        match &node.kind {
            Kind::Number(Some(number)) if (i128::from(smallest)..=i128::from(largest)).contains(number) => {}
            Kind::Number(Some(number)) => {
                let (what, is, help) = match largest {
                    largest if largest < u32::MAX.into() => (
                        format!("must be from {smallest} to {largest}"),
                        "outside of that",
                        format!("write a number from {smallest} to {largest}"),
                    ),
                    _ if smallest > 0 && *number < i128::from(smallest) => {
                        (format!("must be at least {smallest}"), "below that", format!("write {smallest} or more"))
                    }
                    _ if *number < 0 => ("cannot be negative".to_owned(), "below zero", "write 0 or more".to_owned()),
                    _ => ("is too large".to_owned(), "more than can be counted", format!("write {largest} at most")),
                };
                self.wrong(place, node.caret(), &what, is, help);
            }
            Kind::Number(None) => {
                let written = self.text.get(node.caret()).unwrap_or("");
                let (is, help) = in_digits(written);
                self.wrong(place, node.caret(), "must be a whole number", is, help);
            }
            Kind::Text(_) => {
                self.wrong(place, node.caret(), "must be a whole number", "text", "write digits only, without quotes");
            }
            _ => self.wrong(place, node.caret(), "must be a whole number", node.describe(), "write one number"),
        }
    }
}

/// What a number is that is not one to count with, by how it is written.
fn in_digits(written: &str) -> (&'static str, String) {
    let digits = written.trim_start_matches(['+', '-']);
    let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    match digits.trim_start_matches('0') {
        plain if all_digits && plain.len() < digits.len() => {
            ("written with a zero before it", format!("write {}", if plain.is_empty() { "0" } else { plain }))
        }
        _ if all_digits => ("more than can be counted", format!("write {} at most", u32::MAX)),
        _ if digits.contains(['e', 'E']) => ("written with an exponent", "write all its digits".to_owned()),
        _ => ("another number", "write it without a point".to_owned()),
    }
}

/// `a`, `b` or `c`.
pub(super) fn listing<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [] => "none".to_owned(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

pub(super) fn did_you_mean(name: Option<&str>, otherwise: &str) -> String {
    match name {
        Some(name) => format!("did you mean `{name}`? {}", sentence(otherwise)),
        None => otherwise.to_owned(),
    }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// The first sentence of a field's description.
fn about(field: &Value) -> String {
    let text = field["description"].as_str().unwrap_or("").replace('\n', " ");
    match text.split_once(". ").map_or(text.as_str(), |(first, _)| first).trim_end_matches('.') {
        "" => String::new(),
        first => format!(" ({first})"),
    }
}
