//! Making a cluster as it was: which running node takes over the slots of which master of the backup. A cluster that
//! serves the same slots is taken as it is; empty nodes are formed anew.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::cluster::{Master, Node, Nodes, SlotMap, printed};
use super::{Redis, Session};
use crate::engines::server::Server;
use crate::engines::{EngineError, Work};
use crate::runtime::Command;

const PORT: u16 = 6379;

/// Nodes that were told of each other have agreed within this.
const AGREED: Duration = Duration::from_secs(120);
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
/// Nodes that lost each other are told of each other, and once more if that did not help: a handshake takes a moment.
const BETWEEN_MEETINGS: Duration = Duration::from_secs(1);

/// A formed cluster.
pub(super) struct Formed {
    pub nodes: Nodes,
    /// Each master of the backup, and the container that serves its slots now.
    pub serving: Vec<(Master, String)>,
    pub notes: Vec<String>,
}

impl Redis {
    /// The running cluster with the slots as they were, formed anew where its nodes are empty.
    pub(super) fn formed(&self, map: &SlotMap, session: &Session, work: &Work<'_>) -> Result<Formed, EngineError> {
        let mut nodes = self.nodes(session)?;
        if !nodes.silent.is_empty() {
            // All nodes are stopped together: a replica that was left out would take over with the old data.
            return Err(nodes.silent.remove(0).1);
        }
        if let Ok(now) = nodes.map()
            && let Some(serving) = same_slots(map, &now)
        {
            return Ok(Formed { nodes, serving, notes: Vec::new() });
        }
        for node in &nodes.all {
            if !self.settled(&node.server, session)?.is_empty() {
                let what = format!(
                    "the Redis cluster serves its slots otherwise than when the backup was taken, and {} holds data: move the \
                     slots back (`redis-cli --cluster`), or empty every master (FLUSHALL, FUNCTION FLUSH), so that the cluster is \
                     formed anew",
                    node.container
                );
                return Err(EngineError::Refused { what });
            }
        }
        let serving = assigned(map, &self.source.containers)?;
        self.form(&nodes, map, &serving, session, work)?;
        let nodes = self.nodes(session)?;
        let notes = vec!["the nodes were empty; the cluster was formed anew, with the slots as they were".to_owned()];
        let formed = Formed { nodes, serving, notes };
        self.wait_formed(&formed, session, work)?;
        Ok(formed)
    }

    fn form(
        &self,
        nodes: &Nodes,
        map: &SlotMap,
        serving: &[(Master, String)],
        session: &Session,
        work: &Work<'_>,
    ) -> Result<(), EngineError> {
        for node in &nodes.all {
            // Refused by a master that has keys.
            self.ask(&node.server, session, &["CLUSTER", "RESET", "HARD"])?;
        }
        let server = |container: &str| {
            let node = nodes.all.iter().find(|node| node.container == container);
            node.map(|node| &node.server).ok_or_else(|| EngineError::Refused {
                what: format!("the container {container} is none of the nodes that answer"),
            })
        };
        for (place, (master, container)) in serving.iter().enumerate() {
            let server = server(container)?;
            let epoch = (place + 1).to_string();
            self.ask(server, session, &["CLUSTER", "SET-CONFIG-EPOCH", &epoch])?;
            let ends: Vec<String> =
                master.slots.iter().flat_map(|(first, last)| [first, last]).map(u16::to_string).collect();
            for some in ends.chunks(1000) {
                let words = ["CLUSTER", "ADDSLOTSRANGE"].into_iter().chain(some.iter().map(String::as_str));
                self.ask(server, session, &words.collect::<Vec<_>>())?;
            }
        }
        if let Some((first, others)) = nodes.all.split_first() {
            // Gossip tells everybody else.
            others.iter().try_for_each(|other| self.meet(first, other, session))?;
        }
        let since = Instant::now();
        for node in &nodes.all {
            while self.view(&node.server, session)?.nodes.len() < nodes.all.len() {
                patience(since, work, &format!("{} does not know all nodes", node.container))?;
            }
        }
        // Nodes that serve no slot: replicas, of the masters that they were replicas of.
        for node in nodes.all.iter().filter(|node| serving.iter().all(|(_, container)| *container != node.container)) {
            let was = map.replicas.iter().find(|replica| replica.container.as_deref() == Some(&node.container));
            let of = was.and_then(|was| serving.iter().find(|(master, _)| master.id == was.master));
            if let Some((_, container)) = of {
                let master = self.ask(server(container)?, session, &["CLUSTER", "MYID"])?;
                // It has to have heard of the master first.
                while let Err(error) = self.ask(&node.server, session, &["CLUSTER", "REPLICATE", &master]) {
                    patience(since, work, &crate::model::chain(&error))?;
                }
            }
        }
        Ok(())
    }

    fn meet(&self, node: &Node, other: &Node, session: &Session) -> Result<(), EngineError> {
        let port = self.source.port.unwrap_or(PORT).to_string();
        let address = self.address(&node.server, &other.server, session)?;
        self.ask(&node.server, session, &["CLUSTER", "MEET", &address, &port]).map(drop)
    }

    /// Containers may have come back with each other's addresses. Gossip does not mend a node without an address: only a
    /// handshake of the two does.
    fn reunite(&self, nodes: &Nodes, session: &Session) -> Result<(), EngineError> {
        for node in &nodes.all {
            let view = self.view(&node.server, session)?;
            for lost in view.nodes.iter().filter(|seen| seen.is("noaddr")) {
                if let Some(other) = nodes.all.iter().find(|other| other.view.myself().id == lost.id) {
                    self.meet(node, other, session)?;
                }
            }
        }
        Ok(())
    }

    /// Where `from` reaches `to`: what it announces, what the network's own names say, what it calls itself.
    fn address(&self, from: &Server, to: &Server, session: &Session) -> Result<String, EngineError> {
        let announced = self.ask(to, session, &["CONFIG", "GET", "cluster-announce-ip"])?;
        if let Some(address) = announced.lines().nth(1).map(str::trim).filter(|address| !address.is_empty()) {
            return Ok(address.to_owned());
        }
        let named = Command::script("getent hosts \"$1\" || true", [to.container.name.clone()]);
        let own = Command::new(["hostname", "-i"]);
        for (server, command) in [(from, &named), (to, &own)] {
            let text = server.ask(command, "")?.text();
            let found = text
                .split_whitespace()
                .find(|word| word.parse::<std::net::Ipv4Addr>().is_ok_and(|it| !it.is_loopback()));
            if let Some(address) = found {
                return Ok(address.to_owned());
            }
        }
        Err(EngineError::Answer {
            what: format!("hostname -i in the container {}", to.container.name),
            why: "it gives no address; set cluster-announce-ip".to_owned(),
        })
    }

    fn view(&self, server: &Server, session: &Session) -> Result<super::cluster::View, EngineError> {
        let text = self.ask(server, session, &["CLUSTER", "NODES"])?;
        let what = format!("CLUSTER NODES in the container {}", server.container.name);
        super::cluster::View::read(&text).map_err(|why| EngineError::Answer { what, why })
    }

    /// Waits until every node says that the cluster is whole, with the slots where they belong.
    pub(super) fn wait_formed(&self, formed: &Formed, session: &Session, work: &Work<'_>) -> Result<(), EngineError> {
        let (since, mut met) = (Instant::now(), Instant::now());
        loop {
            let mut look = self.is_formed(formed, session);
            if matches!(look, Ok(Some(_))) && met.elapsed() > BETWEEN_MEETINGS {
                met = Instant::now();
                look = self.reunite(&formed.nodes, session).and(look);
            }
            let why = match look {
                Ok(None) => return Ok(()),
                Ok(Some(why)) => why,
                // A replica that loads what its master sends answers nothing else.
                Err(error @ EngineError::Unready { .. }) => crate::model::chain(&error),
                Err(error) => return Err(error),
            };
            patience(since, work, &why)?;
        }
    }

    fn is_formed(&self, formed: &Formed, session: &Session) -> Result<Option<String>, EngineError> {
        for node in &formed.nodes.all {
            let state = self.ask(&node.server, session, &["CLUSTER", "INFO"])?;
            if !state.lines().any(|line| line.trim() == "cluster_state:ok") {
                return Ok(Some(format!("{} says that the cluster is not whole", node.container)));
            }
            let view = self.view(&node.server, session)?;
            // Two that lost each other still call the cluster whole, and send clients to nowhere.
            if let Some(lost) = view.nodes.iter().find(|seen| seen.is("noaddr")) {
                return Ok(Some(format!("{} does not know where the node {} is", node.container, lost.id)));
            }
            let serving = formed.serving.iter().find(|(_, container)| *container == node.container);
            let slots = serving.map_or(&[][..], |(master, _)| &master.slots);
            if view.myself().slots != slots {
                return Ok(Some(format!("{} serves {}", node.container, printed(&view.myself().slots))));
            }
            if serving.is_some() && !view.myself().is_master() {
                return Ok(Some(format!("{} is no master", node.container)));
            }
        }
        Ok(None)
    }
}

/// Waits a little. Too long a wait is an error with the reason.
fn patience(since: Instant, work: &Work<'_>, why: &str) -> Result<(), EngineError> {
    if work.cancel.is_cancelled() {
        return Err(EngineError::Interrupted);
    }
    if since.elapsed() > AGREED {
        let what = format!("the Redis cluster was not whole after {} s: {why}", AGREED.as_secs());
        return Err(EngineError::Unready { what });
    }
    sleep(BETWEEN_LOOKS);
    Ok(())
}

/// For each master of the backup the container that serves exactly its slots now; None where any is served otherwise.
fn same_slots(map: &SlotMap, now: &SlotMap) -> Option<Vec<(Master, String)>> {
    let serves = |master: &Master| now.masters.iter().find(|other| other.slots == master.slots);
    map.masters.iter().map(|master| Some((master.clone(), serves(master)?.container.clone()))).collect()
}

/// For each master of the backup the container that is to serve its slots: its own, where the file still names it.
fn assigned(map: &SlotMap, containers: &[String]) -> Result<Vec<(Master, String)>, EngineError> {
    let kept = |container: &String| map.masters.iter().any(|master| master.container == *container);
    let was_replica = |container: &String| map.replicas.iter().any(|it| it.container.as_ref() == Some(container));
    let mut free: Vec<&String> = containers.iter().filter(|container| !kept(container)).collect();
    // Those that were replicas stay so as long as there are others.
    free.sort_by_key(|container| was_replica(container));
    let mut free = free.into_iter();
    let mut serving = Vec::new();
    for master in &map.masters {
        let own = containers.iter().find(|container| **container == master.container);
        let Some(container) = own.or_else(|| free.next()) else {
            let what = format!(
                "the backup is of {} masters, and the file names {} containers",
                map.masters.len(),
                containers.len()
            );
            return Err(EngineError::Refused { what });
        };
        serving.push((master.clone(), container.clone()));
    }
    Ok(serving)
}

#[cfg(test)]
mod tests {
    use super::super::cluster::Replica;
    use super::*;

    fn map(masters: &[(&str, (u16, u16))], replicas: &[&str]) -> SlotMap {
        let masters = masters.iter().map(|(name, slots)| Master {
            container: (*name).to_owned(),
            id: format!("id of {name}"),
            config_epoch: 0,
            slots: vec![*slots],
        });
        let replicas = replicas.iter().map(|name| Replica {
            container: Some((*name).to_owned()),
            id: format!("id of {name}"),
            master: "id of a".to_owned(),
        });
        SlotMap { format: 1, masters: masters.collect(), replicas: replicas.collect() }
    }

    fn names(serving: &[(Master, String)]) -> Vec<(&str, &str)> {
        serving.iter().map(|(master, container)| (master.container.as_str(), container.as_str())).collect()
    }

    #[test]
    fn a_cluster_with_the_same_slots_is_taken_as_it_is() {
        let was = map(&[("a", (0, 99)), ("b", (100, 16383))], &[]);
        let now = map(&[("x", (100, 16383)), ("a", (0, 99))], &[]);
        assert_eq!(names(&same_slots(&was, &now).unwrap()), [("a", "a"), ("b", "x")]);
        assert!(same_slots(&was, &map(&[("a", (0, 98)), ("b", (99, 16383))], &[])).is_none());
    }

    #[test]
    fn a_master_goes_back_into_its_own_container_or_into_a_free_one() {
        let was = map(&[("a", (0, 99)), ("b", (100, 16383))], &["r"]);
        let containers = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(names(&assigned(&was, &containers(&["r", "b", "a"])).unwrap()), [("a", "a"), ("b", "b")]);
        assert_eq!(names(&assigned(&was, &containers(&["r", "x", "a"])).unwrap()), [("a", "a"), ("b", "x")]);
        assert!(assigned(&was, &containers(&["a"])).is_err());
    }
}
