//! What the file asserts of a stack that is back: a question to one of its servers or applications, and the answer that
//! must come.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ids::ServiceName;
use super::units::Span;

/// An application that has just become healthy, or that has no health check, may need a moment before it answers. What is
/// asked of data holds at once or never.
pub const WITHIN: Span = Span::from_secs(30);

/// As long as a container may take to get healthy.
pub const LONGEST_WITHIN: Span = Span::from_secs(300);

/// What must hold once the stack is back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Assertion {
    /// A query to a PostgreSQL server, which answers true or a number other than 0.
    Postgres(SqlAssertion),
    /// A query to a MySQL server, which answers true or a number other than 0.
    Mysql(SqlAssertion),
    /// A query to a MariaDB server, which answers true or a number other than 0.
    Mariadb(SqlAssertion),
    /// An expression that is evaluated on a MongoDB server to true or a number other than 0.
    Mongodb(MongodbAssertion),
    /// A command to a Redis server, and its answer.
    Redis(RedisAssertion),
    /// A request that is made from inside a container, and the status that comes back.
    Http(HttpAssertion),
    /// A program in a container, which ends with exit code 0.
    Command(CommandAssertion),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SqlAssertion {
    /// The service of this file that is asked, as the user that takes its backups.
    pub service: ServiceName,
    pub database: String,
    /// One value: true, `t` or a number other than 0 holds. It is run in a read-only transaction.
    pub query: String,
    /// What the plan and errors call it; the query itself if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How long it is waited for; 30s if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Span>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MongodbAssertion {
    /// The service of this file that is asked, as the user that takes its backups.
    pub service: ServiceName,
    /// What `db` is.
    pub database: String,
    /// One expression, as mongosh has it: true or a number other than 0 holds. It should not write.
    pub eval: String,
    /// What the plan and errors call it; the expression itself if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How long it is waited for; 30s if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Span>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedisAssertion {
    /// The service of this file that is asked, as the user that takes its backups.
    pub service: ServiceName,
    /// The command, word by word: `[EXISTS, session]`. It should not write.
    pub command: Vec<String>,
    /// The answer, as `redis-cli --raw` prints it.
    pub expect: String,
    /// What the plan and errors call it; the command itself if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How long it is waited for; 30s if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Span>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpAssertion {
    /// A service of the Compose project, or a container's name: where it is asked from, by the curl or wget in it.
    pub container: String,
    /// As the container reaches it: `http://127.0.0.1:3000/`.
    pub url: String,
    /// The status of the first answer, redirects not followed; 200 if not given.
    #[schemars(range(min = 100, max = 599))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What the plan and errors call it; the address itself if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How long it is waited for; 30s if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Span>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandAssertion {
    /// A service of the Compose project, or a container's name.
    pub container: String,
    /// The program and its arguments: `[test, -s, /data/x]`.
    pub run: Vec<String>,
    /// What the plan and errors call it; the program itself if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How long it is waited for; 30s if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Span>,
}

/// Whom an assertion is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About<'a> {
    /// A service of the file.
    Service(&'a ServiceName),
    /// A container, as the file calls it.
    Container(&'a str),
}

impl HttpAssertion {
    pub fn status(&self) -> u16 {
        self.status.unwrap_or(200)
    }
}

impl Assertion {
    /// The key that it stands under in the file.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "postgres",
            Self::Mysql(_) => "mysql",
            Self::Mariadb(_) => "mariadb",
            Self::Mongodb(_) => "mongodb",
            Self::Redis(_) => "redis",
            Self::Http(_) => "http",
            Self::Command(_) => "command",
        }
    }

    pub fn about(&self) -> About<'_> {
        match self {
            Self::Postgres(it) | Self::Mysql(it) | Self::Mariadb(it) => About::Service(&it.service),
            Self::Mongodb(it) => About::Service(&it.service),
            Self::Redis(it) => About::Service(&it.service),
            Self::Http(it) => About::Container(&it.container),
            Self::Command(it) => About::Container(&it.container),
        }
    }

    /// The name that the file gives it, or what it asks and whom, in one line.
    pub fn name(&self) -> String {
        self.given_name().map_or_else(|| short(&self.asks()), str::to_owned)
    }

    pub fn given_name(&self) -> Option<&str> {
        match self {
            Self::Postgres(it) | Self::Mysql(it) | Self::Mariadb(it) => it.name.as_deref(),
            Self::Mongodb(it) => it.name.as_deref(),
            Self::Redis(it) => it.name.as_deref(),
            Self::Http(it) => it.name.as_deref(),
            Self::Command(it) => it.name.as_deref(),
        }
    }

    /// What it asks and whom, whole.
    pub fn asks(&self) -> String {
        match self {
            Self::Postgres(it) | Self::Mysql(it) | Self::Mariadb(it) => format!("{}: {}", it.service, it.query),
            Self::Mongodb(it) => format!("{}: {}", it.service, it.eval),
            Self::Redis(it) => format!("{}: {}", it.service, it.command.join(" ")),
            Self::Http(it) => format!("{}: {}", it.container, it.url),
            Self::Command(it) => format!("{}: {}", it.container, it.run.join(" ")),
        }
    }

    /// The answer that it waits for, in words.
    pub fn expected(&self) -> String {
        match self {
            Self::Postgres(_) | Self::Mysql(_) | Self::Mariadb(_) | Self::Mongodb(_) => {
                "true or a number other than 0".to_owned()
            }
            Self::Redis(it) => format!("`{}`", short(&it.expect)),
            Self::Http(it) => format!("status {}", it.status()),
            Self::Command(_) => "exit code 0".to_owned(),
        }
    }

    pub fn within(&self) -> Span {
        self.declared_within().unwrap_or(WITHIN)
    }

    pub fn declared_within(&self) -> Option<Span> {
        match self {
            Self::Postgres(it) | Self::Mysql(it) | Self::Mariadb(it) => it.within,
            Self::Mongodb(it) => it.within,
            Self::Redis(it) => it.within,
            Self::Http(it) => it.within,
            Self::Command(it) => it.within,
        }
    }
}

/// The longest that a question or an answer is shown.
const SHOWN: usize = 100;

/// On one line, and cut where it is long.
pub fn short(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Whether one value, as a client prints it, is true.
pub fn is_true(value: &str) -> bool {
    let value = value.trim();
    if ["t", "true"].iter().any(|word| value.eq_ignore_ascii_case(word)) {
        return true;
    }
    // `nan` and `inf` are numbers to Rust.
    let numeric = value.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '-' | '+' | '.'));
    numeric && value.parse::<f64>().is_ok_and(|number| number != 0.0 && number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn true_is_what_clients_print_for_it_and_any_number_but_zero() {
        for holds in ["t", "true", "TRUE", "1", " 42\n", "-1", "0.5", "1e3"] {
            assert!(is_true(holds), "{holds}");
        }
        for fails in ["", "f", "false", "0", "0.0", "-0", "NULL", "nan", "inf", "-inf", "t\nt", "1 2", "yes", "two"] {
            assert!(!is_true(fails), "{fails}");
        }
    }

    #[test]
    fn an_assertion_is_called_by_its_name_or_by_what_it_asks() {
        let assertion = |text: &str| serde_json::from_str::<Assertion>(text).unwrap();
        let command = assertion(r#"{"command": {"container": "app", "run": ["test", "-s", "/data/x"]}}"#);
        assert_eq!(command.name(), "app: test -s /data/x");
        assert_eq!((command.expected().as_str(), command.within()), ("exit code 0", WITHIN));
        let http = r#"{"http": {"container": "app", "url": "http://127.0.0.1/", "name": "the page", "within": "5s"}}"#;
        assert_eq!(assertion(http).name(), "the page");
        assert_eq!((assertion(http).expected().as_str(), assertion(http).within()), ("status 200", Span::from_secs(5)));
        let sql =
            format!(r#"{{"mysql": {{"service": "db", "database": "d", "query": "select\n {}"}}}}"#, "1 + ".repeat(99));
        let name = assertion(&sql).name();
        assert!(name.starts_with("db: select 1 + 1") && name.ends_with('…') && !name.contains('\n'), "{name}");
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for wrong in [
            r#"{"sqlite": {"service": "db", "query": "select 1"}}"#,
            r#"{"redis": {"service": "db", "command": ["GET", "x"], "expect": "1", "databse": 3}}"#,
            r#"{"redis": {"service": "db", "command": ["GET", "x"]}}"#,
        ] {
            assert!(serde_json::from_str::<Assertion>(wrong).is_err(), "{wrong}");
        }
    }
}
