#![no_main]
//! Any bytes as a saved plan: a plan or an error, never a panic; a plan survives being saved again, and can be drawn in
//! every form.

use devstack::model::plan::Plan;
use devstack::plan::{render, saved};
use jiff::tz::TimeZone;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let refused = saved::read(bytes).is_err();
    let Ok(plan) = serde_json::from_slice::<Plan>(bytes) else {
        assert!(refused, "what is no plan was taken for one");
        return;
    };
    let saved = serde_json::to_vec(&plan).expect("a plan can be saved");
    assert_eq!(serde_json::from_slice::<Plan>(&saved).expect("what was saved can be read"), plan);
    let options = render::TextOptions { zone: TimeZone::UTC, all: true };
    let drawn = [render::text(&plan, &options), render::markdown(&plan, &TimeZone::UTC), render::mermaid(&plan), render::dot(&plan)];
    for text in drawn {
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "a control character reached the output");
    }
});
