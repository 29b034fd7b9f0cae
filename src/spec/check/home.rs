//! Where nobody says what the home folder is (a timer, a container, `env -i`), `~` means no folder: taken by its letter it would
//! be one called `~` beside the file, and backups would go where nobody looks for them.

use super::super::node::{Kind, Node, Place};
use super::Findings;

/// Below these stand commands, patterns and answers, in which `~` is somebody else's.
const NO_PATHS: [&str; 6] = ["assert", "command", "before", "exclude", "project", "leave_out"];

pub(super) fn check(findings: &mut Findings<'_>) {
    look(findings.root, &Place::default(), findings);
}

fn look(node: &Node, place: &Place, findings: &mut Findings<'_>) {
    match &node.kind {
        Kind::Map(entries) => {
            for (key, value) in entries.iter().filter(|(key, _)| !NO_PATHS.contains(&key.name.as_str())) {
                look(value, &place.key(&key.name), findings);
            }
        }
        Kind::List(items) => {
            for (index, item) in items.iter().enumerate() {
                look(item, &place.index(index), findings);
            }
        }
        Kind::Text(text) if text == "~" || text.starts_with("~/") => findings.error(
            place,
            format!("`{place}` lies in the home folder, and HOME is not set"),
            "no home folder is known",
            "set HOME to the absolute path of the home folder, or write the whole path here",
        ),
        Kind::Text(_) | Kind::Nothing | Kind::Bool | Kind::Number(_) => {}
    }
}
