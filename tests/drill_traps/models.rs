//! The models beside the files are what Compose makes of them, and Compose reads what the drill makes.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::*;

/// `docker compose`, where there is one.
fn compose() -> Option<Command> {
    let mut command = Command::new("docker");
    let version = Command::new("docker").args(["compose", "version"]).stdin(Stdio::null()).output();
    command.arg("compose");
    version.is_ok_and(|version| version.status.success()).then_some(command)
}

fn yaml_files() -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    files
}

#[test]
fn the_models_are_what_compose_makes_of_the_files() {
    if compose().is_none() {
        eprintln!("left out: `docker compose` is not on this machine");
        return;
    }
    let files = yaml_files();
    assert!(files.len() >= 12, "{files:?}");
    for file in files {
        let mut command = compose().unwrap();
        command.args(["--project-name", "shop", "--profile", "*", "--file"]).arg(&file);
        command.args(["config", "--format", "json"]).env_remove("FROM_OUTSIDE").stdin(Stdio::null());
        let printed = command.output().unwrap();
        let said = String::from_utf8_lossy(&printed.stderr);
        assert!(printed.status.success(), "{}: {said}", file.display());
        let printed = String::from_utf8(printed.stdout).unwrap().replace(folder().to_str().unwrap(), BASE);
        let printed: Value = serde_json::from_str(&printed).unwrap();
        let name = file.file_stem().unwrap().to_str().unwrap();
        assert!(printed == model(name), "{name}.json is not what Compose prints:\n{printed:#}");
    }
}

#[test]
fn compose_reads_what_the_drill_makes() {
    if compose().is_none() {
        eprintln!("left out: `docker compose` is not on this machine");
        return;
    }
    let mut read = 0;
    for file in yaml_files() {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let services = model(&name)["services"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let services: Vec<&str> = services.iter().map(String::as_str).collect();
        let fit: Vec<&str> = match with(&name, &services, &[]) {
            Ok(_) => services,
            Err(_) => services.into_iter().filter(|service| with(&name, &[service], &[]).is_ok()).collect(),
        };
        if fit.is_empty() {
            continue;
        }
        let isolated = drilled(&name, &fit);
        let mut command = compose().unwrap();
        command.args(["--project-name", ID, "--file", "-", "config", "--format", "json"]);
        command.env("SHOP_TOKEN", "x").env("SHOP_CONFIG", "x").env_remove("FROM_OUTSIDE");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(isolated.model.to_string().as_bytes()).unwrap();
        let printed = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&printed.stderr);
        assert!(printed.status.success() && said.is_empty(), "{name}: {said}\n{:#}", isolated.model);
        let again: Value = serde_json::from_slice(&printed.stdout).unwrap();
        // Compose adds no network of its own, mounts nothing else, and changes no value.
        let keys =
            |part: &Value| part.as_object().map(|all| all.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
        assert_eq!(keys(&isolated.model["networks"]), keys(&again["networks"]), "{name}");
        assert_eq!(keys(&isolated.model["volumes"]), keys(&again["volumes"]), "{name}");
        for service in fit {
            let (made, again) = (&isolated.model["services"][service], &again["services"][service]);
            assert_eq!(keys(&made["networks"]), keys(&again["networks"]), "{name} {service}");
            assert_eq!(made["environment"], again["environment"], "{name} {service}");
            let sources = |service: &Value| {
                let mounts = service["volumes"].as_array().cloned().unwrap_or_default();
                mounts.iter().map(|mount| mount["source"].clone()).collect::<Vec<_>>()
            };
            assert_eq!(sources(made), sources(again), "{name} {service}");
            read += 1;
        }
    }
    assert!(read > 40, "only {read} services were read");
}
