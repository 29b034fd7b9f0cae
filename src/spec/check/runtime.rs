//! How the engine is started: in one way.

use super::super::file::Spec;
use super::super::node::Place;
use super::Findings;

pub(super) fn check(spec: &Spec, findings: &mut Findings<'_>) {
    let Some(runtime) = &spec.runtime else { return };
    if runtime.colima.is_some() && runtime.docker.as_ref().is_some_and(|docker| !docker.start.is_empty()) {
        findings.error(
            &Place::of(["runtime", "docker", "start"]),
            "the engine is started by Colima, and by this program too".to_owned(),
            "a second way",
            "leave `start` out where there is `colima`",
        );
    }
}
