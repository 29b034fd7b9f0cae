//! One service, made over: the keys whose value decides what becomes of them.

use serde_json::{Map, Value};

use super::decisions::{Decisions, TAKE_IT_OUT, below};
use super::{Assembly, label, networks, rules, volumes};

/// The service as the drill makes it.
pub(super) fn made_over(work: &mut Assembly<'_>, name: &str, declared: &Map<String, Value>) -> Map<String, Value> {
    let at = format!("services.{name}");
    let mut made = work.decisions.sorted(&at, declared, rules::SERVICE);
    image(work, name, declared, &mut made);
    let kept = [
        ("healthcheck", healthcheck(&mut work.decisions, &at, declared)),
        ("deploy", deploy(&mut work.decisions, &at, declared)),
        ("post_start", hooks(&mut work.decisions, &at, "post_start", declared)),
        ("pre_stop", hooks(&mut work.decisions, &at, "pre_stop", declared)),
        ("cap_add", capabilities(&mut work.decisions, &at, declared)),
        ("security_opt", security(&mut work.decisions, &at, declared)),
        ("sysctls", sysctls(&mut work.decisions, &at, declared)),
        ("extra_hosts", extra_hosts(&mut work.decisions, &at, declared)),
        ("pid", namespace(work, &at, "pid", &[], declared)),
        ("ipc", namespace(work, &at, "ipc", &["none", "private", "shareable"], declared)),
        ("cgroup", namespace(work, &at, "cgroup", &["private"], declared)),
        ("runtime", namespace(work, &at, "runtime", &["runc"], declared)),
        ("depends_on", dependencies(work, &at, declared)),
        ("links", links(work, &at, declared)),
        ("volumes_from", volumes_from(work, &at, declared)),
        ("secrets", files(work, &at, "secrets", declared)),
        ("configs", files(work, &at, "configs", declared)),
        ("volumes", Some(volumes::mounts(work, name, declared).into())),
        ("labels", Some(label(work.request.id))),
        // Said even where the files do not: the engine's own default may be a collector of the live stack.
        ("logging", Some(serde_json::json!({ "driver": "json-file", "options": { "max-size": "50m" } }))),
    ];
    for (key, value) in kept {
        let empty = |value: &Value| matches!(value, Value::Array(entries) if entries.is_empty());
        if let Some(value) = value.filter(|value| !empty(value)) {
            made.insert(key.to_owned(), value);
        }
    }
    networks::connect(work, name, declared, &mut made);
    remaining(&mut work.decisions, &at, declared);
    made
}

fn image(work: &mut Assembly<'_>, name: &str, declared: &Map<String, Value>, made: &mut Map<String, Value>) {
    let at = format!("services.{name}.image");
    match work.decisions.text(&at, declared.get("image")) {
        Some(image) => {
            made.insert("image".to_owned(), image.into());
        }
        None if declared.get("build").is_some_and(|build| !build.is_null()) => {
            let project = work.request.model["name"].as_str().unwrap_or_default();
            work.decisions.refuse(
                at,
                format!("it is built, and only Compose's own name for it, `{project}-{name}`, leads to its image"),
                format!("add `image: {project}-{name}` to the service in the Compose file"),
            );
        }
        None => work.decisions.refuse(at, "the service has no image", "add one to the Compose file"),
    }
    let at = format!("services.{name}.pull_policy");
    if let Some(policy) = work.decisions.text(&at, declared.get("pull_policy"))
        && !matches!(policy, "missing" | "if_not_present" | "never")
    {
        work.decisions.leave_out(at, "pulling or building moves the tag that the live stack runs on");
    }
    made.insert("pull_policy".to_owned(), "missing".into());
}

fn healthcheck(decisions: &mut Decisions, at: &str, declared: &Map<String, Value>) -> Option<Value> {
    let at = below(at, "healthcheck");
    let check = decisions.object(&at, declared.get("healthcheck"))?;
    Some(Value::Object(decisions.sorted(&at, check, rules::HEALTHCHECK)))
}

/// Compose honours the resources of `deploy` without a swarm, and nothing else of it but what is left out.
fn deploy(decisions: &mut Decisions, at: &str, declared: &Map<String, Value>) -> Option<Value> {
    let at = below(at, "deploy");
    let deploy = decisions.object(&at, declared.get("deploy"))?;
    decisions.sorted(&at, deploy, rules::DEPLOY);
    let at = below(&at, "resources");
    let resources = decisions.object(&at, deploy.get("resources"))?;
    decisions.sorted(&at, resources, rules::RESOURCES);
    let mut kept = Map::new();
    for part in ["limits", "reservations"] {
        let at = below(&at, part);
        if let Some(resource) = decisions.object(&at, resources.get(part)) {
            kept.insert(part.to_owned(), Value::Object(decisions.sorted(&at, resource, rules::RESOURCE)));
        }
    }
    Some(serde_json::json!({ "resources": kept }))
}

fn hooks(decisions: &mut Decisions, at: &str, key: &str, declared: &Map<String, Value>) -> Option<Value> {
    let at = below(at, key);
    let mut kept = Vec::new();
    for (nth, hook) in decisions.list(&at, declared.get(key)).iter().enumerate() {
        let at = format!("{at}[{nth}]");
        if let Some(hook) = decisions.object(&at, Some(hook)) {
            kept.push(Value::Object(decisions.sorted(&at, hook, rules::HOOK)));
        }
    }
    Some(kept.into())
}

fn capabilities(decisions: &mut Decisions, at: &str, declared: &Map<String, Value>) -> Option<Value> {
    let at = below(at, "cap_add");
    let mut kept = Vec::new();
    for name in texts(decisions, &at, declared.get("cap_add")) {
        if rules::stays_inside(name) {
            kept.push(name);
        } else {
            decisions.refuse(&at, format!("`{name}` reaches out of the container"), TAKE_IT_OUT);
        }
    }
    Some(kept.into())
}

fn security(decisions: &mut Decisions, at: &str, declared: &Map<String, Value>) -> Option<Value> {
    let at = below(at, "security_opt");
    let mut kept = Vec::new();
    for option in texts(decisions, &at, declared.get("security_opt")) {
        if rules::confines(option) {
            kept.push(option);
        } else {
            decisions.refuse(&at, format!("`{option}` changes what keeps the container confined"), TAKE_IT_OUT);
        }
    }
    Some(kept.into())
}

fn sysctls(decisions: &mut Decisions, at: &str, declared: &Map<String, Value>) -> Option<Value> {
    let at = below(at, "sysctls");
    let settings = decisions.object(&at, declared.get("sysctls"))?;
    let mut kept = Map::new();
    for (name, value) in settings {
        if !value.is_string() && !value.is_number() {
            decisions.misshapen(below(&at, name), "a text or a number");
        } else if rules::is_of_its_own(name) {
            kept.insert(name.clone(), value.clone());
        } else {
            decisions.refuse(below(&at, name), "this setting is the machine's, not the container's", TAKE_IT_OUT);
        }
    }
    Some(Value::Object(kept))
}

/// Names for addresses. Only those of the container itself stay: `host-gateway` and fixed addresses are the machine or
/// the live stack, and one that bears the name of a service would lead the drill's client to the live server.
fn extra_hosts(decisions: &mut Decisions, at: &str, declared: &Map<String, Value>) -> Option<Value> {
    let at = below(at, "extra_hosts");
    let mut kept = Vec::new();
    for entry in texts(decisions, &at, declared.get("extra_hosts")) {
        // `name=address`, or in older versions `name:address`.
        let (name, address) = entry.split_once('=').or_else(|| entry.split_once(':')).unwrap_or((entry, ""));
        if rules::is_itself(address) {
            kept.push(entry);
        } else {
            decisions.leave_out(&at, format!("`{name}` leads out of the drill, to the machine or the live stack"));
        }
    }
    Some(kept.into())
}

/// A namespace that is the container's own, or another container's of the drill.
fn namespace(
    work: &mut Assembly<'_>,
    at: &str,
    key: &str,
    own: &[&str],
    declared: &Map<String, Value>,
) -> Option<Value> {
    let at = below(at, key);
    let mode = work.decisions.text(&at, declared.get(key))?;
    if own.contains(&mode) {
        return Some(mode.into());
    }
    match joined(work, mode) {
        Ok(()) => Some(mode.into()),
        Err(why) => {
            work.decisions.refuse(&at, why, TAKE_IT_OUT);
            None
        }
    }
}

/// Whether `service:NAME` joins a container of the drill, or why not.
pub(super) fn joined(work: &Assembly<'_>, mode: &str) -> Result<(), String> {
    match mode.split_once(':') {
        Some(("service", other)) if work.request.services.contains(other) => Ok(()),
        Some(("service", other)) => Err(format!("it joins the service {other}, which is not in the drill")),
        Some(("container", other)) => Err(format!("it joins the container {other}, which is not the drill's")),
        _ if mode == "host" => Err("`host` is the machine's own, and the live stack is to be seen there".to_owned()),
        _ => Err(format!("the drill does not know `{mode}`")),
    }
}

fn dependencies(work: &mut Assembly<'_>, at: &str, declared: &Map<String, Value>) -> Option<Value> {
    let at = below(at, "depends_on");
    let dependencies = work.decisions.object(&at, declared.get("depends_on"))?;
    let mut kept = Map::new();
    for (other, how) in dependencies {
        let at = below(&at, other);
        if !work.request.services.contains(other) {
            work.decisions.leave_out(at, format!("{other} is not in the drill"));
        } else if let Some(how) = work.decisions.object(&at, Some(how)) {
            kept.insert(other.clone(), Value::Object(work.decisions.sorted(&at, how, rules::DEPENDENCY)));
        }
    }
    Some(Value::Object(kept))
}

/// `SERVICE` or `SERVICE:NAME`: another name for a service of the same project.
fn links(work: &mut Assembly<'_>, at: &str, declared: &Map<String, Value>) -> Option<Value> {
    let at = below(at, "links");
    let mut kept = Vec::new();
    for link in texts(&mut work.decisions, &at, declared.get("links")) {
        let other = link.split(':').next().unwrap_or_default();
        if work.request.services.contains(other) {
            kept.push(link);
        } else {
            work.decisions.leave_out(&at, format!("{other} is not in the drill"));
        }
    }
    Some(kept.into())
}

/// `SERVICE[:ro]` are mounts of the drill; `container:NAME[:ro]` are the live stack's, data and all.
fn volumes_from(work: &mut Assembly<'_>, at: &str, declared: &Map<String, Value>) -> Option<Value> {
    let at = below(at, "volumes_from");
    let mut kept = Vec::new();
    for from in texts(&mut work.decisions, &at, declared.get("volumes_from")) {
        let mut parts = from.split(':');
        match (parts.next().unwrap_or_default(), parts.next()) {
            ("container", other) => {
                let other = other.unwrap_or_default();
                let why = format!("the volumes of the container {other} are the live stack's data");
                work.decisions.refuse(&at, why, "mount the volumes themselves by their names in the Compose file");
            }
            (other, _) if work.request.services.contains(other) => kept.push(from),
            (other, _) => {
                let why = format!("it mounts what {other} mounts, which is not in the drill");
                work.decisions.refuse(&at, why, format!("take {other} into the drill"));
            }
        }
    }
    Some(kept.into())
}

/// The secrets or the configs of a service. What they hold is decided at the top of the model.
fn files(work: &mut Assembly<'_>, at: &str, part: &'static str, declared: &Map<String, Value>) -> Option<Value> {
    let at = below(at, part);
    let mut kept = Vec::new();
    for (nth, used) in work.decisions.list(&at, declared.get(part)).iter().enumerate() {
        let at = format!("{at}[{nth}]");
        let used = match used {
            Value::String(source) => Map::from_iter([("source".to_owned(), source.as_str().into())]),
            used => match work.decisions.object(&at, Some(used)) {
                Some(used) => work.decisions.sorted(&at, used, rules::FILE_USE),
                None => continue,
            },
        };
        match used.get("source").and_then(Value::as_str) {
            Some(source) => {
                work.files.entry(part).or_default().insert(source.to_owned());
                kept.push(Value::Object(used));
            }
            None => work.decisions.misshapen(&at, "an entry with a `source`"),
        }
    }
    Some(kept.into())
}

/// What only has to be said.
fn remaining(decisions: &mut Decisions, at: &str, declared: &Map<String, Value>) {
    if decisions.text(&below(at, "container_name"), declared.get("container_name")).is_some() {
        let why = "the name is the live container's; it stays an alias in the drill's own networks";
        decisions.leave_out(below(at, "container_name"), why);
    }
    if declared.get("env_file").is_some_and(|files| !super::decisions::says_nothing(files)) {
        decisions.refuse(
            below(at, "env_file"),
            "this Compose did not put the file's variables into the environment, or it would not name it here",
            "let a newer `docker compose config` resolve the files, without `--no-env-resolution`",
        );
    }
}

/// A list of texts; what is none is a problem.
fn texts<'v>(decisions: &mut Decisions, at: &str, value: Option<&'v Value>) -> Vec<&'v str> {
    let mut texts = Vec::new();
    for entry in decisions.list(at, value) {
        match entry.as_str() {
            Some(text) => texts.push(text),
            None => decisions.misshapen(at, "a list of texts"),
        }
    }
    texts
}
