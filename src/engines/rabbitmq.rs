//! RabbitMQ: its definitions as the server exports them, and, where asked for, the node's data folder with the messages,
//! read while the node is stopped.
//!
//! Consistency: the definitions are read list by list from a running server; the data folder is one moment.

mod definitions;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::inspect::{Counts, Inspect};
use super::server::{self, Server};
use super::streams::{self, DumpStream, Taker};
use super::volume::{self, Place};
use super::{Engine, EngineError, Ground, Proven, Restored, TakeRequest, Work};
use crate::model::observation::{ContainerState, Observed, SourceState};
use crate::model::run::{Artifact, Taken};
use crate::model::step::RestoreTarget;
use crate::repository::Reader;
use crate::runtime::Command;
use crate::spec::file::RabbitmqSource;

pub(super) struct Rabbitmq {
    source: RabbitmqSource,
    ground: Ground,
}

const ENGINE: &str = "rabbitmq";
const DEFINITIONS: &str = "/definitions.json";
const NODE: &str = "/node.json";
const DATA: &str = "/data.tar";

/// A node with many queues takes its time to start.
const STARTS: Duration = Duration::from_secs(300);

/// Importing a hundred thousand queues takes minutes.
const LONG: Duration = Duration::from_secs(3600);

/// A client that runs as root before the server has written its cookie writes one that the server then can't read.
const CLIENT: &str = r#": rabbitmqctl ; [ -s "${HOME:-/var/lib/rabbitmq}/.erlang.cookie" ] \
|| [ -s /var/lib/rabbitmq/.erlang.cookie ] || [ -n "${RABBITMQ_ERLANG_COOKIE:-}" ] \
|| { echo 'the server has not written its cookie (.erlang.cookie) yet: it is starting' >&2; exit 75; }
"#;

/// Whose data a folder is: a node with another name does not look at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Node {
    node: String,
    /// Its data lies in a folder of its own in there.
    folder: String,
    version: String,
}

fn inspector(name: &str) -> Option<Inspect> {
    match name {
        DEFINITIONS => Some(definitions::inspect),
        NODE => Some(inspect_node),
        DATA => Some(volume::inspect),
        _ => None,
    }
}

fn inspect_node(from: &mut dyn std::io::Read) -> Result<Counts, String> {
    let node: Node = serde_json::from_reader(from).map_err(|error| error.to_string())?;
    if node.node.is_empty() { Err("it names no node".to_owned()) } else { Ok(Vec::new()) }
}

fn client<T: Into<String>>(arguments: impl IntoIterator<Item = T>) -> Command {
    Command::script(&format!("{CLIENT}exec rabbitmqctl --silent \"$@\""), [""; 0]).args(arguments)
}

/// The same, reading a pipe by its name: `-` is taken for a file's name by some versions, and without a name some wait
/// for a terminal.
fn import() -> Command {
    Command::script(&format!("{CLIENT}cat | rabbitmqctl --silent import_definitions /dev/stdin"), [""; 0])
}

impl Rabbitmq {
    pub(super) fn new(source: &RabbitmqSource, ground: &Ground) -> Self {
        Self { source: source.clone(), ground: ground.clone() }
    }

    fn exported(server: &Server) -> Result<Vec<u8>, EngineError> {
        let export = client(["export_definitions", "-"]);
        Ok(server.docker.run(&server.container, &export, b"", LONG)?.stdout)
    }

    fn state(server: &Server) -> Result<SourceState, EngineError> {
        let exported = Self::exported(server)?;
        let counts = definitions::inspect(&mut exported.as_slice())
            .map_err(|why| EngineError::Answer { what: "rabbitmqctl export_definitions".to_owned(), why })?;
        Ok(match definitions::is_bare(&counts) {
            true => SourceState::Empty,
            false => SourceState::HasData { bytes: None },
        })
    }

    fn node(server: &Server) -> Result<Node, EngineError> {
        let asked = client(["eval", "io:format(\"~s~n~s~n\", [node(), rabbit:data_dir()])."]);
        let answer = server.ask(&asked, "")?.text();
        let mut lines = answer.lines();
        let (node, folder) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let Some((base, _)) = folder.rsplit_once('/').filter(|(base, _)| base.starts_with('/')) else {
            return Err(EngineError::Answer { what: "rabbitmqctl eval".to_owned(), why: answer.clone() });
        };
        Ok(Node { node: node.to_owned(), folder: base.to_owned(), version: Self::version(server)? })
    }

    fn version(server: &Server) -> Result<String, EngineError> {
        Ok(server.ask(&client(["version"]), "")?.text())
    }

    fn take_messages(
        &self,
        server: &Server,
        taker: Taker,
        request: TakeRequest<'_>,
        work: &Work<'_>,
    ) -> Result<Taken, EngineError> {
        // Asked while it runs, since a stopped node answers nothing.
        let node = Self::node(server)?;
        let exported = Self::exported(server)?;
        let place = Place::folder(&self.ground, server.container.clone(), &node.folder)?;
        let site = place.open(false)?;
        let json = serde_json::to_vec(&node)
            .map_err(|error| EngineError::Answer { what: "the node".to_owned(), why: error.to_string() })?;
        let small = |name: &str, bytes: Vec<u8>, inspect: Inspect| DumpStream {
            name: name.to_owned(),
            open: streams::from_bytes(bytes),
            inspect,
        };
        let all = vec![
            small(DEFINITIONS, exported, definitions::inspect),
            small(NODE, json, inspect_node),
            volume::stream(DATA, site, true),
        ];
        let store = request.store;
        let stopped = self.ground.stopped.stop(&server.docker, &writers(&place, &server.container))?;
        let taken = streams::take(request, work, taker, all);
        volume::started_again(stopped, taken, |taken| Ok(store.discard(&taken.snapshot)?))
    }

    fn restore_in_place(&self, reader: &Reader, taken: &Taken, work: &Work<'_>) -> Result<Restored, EngineError> {
        streams::must_be_whole(reader, taken, work, inspector)?;
        let server = Server::find(&self.ground, &self.source.container)?;
        let named = |name: &str| taken.artifacts.iter().find(|artifact| artifact.name == name);
        let Some(exported) = named(DEFINITIONS) else {
            return Err(EngineError::Damaged { findings: vec![format!("it holds no {DEFINITIONS}")] });
        };
        let definitions = streams::small(reader, taken, exported, work)?;
        let to = format!("the container {}", server.container.name);
        Self::must_know_the_kinds(&server, &definitions)?;
        match (named(NODE), named(DATA), self.source.messages) {
            (Some(node), Some(data), true) => {
                let node: Node = serde_json::from_slice(&streams::small(reader, taken, node, work)?)
                    .map_err(|error| EngineError::Damaged { findings: vec![format!("{NODE}: {error}")] })?;
                let mut notes = self.restore_messages(&server, &node, data, reader, taken, work)?;
                notes.extend(self.compare(&server, &definitions)?);
                Ok(Restored { to, bytes: taken.bytes(), notes })
            }
            (_, data, messages) => {
                let compared = self.import(&server, &definitions).and_then(|()| self.compare(&server, &definitions));
                let mut notes = compared.map_err(|error| EngineError::Restore {
                    doing: "importing the definitions".to_owned(),
                    after:
                        "what was there before is there; of the backup a part may be imported. Import again: what is \
                            there already does no harm"
                            .to_owned(),
                    source: Box::new(error),
                })?;
                match (data, messages) {
                    (Some(_), false) => {
                        notes.push("the messages in the backup were left out: `messages` is not set".into())
                    }
                    (None, true) => notes.push("the backup holds no messages: it was taken without `messages`".into()),
                    _ => {}
                }
                Ok(Restored { to, bytes: exported.bytes, notes })
            }
        }
    }

    /// A plugin that is not enabled makes an import fail in its middle: it is told before anything is touched.
    fn must_know_the_kinds(server: &Server, backup: &[u8]) -> Result<(), EngineError> {
        let needed = definitions::kinds(&read(backup)?);
        let list = |class: &str| -> Result<Vec<String>, EngineError> {
            let ask = format!("[io:format(\"~s~n\", [T]) || {{T, _}} <- rabbit_registry:lookup_all({class})], ok.");
            let answer = server.ask(&client(["eval", &ask]), "")?.text();
            Ok(answer.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect())
        };
        let (exchanges, parameters) = (list("exchange")?, list("runtime_parameter")?);
        // One that tells none of what every server has was not understood: the import itself will tell.
        if !exchanges.iter().any(|kind| kind == "topic") {
            return Ok(());
        }
        let lacking =
            |what: &'static str, needed: &std::collections::BTreeSet<String>, known: &[String]| -> Vec<String> {
                needed.iter().filter(|kind| !known.contains(kind)).map(|kind| format!("{what} {kind}")).collect()
            };
        let mut missing = lacking("exchanges of the type", &needed.exchanges, &exchanges);
        missing.extend(lacking("parameters of the kind", &needed.parameters, &parameters));
        if missing.is_empty() {
            return Ok(());
        }
        Err(EngineError::Refused {
            what: format!(
                "the backup has {}, which the server in the container {} does not know, so nothing was touched: enable the plugin \
                 that brings them along (`rabbitmq-plugins enable …`), and restore again",
                missing.join(", "),
                server.container.name
            ),
        })
    }

    fn import(&self, server: &Server, backup: &[u8]) -> Result<(), EngineError> {
        let whole = definitions::repaired(read(backup)?).to_string();
        server.docker.run(&server.container, &import(), whole.as_bytes(), LONG)?;
        Ok(())
    }

    fn restore_messages(
        &self,
        server: &Server,
        node: &Node,
        data: &Artifact,
        reader: &Reader,
        taken: &Taken,
        work: &Work<'_>,
    ) -> Result<Vec<String>, EngineError> {
        let now = Self::node(server)?;
        if now.node != node.node {
            return Err(EngineError::Refused {
                what: format!(
                    "the backup is of the node {}, and the container {} runs the node {}, which would not look at it; \
                     set RABBITMQ_NODENAME={} (or the same hostname) and create the container anew",
                    node.node, server.container.name, now.node, node.node
                ),
            });
        }
        let place = Place::folder(&self.ground, server.container.clone(), &now.folder)?;
        // Opened first: it stops for no longer than it must.
        let site = place.open(true)?;
        let stopped = self.ground.stopped.stop(&server.docker, &writers(&place, &server.container))?;
        let put = volume::put_back(&place, &site, reader, taken, data, work);
        drop(site);
        let mut put = volume::started_again(stopped, put, |_| Ok(()))?;
        server.docker.wait_healthy(&server.container, STARTS, work.cancel)?;
        let awaited = client(["await_startup".to_owned(), "--timeout".to_owned(), STARTS.as_secs().to_string()]);
        server.docker.run(&server.container, &awaited, b"", STARTS)?;
        if now.version != node.version {
            put.notes.push(format!("taken from version {}, and put into {}", node.version, now.version));
        }
        Ok(put.notes)
    }

    /// Everything of the backup must be there; what is there beside it is told.
    fn compare(&self, server: &Server, backup: &[u8]) -> Result<Vec<String>, EngineError> {
        let whole = |bytes: &[u8]| read(bytes).map(definitions::repaired);
        let difference = definitions::compare(&whole(backup)?, &whole(&Self::exported(server)?)?);
        if !difference.missing.is_empty() {
            let count = difference.missing.len();
            let mut findings: Vec<String> = difference.missing.into_iter().take(5).collect();
            if count > findings.len() {
                findings.push(format!("{} more", count - findings.len()));
            }
            let what = format!("the server {} (not as in the backup)", server.container.name);
            return Err(EngineError::Differs { what, findings });
        }
        Ok(match difference.beside.as_slice() {
            [] => Vec::new(),
            some => vec![format!("left as they are, since the backup does not hold them: {}", some.join(", "))],
        })
    }
}

fn read(exported: &[u8]) -> Result<serde_json::Value, EngineError> {
    serde_json::from_slice(exported).map_err(|error| EngineError::Answer {
        what: "rabbitmqctl export_definitions".to_owned(),
        why: error.to_string(),
    })
}

/// The node, and whoever else may write to its data.
fn writers(place: &Place, node: &ContainerState) -> Vec<ContainerState> {
    let mut writers: Vec<ContainerState> = place.writers().cloned().collect();
    if !volume::holds(&writers, node) {
        writers.push(node.clone());
    }
    writers
}

impl Engine for Rabbitmq {
    /// Gone: there is no such container. Empty: one vhost and one user at most, and no queue, exchange, binding, policy or
    /// parameter.
    fn observe(&self) -> Observed<SourceState> {
        server::observe(&self.ground, &self.source.container, Self::state)
    }

    fn take(&self, request: TakeRequest<'_>, work: &Work<'_>) -> Result<Taken, EngineError> {
        let server = Server::find(&self.ground, &self.source.container)?;
        if !request.allow_empty && Self::state(&server)? == SourceState::Empty {
            return Err(EngineError::Bare { engine: ENGINE, container: server.container.name });
        }
        let version = format!("RabbitMQ {}", Self::version(&server)?);
        let taker = Taker { engine: ENGINE, version, image: Some(server.container.image_digest.clone()) };
        if self.source.messages {
            return self.take_messages(&server, taker, request, work);
        }
        let export = client(["export_definitions", "-"]);
        let stream = DumpStream {
            name: DEFINITIONS.to_owned(),
            open: streams::from_program(&server.docker, &server.container, export, work.cancel),
            inspect: definitions::inspect,
        };
        streams::take(request, work, taker, vec![stream])
    }

    fn prove(&self, reader: &Reader, taken: &Taken, work: &Work<'_>) -> Result<Proven, EngineError> {
        streams::prove(reader, taken, work, inspector)
    }

    fn restore(
        &self,
        reader: &Reader,
        taken: &Taken,
        target: &RestoreTarget,
        work: &Work<'_>,
    ) -> Result<Restored, EngineError> {
        match target {
            RestoreTarget::Beside { folder } => streams::restore_beside(reader, taken, folder, work),
            RestoreTarget::InPlace | RestoreTarget::Missing => self.restore_in_place(reader, taken, work),
        }
    }
}
