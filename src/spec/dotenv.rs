//! `.env` files, read as Docker Compose reads them. Its rules (quotes, escapes, comments, `export`, a bare name that is
//! inherited, `${X:-y}` within the file) are those of the package `dotenv` of compose-go, its oddities among them: a password
//! that is read in another way than the container gets it opens nothing. `tests/scenarios/env_files.py` compares the two.

mod fill;

use std::collections::BTreeMap;

use zeroize::Zeroizing;

/// The largest file that is read.
pub const LARGEST: u64 = 1024 * 1024;

/// What all values together may come to: variables that repeat each other grow without end.
const MOST_TEXT: usize = 8 * 1024 * 1024;

/// The variables that files gave, by name. What is in them may be secret.
#[derive(Default)]
pub struct Variables {
    values: BTreeMap<String, Zeroizing<String>>,
    bytes: usize,
}

impl Variables {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|value| value.as_str())
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    fn set(&mut self, name: &str, value: Zeroizing<String>) -> Result<(), Fault> {
        self.bytes += value.len();
        if self.bytes > MOST_TEXT {
            return Err(Fault::TooMuch);
        }
        self.values.insert(name.to_owned(), value);
        Ok(())
    }
}

/// Why a file is none that Compose would read. Nothing of what stands in it is shown, but for names of variables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {fault}")]
pub struct DotenvError {
    pub line: usize,
    fault: Fault,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error(
        "no `=` follows what should be a variable's name: begin a comment with #, and put a value of several lines in quotes"
    )]
    Name,
    #[error("there is a space in a variable's name: write NAME=value")]
    Space,
    #[error("a quote is opened and not closed")]
    Quote,
    #[error("a `${{` is no reference to a variable: write `$$` for one dollar, or put the value in single quotes")]
    Reference,
    #[error("the variable {name} must have a value and has none")]
    Missing { name: String },
    #[error("references to variables are nested too deeply")]
    Depth,
    #[error("the values come to more than 8 MiB")]
    TooMuch,
}

/// Reads a file after others that gave what is in `into`: later ones override earlier ones. A reference within a value means
/// the variable `outside`, and where there is none, one that stands further up or in a file before.
pub fn read(
    text: &str,
    into: &mut Variables,
    outside: &dyn Fn(&str) -> Option<Zeroizing<String>>,
) -> Result<(), DotenvError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut rest = text;
    loop {
        rest = statement(rest);
        if rest.is_empty() {
            return Ok(());
        }
        let line = text[..text.len() - rest.len()].matches('\n').count() + 1;
        rest = assign(rest, into, outside).map_err(|fault| DotenvError { line, fault })?;
    }
}

/// Where the next statement begins: blank lines and comments are left out.
fn statement(text: &str) -> &str {
    let mut rest = text.trim_start();
    while rest.starts_with('#') {
        rest = rest.split_once('\n').map_or("", |(_, below)| below).trim_start();
    }
    rest
}

/// Carries out one statement, and gives what follows it.
fn assign<'t>(
    text: &'t str,
    into: &mut Variables,
    outside: &dyn Fn(&str) -> Option<Zeroizing<String>>,
) -> Result<&'t str, Fault> {
    let Key { name, inherited, rest } = key(text)?;
    if name.contains(' ') {
        return Err(Fault::Space);
    }
    if inherited {
        let value = outside(name).or_else(|| into.get(name).map(|value| Zeroizing::new(value.to_owned())));
        if let Some(value) = value {
            into.set(name, value)?;
        }
        return Ok(rest);
    }
    let lookup = |name: &str| outside(name).or_else(|| into.get(name).map(|value| Zeroizing::new(value.to_owned())));
    let (value, rest) = match rest.chars().next().filter(|first| matches!(first, '"' | '\'')) {
        Some(quote) => quoted(rest, quote, &lookup)?,
        None => {
            let (line, below) = rest.split_once('\n').unwrap_or((rest, ""));
            let value = line.split_once(" #").map_or(line, |(value, _)| value).trim_end();
            (fill::filled(value, &lookup)?, below)
        }
    };
    into.set(name, value)?;
    Ok(rest)
}

struct Key<'t> {
    name: &'t str,
    /// Nothing is assigned: the value is that of the environment.
    inherited: bool,
    rest: &'t str,
}

fn key(text: &str) -> Result<Key<'_>, Fault> {
    let text = match text.strip_prefix("export") {
        Some(rest) if rest.starts_with([' ', '\t', '\n', '\r', '\x0c']) => rest.trim_start_matches(is_space),
        _ => text,
    };
    for (at, letter) in text.char_indices() {
        match letter {
            letter if is_space(letter) => {}
            '=' | ':' | '\n' => {
                let (name, rest) = (text[..at].trim_end(), text[at + 1..].trim_start_matches(is_space));
                return Ok(Key { name, inherited: letter == '\n', rest });
            }
            '_' | '.' | '-' | '[' | ']' => {}
            letter if letter.is_alphanumeric() => {}
            _ => return Err(Fault::Name),
        }
    }
    // A bare name at the file's very end, without a line break, is a value without a name to Compose.
    Ok(Key { name: "", inherited: false, rest: text.trim_start_matches(is_space) })
}

/// A space, and no line break.
fn is_space(letter: char) -> bool {
    matches!(letter, '\t' | '\x0b' | '\x0c' | '\r' | ' ' | '\u{85}' | '\u{a0}')
}

type Lookup<'a> = dyn Fn(&str) -> Option<Zeroizing<String>> + 'a;

/// What stands between quotes, over several lines too, and what follows them.
fn quoted<'t>(text: &'t str, quote: char, lookup: &Lookup<'_>) -> Result<(Zeroizing<String>, &'t str), Fault> {
    let mut value = Zeroizing::new(String::with_capacity(text.len().min(4096)));
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            letter if letter == quote && !escaped => {
                let rest = &text[at + 1..];
                let value = match quote {
                    '"' => fill::filled(&unescaped(&value), lookup)?,
                    _ => value,
                };
                return Ok((value, rest));
            }
            letter if letter == quote => value.push(letter),
            '\\' if !escaped => {
                escaped = true;
                continue;
            }
            letter => {
                if escaped {
                    value.push('\\');
                }
                value.push(letter);
            }
        }
        escaped = false;
    }
    Err(Fault::Quote)
}

/// The escapes of a value in double quotes. `\$` becomes `$$`, which stands for one dollar.
fn unescaped(text: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(text.len()));
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let (shown, taken): (&str, usize) = match after.bytes().next() {
            Some(b'a') => ("\x07", 1),
            Some(b'b') => ("\x08", 1),
            Some(b'f') => ("\x0c", 1),
            Some(b'n') => ("\n", 1),
            Some(b'r') => ("\r", 1),
            Some(b't') => ("\t", 1),
            Some(b'v') => ("\x0b", 1),
            Some(b'"') => ("\"", 1),
            Some(b'\\') => ("\\", 1),
            Some(b'$') => ("$$", 1),
            Some(b'0') => {
                let digits = after[1..].bytes().take(3).take_while(u8::is_ascii_digit).count();
                let octal = &after[1..=digits];
                match u8::from_str_radix(octal, 8) {
                    Ok(code) if digits == 3 => out.push(char::from(code)),
                    // No code of a letter: the zero is gone all the same.
                    _ => {
                        out.push('\\');
                        out.push_str(octal);
                    }
                }
                ("", 1 + digits)
            }
            _ => ("\\", 0),
        };
        out.push_str(shown);
        rest = &after[taken..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests;
