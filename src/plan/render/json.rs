//! The plan itself, versioned by its `format`.

use serde::Serialize;

use crate::model::plan::Plan;
use crate::model::standing::Standing;

/// Pretty-printed, with a final newline. The same bytes are what `--out` saves and [`read`](crate::plan::saved::read) takes.
pub fn json(plan: &Plan) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(plan).map(|text| text + "\n")
}

/// As [`json`], with the verdict of this moment before it; what is saved has none, since it is read at another time.
pub fn json_with_verdict(plan: &Plan) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct Judged<'a> {
        verdict: Standing,
        #[serde(flatten)]
        plan: &'a Plan,
    }
    serde_json::to_string_pretty(&Judged { verdict: Standing::of_plan(plan), plan }).map(|text| text + "\n")
}
