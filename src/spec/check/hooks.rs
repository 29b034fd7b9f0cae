//! Hooks: that there is something to run, where, and for how long.

use super::super::file::{Hooks, Spec};
use super::super::node::Place;
use super::Findings;
use crate::model::hook::Phase;
use crate::model::retention::LONGEST_RUN;

pub(super) fn check(spec: &Spec, findings: &mut Findings<'_>) {
    for (name, service) in &spec.services {
        of(service.hooks.as_ref(), &Place::of(["services", name.as_str(), "hooks"]), findings);
    }
    for (name, policy) in &spec.backup {
        of(policy.hooks.as_ref(), &Place::of(["backup", name.as_str(), "hooks"]), findings);
    }
}

fn of(hooks: Option<&Hooks>, place: &Place, findings: &mut Findings<'_>) {
    let Some(hooks) = hooks else { return };
    for phase in [Phase::Before, Phase::After] {
        for (index, hook) in hooks.of(phase).iter().enumerate() {
            let at = place.key(phase.as_str()).index(index);
            if hook.run.first().is_none_or(|program| program.trim().is_empty()) {
                let help =
                    "write the program and its arguments: [./freeze.sh, --all]; for a line of shell, [sh, -c, \"…\"]";
                findings.error(&at.key("run"), format!("`{at}.run` names no program"), "nothing to run", help);
            }
            if hook.container.as_ref().is_some_and(|name| name.trim().is_empty()) {
                let help = "write the name of a Compose service or of a container, or remove the key";
                findings.error(&at.key("container"), format!("`{at}.container` is empty"), "no container", help);
            }
            let timeout = hook.timeout();
            if timeout.is_zero() || timeout > LONGEST_RUN {
                let message =
                    format!("`{at}.timeout` is {timeout}, and must be more than nothing and at most {LONGEST_RUN}");
                let help = "write how long it may take at most: 5m";
                findings.error(&at.key("timeout"), message, "not a time limit", help);
            }
        }
    }
}
