//! Services that can't be isolated and that nothing declared needs: a drill goes on without them, and says so.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::decisions::Problem;

/// The services that a drill leaves out, each with the reason: those with a problem, and those that need one of them. None where
/// one of them is among `needed` or is needed by one of those, or where a problem is of no service alone.
pub fn without(
    model: &Value,
    services: &BTreeSet<String>,
    problems: &[Problem],
    needed: &BTreeSet<String>,
) -> Option<BTreeMap<String, String>> {
    let mut out: BTreeMap<String, String> = BTreeMap::new();
    for problem in problems {
        let mut of = services_of(model, services, &problem.at).peekable();
        of.peek()?;
        for service in of {
            out.entry(service.clone()).or_insert_with(|| {
                let key = problem.at.strip_prefix(&format!("services.{service}.")).unwrap_or(&problem.at);
                format!("{key}: {}", problem.why)
            });
        }
    }
    loop {
        let found = services.iter().filter(|name| !out.contains_key(*name)).find_map(|name| {
            let other = needs(model, name).into_iter().find(|other| out.contains_key(other))?;
            Some((name.clone(), format!("it needs {other}, which is left out")))
        });
        match found {
            Some((name, why)) => drop(out.insert(name, why)),
            None => break,
        }
    }
    out.keys().all(|name| !needed.contains(name)).then_some(out)
}

/// The model without these services.
#[must_use]
pub fn reduced(mut model: Value, out: &BTreeMap<String, String>) -> Value {
    let Some(services) = model["services"].as_object_mut() else { return model };
    services.retain(|name, _| !out.contains_key(name));
    for service in services.values_mut() {
        // What needs one for good is out itself.
        if let Some(others) = service["depends_on"].as_object_mut() {
            others.retain(|name, _| !out.contains_key(name));
        }
    }
    model
}

/// Who has a problem at this place. A name may have points in it: where it could be of several, it is of all of them.
fn services_of<'a>(model: &'a Value, services: &'a BTreeSet<String>, at: &'a str) -> impl Iterator<Item = &'a String> {
    services.iter().filter(move |name| {
        let own = format!("services.{name}");
        let is_own = at.strip_prefix(&own).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        is_own || ["secrets", "configs"].iter().any(|part| uses(&model["services"][name.as_str()][*part], part, at))
    })
}

/// Whether a service's secrets or configs have the one that the place is of.
fn uses(used: &Value, part: &str, at: &str) -> bool {
    let keys =
        used.as_array().into_iter().flatten().filter_map(|used| used.as_str().or_else(|| used["source"].as_str()));
    keys.map(|key| format!("{part}.{key}")).any(|own| at == own || at.starts_with(&format!("{own}.")))
}

/// The services that one can't be without.
fn needs(model: &Value, service: &str) -> BTreeSet<String> {
    let declared = &model["services"][service];
    let mut needed = BTreeSet::new();
    for (other, how) in declared["depends_on"].as_object().into_iter().flatten() {
        if how["required"] != false {
            needed.insert(other.clone());
        }
    }
    for key in ["network_mode", "pid", "ipc"] {
        needed.extend(declared[key].as_str().and_then(|mode| mode.strip_prefix("service:")).map(str::to_owned));
    }
    for key in ["volumes_from", "links"] {
        let named = declared[key].as_array().into_iter().flatten().filter_map(Value::as_str);
        needed.extend(named.filter_map(|name| name.split(':').next()).map(str::to_owned));
    }
    needed
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn model() -> Value {
        json!({ "services": {
            "db": { "depends_on": { "helper": { "required": false } } },
            "web": { "depends_on": { "db": {} } },
            "watch": { "privileged": true },
            "helper": { "devices": ["/dev/x"] },
            "log": { "depends_on": { "watch": { "condition": "service_started" } } },
            "joins": { "network_mode": "service:log" },
            "swarm": { "secrets": [ { "source": "key" } ] },
            "a": {}, "a.b": {},
        } })
    }

    fn all() -> BTreeSet<String> {
        model()["services"].as_object().unwrap().keys().cloned().collect()
    }

    fn problem(at: &str) -> Problem {
        Problem { at: at.to_owned(), why: "it reaches out".to_owned(), next: String::new() }
    }

    fn named(problems: &[&str], needed: &[&str]) -> Option<Vec<String>> {
        let problems: Vec<Problem> = problems.iter().map(|at| problem(at)).collect();
        let needed = needed.iter().map(|&name| name.to_owned()).collect();
        without(&model(), &all(), &problems, &needed).map(|out| out.into_keys().collect())
    }

    #[test]
    fn who_reaches_out_goes_with_those_that_need_it() {
        assert_eq!(named(&["services.watch.privileged"], &["db"]).unwrap(), ["joins", "log", "watch"]);
        assert_eq!(named(&["services.swarm.volumes[0].source"], &["db"]).unwrap(), ["swarm"]);
        assert_eq!(named(&["secrets.key.external"], &["db"]).unwrap(), ["swarm"]);
        // What can be done without is no reason to refuse.
        assert_eq!(named(&["services.helper.devices"], &["db", "web"]).unwrap(), ["helper"]);
    }

    #[test]
    fn what_something_declared_needs_refuses_the_drill() {
        assert_eq!(named(&["services.watch.privileged"], &["watch"]), None);
        assert_eq!(named(&["services.db.privileged"], &["web"]), None, "by what it depends on");
        assert_eq!(named(&["services.watch.privileged"], &["joins"]), None, "by two steps");
        assert_eq!(named(&["include"], &[]), None, "of no service alone");
        assert_eq!(named(&["services.gone"], &[]), None);
        assert_eq!(named(&["secrets.other.external"], &[]), None);
    }

    #[test]
    fn where_a_place_could_be_of_two_services_it_is_of_both() {
        assert_eq!(named(&["services.a.b.image"], &[]).unwrap(), ["a", "a.b"]);
        assert_eq!(named(&["services.a.b.image"], &["a"]), None);
    }

    #[test]
    fn the_model_without_them_names_them_nowhere() {
        let out = BTreeMap::from([("helper".to_owned(), String::new())]);
        let reduced = reduced(model(), &out);
        assert!(!reduced.to_string().contains("helper"), "{reduced}");
        assert!(reduced["services"]["web"]["depends_on"]["db"].is_object());
    }
}
