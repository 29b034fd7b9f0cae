//! What is asserted of a recovered stack: whom it is asked of, and that there is something to ask.

use super::super::file::{Assertion, Spec};
use super::super::node::Place;
use super::Findings;
use crate::model::assertion::LONGEST_WITHIN;
use crate::model::ids::ServiceName;

pub(super) fn check(spec: &Spec, findings: &mut Findings<'_>) {
    let Some(recovery) = &spec.recovery else { return };
    let all = Place::of(["recovery", "assert"]);
    for (index, assertion) in recovery.assert.iter().enumerate() {
        let place = all.index(index).key(assertion.kind());
        match assertion {
            Assertion::Postgres(it) | Assertion::Mysql(it) | Assertion::Mariadb(it) => {
                service(spec, &place, assertion, &it.service, findings);
                text(&place.key("database"), &it.database, "no database", "write the database's name", findings);
                text(&place.key("query"), &it.query, "asks nothing", "write a query that answers one value", findings);
            }
            Assertion::Mongodb(it) => {
                service(spec, &place, assertion, &it.service, findings);
                text(&place.key("database"), &it.database, "no database", "write the database's name", findings);
                let help = "write an expression, such as \"db.orders.countDocuments() > 0\"";
                text(&place.key("eval"), &it.eval, "asks nothing", help, findings);
            }
            Assertion::Redis(it) => {
                service(spec, &place, assertion, &it.service, findings);
                words(&place.key("command"), &it.command, "[EXISTS, session]", findings);
            }
            Assertion::Http(it) => {
                container(&place, &it.container, findings);
                let at = place.key("url");
                if !["http://", "https://"].iter().any(|scheme| it.url.starts_with(scheme)) {
                    findings.error(
                        &at,
                        format!("`{at}` is no address of the web"),
                        "begins with neither http:// nor https://",
                        "write it whole, as the container reaches it: \"http://127.0.0.1:3000/\"",
                    );
                }
            }
            Assertion::Command(it) => {
                container(&place, &it.container, findings);
                words(&place.key("run"), &it.run, "[test, -s, /data/x]", findings);
            }
        }
        if assertion.declared_within().is_some_and(|within| within > LONGEST_WITHIN) {
            let at = place.key("within");
            findings.error(
                &at,
                format!("`{at}` is longer than {LONGEST_WITHIN}"),
                "longer than a container may take to get healthy",
                "an application that needs so long to start has a health check: write that in the Compose file",
            );
        }
    }
}

fn service(spec: &Spec, place: &Place, assertion: &Assertion, name: &ServiceName, findings: &mut Findings<'_>) {
    let at = place.key("service");
    let Some(service) = spec.services.get(name) else {
        return findings.unknown(&at, "service", name.as_str(), spec.services.keys().map(|name| name.as_str()));
    };
    let (asked, is) = (assertion.kind(), service.source.engine());
    if asked == is {
        return;
    }
    let askable = ["postgres", "mysql", "mariadb", "mongodb", "redis"].contains(&is);
    let help = match askable {
        true => format!("write `{is}:` in place of `{asked}:`, or name another service"),
        false => format!("name a service whose source is `{asked}`; of a container, assert `http` or `command`"),
    };
    findings.error(&at, format!("`{name}` is no {asked}: its source is {is}"), &format!("a {is} source"), help);
    findings.see(&Place::of(["services", name.as_str(), "source"]), "declared here");
}

fn container(place: &Place, name: &str, findings: &mut Findings<'_>) {
    let help = "write the name of a Compose service or of a container";
    text(&place.key("container"), name, "no container", help, findings);
}

fn text(at: &Place, value: &str, label: &str, help: &str, findings: &mut Findings<'_>) {
    if value.trim().is_empty() {
        findings.error(at, format!("`{at}` is empty"), label, help);
    }
}

fn words(at: &Place, words: &[String], example: &str, findings: &mut Findings<'_>) {
    match words.first().map(|first| first.trim()) {
        None => findings.error(
            at,
            format!("`{at}` is empty"),
            "nothing to run",
            format!("write it word by word: {example}"),
        ),
        Some("") => findings.error(
            &at.index(0),
            format!("`{}` is empty", at.index(0)),
            "no program",
            format!("write it word by word: {example}"),
        ),
        // The client would take it for an option of its own.
        Some(first) if first.starts_with('-') => findings.error(
            &at.index(0),
            format!("`{at}` begins with an option"),
            "not a program or command",
            format!("begin with what is run: {example}"),
        ),
        Some(_) => {}
    }
}
