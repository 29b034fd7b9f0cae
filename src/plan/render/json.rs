//! The plan itself, versioned by its `format`.

use crate::model::plan::Plan;

/// Pretty-printed, with a final newline. The same bytes are what `--out` saves and [`read`](crate::plan::saved::read) takes.
pub fn json(plan: &Plan) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(plan).map(|text| text + "\n")
}
