//! Questions to the server, asked through `mongosh`: scripts that are the same for everybody, with what differs, the
//! password first of all, in the environment.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Mongodb, Session};
use crate::engines::server::{ANSWER, Server};
use crate::engines::{EngineError, LONGEST_ANSWER};
use crate::runtime::Command;

/// The line that an answer stands on: the shell has words of its own, about its updates for one.
const MARK: &str = "devstack-answer ";

/// Logs in, and says how answers and errors are given.
const BEGINNING: &str = r#"
const {DEVSTACK_USER: user, DEVSTACK_PASSWORD: password, DEVSTACK_OPTIONS: options} = process.env;
const who = user ? encodeURIComponent(user) + (password ? ":" + encodeURIComponent(password) : "") + "@" : "";
const server = new Mongo("mongodb://" + who + "localhost:27017/?" + options);
const admin = server.getDB("admin");
const answer = (value) => print("devstack-answer " + JSON.stringify(value));
const own = (name) => name.startsWith("system.") && name !== "system.js";
const database = (name) => server.getDB(name);
const names = (name) => database(name).getCollectionInfos({}, {nameOnly: true}).map((it) => it.name);
"#;

/// What is on the server. Without `authorizedDatabases: false` a user that may not see every database would be shown
/// the others as if they were all.
const LOOK: &str = r#"
const found = admin.runCommand({listDatabases: 1, authorizedDatabases: false}).databases;
answer(found.filter(({name}) => name !== "config" && name !== "local").map(({name, sizeOnDisk}) =>
  ({name, bytes: Number(sizeOnDisk), collections: names(name).filter((it) => !own(it))})));
"#;

/// A value as text: numbers of every width as digits, documents as JSON.
const SHOW: &str = r#"
const plain = value === null || value === undefined || typeof value !== "object" || typeof value.toBigInt === "function"
  || value._bsontype === "Int32" || value._bsontype === "Double" || value._bsontype === "Decimal128";
answer(plain ? String(value) : EJSON.stringify(value));
"#;

/// A database of the server, with its collections and views, the server's own left out.
#[derive(Debug, Deserialize)]
pub(super) struct Database {
    pub name: String,
    pub bytes: u64,
    pub collections: Vec<String>,
}

impl Mongodb {
    /// Runs a script and reads the value that it answers with. `told` is what it needs to know.
    pub(super) fn asked<T: DeserializeOwned>(
        &self,
        server: &Server,
        session: &Session,
        script: &str,
        told: &[(&str, &str)],
        limit: Duration,
    ) -> Result<T, EngineError> {
        let mut command = Command::new(["mongosh", "--nodb", "--norc", "--quiet", "--eval"])
            .arg(format!("{BEGINNING}{script}"))
            .env("DEVSTACK_OPTIONS", &self.options());
        if let Some(user) = &session.user {
            command = command.env("DEVSTACK_USER", user);
        }
        if let Some(password) = &session.password {
            command = command.env("DEVSTACK_PASSWORD", password);
        }
        for (name, value) in told {
            command = command.env(name, value);
        }
        let finished = server.docker.run(&server.container, &command, b"", limit)?;
        let text = finished.text();
        let unreadable = |why: String| EngineError::Answer { what: "mongosh".to_owned(), why };
        let line = text.lines().rev().find_map(|line| line.strip_prefix(MARK));
        let line = line.ok_or_else(|| unreadable("its answer is not in what it printed".to_owned()))?;
        serde_json::from_str(line).map_err(|error| unreadable(error.to_string()))
    }

    pub(super) fn look(&self, server: &Server, session: &Session) -> Result<Vec<Database>, EngineError> {
        self.asked(server, session, LOOK, &[], ANSWER)
    }

    /// The value of an expression in a database, as text.
    pub(super) fn evaluated(
        &self,
        server: &Server,
        session: &Session,
        name: &str,
        expression: &str,
    ) -> Result<String, EngineError> {
        // Part of the script and not evaluated by it: only so the shell waits for the server's answers in it.
        let script =
            format!("db = server.getDB(process.env.DEVSTACK_DATABASE);\nconst value = (\n{expression}\n);\n{SHOW}");
        self.asked(server, session, &script, &[("DEVSTACK_DATABASE", name)], LONGEST_ANSWER)
    }

    /// The options of a connection string. The server is asked directly, whatever replica set it is a member of.
    fn options(&self) -> String {
        let mut options = vec![
            ("authSource", self.auth_database().to_owned()),
            ("directConnection", "true".to_owned()),
            ("serverSelectionTimeoutMS", "10000".to_owned()),
            ("appName", "devstack".to_owned()),
        ];
        if let Some(tls) = &self.source.tls {
            options.extend([("tls", "true".to_owned()), ("tlsCAFile", tls.ca.clone())]);
            // It is asked by the name of its own loopback, which its certificate need not have.
            options.push(("tlsAllowInvalidHostnames", "true".to_owned()));
            options.extend(tls.cert.iter().map(|cert| ("tlsCertificateKeyFile", cert.clone())));
        }
        let encoded: Vec<String> = options.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        encoded.join("&")
    }
}

/// A value as the query of a URI has it.
fn encoded(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    value.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// A line of YAML that gives a password, for the tools' `--config`. In ASCII throughout, since YAML knows letters that
/// may stand in a text only by their number.
pub(super) fn config(password: &str) -> String {
    let mut quoted = String::new();
    for letter in password.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            ' '..='~' => quoted.push(letter),
            other if u32::from(other) < 0x1_0000 => quoted.push_str(&format!("\\u{:04X}", u32::from(other))),
            other => quoted.push_str(&format!("\\U{:08X}", u32::from(other))),
        }
    }
    format!("password: \"{quoted}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_text_of_yaml_whatever_is_in_it() {
        assert_eq!(config("plain: #1 'x' $HOME"), r##"password: "plain: #1 'x' $HOME""##);
        assert_eq!(config(r#"a"b\c"#), r#"password: "a\"b\\c""#);
        assert_eq!(config("ü\n😀\u{2028}"), r#"password: "\u00FC\u000A\U0001F600\u2028""#);
    }

    #[test]
    fn a_value_of_a_uri_is_escaped() {
        assert_eq!(encoded("/etc/ca 1.pem&x=ü"), "%2Fetc%2Fca%201.pem%26x%3D%C3%BC");
    }
}
