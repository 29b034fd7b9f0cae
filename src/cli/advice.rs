//! Every command that a text of devstack's advises is one that devstack takes: an advice that is refused is a dead end.

use std::collections::BTreeSet;
use std::path::Path;

use clap::{CommandFactory, Parser, error::ErrorKind};

use super::Arguments;

/// What the program says: its sources without their comments, each literal in one piece.
fn source(text: &str) -> String {
    let said: Vec<&str> = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]\nmod")).collect();
    let is_comment = |line: &&str| line.trim_start().starts_with("//");
    let joined = said.into_iter().filter(|line| !is_comment(line)).collect::<Vec<_>>().join("\n");
    let mut out = String::new();
    let mut rest = joined.as_str();
    while let Some((before, after)) = rest.split_once("\\\n") {
        out += before;
        rest = after.trim_start();
    }
    out + rest
}

/// The commands in it, without the `devstack` before them.
fn commands(text: &str, verbs: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("devstack ") {
        let (before, after) = (&text[..at], &text[at + "devstack ".len()..]);
        let end = if before.ends_with('`') {
            after.find('`')
        } else if before.ends_with(": ") || before.ends_with("$ ") || before.ends_with("run ") {
            after.find(['`', '"', ';', ')', '\n', '\\', '#'])
        } else {
            continue;
        };
        let command = &after[..end.unwrap_or(after.len())];
        let verb = command.split_whitespace().next().unwrap_or_default();
        // In prose the word is followed by another one.
        if before.ends_with('`') || verbs.contains(verb) {
            found.push(command.trim().to_owned());
        }
    }
    found
}

/// With something in the place of each placeholder.
fn filled(command: &str) -> String {
    let mut out = String::new();
    let mut rest = command.replace("{only}", " --only some");
    while let Some((before, after)) = rest.clone().split_once('{') {
        let Some((_, after)) = after.split_once('}') else { break };
        out += before;
        // Long enough for the name of a drill.
        out += "some";
        rest = after.to_owned();
    }
    out + &rest
}

fn files(folder: &str, ending: &str) -> Vec<(String, String)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let all = walkdir::WalkDir::new(top.join(folder)).into_iter().map(Result::unwrap);
    let wanted = all.filter(|entry| entry.path().extension().is_some_and(|it| it == ending));
    let read = wanted.map(|entry| {
        let name = entry.path().strip_prefix(top).unwrap().display().to_string();
        (name, std::fs::read_to_string(entry.path()).unwrap())
    });
    read.collect()
}

#[test]
fn every_command_that_a_text_advises_parses() {
    let verbs: BTreeSet<String> =
        Arguments::command().get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    let is_test = |name: &str| {
        ["tests.rs", "rules.rs", "properties.rs", "scenarios.rs", "advice.rs"].iter().any(|it| name.ends_with(it))
    };
    let sources = files("src", "rs").into_iter().filter(|(name, _)| !is_test(name));
    let mut texts: Vec<_> = sources.map(|(name, text)| (name, source(&text))).collect();
    texts.extend(["docs", "examples"].into_iter().flat_map(|folder| files(folder, "md")));
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    texts.push(("README.md".to_owned(), std::fs::read_to_string(readme).unwrap()));
    let (mut looked_at, mut wrong) = (0, Vec::new());
    for (name, text) in &texts {
        for command in commands(text, &verbs) {
            looked_at += 1;
            // Words with spaces in quotes, and what a shell does with the output, are not for this.
            let words = filled(&command);
            let words = words.split_whitespace().take_while(|word| !["|", "\\|", ">", "2>", "&&"].contains(word));
            let words: Vec<String> = words.map(|word| word.trim_matches(['"', '\'']).to_owned()).collect();
            let parsed = Arguments::try_parse_from(std::iter::once("devstack").chain(words.iter().map(String::as_str)));
            match parsed.map_err(|error| (error.kind(), error)) {
                Ok(_) | Err((ErrorKind::DisplayHelp | ErrorKind::DisplayVersion, _)) => {}
                Err((_, error)) => {
                    let first = error.to_string().lines().next().unwrap_or_default().to_owned();
                    wrong.push(format!("{name}: devstack {command}: {first}"));
                }
            }
            if let Some(hidden) =
                words.iter().find(|word| *word == "--live" || *word == "--strict" && words[0] == "status")
            {
                wrong.push(format!("{name}: devstack {command}: {hidden} is for old timers only"));
            }
        }
    }
    assert!(looked_at > 150, "only {looked_at} commands were found: have the texts moved?");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_advice_that_is_malformed_is_seen() {
    let verbs = BTreeSet::from(["show".to_owned(), "restore".to_owned()]);
    let text =
        "see `devstack show {run}`; or: devstack restore shop --to DIR; devstack reads it; run devstack at night";
    assert_eq!(commands(text, &verbs), ["show {run}", "restore shop --to DIR"]);
    assert_eq!(filled("recover{only} --at {time}"), "recover --only some --at some");
    assert_eq!(source("a \"one \\\n    two\"\n// devstack no\n"), "a \"one two\"");
    for refused in ["restore", "show", "status --no-such", "forget"] {
        let words = std::iter::once("devstack").chain(refused.split(' '));
        assert!(Arguments::try_parse_from(words).is_err(), "{refused}");
    }
}
