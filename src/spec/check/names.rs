//! Names: they become parts of run ids, tags, lease names and file names.

use super::super::file::Spec;
use super::super::node::Place;
use super::Findings;

/// A file name in every store, with room for a time and an id beside it.
const LONGEST: usize = 63;

pub(super) fn check(spec: &Spec, findings: &mut Findings<'_>) {
    name(&Place::of(["stack"]), "stack", spec.stack.as_str(), findings);
    let keys = [
        ("services", "service", spec.services.keys().map(|name| name.as_str()).collect::<Vec<_>>()),
        ("repositories", "repository", spec.repositories.keys().map(|name| name.as_str()).collect()),
        ("backup", "policy", spec.backup.keys().map(|name| name.as_str()).collect()),
    ];
    for (section, what, names) in keys {
        let place = Place::of([section]);
        if names.is_empty() {
            let help = format!("declare one {what} at least; `devstack init` shows how it looks");
            findings.error(&place, format!("`{section}` is empty"), &format!("no {what} in it"), help);
        }
        for key in names {
            name(&place.key(key).itself(), what, key, findings);
        }
    }
    if spec.services.contains_key(&crate::model::ids::ServiceName::new("all")) {
        findings.error(
            &Place::of(["services", "all"]).itself(),
            "a service cannot be called `all`".to_owned(),
            "means every service",
            "give it another name",
        );
    }
}

fn name(place: &Place, what: &str, name: &str, findings: &mut Findings<'_>) {
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let rule =
        "a name begins with a lower-case letter or a digit and has only these, `-` and `_` in it, at most 63 in all";
    if name.is_empty() {
        findings.error(place, format!("the {what} has an empty name"), "empty", rule);
    } else if name.len() > LONGEST {
        let message = format!("the {what}'s name has {} characters, and 63 is the most", name.chars().count());
        findings.error(place, message, "too long", rule);
    } else if !name.starts_with(letters) || !name.chars().all(|c| letters(c) || c == '-' || c == '_') {
        let possible: String = name
            .to_lowercase()
            .chars()
            .map(|c| if letters(c) || c == '_' { c } else { '-' })
            .collect::<String>()
            .trim_matches(['-', '_'])
            .to_owned();
        let help = match possible.as_str() {
            "" => rule.to_owned(),
            possible => format!("for example `{possible}`: {rule}"),
        };
        findings.error(place, format!("`{name}` cannot be the name of a {what}"), "not a name", help);
    }
}
