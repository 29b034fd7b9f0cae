//! Users, roles and what they may do, as statements that the server itself gives. Two texts, since an account must be there
//! before the views and routines that it defines, and a grant only after the table that it is for.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};

use super::Flavour;
use super::names::{first_quoted, quoted, words};
use crate::engines::EngineError;
use crate::engines::inspect::{Counts, cut};
use crate::runtime::masked;

/// The last line of both texts.
const LAST_LINE: &str = "-- devstack: complete";

/// What every session that reads or loads these texts says first: a backslash in a string is an escape.
pub(super) const PLAIN_MODE: &str = "SET SESSION sql_mode = '';\n";

/// Divides what is said of one account from what is said of the next.
const NEXT: &str = "-";

/// The servers' own, made by each server for itself.
const SYSTEM: [&str; 4] = ["mysql.sys", "mysql.session", "mysql.infoschema", "mariadb.sys"];

/// The role that everybody has: it is there, and only its grants are somebody's.
const EVERYBODY: &str = "PUBLIC";

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub user: String,
    pub host: String,
    /// MariaDB's roles are no users; MySQL's are.
    pub role: bool,
}

/// The question that [`listed`] reads the answer to.
pub(super) fn which(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mysql => "SELECT user, host, 'N' FROM mysql.user ORDER BY user, host;",
        Flavour::Mariadb => "SELECT user, host, is_role FROM mysql.user ORDER BY user, host;",
    }
}

pub(super) fn listed(rows: &[Vec<String>]) -> Vec<Account> {
    let account = |row: &Vec<String>| match row.as_slice() {
        [user, host, role] if !SYSTEM.contains(&user.as_str()) => {
            Some(Account { user: user.clone(), host: host.clone(), role: role == "Y" })
        }
        _ => None,
    };
    rows.iter().filter_map(account).collect()
}

/// No such user, no such grant: what a server says of accounts whose host is a name while it resolves none.
const NOT_IN_EFFECT: [&str; 2] = ["1133", "1141"];

impl Account {
    /// As a statement names it.
    pub(super) fn name(&self) -> String {
        if self.role { quoted(&self.user) } else { format!("{}@{}", quoted(&self.user), quoted(&self.host)) }
    }

    /// As the server's functions give it, without quotes.
    pub(super) fn is(&self, own: &str) -> bool {
        !self.role && own.strip_suffix(&self.host).and_then(|rest| rest.strip_suffix('@')) == Some(&self.user)
    }

    fn is_everybody(&self) -> bool {
        self.user == EVERYBODY && self.host.is_empty()
    }
}

/// The question that [`texts`] reads the answer to, for a client that goes on after an error.
pub(super) fn what_they_are(flavour: Flavour, accounts: &[Account]) -> String {
    let mut sql = PLAIN_MODE.to_owned();
    if flavour == Flavour::Mysql {
        // A hash of `caching_sha2_password` holds bytes that are no text.
        sql.push_str("SET SESSION print_identified_with_as_hex = ON;\n");
    }
    for account in accounts {
        // A question to a table: it also makes the server forget the errors of what was asked before.
        sql.push_str(&format!("SELECT '{NEXT}' FROM information_schema.engines LIMIT 1;\n"));
        let name = if account.is_everybody() { EVERYBODY.to_owned() } else { account.name() };
        if !account.role && !account.is_everybody() {
            sql.push_str(&format!("SHOW CREATE USER {name};\nSHOW ERRORS;\n"));
        }
        sql.push_str(&format!("SHOW GRANTS FOR {name};\nSHOW ERRORS;\n"));
    }
    sql
}

/// The accounts, and their grants.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Texts {
    pub accounts: String,
    pub grants: String,
}

/// `own` is the account that asks, as `CURRENT_USER()` gives it.
pub(super) fn texts(
    flavour: Flavour,
    accounts: &[Account],
    rows: &[Vec<String>],
    own: &str,
) -> Result<Texts, EngineError> {
    // What a server says of an account holds its hash.
    let unreadable = |why: String| EngineError::Answer { what: "SHOW GRANTS".to_owned(), why: masked(&why) };
    if !accounts.iter().any(|account| account.is(own)) {
        return Err(unreadable(format!(
            "{own}, as which devstack is logged in, is not among the accounts that it lists"
        )));
    }
    let mut texts = Texts {
        accounts: format!("-- Accounts of a server, before its databases are loaded\n{PLAIN_MODE}"),
        grants: format!("-- What they may do, after its databases are loaded\n{PLAIN_MODE}"),
    };
    // A role is somebody's default only when it is granted.
    let mut default_roles = String::new();
    let mut told = rows.split(|row| row.as_slice() == [NEXT]).skip(1);
    for account in accounts {
        let said = told.next().ok_or_else(|| unreadable(format!("nothing is said of {}", account.name())))?;
        if said.iter().any(|row| matches!(row.as_slice(), [_, number, _] if NOT_IN_EFFECT.contains(&number.as_str()))) {
            if account.is(own) {
                return Err(unreadable(format!("{own} is not in effect, and devstack is logged in as it")));
            }
            texts.accounts.push_str(&format!("-- Not in effect on the server, and not here: {}\n", account.name()));
            continue;
        }
        if account.role && !account.is_everybody() {
            texts.accounts.push_str(&format!("CREATE ROLE IF NOT EXISTS {};\n", account.name()));
        }
        for row in said {
            let [statement] = row.as_slice() else {
                return Err(unreadable(format!("of {}: {}", account.name(), row.join(" "))));
            };
            if statement.contains('\n') {
                return Err(unreadable(format!("the name of {} goes over two lines", account.name())));
            }
            default_roles.extend(texts.add(flavour, account, statement));
        }
    }
    texts.grants.push_str(&default_roles);
    for text in [&mut texts.accounts, &mut texts.grants] {
        text.push_str(LAST_LINE);
        text.push('\n');
    }
    Ok(texts)
}

impl Texts {
    /// Adds a statement; the one that is due after all grants comes back.
    fn add(&mut self, flavour: Flavour, account: &Account, statement: &str) -> Option<String> {
        match statement.strip_prefix("CREATE USER ") {
            Some(definition) => {
                // What MySQL says of an account without a name it takes back in part, and never changes.
                let nameless = flavour == Flavour::Mysql && account.user.is_empty();
                let (definition, default_role) = match flavour {
                    Flavour::Mysql if nameless => (without(definition, &["PASSWORD", "EXPIRE"], &["ACCOUNT"]).0, None),
                    Flavour::Mysql => without(definition, &["DEFAULT", "ROLE"], &["REQUIRE"]),
                    Flavour::Mariadb => (definition.to_owned(), None),
                };
                self.accounts.push_str(&format!("CREATE USER IF NOT EXISTS {definition};\n"));
                if !nameless {
                    self.accounts.push_str(&format!("ALTER USER {definition};\n"));
                }
                default_role.map(|roles| format!("ALTER USER {} {roles};\n", account.name()))
            }
            None => {
                // The password stands with the account.
                let (grant, _) = without(statement, &["IDENTIFIED"], &["WITH"]);
                // Nothing is nothing to grant, and MariaDB does not even find an account without a name for it.
                if !grant.starts_with("GRANT USAGE ON *.*") || words(&grant).contains(&"WITH") {
                    self.grants.push_str(&format!("{grant};\n"));
                }
                None
            }
        }
    }
}

/// A statement without its clause that begins with the words `from` and ends before one of `until`; and that clause.
fn without(statement: &str, from: &[&str], until: &[&str]) -> (String, Option<String>) {
    let words = words(statement);
    let Some(begin) = words.windows(from.len()).position(|some| some == from) else {
        return (statement.to_owned(), None);
    };
    let end = words[begin..].iter().position(|word| until.contains(word)).map_or(words.len(), |end| begin + end);
    // The words are pieces of the statement, so that their places in it are known.
    let place =
        |at: usize| words.get(at).map_or(statement.len(), |word| word.as_ptr() as usize - statement.as_ptr() as usize);
    let (before, clause, after) =
        (&statement[..place(begin)], &statement[place(begin)..place(end)], &statement[place(end)..]);
    (format!("{before}{after}").trim_end().to_owned(), Some(clause.trim_end().to_owned()))
}

/// Looks through one of the texts.
pub(super) fn inspect_accounts(from: &mut dyn Read) -> Result<Counts, String> {
    Ok(vec![("accounts".to_owned(), counted(from, &["CREATE "])?)])
}

pub(super) fn inspect_grants(from: &mut dyn Read) -> Result<Counts, String> {
    Ok(vec![("grants".to_owned(), counted(from, &["GRANT ", "REVOKE "])?)])
}

fn counted(from: &mut dyn Read, beginnings: &[&str]) -> Result<u64, String> {
    let (mut count, mut whole) = (0, false);
    let mut lines = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line).map_err(|error| cut("the accounts", &error))? == 0 {
            break;
        }
        whole = line.strip_suffix(b"\n") == Some(LAST_LINE.as_bytes());
        count += u64::from(beginnings.iter().any(|beginning| line.starts_with(beginning.as_bytes())));
    }
    if whole { Ok(count) } else { Err("its last line is missing".to_owned()) }
}

/// The statements of the accounts for a server that has some of them already, each with the account that it is about. What
/// the server has it keeps as it is: its own for health checks, whoever restores, and the passwords that are used today.
pub(super) fn missing<'a>(accounts: &'a str, present: &[Account]) -> (Vec<(String, &'a str)>, Vec<String>) {
    let (mut missing, mut kept) = (Vec::new(), BTreeSet::new());
    for statement in statements(accounts) {
        let of = ["CREATE USER IF NOT EXISTS ", "ALTER USER ", "CREATE ROLE IF NOT EXISTS "]
            .iter()
            .find_map(|verb| named(statement.strip_prefix(verb)?));
        match of {
            Some(name) if present.iter().any(|account| account.name() == name) => drop(kept.insert(name)),
            Some(name) => missing.push((name, statement)),
            None => missing.push((String::new(), statement)),
        }
    }
    (missing, kept.into_iter().collect())
}

/// The account at the beginning of a definition, as [`Account::name`] gives it.
fn named(definition: &str) -> Option<String> {
    let (user, rest) = first_quoted(definition)?;
    let Some(host) = rest.strip_prefix('@') else { return Some(quoted(&user)) };
    Some(format!("{}@{}", quoted(&user), quoted(&first_quoted(host)?.0)))
}

/// The statements of the grants, one by one.
pub(super) fn statements(grants: &str) -> impl Iterator<Item = &str> {
    grants.lines().filter(|line| !line.starts_with("--") && !line.starts_with("SET SESSION"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> Account {
        Account { user: name.to_owned(), host: "%".to_owned(), role: false }
    }

    fn rows(lines: &[&str]) -> Vec<Vec<String>> {
        lines.iter().map(|line| vec![(*line).to_owned()]).collect()
    }

    #[test]
    fn mysqls_default_roles_are_set_when_the_roles_are_granted() {
        let said = [
            "-",
            "CREATE USER `app`@`%` IDENTIFIED WITH 'p' AS 0x24 DEFAULT ROLE `r`@`%`,`s`@`%` REQUIRE NONE COMMENT 'DEFAULT ROLE x'",
            "GRANT USAGE ON *.* TO `app`@`%`",
            "GRANT `r`@`%` TO `app`@`%`",
        ];
        let texts = texts(Flavour::Mysql, &[user("app")], &rows(&said), "app@%").unwrap();
        let definition = "`app`@`%` IDENTIFIED WITH 'p' AS 0x24 REQUIRE NONE COMMENT 'DEFAULT ROLE x'";
        assert!(
            texts.accounts.contains(&format!("CREATE USER IF NOT EXISTS {definition};\nALTER USER {definition};\n"))
        );
        assert_eq!(
            statements(&texts.grants).collect::<Vec<_>>(),
            ["GRANT `r`@`%` TO `app`@`%`;", "ALTER USER `app`@`%` DEFAULT ROLE `r`@`%`,`s`@`%`;"]
        );
    }

    #[test]
    fn mariadbs_grants_go_without_the_password() {
        let grant =
            "GRANT ALL PRIVILEGES ON *.* TO `root`@`%` IDENTIFIED BY PASSWORD '* WITH 9' REQUIRE SSL WITH GRANT OPTION";
        let role = Account { user: "reader".to_owned(), host: String::new(), role: true };
        let said =
            ["-", "CREATE USER `root`@`%` IDENTIFIED BY PASSWORD '*9'", grant, "-", "GRANT USAGE ON *.* TO `reader`"];
        let texts = texts(Flavour::Mariadb, &[user("root"), role], &rows(&said), "root@%").unwrap();
        assert!(
            texts.grants.contains("GRANT ALL PRIVILEGES ON *.* TO `root`@`%` WITH GRANT OPTION;\n"),
            "{}",
            texts.grants
        );
        assert!(texts.accounts.contains("CREATE ROLE IF NOT EXISTS `reader`;\n"));
    }

    #[test]
    fn an_account_that_is_not_in_effect_is_left_out_and_another_error_is_one() {
        let said = |number: &str| {
            let mut rows = rows(&["-"]);
            rows.push(["Error", number, "why"].map(str::to_owned).to_vec());
            rows.push(vec!["-".to_owned()]);
            rows
        };
        let both = [user("a"), user("own")];
        let left_out = texts(Flavour::Mariadb, &both, &said("1133"), "own@%").unwrap();
        assert!(left_out.accounts.contains("Not in effect") && !left_out.accounts.contains("CREATE"));
        assert!(texts(Flavour::Mariadb, &both, &said("1142"), "own@%").is_err());
    }

    #[test]
    fn an_account_of_which_nothing_is_said_is_an_error() {
        assert!(texts(Flavour::Mysql, &[user("a"), user("b")], &rows(&["-", "CREATE USER `a`@`%`"]), "a@%").is_err());
    }

    #[test]
    fn a_text_cut_anywhere_is_not_whole() {
        let said = ["-", "CREATE USER `a`@`%` IDENTIFIED BY PASSWORD '*9'", "GRANT SELECT ON *.* TO `a`@`%`"];
        let texts = texts(Flavour::Mariadb, &[user("a")], &rows(&said), "a@%").unwrap();
        assert_eq!(inspect_accounts(&mut texts.accounts.as_bytes()), Ok(vec![("accounts".to_owned(), 1)]));
        assert_eq!(inspect_grants(&mut texts.grants.as_bytes()), Ok(vec![("grants".to_owned(), 1)]));
        for text in [texts.accounts, texts.grants] {
            for length in 0..text.len() {
                assert!(inspect_grants(&mut &text.as_bytes()[..length]).is_err(), "cut after {length} bytes");
            }
        }
    }

    #[test]
    fn what_a_server_has_it_keeps() {
        let text = "-- Accounts\nSET SESSION sql_mode = '';\nCREATE USER IF NOT EXISTS `root`@`%` x;\nALTER USER `root`@`%` x;\n\
                    CREATE USER IF NOT EXISTS `root`@`localhost` x;\nALTER USER `rooter`@`%` y;\nCREATE ROLE IF NOT EXISTS `r`;\n";
        let present = [user("root"), Account { user: "r".to_owned(), host: String::new(), role: true }];
        let (missing, kept) = missing(text, &present);
        let statements: Vec<&str> = missing.iter().map(|(_, statement)| *statement).collect();
        assert_eq!(statements, ["CREATE USER IF NOT EXISTS `root`@`localhost` x;", "ALTER USER `rooter`@`%` y;"]);
        assert_eq!(missing[0].0, "`root`@`localhost`");
        assert_eq!(kept, ["`r`", "`root`@`%`"]);
    }

    #[test]
    fn whoever_asks_is_among_the_accounts_and_in_effect() {
        // With PAD_CHAR_TO_FULL_LENGTH every host is 255 letters long, and no account is found by its name.
        let mut padded = user("root");
        padded.host = format!("{:<255}", padded.host);
        assert!(texts(Flavour::Mariadb, &[padded], &rows(&["-"]), "root@%").is_err());
        let mut said = rows(&["-"]);
        said.push(["Error", "1141", "why"].map(str::to_owned).to_vec());
        assert!(texts(Flavour::Mariadb, &[user("root")], &said, "root@%").is_err());
        assert!(user("a@b").is("a@b@%") && !user("a").is("a@b@%") && !user("a").is("b@%"));
    }

    #[test]
    fn what_cannot_be_read_is_told_without_its_hash() {
        let mut said = rows(&["-"]);
        said.push(vec![
            "CREATE USER `root`@`%` IDENTIFIED BY PASSWORD '*0123456789ABCDEF0123456789ABCDEF01234567'".to_owned(),
            "x".to_owned(),
        ]);
        let error = texts(Flavour::Mariadb, &[user("root")], &said, "root@%").unwrap_err();
        let told = crate::model::chain(&error);
        assert!(told.contains("root") && !told.contains("0123456789ABCDEF"), "{told}");
    }
}
