//! The nodes of a cluster, and which of its 16384 slots each master serves.

use std::collections::BTreeMap;
use std::io::Read;

use serde::{Deserialize, Serialize};

use super::{MASTERS, RDB, Redis, Session};
use crate::engines::EngineError;
use crate::engines::inspect::{Counts, cut};
use crate::engines::server::{self, Server};

pub(super) const SLOTS: u16 = 16384;

/// The map is written by devstack; a reader refuses a newer one.
const FORMAT: u32 = 1;

/// From the first to the last, both in it.
pub(super) type Range = (u16, u16);

/// Who serves what. Kept beside the RDBs, so that a cluster can be formed again as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SlotMap {
    pub format: u32,
    pub masters: Vec<Master>,
    /// Not taken: they hold what their masters hold.
    pub replicas: Vec<Replica>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Master {
    /// As the file called it.
    pub container: String,
    pub id: String,
    pub config_epoch: u64,
    pub slots: Vec<Range>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Replica {
    /// As the file called it; none for one that it does not name.
    pub container: Option<String>,
    pub id: String,
    pub master: String,
}

impl Master {
    pub(super) fn artifact(&self) -> String {
        format!("{MASTERS}{}{RDB}", server::file_name(&self.container))
    }
}

impl SlotMap {
    pub(super) fn to_json(&self) -> Result<Vec<u8>, EngineError> {
        let json = serde_json::to_vec_pretty(self);
        json.map_err(|error| EngineError::Answer { what: "the slot map".to_owned(), why: error.to_string() })
    }

    pub(super) fn read(json: &[u8]) -> Result<Self, String> {
        let map: Self = serde_json::from_slice(json).map_err(|error| format!("it is no slot map: {error}"))?;
        if map.format != FORMAT {
            return Err(format!("its format {} is not one that this devstack knows", map.format));
        }
        let mut owners = Owners::default();
        for master in &map.masters {
            owners.give(&master.id, &master.slots)?;
        }
        match owners.unserved().as_slice() {
            [] => Ok(map),
            ranges => Err(format!("nobody serves {}", printed(ranges))),
        }
    }

    /// The slots of every master that serves any.
    pub(super) fn owners(&self) -> BTreeMap<&str, &[Range]> {
        self.masters.iter().map(|master| (master.id.as_str(), master.slots.as_slice())).collect()
    }
}

/// Looks through a slot map: each slot is served by one master.
pub(super) fn inspect(from: &mut dyn Read) -> Result<Counts, String> {
    let mut json = Vec::new();
    from.read_to_end(&mut json).map_err(|error| cut("the slot map", &error))?;
    let map = SlotMap::read(&json)?;
    let counts = [("masters", map.masters.len() as u64), ("slots", u64::from(SLOTS))];
    Ok(counts.map(|(name, count)| (name.to_owned(), count)).into())
}

/// Whose each slot is.
#[derive(Clone, PartialEq, Eq, Default)]
struct Owners(BTreeMap<u16, String>);

impl Owners {
    fn give(&mut self, id: &str, slots: &[Range]) -> Result<(), String> {
        for (first, last) in slots {
            for slot in *first..=*last {
                if slot >= SLOTS {
                    return Err(format!("there is no slot {slot}"));
                }
                if let Some(other) = self.0.insert(slot, id.to_owned()) {
                    return Err(format!("slot {slot} is served by two masters, {other} and {id}"));
                }
            }
        }
        Ok(())
    }

    fn ranges(&self, chosen: impl Fn(Option<&String>) -> bool) -> Vec<Range> {
        let mut ranges: Vec<Range> = Vec::new();
        for slot in (0..SLOTS).filter(|slot| chosen(self.0.get(slot))) {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == slot => *last = slot,
                _ => ranges.push((slot, slot)),
            }
        }
        ranges
    }

    fn unserved(&self) -> Vec<Range> {
        self.ranges(|owner| owner.is_none())
    }
}

pub(super) fn printed(ranges: &[Range]) -> String {
    let one = |(first, last): &Range| if first == last { first.to_string() } else { format!("{first}-{last}") };
    let slots: u32 = ranges.iter().map(|(first, last)| u32::from(last - first) + 1).sum();
    let some: Vec<String> = ranges.iter().take(5).map(one).collect();
    let more = if ranges.len() > some.len() { ", …" } else { "" };
    format!("{slots} of the {SLOTS} slots ({}{more})", some.join(", "))
}

/// A node as another one, or itself, sees it: a line of CLUSTER NODES.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub id: String,
    pub address: String,
    pub flags: Vec<String>,
    pub master: Option<String>,
    pub config_epoch: u64,
    pub slots: Vec<Range>,
    /// Slots of it are on their way to another node.
    pub moving: bool,
}

impl Seen {
    pub(super) fn is(&self, flag: &str) -> bool {
        self.flags.iter().any(|it| it == flag)
    }

    pub(super) fn is_master(&self) -> bool {
        self.is("master")
    }

    fn read(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (id, address, flags, master) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let (_, _, epoch, _) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let (mut slots, mut moving) = (Vec::new(), false);
        for word in words.filter(|word| !word.is_empty()) {
            if word.starts_with('[') {
                moving = true;
                continue;
            }
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            slots.push((first.parse().ok()?, last.parse().ok()?));
        }
        slots.sort_unstable();
        Some(Self {
            id: id.to_owned(),
            // Without the port of the cluster's own bus, and the name.
            address: address.split(['@', ',']).next()?.to_owned(),
            flags: flags.split(',').map(str::to_owned).collect(),
            master: (master != "-").then(|| master.to_owned()),
            config_epoch: epoch.parse().ok()?,
            slots,
            moving,
        })
    }
}

/// What one node sees.
pub(super) struct View {
    pub nodes: Vec<Seen>,
}

impl View {
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let nodes: Option<Vec<Seen>> = lines.map(Seen::read).collect();
        let view = Self { nodes: nodes.ok_or_else(|| text.lines().next().unwrap_or_default().to_owned())? };
        match view.nodes.iter().filter(|node| node.is("myself")).count() {
            1 => Ok(view),
            _ => Err("no node of it is the one that was asked".to_owned()),
        }
    }

    pub(super) fn myself(&self) -> &Seen {
        self.nodes.iter().find(|node| node.is("myself")).unwrap_or(&self.nodes[0])
    }

    fn owners(&self) -> Result<Owners, String> {
        let mut owners = Owners::default();
        self.nodes.iter().try_for_each(|node| owners.give(&node.id, &node.slots))?;
        Ok(owners)
    }
}

/// A declared container that is a node.
pub(super) struct Node {
    /// As the file calls it.
    pub container: String,
    pub server: Server,
    pub view: View,
}

/// The declared containers that answer.
pub(super) struct Nodes {
    pub all: Vec<Node>,
    /// The others, each with the reason.
    pub silent: Vec<(String, EngineError)>,
}

impl Redis {
    /// Every declared node that answers. A login that is refused is an error of its own.
    pub(super) fn nodes(&self, session: &Session) -> Result<Nodes, EngineError> {
        let mut nodes = Nodes { all: Vec::new(), silent: Vec::new() };
        for name in &self.source.containers {
            let asked = Server::find(&self.ground, name).and_then(|server| {
                self.settled(&server, session)?;
                let text = self.ask(&server, session, &["CLUSTER", "NODES"])?;
                let what = format!("CLUSTER NODES in the container {}", server.container.name);
                let view = View::read(&text).map_err(|why| EngineError::Answer { what, why })?;
                Ok(Node { container: name.clone(), server, view })
            });
            match asked {
                Ok(node) => nodes.all.push(node),
                Err(error @ (EngineError::Refused { .. } | EngineError::Answer { .. })) => return Err(error),
                Err(error) => nodes.silent.push((name.clone(), error)),
            }
        }
        match nodes.all.is_empty() {
            false => Ok(nodes),
            true => Err(nodes.silent.remove(0).1),
        }
    }
}

impl Nodes {
    pub(super) fn server(&self, id: &str) -> Result<&Server, EngineError> {
        let node = self.all.iter().find(|node| node.view.myself().id == id);
        let unknown = || EngineError::Refused { what: format!("no declared container is the node {id}") };
        node.map(|node| &node.server).ok_or_else(unknown)
    }

    fn unready(&self, why: impl std::fmt::Display) -> EngineError {
        let silent: Vec<String> = self
            .silent
            .iter()
            .map(|(name, error)| format!("; {name} does not answer: {}", crate::model::chain(error)))
            .collect();
        EngineError::Unready { what: format!("the Redis cluster cannot be taken whole: {why}{}", silent.concat()) }
    }

    /// The map that all of them agree on: every slot served by a declared container, none on its way to another.
    pub(super) fn map(&self) -> Result<SlotMap, EngineError> {
        let first = self.all[0].view.owners().map_err(|why| self.unready(why))?;
        for node in &self.all {
            if node.view.owners().map_err(|why| self.unready(why))? != first {
                let why = format!("{} and {} disagree on who serves what", self.all[0].container, node.container);
                return Err(self.unready(why));
            }
            if node.view.myself().moving {
                return Err(self.unready(format!("slots of {} are on their way to another node", node.container)));
            }
        }
        match first.unserved().as_slice() {
            [] => {}
            ranges => return Err(self.unready(format!("nobody serves {}", printed(ranges)))),
        }
        let container =
            |id: &str| self.all.iter().find(|node| node.view.myself().id == id).map(|node| node.container.clone());
        let (mut masters, mut replicas) = (Vec::new(), Vec::new());
        for seen in &self.all[0].view.nodes {
            if let Some(master) = &seen.master {
                let container = container(&seen.id);
                replicas.push(Replica { container, id: seen.id.clone(), master: master.clone() });
            }
            if seen.slots.is_empty() {
                continue;
            }
            let Some(container) = container(&seen.id) else {
                return Err(self.unready(format!(
                    "{} are served by the node {} at {}, which is none of the declared containers that answer",
                    printed(&seen.slots),
                    seen.id,
                    seen.address
                )));
            };
            let (id, config_epoch) = (seen.id.clone(), seen.config_epoch);
            masters.push(Master { container, id, config_epoch, slots: seen.slots.clone() });
        }
        masters.sort_by(|a, b| a.slots.cmp(&b.slots));
        replicas.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(SlotMap { format: FORMAT, masters, replicas })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIEW: &str = "\
07c3 172.18.0.2:6379@16379,redis-1 myself,master - 0 0 1 connected 0-5460 5470
67ed 172.18.0.3:6379@16379 master - 0 1426238316232 2 connected 5461-5469 5471-10922 [93-<-292f]
292f 172.18.0.4:6379@16379 master,fail? - 0 1426238318243 3 disconnected 10923-16383
6ec2 172.18.0.5:6379@16379 slave 07c3 0 1426238317741 1 connected
";

    #[test]
    fn a_view_is_read() {
        let view = View::read(VIEW).unwrap();
        assert_eq!(view.myself().slots, [(0, 5460), (5470, 5470)]);
        assert_eq!(view.nodes[1].slots, [(5461, 5469), (5471, 10922)]);
        assert!(view.nodes[1].moving && !view.nodes[0].moving);
        assert_eq!(view.nodes[2].address, "172.18.0.4:6379");
        assert_eq!(view.nodes[3].master.as_deref(), Some("07c3"));
        assert!(view.owners().unwrap().unserved().is_empty());
        assert!(View::read("ERR This instance has cluster support disabled").is_err());
        assert!(View::read("").is_err());
    }

    #[test]
    fn a_map_with_holes_or_doubles_is_not_whole() {
        let master = |id: &str, slots: &[Range]| Master {
            container: id.to_owned(),
            id: id.to_owned(),
            config_epoch: 1,
            slots: slots.to_vec(),
        };
        let map = |masters: &[Master]| SlotMap { format: FORMAT, masters: masters.to_vec(), replicas: Vec::new() };
        let whole = map(&[master("a", &[(0, 99), (200, 16383)]), master("b", &[(100, 199)])]);
        let json = whole.to_json().unwrap();
        assert_eq!(SlotMap::read(&json).unwrap(), whole);
        assert_eq!(inspect(&mut json.as_slice()).unwrap()[0], ("masters".to_owned(), 2));
        for length in 0..json.len() {
            assert!(inspect(&mut &json[..length]).is_err(), "cut after {length} bytes");
        }
        for wrong in [
            map(&[master("a", &[(0, 16382)])]),
            map(&[master("a", &[(0, 16384)])]),
            map(&[master("a", &[(0, 16383)]), master("b", &[(7, 7)])]),
            SlotMap { format: 2, ..whole.clone() },
        ] {
            assert!(SlotMap::read(&wrong.to_json().unwrap()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn ranges_are_told_briefly() {
        assert_eq!(printed(&[(0, 99), (101, 101)]), "101 of the 16384 slots (0-99, 101)");
    }
}
