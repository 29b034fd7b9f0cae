//! The planner, the model and the drill's isolation do no input or output and know no clock, no environment and no randomness.

use std::path::Path;

const FORBIDDEN: [&str; 13] = [
    "std::fs",
    "std::env",
    "std::net",
    "std::process",
    "SystemTime",
    "Instant::now",
    "Timestamp::now",
    "Zoned::now",
    "tokio",
    "rusqlite",
    "rustic",
    "getrandom",
    "TimeZone::system",
];

#[test]
fn what_is_pure_does_no_input_or_output() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut looked_at = 0;
    // Of the drill, what decides on its isolation; the rest of it acts.
    for place in
        ["plan", "model", "drill/isolation.rs", "drill/isolation", "drill/gate.rs", "drill/gate", "drill/id.rs"]
    {
        for entry in walkdir::WalkDir::new(source.join(place)) {
            let entry = entry.unwrap();
            if entry.path().extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            looked_at += 1;
            let text = std::fs::read_to_string(entry.path()).unwrap();
            for (number, line) in text.lines().enumerate() {
                // Prose may name what code may not use.
                let code = line.split("//").next().unwrap_or_default();
                for word in FORBIDDEN {
                    assert!(!code.contains(word), "{}:{}: {word}", entry.path().display(), number + 1);
                }
            }
        }
    }
    assert!(looked_at > 50, "only {looked_at} files were looked at: have the rooms moved?");
}
