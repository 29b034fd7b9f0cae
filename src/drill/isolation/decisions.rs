//! What was decided about the keys of a model: carried over, left out with a reason, or refused.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use super::rules::{Rule, Shape};

/// Something of the Compose files that the drill goes without.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Its place in the resolved model: `services.web.ports`.
    pub at: String,
    pub why: String,
}

/// A key that is not known, or can't be isolated. Never holds a value that could be a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Its place in the resolved model: `services.web.privileged`.
    pub at: String,
    pub why: String,
    pub next: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.at, self.why, self.next)
    }
}

/// Everything that keeps a model from being drilled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("these Compose files can't be drilled in isolation, and nothing was made:{}", lines(problems))]
pub struct NotIsolated {
    pub problems: Vec<Problem>,
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

/// What the person does about a key that reaches out of the container.
pub(super) const TAKE_IT_OUT: &str = "take it out of the Compose file, or leave the service out of the drill";

#[derive(Debug, Default)]
pub(super) struct Decisions {
    pub left_out: Vec<LeftOut>,
    pub problems: Vec<Problem>,
}

impl Decisions {
    pub fn leave_out(&mut self, at: impl Into<String>, why: impl Into<String>) {
        let left = LeftOut { at: at.into(), why: why.into() };
        if !self.left_out.contains(&left) {
            self.left_out.push(left);
        }
    }

    pub fn refuse(&mut self, at: impl Into<String>, why: impl Into<String>, next: impl Into<String>) {
        let problem = Problem { at: at.into(), why: why.into(), next: next.into() };
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// The value is left unsaid: it may be a password that went astray.
    pub fn misshapen(&mut self, at: impl Into<String>, expected: &str) {
        let why = format!("{expected} was expected here");
        self.refuse(at, why, "give the model as `docker compose config --format json` prints it");
    }

    /// Goes through the keys of an object by its rules and gives back those that are carried over as they are.
    pub fn sorted(&mut self, at: &str, object: &Map<String, Value>, rules: &[(&str, Rule)]) -> Map<String, Value> {
        let mut carried = Map::new();
        // Compose ignores what begins with `x-`, at any place.
        for (key, value) in object.iter().filter(|(key, _)| !key.starts_with("x-")) {
            let at = below(at, key);
            match rules.iter().find(|(known, _)| known == key).map(|(_, rule)| rule) {
                Some(Rule::Own) => {}
                Some(Rule::Keep(_)) if value.is_null() => {}
                Some(Rule::Keep(shape)) if shape.fits(value) => {
                    carried.insert(key.clone(), value.clone());
                }
                Some(Rule::Keep(shape)) => self.misshapen(at, shape.words()),
                Some(Rule::LeaveOut(_) | Rule::Refuse(_)) if says_nothing(value) => {}
                Some(Rule::LeaveOut(why)) => self.leave_out(at, *why),
                Some(Rule::Refuse(why)) => self.refuse(at, *why, TAKE_IT_OUT),
                None => self.refuse(
                    at,
                    "the drill does not know this key, so it can't say what it reaches",
                    "leave what has it out of the drill, or ask for the key to be decided on",
                ),
            }
        }
        carried
    }

    /// The object at a place; nothing where there is none, a problem where there is something else.
    pub fn object<'v>(&mut self, at: &str, value: Option<&'v Value>) -> Option<&'v Map<String, Value>> {
        match value {
            None | Some(Value::Null) => None,
            Some(Value::Object(object)) => Some(object),
            Some(_) => {
                self.misshapen(at, "an object");
                None
            }
        }
    }

    /// The entries of the list at a place, as for `object`.
    pub fn list<'v>(&mut self, at: &str, value: Option<&'v Value>) -> &'v [Value] {
        match value {
            None | Some(Value::Null) => &[],
            Some(Value::Array(entries)) => entries,
            Some(_) => {
                self.misshapen(at, "a list");
                &[]
            }
        }
    }

    /// The text at a place, as for `object`; an empty one is none.
    pub fn text<'v>(&mut self, at: &str, value: Option<&'v Value>) -> Option<&'v str> {
        match value {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.as_str()).filter(|text| !text.is_empty()),
            Some(_) => {
                self.misshapen(at, Shape::Text.words());
                None
            }
        }
    }
}

pub(super) fn below(at: &str, key: &str) -> String {
    if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }
}

/// `privileged: false` or `devices: []` ask for nothing.
pub(super) fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(said) => !said,
        Value::String(text) => text.is_empty(),
        Value::Array(entries) => entries.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        // `replicas: 0` says a lot.
        Value::Number(_) => false,
    }
}
