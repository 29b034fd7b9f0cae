//! The text that `mysqldump` and `mariadb-dump` write, read from its first byte to its last line: a dump is whole when it
//! ends in `-- Dump completed` outside of every statement. Rows are counted by their value lists.
//!
//! What a statement, a string and a comment are follows the client that loads the text: it must end where that ends it.

use std::collections::BTreeMap;
use std::io::Read;

use super::names::{dotted, first_quoted, shown, words};
use super::text::{Comment, Text};
use crate::engines::inspect::Counts;

/// What the tool writes last, after everything else has gone well.
const LAST_LINE: &[u8] = b"Dump completed";

/// How a dump's text begins, MariaDB's with a line of its own for its client.
const FIRST_LINES: [&[u8]; 3] = [b"-- MySQL dump", b"-- MariaDB dump", b"/*M!999999"];

/// Engines whose rows the tools leave out, since they lie elsewhere.
const ROWS_ELSEWHERE: [&str; 7] = ["MRG_MYISAM", "MRG_ISAM", "FEDERATED", "CONNECT", "OQGRAPH", "SPIDER", "VP"];

/// Engines that read their rows as of the dump's moment. Of others each table is of the moment it was read.
const WITH_SNAPSHOTS: [&str; 4] = ["INNODB", "ROCKSDB", "TOKUDB", "NDBCLUSTER"];

/// A statement without values is a definition; more than this of it is not looked at.
const LONGEST_HEAD: usize = 1 << 20;

/// Looks through a dump.
pub(super) fn inspect(from: &mut dyn Read) -> Result<Counts, String> {
    let mut dump =
        Dump { text: Text::new(from), delimiter: b";".to_vec(), mode: Mode::default(), found: Found::default() };
    dump.text.ensure(FIRST_LINES[1].len())?;
    if !FIRST_LINES.iter().any(|first| dump.text.rest().starts_with(first)) {
        return Err("it does not begin as a dump of these servers does".to_owned());
    }
    while dump.between_statements()? {
        dump.statement()?;
    }
    Ok(dump.found.counts())
}

/// The part of `sql_mode` that decides where a string ends.
#[derive(Default, Clone, Copy)]
struct Mode {
    plain_backslashes: bool,
    names_in_double_quotes: bool,
}

struct Dump<'a> {
    text: Text<'a>,
    delimiter: Vec<u8>,
    mode: Mode,
    found: Found,
}

impl Dump<'_> {
    /// Skips what may stand between two statements; false at the end of a whole dump.
    fn between_statements(&mut self) -> Result<bool, String> {
        let mut completed = false;
        loop {
            let Some(byte) = self.text.peek()? else {
                return if completed {
                    Ok(false)
                } else {
                    Err("its last line, `-- Dump completed`, is missing".to_owned())
                };
            };
            if byte.is_ascii_whitespace() {
                self.text.at += 1;
            } else if completed {
                return Err("there is more behind its last line".to_owned());
            } else if let Some(comment) = self.text.comment()? {
                completed = match comment {
                    Comment::Line => {
                        let begin = self.text.line(LAST_LINE.len() + 1)?;
                        begin.strip_prefix(b" ").unwrap_or(&begin).starts_with(LAST_LINE)
                    }
                    Comment::Block => {
                        self.text.past_block()?;
                        false
                    }
                };
            } else if self.text.begins_with_word(b"DELIMITER")? {
                let line = self.text.line(256)?;
                self.delimiter = line["DELIMITER".len()..].trim_ascii().to_vec();
                if self.delimiter.is_empty() {
                    return Err("a DELIMITER without one".to_owned());
                }
            } else {
                return Ok(true);
            }
        }
    }

    /// Reads one statement to its end.
    fn statement(&mut self) -> Result<(), String> {
        let conditional = self.text.conditional()?;
        let mut head = Vec::new();
        let (mut depth, mut within) = (0_u32, conditional);
        loop {
            if self.text.begins_with(&self.delimiter)? {
                self.text.at += self.delimiter.len();
                break;
            }
            if let Some(comment) = self.text.comment()? {
                match comment {
                    Comment::Line => drop(self.text.line(0)?),
                    Comment::Block => self.text.past_block()?,
                }
                head.push(b' ');
                continue;
            }
            if self.text.conditional()? {
                within = true;
                continue;
            }
            let byte = self.text.next("a statement")?;
            match byte {
                b'\'' | b'"' | b'`' => self.quoted(byte, &mut head)?,
                b'(' if depth == 0 && is_insert(&head) && head.trim_ascii_end().ends_with(b"VALUES") => {
                    let rows = self.values()?;
                    return self.found.rows(&String::from_utf8_lossy(&head), rows);
                }
                // The end of a conditional comment; outside of one `6 */* it's */ 7` multiplies.
                b'*' if within && self.text.peek()? == Some(b'/') => {
                    self.text.at += 1;
                    within = false;
                }
                _ => {
                    match byte {
                        b'(' => depth += 1,
                        b')' => depth = depth.saturating_sub(1),
                        _ => {}
                    }
                    keep(&mut head, byte);
                }
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        self.heed_mode(&head);
        self.found.statement(&head, conditional)
    }

    /// The rest of a quoted text, with its quotes, into `head`.
    fn quoted(&mut self, quote: u8, head: &mut Vec<u8>) -> Result<(), String> {
        let escapes = match quote {
            b'\'' => !self.mode.plain_backslashes,
            b'"' => !self.mode.plain_backslashes && !self.mode.names_in_double_quotes,
            _ => false,
        };
        keep(head, quote);
        loop {
            let byte = self.text.next("a quoted text")?;
            keep(head, byte);
            if byte == quote {
                return Ok(());
            }
            if byte == b'\\' && escapes {
                let escaped = self.text.next("a quoted text")?;
                keep(head, escaped);
            }
        }
    }

    /// The value lists of an INSERT, from behind the first parenthesis to behind the semicolon; how many there are.
    fn values(&mut self) -> Result<u64, String> {
        #[derive(Clone, Copy)]
        enum State {
            Plain,
            Quoted,
            Escaped,
        }
        let (mut rows, mut depth, mut state) = (1_u64, 1_u32, State::Plain);
        loop {
            if self.text.rest().is_empty() && !self.text.fill()? {
                return Err("it ends within the rows of a table".to_owned());
            }
            let piece = self.text.rest();
            let mut at = 0;
            while at < piece.len() {
                match state {
                    State::Quoted => match piece[at..].iter().position(|byte| matches!(byte, b'\'' | b'\\')) {
                        Some(next) => {
                            at += next + 1;
                            state = if piece[at - 1] == b'\\' { State::Escaped } else { State::Plain };
                        }
                        None => at = piece.len(),
                    },
                    State::Escaped => {
                        state = State::Quoted;
                        at += 1;
                    }
                    State::Plain => {
                        let byte = piece[at];
                        at += 1;
                        match byte {
                            b'\'' => state = State::Quoted,
                            b'(' => {
                                rows += u64::from(depth == 0);
                                depth += 1;
                            }
                            b')' => depth = depth.checked_sub(1).ok_or("a list of values that ends twice")?,
                            b';' if depth == 0 => {
                                self.text.at += at;
                                return Ok(rows);
                            }
                            b';' => return Err("a list of values is cut by a semicolon".to_owned()),
                            _ => {}
                        }
                    }
                }
            }
            self.text.at += at;
        }
    }

    /// `SET sql_mode = …` before and after a routine changes what its strings are.
    fn heed_mode(&mut self, head: &str) {
        let head = head.trim_start();
        let Some(rest) = head.get(..3).filter(|set| set.eq_ignore_ascii_case("SET")).map(|_| head[3..].trim_start())
        else {
            return;
        };
        if rest.get(..8).is_some_and(|name| name.eq_ignore_ascii_case("sql_mode")) {
            self.mode = Mode {
                plain_backslashes: rest.contains("NO_BACKSLASH_ESCAPES"),
                names_in_double_quotes: rest.contains("ANSI"),
            };
        }
    }
}

fn is_insert(head: &[u8]) -> bool {
    let head = head.trim_ascii_start();
    head.starts_with(b"INSERT ") || head.starts_with(b"REPLACE ")
}

fn keep(head: &mut Vec<u8>, byte: u8) {
    if head.len() < LONGEST_HEAD {
        head.push(byte);
    }
}

/// What was found, by database.
#[derive(Default)]
struct Found {
    database: Option<String>,
    tables: BTreeMap<String, u64>,
    rows: BTreeMap<String, u64>,
    elsewhere: u64,
    without_snapshots: u64,
    /// Events that the server drops when their moment has passed.
    once: u64,
    kinds: BTreeMap<&'static str, u64>,
}

/// How the count of [`Found::once`] is called.
pub(super) const ONCE: &str = "events that end by themselves";

/// An event that is over at some time, and is then dropped: a server that is told to make it later makes none.
fn ends_by_itself(words: &[&str]) -> bool {
    let at = |word: &str| words.iter().position(|it| *it == word);
    let (Some(schedule), Some(completion)) = (at("SCHEDULE"), at("COMPLETION")) else { return false };
    let ends = words[schedule..completion].iter().any(|word| matches!(*word, "AT" | "ENDS"));
    ends && words.get(completion + 1) == Some(&"NOT")
}

/// What else a dump defines, as it is counted.
const KINDS: [&str; 5] = ["events", "routines", "sequences", "triggers", "views"];

impl Found {
    fn rows(&mut self, head: &str, rows: u64) -> Result<(), String> {
        let table = self.table(head)?;
        match self.rows.get_mut(&table) {
            Some(count) => *count += rows,
            None => return Err(format!("rows of {table}, which it does not define")),
        }
        Ok(())
    }

    fn table(&self, head: &str) -> Result<String, String> {
        let database = self.database.as_ref().ok_or("a table before any database")?;
        let (table, _) = first_quoted(head).ok_or("a statement about a table without its name")?;
        Ok(dotted(database, &table))
    }

    fn statement(&mut self, head: &str, conditional: bool) -> Result<(), String> {
        let words = words(head);
        match words.as_slice() {
            ["USE", ..] => self.database = first_quoted(head).map(|(name, _)| name),
            ["CREATE", "DATABASE", ..] => {
                let (name, _) = first_quoted(head).ok_or("a database without its name")?;
                self.tables.entry(name).or_default();
            }
            ["CREATE", "SEQUENCE", ..] => self.count("sequences"),
            // In a conditional comment it stands for a view whose time has not come.
            ["CREATE", "TABLE", ..] if !conditional => self.define(head, &words)?,
            ["CREATE", rest @ ..] => self.count_definition(rest),
            _ => {}
        }
        Ok(())
    }

    fn define(&mut self, head: &str, words: &[&str]) -> Result<(), String> {
        let table = self.table(head)?;
        if let Some(database) = &self.database {
            *self.tables.entry(database.clone()).or_default() += 1;
        }
        let engine = words.iter().find_map(|word| word.strip_prefix("ENGINE="));
        let engine = engine.unwrap_or("InnoDB").to_ascii_uppercase();
        if ROWS_ELSEWHERE.contains(&engine.as_str()) {
            self.elsewhere += 1;
            return Ok(());
        }
        self.without_snapshots += u64::from(!WITH_SNAPSHOTS.contains(&engine.as_str()));
        self.rows.entry(table).or_default();
        Ok(())
    }

    fn count_definition(&mut self, words: &[&str]) {
        // A view is defined twice: first without an algorithm, for other views to lean on.
        let algorithm = words.iter().any(|word| word.starts_with("ALGORITHM="));
        for word in words.iter().take(8) {
            match *word {
                "VIEW" if algorithm => return self.count("views"),
                "PROCEDURE" | "FUNCTION" | "PACKAGE" => return self.count("routines"),
                "TRIGGER" => return self.count("triggers"),
                "EVENT" => {
                    self.once += u64::from(ends_by_itself(words));
                    return self.count("events");
                }
                _ => {}
            }
        }
    }

    fn count(&mut self, kind: &'static str) {
        *self.kinds.entry(kind).or_default() += 1;
    }

    fn counts(self) -> Counts {
        let tables = self.tables.iter().map(|(database, count)| (format!("tables in {}", shown(database)), *count));
        let rows = self.rows.iter().map(|(table, count)| (format!("rows {table}"), *count));
        let kinds = KINDS.iter().map(|kind| ((*kind).to_owned(), self.kinds.get(kind).copied().unwrap_or_default()));
        let special = [
            ("tables read outside of the snapshot", self.without_snapshots),
            ("tables whose rows lie elsewhere", self.elsewhere),
            (ONCE, self.once),
        ];
        let special = special.into_iter().filter(|(_, count)| *count > 0);
        tables.chain(rows).chain(kinds).chain(special.map(|(name, count)| (name.to_owned(), count))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MYSQL: &str = include_str!("samples/mysql.sql");
    const MARIADB: &str = include_str!("samples/mariadb.sql");

    fn found(dump: &str) -> BTreeMap<String, u64> {
        inspect(&mut dump.as_bytes()).unwrap().into_iter().collect()
    }

    fn with(statements: &str) -> String {
        format!(
            "-- MySQL dump 10.13\nUSE `a`;\nCREATE TABLE `t` (\n  `x` int\n) ENGINE=InnoDB;\n{statements}\n-- Dump completed\n"
        )
    }

    fn rows(statements: &str) -> u64 {
        found(&with(statements))["rows a.t"]
    }

    #[test]
    fn what_both_tools_write_is_counted() {
        for (dump, tables) in [(MYSQL, 5), (MARIADB, 8)] {
            let found = found(dump);
            let expected = [
                ("rows shop.every", 3),
                ("rows shop.nothing", 0),
                ("rows shop.`odd ``name``.x`", 2),
                ("rows shop.part", 2),
                ("rows `we-ird db`.t", 1),
                ("tables in bare", 0),
                ("tables in shop", tables),
                ("tables in `we-ird db`", 1),
                ("events", 1),
                ("routines", 3),
                ("triggers", 1),
                ("views", 1),
                ("sequences", u64::from(tables == 8)),
            ];
            for (name, count) in expected {
                assert_eq!(found.get(name), Some(&count), "{name} of {found:#?}");
            }
        }
        assert_eq!(found(MYSQL)["tables read outside of the snapshot"], 1);
        assert_eq!(found(MARIADB)["tables read outside of the snapshot"], 2);
        assert_eq!(found(MARIADB)["rows shop.ver"], 4);
    }

    #[test]
    fn a_dump_cut_anywhere_is_not_whole() {
        for dump in [MYSQL, MARIADB] {
            for length in (0..dump.len()).filter(|length| length % 13 == 0 || dump.len() - length < 300) {
                let verdict = inspect(&mut &dump.as_bytes()[..length]);
                assert!(verdict.is_err(), "cut after {length} bytes of {}", dump.len());
            }
        }
    }

    #[test]
    fn it_does_not_matter_how_the_stream_comes() {
        struct OneByOne<'a>(&'a [u8]);
        impl Read for OneByOne<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                let count = self.0.len().min(buffer.len()).min(1);
                buffer[..count].copy_from_slice(&self.0[..count]);
                self.0 = &self.0[count..];
                Ok(count)
            }
        }
        for dump in [MYSQL, MARIADB] {
            assert_eq!(inspect(&mut OneByOne(dump.as_bytes())), inspect(&mut dump.as_bytes()));
        }
    }

    #[test]
    fn a_value_list_is_none_where_it_is_text() {
        assert_eq!(rows("INSERT INTO `t` VALUES (1),(2),\n(3);"), 3);
        assert_eq!(rows(r"INSERT INTO `t` VALUES ('),('),('\'),(');"), 2);
        assert_eq!(rows(r"INSERT INTO `t` VALUES ('\\'),('it''s ;'),('-- Dump completed');"), 3);
        assert_eq!(rows("INSERT INTO `t` (`VALUES (`, `b`) VALUES (0x2829,_binary '(('),(NULL,(1));"), 2);
        assert_eq!(rows("INSERT INTO `t` VALUES (1);\nINSERT INTO `t` VALUES (2);"), 2);
        assert_eq!(rows("-- INSERT INTO `t` VALUES (1);\n/* INSERT INTO `t` VALUES (1); */\n"), 0);
    }

    #[test]
    fn what_a_routine_says_is_no_data() {
        let body = "BEGIN -- it's\n INSERT INTO `t` VALUES (1); # (\"\n SELECT ';;', \"DELIMITER ;\"; /* ' */ END";
        let routine = format!("DELIMITER ;;\nCREATE DEFINER=`a`@`b` PROCEDURE `p`()\n{body} ;;\nDELIMITER ;\n");
        assert_eq!(rows(&routine), 0);
        assert_eq!(found(&with(&routine))["routines"], 1);
        let last = "DELIMITER ;;\nCREATE PROCEDURE `p`()\nBEGIN\n-- Dump completed\nEND ;;\nDELIMITER ;\n";
        assert_eq!(found(&with(last))["routines"], 1);
    }

    #[test]
    fn a_star_before_a_comment_multiplies() {
        for body in [
            "SELECT 6 */* it's */ 7",
            "SELECT 6 */* \" */ 7 */* ` */ 8",
            "SELECT 2 *-- it's\n 3",
            "SELECT 1 /*!80000 + 1 */ */* it's */ 2",
        ] {
            let routine = format!(
                "DELIMITER ;;\nCREATE DEFINER=`a`@`b` FUNCTION `f`() RETURNS int\nRETURN ({body}) ;;\nDELIMITER ;\n"
            );
            let found = found(&with(&format!("{routine}INSERT INTO `t` VALUES (1),(2);")));
            assert_eq!((found["routines"], found["rows a.t"]), (1, 2), "{body}");
        }
    }

    #[test]
    fn events_that_happen_once_are_counted_apart() {
        let event = |schedule: &str| {
            format!(
                "DELIMITER ;;\n/*!50106 CREATE*/ /*!50117 DEFINER=`a`@`b`*/ /*!50106 EVENT `e` ON SCHEDULE {schedule} ENABLE DO SELECT 1 */ ;;\nDELIMITER ;\n"
            )
        };
        for (schedule, once) in [
            ("AT '2020-01-01 00:00:00' ON COMPLETION NOT PRESERVE", Some(1)),
            ("AT '2020-01-01 00:00:00' ON COMPLETION PRESERVE", None),
            ("EVERY 1 DAY STARTS '2020-01-01 00:00:00' ENDS '2021-01-01 00:00:00' ON COMPLETION NOT PRESERVE", Some(1)),
            ("EVERY 1 DAY STARTS '2020-01-01 00:00:00' ON COMPLETION NOT PRESERVE", None),
        ] {
            let found = found(&with(&event(schedule)));
            assert_eq!((found["events"], found.get(ONCE).copied()), (1, once), "{schedule}");
        }
    }

    #[test]
    fn a_backslash_is_plain_where_the_mode_says_so() {
        let mode = |mode: &str| format!("/*!50003 SET sql_mode              = {mode} */ ;\n");
        let routine = r"DELIMITER //
CREATE PROCEDURE `p`() BEGIN SELECT 'a\', ';' FROM `x`; END //
DELIMITER ;
";
        let statements = format!("{}{routine}{}", mode("'NO_BACKSLASH_ESCAPES'"), mode("@saved_sql_mode"));
        assert_eq!(rows(&format!("{statements}INSERT INTO `t` VALUES ('\\''),(2);")), 2);
    }

    #[test]
    fn what_is_no_dump_is_refused() {
        for text in ["", "SELECT 1;\n-- Dump completed\n", "-- MySQL dump\n-- Dump completed\nUSE `a`;\n"] {
            assert!(inspect(&mut text.as_bytes()).is_err(), "{text}");
        }
        for statements in ["INSERT INTO `u` VALUES (1);", "INSERT INTO `t` VALUES (1;", "INSERT INTO `t` VALUES (1));"]
        {
            assert!(inspect(&mut with(statements).as_bytes()).is_err(), "{statements}");
        }
    }
}
