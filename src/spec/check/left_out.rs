//! What the file leaves out of its backups by a word: one thing each, with a reason.

use std::collections::BTreeMap;

use super::super::file::Spec;
use super::super::node::Place;
use super::Findings;

const KEYS: &str = "`volume`, `path`, `build`, `service` and `network`";

pub(super) fn check(spec: &Spec, findings: &mut Findings<'_>) {
    let mut seen = BTreeMap::new();
    for (index, entry) in spec.leave_out.iter().enumerate() {
        let place = Place::of(["leave_out"]).index(index);
        let named = entry.named();
        match named.as_slice() {
            [] => findings.error(
                &place,
                format!("`{place}` names nothing"),
                "what is left out?",
                format!("name it by one of {KEYS}"),
            ),
            [(key, name)] if name.trim().is_empty() => findings.error(
                &place.key(key),
                format!("`{place}.{key}` is empty"),
                "what is left out?",
                "write the name of what is left out",
            ),
            [(key, name)] => match seen.get(&(*key, name.clone())) {
                None => drop(seen.insert((*key, name.clone()), index)),
                Some(first) => {
                    let message = format!("the {key} `{name}` is left out twice");
                    findings.error(&place, message, "and again", "remove one of the two");
                    findings.see(&Place::of(["leave_out"]).index(*first), "first here");
                }
            },
            [_, (second, _), ..] => findings.error(
                &place.key(second),
                format!("`{place}` names {} things, and each entry names one", named.len()),
                "one too many",
                "begin each with a dash of its own: they are items of a list",
            ),
        }
        if entry.because.trim().is_empty() {
            let place = place.key("because");
            findings.error(
                &place,
                format!("`{place}` is empty"),
                "no reason",
                "write why nobody will miss it: whoever recovers the stack reads this",
            );
        }
    }
}
