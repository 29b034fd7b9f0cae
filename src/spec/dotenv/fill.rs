//! References to variables within a value: `$X`, `${X}`, `${X:-y}` and the like, `$$` for a dollar.

use zeroize::Zeroizing;

use super::{Fault, Lookup};

/// A default may hold a reference with a default of its own, and so on.
const DEEPEST: usize = 64;

/// What one value may come to.
const LONGEST: usize = super::LARGEST as usize;

pub(super) fn filled(text: &str, lookup: &Lookup<'_>) -> Result<Zeroizing<String>, Fault> {
    let mut out = Zeroizing::new(String::with_capacity(text.len()));
    fill(text, lookup, &mut out, DEEPEST)?;
    Ok(out)
}

fn fill(text: &str, lookup: &Lookup<'_>, out: &mut Zeroizing<String>, depth: usize) -> Result<(), Fault> {
    let depth = depth.checked_sub(1).ok_or(Fault::Depth)?;
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        rest = match after.bytes().next() {
            Some(b'$') => {
                out.push('$');
                &after[1..]
            }
            Some(b'{') => {
                let (inside, below) = braces(&after[1..])?;
                braced(inside, lookup, out, depth)?;
                below
            }
            Some(first) if begins_name(first) => {
                let (name, below) = after.split_at(name_length(after));
                out.push_str(lookup(name).as_ref().map_or("", |value| value.as_str()));
                below
            }
            _ => {
                out.push('$');
                after
            }
        };
        if out.len() > LONGEST {
            return Err(Fault::TooMuch);
        }
    }
    out.push_str(rest);
    Ok(())
}

fn begins_name(first: u8) -> bool {
    first == b'_' || first.is_ascii_alphabetic()
}

fn name_length(text: &str) -> usize {
    text.bytes().take_while(|byte| *byte == b'_' || byte.is_ascii_alphanumeric()).count()
}

/// What stands behind `${`. Compose takes all up to the line's last `}`, and cuts it there where the first brace is closed.
struct Inside<'t> {
    name: &'t str,
    /// `:-` and its like, with what follows it; empty where there is none.
    operator: &'t str,
    word: &'t str,
}

fn braces(text: &str) -> Result<(Inside<'_>, &str), Fault> {
    let name = match text.bytes().next() {
        Some(first) if begins_name(first) => &text[..name_length(text)],
        _ => return Err(Fault::Reference),
    };
    let after = &text[name.len()..];
    if let Some(below) = after.strip_prefix('}') {
        return Ok((Inside { name, operator: "", word: "" }, below));
    }
    let colon = usize::from(after.starts_with(':'));
    if !after[colon..].starts_with(['-', '+', '?']) {
        return Err(Fault::Reference);
    }
    let (operator, word) = after.split_at(colon + 1);
    let line = word.split('\n').next().unwrap_or_default();
    let Some(last) = line.rfind('}') else { return Err(Fault::Reference) };
    let closing = first_closing(&word[..=last]).unwrap_or(last);
    Ok((Inside { name, operator, word: &word[..closing] }, &word[closing + 1..]))
}

/// Where the brace that was opened before `text` is closed. What follows an opening one is not looked at, as in Compose.
fn first_closing(text: &str) -> Option<usize> {
    let mut open = 1_u32;
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'}' => {
                open -= 1;
                if open == 0 {
                    return Some(at);
                }
            }
            b'{' => {
                open += 1;
                bytes.next();
            }
            _ => {}
        }
    }
    None
}

fn braced(inside: Inside<'_>, lookup: &Lookup<'_>, out: &mut Zeroizing<String>, depth: usize) -> Result<(), Fault> {
    let value = lookup(inside.name);
    let is_set = match inside.operator.starts_with(':') {
        true => value.as_ref().is_some_and(|value| !value.is_empty()),
        false => value.is_some(),
    };
    let takes_word = match inside.operator.trim_start_matches(':') {
        "-" => !is_set,
        "+" => is_set,
        "?" if !is_set => return Err(Fault::Missing { name: inside.name.to_owned() }),
        _ => false,
    };
    match takes_word {
        true => fill(inside.word, lookup, out, depth),
        false => {
            out.push_str(value.as_ref().map_or("", |value| value.as_str()));
            Ok(())
        }
    }
}
