#![no_main]
//! Any bytes as the file: an answer, never a panic; what is refused can be drawn, and what is taken is what was written.

use std::path::Path;

use devstack::spec::{self, Look};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let base = Path::new("/srv/shop");
    match spec::parse("devstack.yaml", bytes, base) {
        Ok(loaded) => {
            let drawn = spec::diagnostic::render("devstack.yaml", &loaded.text, &loaded.warnings, Look::Plain);
            assert_eq!(drawn.is_empty(), loaded.warnings.is_empty());
            let again = spec::parse("devstack.yaml", loaded.text.as_bytes(), base).expect("the same text again");
            assert_eq!(again.digest, loaded.digest);
        }
        Err(rejected) => {
            assert!(!rejected.diagnostics.is_empty());
            assert!(rejected.render(Look::Plain).contains("devstack.yaml"));
        }
    }
});
