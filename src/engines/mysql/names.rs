//! Names and texts as these servers write and read them.

/// A name in backticks.
pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A string constant, under an `sql_mode` without `NO_BACKSLASH_ESCAPES`.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// The first name in backticks, and what follows it.
pub(super) fn first_quoted(text: &str) -> Option<(String, &str)> {
    let (_, rest) = text.split_once('`')?;
    let mut name = String::new();
    let mut letters = rest.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '`' if letters.peek().is_some_and(|(_, next)| *next == '`') => {
                letters.next();
                name.push('`');
            }
            '`' => return Some((name, &rest[at + 1..])),
            other => name.push(other),
        }
    }
    None
}

/// `shop.orders`, each part in backticks where it is not plain. [`table`] reads it back.
pub(super) fn dotted(database: &str, table: &str) -> String {
    format!("{}.{}", shown(database), shown(table))
}

/// A name as it is, or in backticks where it holds anything that could be taken for something else.
pub(super) fn shown(name: &str) -> String {
    let plain = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '$' | '-');
    if !name.is_empty() && name.chars().all(plain) { name.to_owned() } else { quoted(name) }
}

/// The name behind [`shown`], and what follows it from its dot on.
pub(super) fn part(text: &str) -> Option<(String, &str)> {
    if text.starts_with('`') {
        return first_quoted(text);
    }
    let end = text.find('.').unwrap_or(text.len());
    Some((text[..end].to_owned(), &text[end..]))
}

/// A table by its name as [`dotted`] gives it, for a statement.
pub(super) fn table(dotted: &str) -> Option<String> {
    let (database, rest) = part(dotted)?;
    let (table, _) = part(rest.strip_prefix('.')?)?;
    Some(format!("{}.{}", quoted(&database), quoted(&table)))
}

/// The rows of a client's batch output: columns divided by tabs, with what could be taken for a divider escaped.
pub(super) fn rows(output: &str) -> Vec<Vec<String>> {
    output.lines().map(|line| line.split('\t').map(unescaped).collect()).collect()
}

fn unescaped(column: &str) -> String {
    let mut text = String::with_capacity(column.len());
    let mut letters = column.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some('0') => text.push('\0'),
                Some(other) => text.push(other),
                None => text.push('\\'),
            },
            other => text.push(other),
        }
    }
    text
}

/// The words of a statement that stand outside of quotes and parentheses, each with its quoted parts.
pub(super) fn words(statement: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let (mut quote, mut escaped, mut depth, mut begin) = (None, false, 0_u32, None);
    for (at, letter) in statement.char_indices() {
        let inside = quote.is_some() || depth > 0;
        if let Some(open) = quote {
            match letter {
                _ if escaped => escaped = false,
                '\\' if open != '`' => escaped = true,
                _ if letter == open => quote = None,
                _ => {}
            }
        } else {
            match letter {
                '\'' | '"' | '`' => quote = Some(letter),
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        let divides = !inside && (letter.is_whitespace() || letter == '(' || letter == ';');
        match (divides, begin) {
            (true, Some(from)) => {
                words.push(&statement[from..at]);
                begin = None;
            }
            (false, None) if !inside && letter != ')' => begin = Some(at),
            _ => {}
        }
    }
    words.extend(begin.map(|from| &statement[from..]));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_being_shown() {
        for (database, name) in [("shop", "orders"), ("a.b", "c"), ("we`ird", "x.`y`"), ("größe", "t-1"), ("", " ")] {
            let expected = format!("{}.{}", quoted(database), quoted(name));
            assert_eq!(table(&dotted(database, name)), Some(expected));
        }
        assert_eq!(dotted("shop", "orders"), "shop.orders");
    }

    #[test]
    fn words_are_what_stands_outside_of_quotes_and_parentheses() {
        let statement = "CREATE TABLE `a b` (`x` int COMMENT 'ENGINE=(') ENGINE=InnoDB COMMENT='it\\'s; )'";
        let expected = ["CREATE", "TABLE", "`a b`", "ENGINE=InnoDB", "COMMENT='it\\'s; )'"];
        assert_eq!(words(statement), expected);
    }

    #[test]
    fn a_batch_output_is_read_back() {
        assert_eq!(rows("a\\tb\tc\\\\d\n\\n\t"), [["a\tb", "c\\d"], ["\n", ""]]);
    }
}
