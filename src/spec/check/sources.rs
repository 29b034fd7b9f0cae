//! Sources that live in containers: names that must be there, databases by globs, secrets and TLS.

use super::super::file::{Choice, Login, SecretRef, Source, Tls, VolumeSource};
use super::super::node::Place;
use super::services::globs;
use super::{Findings, secrets};

pub(super) fn check(source: &Source, place: &Place, findings: &mut Findings<'_>) {
    match source {
        // Those of Vault are checked with the section that it belongs to.
        Source::Sqlite(_) | Source::Files(_) | Source::Certificates(_) | Source::Vault(_) => {}
        Source::Postgres(source) => {
            container(place, &source.container, findings);
            server(place, source.password.as_ref(), source.databases.as_ref(), source.tls.as_ref(), findings);
            restore_as(place, source.restore_as.as_ref(), findings);
        }
        Source::Mysql(source) | Source::Mariadb(source) => {
            container(place, &source.container, findings);
            server(place, source.password.as_ref(), source.databases.as_ref(), source.tls.as_ref(), findings);
            restore_as(place, source.restore_as.as_ref(), findings);
        }
        Source::Mongodb(source) => {
            container(place, &source.container, findings);
            server(place, source.password.as_ref(), source.databases.as_ref(), source.tls.as_ref(), findings);
            restore_as(place, source.restore_as.as_ref(), findings);
            if source.password.is_some() && source.user.is_none() {
                findings.error(
                    &place.key("password").itself(),
                    format!("`{place}` has a password and no user"),
                    "whose password?",
                    "write the user that it belongs to: `user: backup`",
                );
            }
            if let Some(Tls { cert: Some(cert), key: Some(key), .. }) = &source.tls
                && cert != key
            {
                let at = place.key("tls");
                findings.error(
                    &at.key("key"),
                    format!("`{at}` has a certificate and a key in two files"),
                    "another file than `cert`",
                    "MongoDB's tools read both from one file: put them into one, and write it for `cert` and for `key`",
                );
            }
        }
        Source::Redis(source) => {
            let at = place.key("containers");
            if source.containers.is_empty() {
                findings.error(&at, format!("`{at}` is empty"), "no server", "name the containers of the servers");
            } else if source.containers.len() > 1 && !source.cluster {
                findings.error(
                    &at.index(1),
                    format!("`{place}` has {} containers and is no cluster", source.containers.len()),
                    "a second server",
                    "write `cluster: true` beside them, or declare a service for each server",
                );
            }
            findings.doubles(&at, &source.containers);
            server(place, source.password.as_ref(), None, source.tls.as_ref(), findings);
            restore_as(place, source.restore_as.as_ref(), findings);
        }
        Source::Rabbitmq(source) => container(place, &source.container, findings),
        Source::Volume(source) => volume(place, source, findings),
    }
}

fn container(place: &Place, name: &str, findings: &mut Findings<'_>) {
    if name.trim().is_empty() {
        let at = place.key("container");
        findings.error(
            &at,
            format!("`{at}` is empty"),
            "no container",
            "write the name of a Compose service or of a container",
        );
    }
}

fn server(
    place: &Place,
    password: Option<&SecretRef>,
    databases: Option<&Choice>,
    tls: Option<&Tls>,
    findings: &mut Findings<'_>,
) {
    if let Some(password) = password {
        secrets::reference(&place.key("password"), password, findings);
    }
    if let Some(databases) = databases {
        let at = place.key("databases");
        globs(&at.key("include"), &databases.include, findings);
        globs(&at.key("exclude"), &databases.exclude, findings);
    }
    if let Some(tls) = tls
        && tls.cert.is_some() != tls.key.is_some()
    {
        let at = place.key("tls");
        findings.error(
            &place.key("tls").itself(),
            format!("`{at}` has one of `cert` and `key`"),
            "the other is missing",
            "a client's certificate goes with its key: write both, or neither",
        );
    }
}

fn restore_as(place: &Place, login: Option<&Login>, findings: &mut Findings<'_>) {
    if let Some(Login { password: Some(password), .. }) = login {
        secrets::reference(&place.key("restore_as").key("password"), password, findings);
    }
}

fn volume(place: &Place, source: &VolumeSource, findings: &mut Findings<'_>) {
    let inside = source.container.is_some() || source.path.is_some();
    match (&source.volume, &source.container, &source.path) {
        (Some(_), _, _) if inside => {
            findings.error(
                &place.clone().itself(),
                format!("`{place}` names a volume and a folder in a container"),
                "one of the two",
                "keep `volume`, or `container` and `path`; a second source is a second service",
            );
        }
        (Some(_), _, _) | (None, Some(_), Some(_)) => {}
        (None, _, _) => {
            findings.error(
                &place.clone().itself(),
                format!("`{place}` does not say where the data is"),
                "no data is named",
                "write `volume: NAME`, or `container: NAME` and `path: /FOLDER`",
            );
        }
    }
    if let Some(path) = source.path.as_ref().filter(|path| !path.starts_with('/') || path.as_str() == "/") {
        let at = place.key("path");
        findings.error(
            &at,
            format!("`{at}` is {path}, and must be the whole path of a folder in the container"),
            "not a folder below /",
            "write it from the container's root on: `/data`",
        );
    }
    findings.doubles(&place.key("stop"), &source.stop);
}
