//! What stops and starts as one. A container that shares another's network, processes or memory can't start before it, and is cut
//! off once that one has been started anew; one that depends on another by its Compose file stops first and starts last.

use crate::model::observation::{COMPOSE_SERVICE, ContainerState};

/// `db:service_started:false,cache:service_healthy:true`
const DEPENDS_ON: &str = "com.docker.compose.depends_on";

/// Those that are asked for, and whoever shares something with one of them, in the order in which they stop. Started they are in
/// the other.
pub(super) fn whole(running: &[ContainerState], asked: Vec<ContainerState>) -> Vec<ContainerState> {
    let mut all: Vec<ContainerState> = Vec::new();
    for container in asked {
        if all.iter().all(|it| it.id != container.id) {
            all.push(container);
        }
    }
    while let Some(more) = running.iter().find(|it| {
        let is_in = all.iter().any(|known| known.id == it.id);
        !is_in && all.iter().any(|known| it.joins.contains(&known.id))
    }) {
        all.push(more.clone());
    }
    in_order(all)
}

/// Whoever needs another comes before it.
pub(super) fn in_order(mut left: Vec<ContainerState>) -> Vec<ContainerState> {
    let mut ordered = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let is_needed = |one: &ContainerState| left.iter().any(|other| other.id != one.id && needs(other, one));
        // Where each needs another, which no Compose file can say, the first as well as any.
        let next = left.iter().position(|one| !is_needed(one)).unwrap_or(0);
        ordered.push(left.remove(next));
    }
    ordered
}

fn needs(one: &ContainerState, other: &ContainerState) -> bool {
    if one.joins.contains(&other.id) {
        return true;
    }
    let project = |it: &ContainerState| it.labels.get(super::containers::PROJECT).cloned();
    let (Some(service), Some(needed)) = (other.labels.get(COMPOSE_SERVICE), one.labels.get(DEPENDS_ON)) else {
        return false;
    };
    project(one) == project(other) && needed.split(',').any(|it| it.split(':').next() == Some(service))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::ContainerId;

    fn container(name: &str, joins: &[&str], depends_on: &str) -> ContainerState {
        let labels = [(COMPOSE_SERVICE, name), (DEPENDS_ON, depends_on), (super::super::containers::PROJECT, "shop")];
        ContainerState {
            joins: joins.iter().map(|id| ContainerId::new(*id)).collect(),
            labels: labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            ..ContainerState::mounting(name, Vec::new())
        }
    }

    fn names(containers: &[ContainerState]) -> Vec<&str> {
        containers.iter().map(|it| it.name.as_str()).collect()
    }

    #[test]
    fn whoever_shares_a_network_stops_with_it_and_before_it() {
        let vpn = container("vpn", &[], "");
        let leech = container("leech", &["vpn"], "");
        let second = container("second", &["leech"], "");
        let other = container("other", &["elsewhere"], "");
        let running = [vpn.clone(), leech.clone(), second.clone(), other];
        assert_eq!(names(&whole(&running, vec![vpn.clone()])), ["second", "leech", "vpn"]);
        assert_eq!(names(&whole(&running, vec![vpn.clone(), leech.clone(), vpn.clone()])), ["second", "leech", "vpn"]);
        assert_eq!(names(&whole(&running, vec![second])), ["second"], "what it joins need not stop");
        assert_eq!(names(&whole(&[], vec![vpn, leech])), ["leech", "vpn"]);
    }

    #[test]
    fn what_depends_on_another_stops_first() {
        let db = container("db", &[], "");
        let app = container("app", &[], "db:service_healthy:false,cache:service_started:true");
        let cache = container("cache", &[], "");
        let all = vec![db.clone(), cache, app.clone()];
        assert_eq!(names(&in_order(all)), ["app", "db", "cache"]);
        let round = vec![container("a", &["b"], ""), container("b", &["a"], "")];
        assert_eq!(names(&in_order(round)), ["a", "b"]);
        let mut elsewhere = db;
        elsewhere.labels.insert(super::super::containers::PROJECT.to_owned(), "other".to_owned());
        assert_eq!(names(&in_order(vec![elsewhere, app])), ["db", "app"], "a service of another project");
    }
}
