//! The arrows between the rooms point down, and what a room must not know it does not know.

use std::fs;
use std::path::{Path, PathBuf};

/// From the top down; `lib.rs` lists them the other way round.
const ROOMS: [&str; 11] =
    ["cli", "drill", "apply", "plan", "observe", "engines", "repository", "secrets", "runtime", "spec", "model"];

/// `plan` knows the file, the model, and nothing that does input or output.
const PLAN_KNOWS: [&str; 3] = ["plan", "spec", "model"];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
    files
}

/// The rooms that a source file names with `crate::ROOM`.
fn named(text: &str) -> Vec<&'static str> {
    ROOMS
        .into_iter()
        .filter(|room| text.contains(&format!("crate::{room}::")) || text.contains(&format!("crate::{room};")))
        .collect()
}

fn each(check: impl Fn(&str, &Path, &str)) {
    for room in ROOMS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(room);
        for file in sources(&folder) {
            check(room, &file, &fs::read_to_string(&file).unwrap());
        }
    }
}

fn place(room: &str) -> usize {
    ROOMS.iter().position(|known| *known == room).unwrap()
}

#[test]
fn a_room_knows_only_rooms_below_it() {
    each(|room, file, text| {
        for other in named(text) {
            assert!(place(other) >= place(room), "{} is in {room} and uses {other}, which is above it", file.display());
        }
    });
}

#[test]
fn the_planner_knows_the_file_and_the_model_only() {
    each(|room, file, text| {
        if room == "plan" {
            for other in named(text) {
                assert!(PLAN_KNOWS.contains(&other), "{} uses {other}", file.display());
            }
        }
    });
}

#[test]
fn only_the_repository_knows_rustic() {
    each(|room, file, text| {
        if room != "repository" {
            for crate_name in ["rustic_core::", "rustic_backend::"] {
                assert!(!text.contains(crate_name), "{} uses {crate_name}", file.display());
            }
        }
    });
}

#[test]
fn every_room_in_the_source_is_known_here() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in fs::read_dir(src).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            let name = entry.file_name().into_string().unwrap();
            assert!(ROOMS.contains(&name.as_str()), "src/{name} is a room that no arrow speaks of");
        }
    }
}

#[test]
fn no_module_is_a_drawer_for_everything() {
    each(|_, file, _| {
        for drawer in ["util", "utils", "helper", "helpers", "common", "manager"] {
            assert!(file.file_stem().is_none_or(|stem| stem != drawer), "{}", file.display());
        }
    });
}
