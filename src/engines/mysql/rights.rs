//! Does the user see everything that is to be dumped? These tools leave out what their user may not see (triggers, routines,
//! whole databases) and end with success, so the rights are looked at first.

use std::collections::BTreeSet;

use super::Flavour;
use super::names::first_quoted;

/// What `SHOW GRANTS` says of a user and the roles that are on.
pub(super) struct Rights {
    grants: Vec<Grant>,
}

struct Grant {
    scope: Scope,
    rights: BTreeSet<String>,
}

enum Scope {
    Everything,
    /// Databases by a pattern, as LIKE has them.
    Databases(String),
    Object {
        database: String,
        name: String,
    },
}

/// What each database takes beside the routines.
const NEEDED: [&str; 4] = ["SELECT", "SHOW VIEW", "TRIGGER", "EVENT"];

impl Rights {
    pub(super) fn read<'a>(lines: impl Iterator<Item = &'a str>) -> Self {
        Self { grants: lines.filter_map(grant).collect() }
    }

    /// What is missing, as the words of a GRANT: `TRIGGER ON shop.*`.
    pub(super) fn missing(&self, flavour: Flavour, databases: &[&str], all: bool, accounts: bool) -> Vec<String> {
        let mut missing = Vec::new();
        // A database that the user may not see is not even listed.
        if all && !self.everywhere("SELECT") && !self.everywhere("SHOW DATABASES") {
            missing.push("SHOW DATABASES ON *.*".to_owned());
        }
        for database in databases {
            let lacking: Vec<&str> = NEEDED.into_iter().filter(|right| !self.on(database, right)).collect();
            if !lacking.is_empty() {
                missing.push(format!("{} ON {}.*", lacking.join(", "), super::names::quoted(database)));
            }
        }
        let (right, table) = match flavour {
            Flavour::Mysql => ("SHOW_ROUTINE", None),
            Flavour::Mariadb => ("SHOW CREATE ROUTINE", Some("proc")),
        };
        let sees_routines = self.everywhere("SELECT")
            || table.is_some_and(|table| self.on_table("mysql", table, "SELECT"))
            || databases.iter().all(|database| self.on(database, right));
        if !sees_routines {
            missing.push(match table {
                None => format!("{right} ON *.*"),
                Some(table) => format!("SELECT ON mysql.{table}"),
            });
        }
        if accounts && !self.on("mysql", "SELECT") {
            missing.push("SELECT ON mysql.*".to_owned());
        }
        missing
    }

    fn everywhere(&self, right: &str) -> bool {
        self.grants.iter().any(|grant| matches!(grant.scope, Scope::Everything) && grant.has(right))
    }

    fn on(&self, database: &str, right: &str) -> bool {
        self.grants.iter().any(|grant| {
            grant.has(right)
                && match &grant.scope {
                    Scope::Everything => true,
                    Scope::Databases(pattern) => is_like(database, pattern),
                    Scope::Object { .. } => false,
                }
        })
    }

    fn on_table(&self, database: &str, table: &str, right: &str) -> bool {
        let named = |grant: &Grant| matches!(&grant.scope, Scope::Object { database: its, name } if its == database && name == table);
        self.on(database, right) || self.grants.iter().any(|grant| grant.has(right) && named(grant))
    }
}

impl Grant {
    fn has(&self, right: &str) -> bool {
        self.rights.contains(right) || self.rights.contains("ALL PRIVILEGES")
    }
}

fn grant(line: &str) -> Option<Grant> {
    let (rights, rest) = line.strip_prefix("GRANT ")?.split_once(" ON ")?;
    let rights = rights.split(',').map(|right| right.trim().to_owned()).collect();
    let scope = if rest.starts_with("*.*") {
        Scope::Everything
    } else {
        let (database, rest) = rest.starts_with('`').then(|| first_quoted(rest))??;
        match rest.strip_prefix('.')? {
            all if all.starts_with('*') => Scope::Databases(database),
            table => Scope::Object { database, name: first_quoted(table)?.0 },
        }
    };
    Some(Grant { scope, rights })
}

/// LIKE: `%` for any letters, `_` for one, a backslash before either for itself.
fn is_like(text: &str, pattern: &str) -> bool {
    let mut letters = pattern.chars();
    match letters.next() {
        None => text.is_empty(),
        Some('%') => {
            let rest = letters.as_str();
            text.char_indices().map(|(at, _)| at).chain([text.len()]).any(|at| is_like(&text[at..], rest))
        }
        Some(first) => {
            let (wanted, any) = match first {
                '\\' => (letters.next().unwrap_or('\\'), false),
                '_' => ('_', true),
                other => (other, false),
            };
            let mut of_text = text.chars();
            of_text.next().is_some_and(|letter| any || letter == wanted) && is_like(of_text.as_str(), letters.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(flavour: Flavour, grants: &str, databases: &[&str], all: bool) -> Vec<String> {
        Rights::read(grants.lines()).missing(flavour, databases, all, false)
    }

    #[test]
    fn rights_are_enough_or_the_missing_ones_are_named() {
        let all = "GRANT ALL PRIVILEGES ON *.* TO `root`@`%` WITH GRANT OPTION";
        assert!(missing(Flavour::Mariadb, all, &["a", "b"], true).is_empty());
        let documented = "GRANT SELECT, SHOW VIEW, EVENT, TRIGGER ON *.* TO `backup`@`localhost`";
        assert!(missing(Flavour::Mysql, documented, &["a"], true).is_empty());
        assert!(missing(Flavour::Mariadb, documented, &["a"], true).is_empty());
        let less = "GRANT SELECT, SHOW VIEW, EVENT ON *.* TO `backup`@`localhost`";
        assert_eq!(missing(Flavour::Mysql, less, &["a"], true), ["TRIGGER ON `a`.*"]);
    }

    #[test]
    fn rights_on_one_database_are_for_that_one() {
        let grants =
            "GRANT USAGE ON *.* TO `b`@`%`\nGRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON `my\\_shop`.* TO `b`@`%`";
        assert_eq!(missing(Flavour::Mysql, grants, &["my_shop"], false), ["SHOW_ROUTINE ON *.*"]);
        assert_eq!(missing(Flavour::Mariadb, grants, &["my_shop"], false), ["SELECT ON mysql.proc"]);
        assert!(missing(Flavour::Mysql, grants, &["my_shop"], true)[0].starts_with("SHOW DATABASES"));
        assert_eq!(missing(Flavour::Mysql, grants, &["my-shop"], false).len(), 2);
        let proc = format!("{grants}\nGRANT SELECT ON `mysql`.`proc` TO `b`@`%`");
        assert!(missing(Flavour::Mariadb, &proc, &["my_shop"], false).is_empty());
    }

    #[test]
    fn patterns_are_those_of_like() {
        for (text, pattern) in [("shop", "shop"), ("shop", "s%"), ("shop", "sh_p"), ("", "%"), ("a_b", "a\\_b")] {
            assert!(is_like(text, pattern), "{text} {pattern}");
        }
        for (text, pattern) in [("shop", "sho"), ("axb", "a\\_b"), ("", "_")] {
            assert!(!is_like(text, pattern), "{text} {pattern}");
        }
    }
}
