//! Redis: the RDB of a server, or of every master of a cluster with the map of its slots, as a replica would get it.
//!
//! Consistency: each server's RDB is one moment; the masters of a cluster are of different moments.

mod cluster;
mod crc64;
mod form;
mod loading;
mod mark;
mod rdb;
mod restore;
mod swap;
pub(super) mod tar;

use std::collections::BTreeMap;
use std::io::Read;

use super::inspect::Inspect;
use super::server::{self, Server};
use super::streams::{self, DumpStream, Open, Taker};
use super::{Answer, Engine, EngineError, Ground, Proven, Restored, TakeRequest, Work, misplaced};
use crate::model::assertion::{Assertion, short};
use crate::model::cancel::Cancel;
use crate::model::observation::{Observed, SourceState};
use crate::model::run::Taken;
use crate::model::step::RestoreTarget;
use crate::model::units::ByteSize;
use crate::repository::Reader;
use crate::runtime::Command;
use crate::spec::file::{RedisSource, SecretRef};

pub(super) struct Redis {
    source: RedisSource,
    ground: Ground,
}

const ENGINE: &str = "redis";

/// A server waits 5 s for further replicas before it begins (repl-diskless-sync-delay): the masters of a small cluster wait
/// at the same time, and are nearer to one moment. Those of a large one would wait too long for their turns, and each try
/// makes a server fork.
const OPENED_AT_ONCE: ByteSize = ByteSize(512 << 20);
/// The RDB of a single server.
const SINGLE: &str = "/dump.rdb";
const SLOTS: &str = "/slots.json";
/// The RDBs of a cluster's masters, by their containers.
const MASTERS: &str = "/masters/";
const RDB: &str = ".rdb";

type Session = server::Session<Option<String>>;

/// What a server says of itself.
struct Info(BTreeMap<String, String>);

impl Info {
    fn number(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.parse().ok()
    }

    /// The bytes of the data in memory. A server with next to none may find them to be less than nothing, and tells
    /// that as a number without a sign.
    fn dataset(&self) -> u64 {
        let all = self.number("used_memory").unwrap_or_default();
        self.number("used_memory_dataset").filter(|data| *data <= all).unwrap_or_default()
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.0.get(name).is_some_and(|it| it == value)
    }

    /// The keys of all databases: `db0:keys=3,expires=1,…`.
    fn keys(&self) -> u64 {
        let databases = self.0.iter().filter(|(name, _)| {
            name.strip_prefix("db").is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
        });
        let keys = databases.filter_map(|(_, value)| value.split(',').find_map(|part| part.strip_prefix("keys=")));
        keys.filter_map(|keys| keys.parse::<u64>().ok()).sum()
    }

    fn libraries(&self) -> Option<u64> {
        self.number("number_of_libraries")
    }

    fn is_empty(&self) -> bool {
        self.keys() == 0 && self.libraries().unwrap_or_default() == 0
    }
}

impl Redis {
    pub(super) fn new(source: &RedisSource, ground: &Ground) -> Self {
        Self { source: source.clone(), ground: ground.clone() }
    }

    fn session(&self) -> Result<Session, EngineError> {
        Session::open(self.source.user.clone(), self.source.password.as_ref(), &self.ground)
    }

    fn restorer(&self) -> Result<Session, EngineError> {
        Session::restoring(self.source.restore_as.as_ref(), &self.ground).unwrap_or_else(|| self.session())
    }

    /// The server's client, told whom to connect as and where. The password goes by the environment.
    fn client(&self, session: &Session) -> Command {
        let mut command = Command::new(["redis-cli", "--raw"]);
        if let Some(port) = self.source.port {
            command = command.args(["-p", &port.to_string()]);
        }
        if let Some(user) = &session.user {
            command = command.args(["--user", user]);
        }
        match (&session.password, &session.user) {
            (Some(password), _) => command = command.env("REDISCLI_AUTH", password),
            // Without a password the client would not say the user either; one that needs none takes any.
            (None, Some(_)) => command = command.env("REDISCLI_AUTH", ""),
            (None, None) => {}
        }
        if let Some(tls) = &self.source.tls {
            command = command.args(["--tls", "--cacert", &tls.ca]);
            if let (Some(cert), Some(key)) = (&tls.cert, &tls.key) {
                command = command.args(["--cert", cert, "--key", key]);
            }
        }
        command
    }

    /// A server's answer to a command. The client ends with 0 whatever the server answers, so that an error is known by
    /// how it begins.
    fn ask(&self, server: &Server, session: &Session, words: &[&str]) -> Result<String, EngineError> {
        let finished = server.ask(&self.client(session).args(words.iter().copied()), "")?;
        let text = finished.text();
        let Some(error) = error_in(&text) else { return Ok(text) };
        let login = finished.stderr.lines().find(|line| line.starts_with("AUTH failed")).unwrap_or_default();
        let said = if login.is_empty() { error.to_owned() } else { format!("{login}; {error}") };
        let login = ["WRONGPASS ", "NOAUTH "].iter().any(|word| error.starts_with(word)) || !login.is_empty();
        let from = match self.source.password.as_ref().filter(|_| login) {
            Some(SecretRef { env: Some(name), .. }) => format!("; its password is that of the variable {name}"),
            Some(SecretRef { file: Some(path), .. }) => format!("; its password is that of {}", path.display()),
            Some(SecretRef { env_file: Some(path), name: Some(name), .. }) => {
                format!("; its password is the variable {name} of {}", path.display())
            }
            Some(SecretRef { vault: Some(path), .. }) => format!("; its password is {path} of Vault"),
            _ => String::new(),
        };
        let what =
            format!("Redis in the container {} refused {}: {said}{from}", server.container.name, words.join(" "));
        match ["LOADING ", "BUSY ", "MASTERDOWN "].iter().any(|word| error.starts_with(word)) {
            true => Err(EngineError::Unready { what }),
            false => Err(EngineError::Refused { what }),
        }
    }

    fn info(&self, server: &Server, session: &Session) -> Result<Info, EngineError> {
        let text = self.ask(server, session, &["INFO"])?;
        let pairs = text.lines().filter_map(|line| line.trim().split_once(':'));
        let info = Info(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect());
        if !info.0.contains_key("redis_version") || !info.0.contains_key("loading") {
            let why = text.lines().next().unwrap_or("nothing").to_owned();
            return Err(EngineError::Answer { what: format!("Redis in the container {}", server.container.name), why });
        }
        Ok(info)
    }

    /// As [`Self::info`], of a server that has loaded its data and is what the file says that it is.
    fn settled(&self, server: &Server, session: &Session) -> Result<Info, EngineError> {
        let info = self.info(server, session)?;
        let name = &server.container.name;
        if !info.is("loading", "0") {
            let what = format!("Redis in the container {name} is still loading its data");
            return Err(EngineError::Unready { what });
        }
        let what = match (info.is("cluster_enabled", "1"), self.source.cluster) {
            (true, false) => format!(
                "Redis in the container {name} is a node of a cluster; name all nodes in `containers` and write `cluster: true`"
            ),
            (false, true) => format!(
                "Redis in the container {name} is no node of a cluster; take `cluster: true` out of the file, or correct `containers`"
            ),
            _ => return Ok(info),
        };
        Err(EngineError::Refused { what })
    }

    fn single(&self) -> Result<Server, EngineError> {
        // The file's check has made sure that there is exactly one.
        Server::find(&self.ground, self.source.containers.first().map_or("", String::as_str))
    }

    fn state(&self) -> Result<SourceState, EngineError> {
        let (mut bytes, mut is_empty, mut gone) = (0, true, Vec::new());
        let session = self.session()?;
        for name in &self.source.containers {
            if self.ground.containers.look_for(name)?.is_none() {
                gone.push(name.as_str());
                continue;
            }
            let info = self.settled(&Server::find(&self.ground, name)?, &session)?;
            is_empty &= info.is_empty();
            if !info.is("role", "slave") {
                bytes += info.dataset();
            }
        }
        match (gone.len() == self.source.containers.len(), is_empty, gone.as_slice()) {
            (true, _, _) => Ok(SourceState::Gone),
            (false, false, _) => Ok(SourceState::HasData { bytes: Some(ByteSize(bytes)).filter(|bytes| bytes.0 > 0) }),
            (false, true, []) => Ok(SourceState::Empty),
            (false, true, gone) => Err(EngineError::Refused {
                what: format!("the nodes that are there are empty, and there is no container {}", gone.join(", ")),
            }),
        }
    }

    fn dump(&self, server: &Server, session: &Session, cancel: &Cancel) -> Open {
        let command = self.client(session).args(["--rdb", "-"]);
        let open = streams::from_program(&server.docker, &server.container, command, cancel);
        Box::new(move || Ok(Box::new(mark::WithoutMark::new(open()?)) as Box<dyn Read + Send>))
    }

    /// A restore asks where the server keeps its files. One that will never answer gives no backup, which would be believed.
    ///
    /// Gives what is to be told where only the rights are missing, which can be given at any time.
    fn can_be_restored(&self, server: &Server) -> Result<Vec<String>, EngineError> {
        // The password of who restores need not be here at night.
        let Ok(session) = self.restorer() else { return Ok(Vec::new()) };
        let name = &server.container.name;
        match self.ask(server, &session, &["CONFIG", "GET", "dir"]) {
            Ok(_) => Ok(Vec::new()),
            Err(EngineError::Refused { what }) if what.contains("unknown command") => Err(EngineError::Refused {
                what: format!(
                    "Redis in the container {name} knows no CONFIG (`rename-command`), and a restore has to ask it where its files \
                     lie: what is taken could not be put back; forbid the command to other users by ACLs in place of renaming it"
                ),
            }),
            Err(EngineError::Refused { what }) => {
                Ok(vec![format!("a restore in place will need more rights (`restore_as`): {what}")])
            }
            Err(error) => Err(error),
        }
    }

    fn take_single(&self, request: TakeRequest<'_>, work: &Work<'_>) -> Result<Taken, EngineError> {
        let server = self.single()?;
        let session = self.session()?;
        if self.settled(&server, &session)?.is_empty() && !request.allow_empty {
            return Err(EngineError::Bare { engine: ENGINE, container: server.container.name });
        }
        let notes = self.can_be_restored(&server)?;
        let stream = DumpStream {
            name: SINGLE.to_owned(),
            open: self.dump(&server, &session, work.cancel),
            inspect: rdb::inspect,
        };
        let mut taken = streams::take(request, work, taker(&server)?, vec![stream])?;
        taken.notes.extend(notes);
        Ok(taken)
    }

    fn take_cluster(&self, request: TakeRequest<'_>, work: &Work<'_>) -> Result<Taken, EngineError> {
        let session = self.session()?;
        let nodes = self.nodes(&session)?;
        let map = nodes.map()?;
        let (mut is_empty, mut memory) = (true, 0);
        let mut notes = Vec::new();
        for master in &map.masters {
            notes.extend(self.can_be_restored(nodes.server(&master.id)?)?);
            let info = self.settled(nodes.server(&master.id)?, &session)?;
            is_empty &= info.is_empty();
            memory = info.number("used_memory").map_or(u64::MAX, |bytes| bytes.saturating_add(memory));
        }
        let server = nodes.server(&map.masters[0].id)?;
        if is_empty && !request.allow_empty {
            return Err(EngineError::Bare { engine: ENGINE, container: server.container.name.clone() });
        }
        let map_of_slots = streams::from_bytes(map.to_json()?);
        let mut dumps = vec![DumpStream { name: SLOTS.to_owned(), open: map_of_slots, inspect: cluster::inspect }];
        for master in &map.masters {
            let server = nodes.server(&master.id)?;
            let dump = || self.dump(server, &session, work.cancel);
            let open = if memory <= OPENED_AT_ONCE.0 { streams::opened_ahead(dump(), dump()) } else { dump() };
            dumps.push(DumpStream { name: master.artifact(), open, inspect: rdb::inspect });
        }
        let store = request.store;
        let mut taken = streams::take(request, work, taker(server)?, dumps)?;
        taken.notes.extend(notes);
        // A slot that moved meanwhile may be in two of the RDBs or in none.
        match self.nodes(&session).and_then(|nodes| nodes.map()) {
            Ok(after) if after.owners() == map.owners() => Ok(taken),
            Ok(_) => {
                store.discard(&taken.snapshot)?;
                let what = "slots of the Redis cluster moved to other masters while it was taken";
                Err(EngineError::Unready { what: what.to_owned() })
            }
            Err(error) => {
                store.discard(&taken.snapshot)?;
                Err(error)
            }
        }
    }
}

fn taker(server: &Server) -> Result<Taker, EngineError> {
    let version = server.ask(&Command::new(["redis-cli", "--version"]), "")?.text();
    Ok(Taker { engine: ENGINE, version, image: Some(server.container.image_digest.clone()) })
}

/// An error as the server's protocol has it: a word in capitals, and a text. Nothing that is asked here answers so.
fn error_in(text: &str) -> Option<&str> {
    let line = text.lines().next()?.trim();
    let (word, _) = line.split_once(' ')?;
    (word.len() >= 3 && word.bytes().all(|byte| byte.is_ascii_uppercase())).then_some(line)
}

/// An answer without what the client says of the nodes of a cluster that it was sent on to.
fn without_redirects(mut text: &str) -> &str {
    while text.starts_with("-> Redirected to slot [") {
        text = text.split_once('\n').map_or("", |(_, rest)| rest);
    }
    text
}

/// What an artifact is, by its name.
fn inspector(name: &str) -> Option<Inspect> {
    match name {
        SLOTS => Some(cluster::inspect),
        SINGLE => Some(rdb::inspect),
        name => name.strip_prefix(MASTERS)?.strip_suffix(RDB).map(|_| rdb::inspect as Inspect),
    }
}

impl Engine for Redis {
    /// Gone: there is none of the containers. Empty: all are there, and none has a key in any database or a library of
    /// functions.
    fn observe(&self) -> Observed<SourceState> {
        match self.state() {
            Ok(state) => Observed::Known(state),
            Err(error) => Observed::Unknown { reason: crate::model::chain(&error) },
        }
    }

    fn take(&self, request: TakeRequest<'_>, work: &Work<'_>) -> Result<Taken, EngineError> {
        match self.source.cluster {
            true => self.take_cluster(request, work),
            false => self.take_single(request, work),
        }
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

    /// Of a cluster, the first node is asked, and the client follows it to where the key is.
    fn answer(&self, assertion: &Assertion) -> Result<Answer, EngineError> {
        let Assertion::Redis(asked) = assertion else { return Err(misplaced(assertion)) };
        let server = Server::find(&self.ground, self.source.containers.first().map_or("", String::as_str))?;
        let client = self.client(&self.session()?);
        let client = if self.source.cluster { client.arg("-c") } else { client };
        let finished = server.ask(&client.args(asked.command.iter().cloned()), "")?;
        let text = without_redirects(&finished.text()).to_owned();
        let came = if text.is_empty() { "nothing".to_owned() } else { format!("`{}`", short(&text)) };
        Ok(Answer { holds: text == asked.expect, came })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_from_answers() {
        for error in ["NOAUTH Authentication required.", "ERR unknown command", "NOPERM User x has no permissions"] {
            assert_eq!(error_in(error), Some(error));
        }
        for answer in ["# Server\r\nredis_version:8.0.2", "dir\n/data", "OK", "", "07c37df 10.0.0.1:6379@16379 myself"]
        {
            assert_eq!(error_in(answer), None, "{answer}");
        }
    }

    #[test]
    fn where_the_client_was_sent_on_to_is_no_part_of_an_answer() {
        let sent_on = "-> Redirected to slot [5798] located at 172.20.0.3:6379\nyes\n-> Redirected to slot [1] too";
        assert_eq!(without_redirects(sent_on), "yes\n-> Redirected to slot [1] too");
        assert_eq!(without_redirects("1"), "1");
        assert_eq!(without_redirects("-> Redirected to slot [5798] located at 172.20.0.3:6379"), "");
    }

    #[test]
    fn keys_of_all_databases_are_counted() {
        let info = |lines: &[(&str, &str)]| {
            Info(lines.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
        };
        let some =
            info(&[("db0", "keys=3,expires=1,avg_ttl=0"), ("db11", "keys=4,expires=0"), ("dbfilename", "keys=9")]);
        assert_eq!(some.keys(), 7);
        assert_eq!(info(&[("used_memory", "1000"), ("used_memory_dataset", "300")]).dataset(), 300);
        assert_eq!(info(&[("used_memory", "1000"), ("used_memory_dataset", "18446744073709551516")]).dataset(), 0);
        assert!(info(&[("number_of_libraries", "0")]).is_empty());
        assert!(!info(&[("number_of_libraries", "1")]).is_empty());
    }
}
