#![no_main]
//! Any bytes as a saved plan: a plan or an error, never a panic; and a plan survives being saved again.

use devstack::model::plan::Plan;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(plan) = serde_json::from_slice::<Plan>(bytes) else { return };
    let saved = serde_json::to_vec(&plan).expect("a plan can be saved");
    assert_eq!(serde_json::from_slice::<Plan>(&saved).expect("what was saved can be read"), plan);
});
