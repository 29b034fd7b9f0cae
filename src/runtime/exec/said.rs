//! What a program says when it fails, and what of it may be shown: the line with the cause, without statements and without
//! what may be a secret. The one place for all engines, since every message of theirs comes through here.

/// Stands for what is not shown.
const STARS: &str = "***";

/// Words after which a quoted text is a secret, or may hold one: `IDENTIFIED BY '…'`, `PASSWORD '…'`, `OPTIONS (… '…')`.
const TELLING: [&str; 8] = ["identified", "password", "passwd", "passphrase", "secret", "token", "options", "mapping"];

/// Parts of a quoted text by which all of it is one: a connection's parameters, a statement.
const HOLDING: [&str; 5] = ["password=", "passwd=", "password '", "identified ", "secret="];

/// Words before a quoted name, which is no secret.
const NAMING: [&str; 14] = [
    "user",
    "role",
    "for",
    "database",
    "plugin",
    "relation",
    "function",
    "table",
    "column",
    "parameter",
    "option",
    "server",
    "subscription",
    "to",
];

/// The cause in one line: that of the server and what it adds, or the last three lines of a program that marks none.
pub(super) fn cause(text: &str) -> String {
    let text = text.replace('\t', " ");
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let chosen: Vec<&str> = match lines.iter().position(|line| is_cause(line)) {
        Some(first) => {
            let more =
                lines[first + 1..].iter().take_while(|line| !is_cause(line)).filter(|line| adds_to_it(line)).take(2);
            std::iter::once(&lines[first]).chain(more).copied().collect()
        }
        None => lines[lines.len().saturating_sub(3)..].to_vec(),
    };
    chosen.into_iter().map(masked).collect::<Vec<_>>().join("; ")
}

/// The warnings of a program that ended well.
pub(super) fn warnings(text: &str) -> Vec<String> {
    const LONGEST: usize = 300;
    let about_itself =
        |line: &&str| line.contains("MYSQL_PWD") || line.contains("using a password") || line.contains("unknown");
    let is_warning = |line: &&str| line.to_ascii_lowercase().contains("warning");
    let lines = text.lines().map(str::trim).filter(|line| is_warning(line) && !about_itself(line));
    lines.map(|line| masked(line).chars().take(LONGEST).collect()).collect()
}

/// A line in which one of the servers, or one of their programs, says what is wrong.
pub(super) fn is_cause(line: &str) -> bool {
    let severe = ["ERROR:  ", "FATAL:  ", "PANIC:  "].iter().any(|word| line.contains(word));
    let of_mysql =
        line.strip_prefix("ERROR ").is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()));
    let program = line.split_once(": ").filter(|(name, _)| !name.contains(' '));
    let of_program = program.is_some_and(|(name, rest)| {
        let known = name.starts_with("pg_") || name.starts_with("psql") || name.contains("dump");
        let rest = rest.to_ascii_lowercase();
        known && ["error", "fatal", "got error", "couldn't", "failed"].iter().any(|word| rest.starts_with(word))
    });
    severe || of_mysql || of_program
}

/// What a server says beside the cause. A statement or a row that it repeats is not shown.
pub(super) fn adds_to_it(line: &str) -> bool {
    let line = line.split_once(": ").filter(|(name, _)| name.starts_with("pg_")).map_or(line, |(_, rest)| rest);
    let lower = line.to_ascii_lowercase();
    let repeats = lower.contains("query was:") && !lower.contains("query was: lock table");
    (lower.starts_with("detail:") || lower.starts_with("hint:")) && !repeats && !lower.contains("failing row contains")
}

/// A line without what may be a secret: quoted texts behind a telling word, whatever is shaped like a hash, the values of a
/// row, the text that a syntax error repeats.
pub fn masked(line: &str) -> String {
    let line = match line.split_once(" near '") {
        Some((before, rest)) => {
            // The statement goes on to its end there, with quotes within quotes.
            let place = rest.rfind("' at line ").map_or("", |at| &rest[at + 1..]);
            format!("{before} near {STARS}{place}")
        }
        None => line.to_owned(),
    };
    without_shapes(&without_values(&without_quoted(&line)))
}

/// Quoted texts behind a telling word that is not in quotes itself.
fn without_quoted(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    let (mut telling, mut rest) = (false, line);
    while let Some((at, quote)) = opening(rest) {
        let (before, quoted) = (&rest[..at], &rest[at + 1..]);
        telling |= tells(before);
        let names = before.split_whitespace().next_back().is_some_and(|word| NAMING.contains(&word.to_ascii_lowercase().as_str()))
            // An account's host.
            || before.ends_with('@');
        let end = closing(quoted, quote);
        shown.push_str(before);
        shown.push(quote);
        let text = end.map_or(quoted, |end| &quoted[..end]).to_ascii_lowercase();
        let holds = HOLDING.iter().any(|part| text.contains(part));
        match ((telling && !names) || holds, end) {
            (true, _) => shown.push_str(STARS),
            (false, Some(end)) => shown.push_str(&quoted[..end]),
            (false, None) => shown.push_str(quoted),
        }
        let Some(end) = end else { return shown };
        shown.push(quote);
        rest = &quoted[end + 1..];
    }
    shown.push_str(rest);
    shown
}

fn tells(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    TELLING.iter().any(|word| lower.contains(word))
}

/// Where a quoted text begins. An apostrophe within a word (`can't`) begins none.
fn opening(text: &str) -> Option<(usize, char)> {
    let mut before = ' ';
    for (at, letter) in text.char_indices() {
        let within = letter == '\'' && before.is_alphanumeric();
        if matches!(letter, '\'' | '"') && !within {
            return Some((at, letter));
        }
        before = letter;
    }
    None
}

fn closing(text: &str, quote: char) -> Option<usize> {
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => drop(letters.next()),
            _ if letter == quote => match letters.peek() {
                Some((_, next)) if *next == quote => drop(letters.next()),
                _ => return Some(at),
            },
            _ => {}
        }
    }
    None
}

/// `Key (email)=(a@b.c) already exists.` names a row of somebody's.
fn without_values(line: &str) -> String {
    match (line.find(")=("), line.rfind(')')) {
        (Some(at), Some(end)) if end > at + 2 => format!("{})=({STARS}{}", &line[..at], &line[end..]),
        _ => line.to_owned(),
    }
}

/// Words that look like a hash, a connection's password or one in an address.
fn without_shapes(line: &str) -> String {
    // A hash of `caching_sha2_password` holds any bytes, spaces among them.
    if let Some(at) = line.find("$A$") {
        return format!("{}{STARS}", without_shapes(&line[..at]));
    }
    let mut shown = String::with_capacity(line.len());
    for piece in line
        .split_inclusive(|letter: char| letter.is_whitespace() || matches!(letter, '\'' | '"' | ',' | '(' | ')' | ';'))
    {
        let word = piece.trim_end_matches(|letter: char| {
            letter.is_whitespace() || matches!(letter, '\'' | '"' | ',' | '(' | ')' | ';')
        });
        shown.push_str(&without_shape(word));
        shown.push_str(&piece[word.len()..]);
    }
    shown
}

fn without_shape(word: &str) -> String {
    let is_hex = |text: &str, least: usize| text.len() >= least && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let lower = word.to_ascii_lowercase();
    let shaped = lower.starts_with("scram-sha-")
        || lower.strip_prefix("md5").is_some_and(|rest| is_hex(rest, 32))
        || lower.strip_prefix('*').is_some_and(|rest| is_hex(rest, 16))
        || lower.strip_prefix("0x").is_some_and(|rest| is_hex(rest, 16))
        || is_hex(word, 32)
        // `$2b$12$…`, `$argon2id$…`, `$6$…`
        || word.strip_prefix('$').and_then(|rest| rest.split_once('$')).is_some_and(|(id, rest)| {
            !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') && rest.len() >= 8
        });
    if shaped {
        return STARS.to_owned();
    }
    for key in ["password=", "passwd=", "pwd=", "secret=", "token="] {
        if let Some(at) = lower.find(key) {
            return format!("{}{STARS}", &word[..at + key.len()]);
        }
    }
    // `scheme://user:password@host`
    if let (Some(scheme), Some(host)) = (word.find("://"), word.rfind('@'))
        && let Some(colon) = word.get(scheme + 3..host).and_then(|login| login.find(':'))
    {
        return format!("{}:{STARS}{}", &word[..scheme + 3 + colon], &word[host..]);
    }
    word.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What servers and their clients have said, each with a secret in it, and what is shown.
    const SAID: [(&str, &str); 12] = [
        (
            "--------------\nALTER USER `app`@`%` IDENTIFIED WITH 'gone' AS '*0123456789ABCDEF0123456789ABCDEF01234567'\n--------------\n\nERROR 1524 (HY000) at line 7: Plugin 'gone' is not loaded\n",
            "ERROR 1524 (HY000) at line 7: Plugin 'gone' is not loaded",
        ),
        (
            "ERROR 1064 (42000) at line 3: You have an error in your SQL syntax; check the manual for the right syntax to use near 'IDENTIFIED BY 'hunter2' REQUIRE SSL' at line 1",
            "ERROR 1064 (42000) at line 3: You have an error in your SQL syntax; check the manual for the right syntax to use near *** at line 1",
        ),
        (
            "psql:<stdin>:4: ERROR:  invalid SCRAM verifier\nLINE 1: ALTER ROLE app PASSWORD 'hunter2';\n                      ^\n",
            "psql:<stdin>:4: ERROR:  invalid SCRAM verifier",
        ),
        (
            "psql:<stdin>:4: ERROR:  role \"app\" has the password 'hunter2'\nHINT:  Look at \"app\".\n",
            "psql:<stdin>:4: ERROR:  role \"app\" has the password '***'; HINT:  Look at \"app\".",
        ),
        (
            "pg_restore: error: could not execute query: ERROR:  relation \"rates\" does not exist\nLINE 1: SELECT EXISTS (SELECT FROM rates)\nQUERY:  SELECT EXISTS (SELECT FROM rates)\nCONTEXT:  SQL function \"known\" during startup\nCOPY users, line 1: \"1 $2b$12$abcdefghijklmnopqrstuv\"\nCommand was: COPY public.users (id, hash) FROM stdin;\n",
            "pg_restore: error: could not execute query: ERROR:  relation \"rates\" does not exist",
        ),
        (
            "pg_dump: error: query failed: ERROR:  canceling statement due to lock timeout\npg_dump: detail: Query was: LOCK TABLE public.t IN ACCESS SHARE MODE\n",
            "pg_dump: error: query failed: ERROR:  canceling statement due to lock timeout; pg_dump: detail: Query was: LOCK TABLE public.t IN ACCESS SHARE MODE",
        ),
        (
            "ERROR:  duplicate key value violates unique constraint \"u\"\nDETAIL:  Key (mail)=(a@b.c) already exists.\n",
            "ERROR:  duplicate key value violates unique constraint \"u\"; DETAIL:  Key (mail)=(***) already exists.",
        ),
        (
            "ERROR:  could not connect to the publisher: connection to 'host=db password=hunter2' failed",
            "ERROR:  could not connect to the publisher: connection to '***' failed",
        ),
        ("could not reach postgres://app:hunter2@db/shop", "could not reach postgres://app:***@db/shop"),
        ("the verifier is SCRAM-SHA-256$4096:aaaa$bbbb:cccc here", "the verifier is *** here"),
        ("'$A$005$ab c\u{1}d' is no hash", "'***"),
        (
            "psql: error: connection to server failed: FATAL:  password authentication failed for user \"shop\"",
            "psql: error: connection to server failed: FATAL:  password authentication failed for user \"shop\"",
        ),
    ];

    #[test]
    fn the_cause_is_told_and_no_secret_with_it() {
        for (said, shown) in SAID {
            assert_eq!(cause(said), shown);
        }
    }

    #[test]
    fn what_is_no_secret_stays_readable() {
        for line in [
            "ERROR 1045 (28000): Access denied for user 'root'@'localhost' (using password: YES)",
            "ERROR 1146 (42S02) at line 40: Table 'shop.nowhere' doesn't exist",
            "ERROR 2002 (HY000): Can't connect to local server through socket '/run/mysqld/mysqld.sock' (2)",
            "pg_dump: error: query failed: ERROR:  permission denied for table t",
            "mysqldump: Couldn't execute 'SHOW CREATE VIEW `v`': View 'shop.v' references invalid table(s) (1356)",
            "FATAL:  role \"devstack_backup\" does not exist",
        ] {
            assert_eq!(cause(line), line);
        }
    }

    #[test]
    fn a_program_that_marks_no_line_is_told_by_its_last_three() {
        assert_eq!(cause("one\ntwo\n\nthree\nfour\n"), "two; three; four");
        assert_eq!(cause(""), "");
    }

    #[test]
    fn warnings_are_told_and_those_about_the_login_are_not() {
        let said = "pg_dump: warning: subscriptions not dumped because current user is not a superuser\nmysqldump: [Warning] MYSQL_PWD is deprecated\nnothing\n";
        assert_eq!(
            warnings(said),
            ["pg_dump: warning: subscriptions not dumped because current user is not a superuser"]
        );
    }
}
