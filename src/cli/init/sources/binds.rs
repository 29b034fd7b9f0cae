//! Folders and files of the machine that containers mount: which are data, which are settings, and who writes them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::super::compose::{Found, Stack};
use super::super::{excluded, quoted, quoted_glob};
use super::{LeftOut, Proposed, Seen, are_stopped, is_cache, is_covered, list, name_for, owned};
use crate::model::holdings::{Bind, of_the_machine, writers};

/// Folders with the same writers.
struct Group<'a> {
    writers: BTreeSet<&'a str>,
    binds: Vec<&'a Bind>,
}

pub(super) fn take(stack: &Stack, taken: &BTreeSet<&str>, repository: &str, proposed: &mut Proposed) {
    let mut data: Vec<(&Bind, BTreeSet<&str>)> = Vec::new();
    for bind in &stack.held.binds {
        if of_the_machine(&bind.path).is_some() {
            continue;
        }
        if is_covered(&bind.uses, taken) {
            proposed.covered.push(bind.path.clone());
            continue;
        }
        let targets: Vec<&str> = bind.uses.iter().map(|it| it.target.as_str()).collect();
        let writers = writers(&bind.uses);
        let settings = bind.uses.iter().filter(|it| it.writes).all(|it| is_settings(&it.target));
        let file = is_file(bind, stack) && !is_database(&bind.path);
        if file || settings && (!writers.is_empty() || bind.path.starts_with(&stack.base)) {
            setting(bind, file, stack, proposed);
        } else if !writers.is_empty() {
            if is_cache(&bind.path.to_string_lossy(), &targets) {
                let name = stack.named(&bind.path).to_string_lossy().into_owned();
                proposed.left_out.push(LeftOut::new("path", &name, "a cache by its name"));
                proposed.covered.push(bind.path.clone());
            } else {
                data.push((bind, writers));
            }
        } else if is_settings_for_reading(bind, stack) {
            setting(bind, file, stack, proposed);
        } else {
            proposed.questions.push(format!(
                "{}: shall it be taken? {}, and it lies outside of this folder. Take it with `files: {{ paths: [{}] }}`.",
                bind.path.display(),
                only_reads(bind),
                quoted(&bind.path.to_string_lossy())
            ));
        }
    }
    for group in grouped(data) {
        folders(stack, taken, repository, &group, proposed);
    }
}

fn only_reads(bind: &Bind) -> String {
    let readers: BTreeSet<&str> = bind.uses.iter().map(|it| it.service.as_str()).collect();
    let verb = if readers.len() == 1 { "reads" } else { "read" };
    format!("{} only {verb} it", readers.into_iter().collect::<Vec<_>>().join(", "))
}

/// A part of `configuration`. In the place of a file that is not there, Docker would make a folder.
fn setting(bind: &Bind, file: bool, stack: &Stack, proposed: &mut Proposed) {
    let path = stack.named(&bind.path);
    let users = || bind.uses.iter().map(|it| it.service.as_str()).collect::<Vec<_>>().join(", ");
    match stack.seen.get(&bind.path) {
        None if file => proposed.questions.push(format!(
            "{}: where is this file? {} mounts it, it is not there, and Docker would make a folder of its name.",
            path.display(),
            users()
        )),
        Some(Seen::Closed) => proposed.questions.push(format!(
            "{}: who may read it? {} mounts it, and not all of it is for you to read; run devstack as somebody who may, or take it \
             with `volume: {{ container: {}, path: {} }}`.",
            path.display(),
            users(),
            quoted(&bind.uses[0].service),
            quoted(&bind.uses[0].target)
        )),
        // A Compose file, or a secret, is known as what Compose reads.
        None | Some(Seen::File | Seen::Folder) => drop(proposed.configuration.insert(path)),
    }
}

/// Where a folder is mounted that a program only reads its settings from, though it is not mounted read-only.
fn is_settings(target: &str) -> bool {
    const SETTINGS: [&str; 20] = [
        "/docker-entrypoint-initdb.d",
        "/etc/nginx",
        "/etc/apache2",
        "/etc/httpd",
        "/etc/caddy",
        "/etc/traefik",
        "/etc/haproxy",
        "/etc/prometheus",
        "/etc/alertmanager",
        "/etc/grafana",
        "/etc/loki",
        "/etc/promtail",
        "/etc/mysql",
        "/etc/postgresql",
        "/etc/redis",
        "/etc/rabbitmq",
        "/usr/local/etc",
        "/usr/share/nginx",
        "/vault/config",
        "/mosquitto/config",
    ];
    SETTINGS.iter().any(|folder| Path::new(target).starts_with(folder))
}

/// One file, as far as it can be told: by what is there, or by its name.
fn is_file(bind: &Bind, stack: &Stack) -> bool {
    match stack.seen.get(&bind.path) {
        Some(Seen::File) => true,
        Some(Seen::Folder | Seen::Closed) => false,
        None => {
            let ending = |path: &Path| path.extension().is_some_and(|ending| ending != "d" && ending.len() <= 5);
            ending(&bind.path) && bind.uses.iter().all(|it| ending(Path::new(&it.target)))
        }
    }
}

fn is_database(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ["db", "sqlite", "sqlite3", "db3"].iter().any(|it| ending == *it))
}

/// What is only read and lies below the folder of the stack, or among the settings of the machine.
fn is_settings_for_reading(bind: &Bind, stack: &Stack) -> bool {
    let below = bind.path.starts_with(&stack.base);
    below || bind.path.starts_with("/etc") || bind.uses.iter().all(|it| is_settings(&it.target))
}

/// A folder within another is part of it, and whoever writes to it writes to the other.
fn grouped<'a>(mut data: Vec<(&'a Bind, BTreeSet<&'a str>)>) -> Vec<Group<'a>> {
    data.sort_by_key(|(bind, _)| bind.path.clone());
    let mut outer: Vec<(&Bind, BTreeSet<&str>)> = Vec::new();
    for (bind, writers) in data {
        match outer.iter_mut().find(|(known, _)| bind.path.starts_with(&known.path)) {
            Some((_, known)) => known.extend(writers),
            None => outer.push((bind, writers)),
        }
    }
    let mut groups: Vec<Group<'_>> = Vec::new();
    for (bind, writers) in outer {
        match groups.iter_mut().find(|group| group.writers == writers) {
            Some(group) => group.binds.push(bind),
            None => groups.push(Group { writers, binds: vec![bind] }),
        }
    }
    groups
}

/// One group's sources: one of files, and one through Docker for each folder that only root may read.
fn folders(stack: &Stack, taken: &BTreeSet<&str>, repository: &str, group: &Group<'_>, proposed: &mut Proposed) {
    // A server whose data is taken by itself writes dumps and logs beside it: nobody stops a database for those alone.
    let stop = match group.writers.iter().all(|writer| taken.contains(writer)) {
        true => BTreeSet::new(),
        false => group.writers.clone(),
    };
    let stopped = if stop.is_empty() { String::new() } else { format!(", stop: [{}]", list(stop.iter().copied())) };
    let closed = |bind: &&&Bind| stack.seen.get(&bind.path) == Some(&Seen::Closed);
    let open: Vec<&Bind> = group.binds.iter().filter(|bind| !closed(bind)).copied().collect();
    if !open.is_empty() {
        let named: Vec<PathBuf> = open.iter().map(|bind| stack.named(&bind.path)).collect();
        let paths: Vec<String> = named.iter().map(|path| quoted_glob(&path.to_string_lossy())).collect();
        let inside: Vec<PathBuf> = proposed.covered.iter().map(|path| stack.named(path)).collect();
        let without = excluded(&stack.base, &named, &inside, repository);
        let source = format!("{{ files: {{ paths: [{}]{without}{stopped} }} }}", paths.join(", "));
        let about = if stop.is_empty() {
            vec!["Read while the server runs, file by file.".to_owned()]
        } else {
            vec![format!("{} while its folders are read, and started again.", are_stopped(&stop))]
        };
        let name = name_for(&group.writers, &last_name(open[0]), proposed);
        proposed.services.push(Found { name, about, source, made_of: owned(&group.writers), after: Vec::new() });
    }
    for bind in group.binds.iter().filter(closed) {
        let Some(at) = bind.uses.iter().find(|it| it.writes) else { continue };
        let source =
            format!("{{ volume: {{ container: {}, path: {}{stopped} }} }}", quoted(&at.service), quoted(&at.target));
        let about = vec![format!(
            "{} is not for you to read, so it is read through Docker. {} meanwhile.",
            stack.named(&bind.path).display(),
            are_stopped(&stop)
        )];
        let name = name_for(&group.writers, &last_name(bind), proposed);
        proposed.services.push(Found { name, about, source, made_of: owned(&group.writers), after: Vec::new() });
    }
    proposed.covered.extend(group.binds.iter().map(|bind| bind.path.clone()));
}

fn last_name(bind: &Bind) -> String {
    bind.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
