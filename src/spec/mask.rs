//! What may be a secret is never shown, not even the line that it stands in by mistake.

use std::ops::Range;

use super::diagnostic::Diagnostic;

/// Stands for a value, whatever its length.
const STARS: &str = "***";

/// Keys whose literal value is taken for a secret even where the file cannot be read as YAML, so that no place in it is
/// known. Matched as a part of the key, so that `db_password` and `passphrase_file` are among them.
const TELLING: [&str; 10] = [
    "passphrase",
    "password",
    "passwd",
    "secret",
    "token",
    "gpg_symmetric",
    "age_identity",
    "credential",
    "api_key",
    "private_key",
];

const AGE_IDENTITY: &str = "AGE-SECRET-KEY-";

/// Whether a key of this name is followed by a secret.
pub(super) fn tells_a_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace('-', "_");
    TELLING.iter().any(|word| key.contains(word))
}

/// A text without its secrets, and where its bytes have gone.
pub(super) struct Masked {
    pub text: String,
    /// In order, apart from one another.
    cuts: Vec<Cut>,
}

struct Cut {
    /// In the original.
    range: Range<usize>,
    /// What stands for it, in the masked text.
    shown: Range<usize>,
}

impl Masked {
    /// Masks the values at `secrets`, and what the text alone tells to be one.
    pub fn new(text: &str, mut secrets: Vec<Range<usize>>) -> Self {
        secrets.extend(telling_values(text));
        secrets.extend(identities(text));
        secrets.retain(|range| !range.is_empty() && text.get(range.clone()).is_some());
        secrets.sort_by_key(|range| (range.start, range.end));
        let mut merged: Vec<Range<usize>> = Vec::new();
        for range in secrets {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        let mut masked = String::with_capacity(text.len());
        let mut cuts = Vec::new();
        let mut done = 0;
        for range in merged {
            let value = &text[range.clone()];
            // Lines keep their numbers.
            let breaks = "\n".repeat(value.matches('\n').count());
            masked.push_str(&text[done..range.start]);
            let start = masked.len();
            masked.push_str(STARS);
            masked.push_str(&breaks);
            done = range.end;
            cuts.push(Cut { range, shown: start..masked.len() });
        }
        masked.push_str(&text[done..]);
        Self { text: masked, cuts }
    }

    pub fn move_places(&self, diagnostics: &mut [Diagnostic]) {
        for diagnostic in diagnostics {
            diagnostic.span = self.moved(&diagnostic.span);
            if let Some((range, _)) = &mut diagnostic.related {
                *range = self.moved(range);
            }
        }
    }

    /// Where `range` lies in the masked text. What touches a masked value covers its stars.
    fn moved(&self, range: &Range<usize>) -> Range<usize> {
        self.moved_point(range.start, false)..self.moved_point(range.end, true)
    }

    fn moved_point(&self, at: usize, is_end: bool) -> usize {
        // The last cut that begins before.
        match self.cuts.partition_point(|cut| cut.range.start < at).checked_sub(1).map(|index| &self.cuts[index]) {
            None => at,
            Some(cut) if at > cut.range.end || (at == cut.range.end && !is_end) => at - cut.range.end + cut.shown.end,
            Some(cut) if is_end => cut.shown.start + STARS.len(),
            Some(cut) => cut.shown.start,
        }
    }
}

/// `key: value` with a telling key: the rest of the line, and a value on lines of its own below it. A mapping is no value.
fn telling_values(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let start = offset;
        offset += line.len();
        // A line in the block of a key above is masked already, and a block that begins in it ends with that one at the latest:
        // to go through it again would take quadratic time.
        if found.last().is_some_and(|last: &Range<usize>| start < last.end) {
            continue;
        }
        let mut from = 0;
        while let Some(colon) = line[from..].find(':').map(|at| from + at) {
            from = colon + 1;
            let key = line[..colon].trim_end().trim_end_matches(['"', '\'']);
            let key_start = key
                .rfind(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-'))
                .map_or(0, |at| at + key[at..].chars().next().map_or(1, char::len_utf8));
            if !tells_a_secret(&key[key_start..]) {
                continue;
            }
            let rest = line[colon + 1..].trim_end_matches(['\n', '\r']);
            let value = rest.trim_start();
            let at = start + colon + 1 + (rest.len() - value.len());
            let opens = value.is_empty() || value.starts_with(['|', '>', '#', '&', '!']);
            if opens {
                let indent = line.len() - line.trim_start_matches([' ', '-']).len();
                found.extend(block_below(text, offset, indent));
                break;
            }
            if value.starts_with(['{', '[', '*']) {
                continue;
            }
            // In a flow mapping the value ends at the next `,` or `}`, unless it is quoted or these are part of it; so much
            // the better if too much is masked.
            let end = if line[..colon].contains(['{', '[']) { flow_end(value) } else { value.len() };
            found.push(at..at + end);
            from = (colon + 1 + (rest.len() - value.len()) + end).min(line.len());
        }
    }
    found
}

fn flow_end(value: &str) -> usize {
    let quoted = value.chars().next().filter(|first| matches!(first, '"' | '\''));
    match quoted {
        Some(quote) => value[1..].find(quote).map_or(value.len(), |at| at + 2),
        None => value.find([',', '}', ']']).unwrap_or(value.len()),
    }
}

/// Lines below that are deeper than `indent` and are no mapping of where the secret is found.
fn block_below(text: &str, from: usize, indent: usize) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut offset = from;
    for line in text[from..].split_inclusive('\n') {
        let body = line.trim();
        let depth = line.len() - line.trim_start().len();
        if body.is_empty() {
            offset += line.len();
            continue;
        }
        let reference = ["env:", "file:", "env_file:", "name:", "vault:", "prompt:", "generate:"]
            .iter()
            .any(|key| body.starts_with(key));
        if depth < indent
            || (depth == indent && indent > 0 && !body.starts_with('-') && body.contains(": "))
            || reference
        {
            break;
        }
        if depth == 0 {
            break;
        }
        found.push(offset + depth..offset + depth + body.len());
        offset += line.len();
    }
    found
}

/// The age identities in a text, wherever they stand, comments included.
pub(super) fn identities(text: &str) -> Vec<Range<usize>> {
    let upper = text.to_ascii_uppercase();
    let ends = |c: char| !c.is_ascii_alphanumeric() && c != '-';
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut done = 0;
    // From the end of one: what begins within another is part of it, and to look for its end again takes quadratic time.
    while let Some(start) = upper[done..].find(AGE_IDENTITY).map(|at| done + at) {
        done = upper[start..].find(ends).map_or(text.len(), |length| start + length);
        found.push(start..done);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(text: &str) -> String {
        Masked::new(text, Vec::new()).text
    }

    #[test]
    fn what_a_key_tells_to_be_a_secret_is_masked_without_reading_yaml() {
        assert_eq!(masked("keys:\n  - passphrase: hunter2\n"), "keys:\n  - passphrase: ***\n");
        assert_eq!(masked("keys: [{passphrase: hunter2}, {gpg: a}"), "keys: [{passphrase: ***}, {gpg: a}");
        assert_eq!(masked("keys: [{\"passphrase\" : \"hunt,er2\", x: 1"), "keys: [{\"passphrase\" : ***, x: 1");
        assert_eq!(masked("  - passphrase: |\n      hunter2\n    x: 1\n"), "  - passphrase: |\n      ***\n    x: 1\n");
        assert_eq!(masked("  - passphrase:\n      hunter2\n"), "  - passphrase:\n      ***\n");
        assert_eq!(masked("a: AGE-SECRET-KEY-1QQ, b"), "a: ***, b");
        assert_eq!(masked("DB_PASSWORD: hunter2"), "DB_PASSWORD: ***");
    }

    #[test]
    fn nothing_is_gone_through_twice() {
        for text in [
            "AGE-SECRET-KEY-".repeat(70_000),
            "age-secret-key-1q ".repeat(50_000),
            "# AGE-SECRET-KEY-1\n".repeat(50_000),
            "  passphrase:\n".repeat(70_000),
            "  - token:\n".repeat(70_000),
            " secret: |\n\n".repeat(70_000),
            "{password: a, ".repeat(70_000),
        ] {
            let found = [telling_values(&text), identities(&text)];
            let looked: usize = found.iter().flatten().map(Range::len).sum();
            // Every byte that one of the two goes through is a byte that it masks.
            assert!(looked <= 2 * text.len(), "{looked} of {} bytes: {}", text.len(), &text[..20]);
        }
    }

    #[test]
    fn what_lies_in_a_masked_block_is_masked_with_it() {
        assert_eq!(
            masked("  passphrase:\n    token:\n      hunter2\n    hunter2\n"),
            "  passphrase:\n    ***\n      ***\n    ***\n"
        );
        assert_eq!(
            masked("  - secret: |\n      a: b\n      token: hunter2\n  - x: 1\n"),
            "  - secret: |\n      ***\n      ***\n  - x: 1\n"
        );
        assert_eq!(masked("AGE-SECRET-KEY-1AGE-SECRET-KEY-1, b"), "***, b");
    }

    #[test]
    fn where_a_secret_is_found_stays_readable() {
        for text in [
            "- passphrase: { file: ~/.config/devstack/passphrase, generate: true }\n",
            "- passphrase:\n    file: ~/.config/devstack/passphrase\n    generate: true\n",
            "- age_identity:\n    env: AGE_ID\n- gpg: a@b\n",
        ] {
            assert_eq!(masked(text), text);
        }
    }

    #[test]
    fn places_move_with_the_text() {
        let text = "a: verylongsecret, b: c";
        let masked = Masked::new(text, std::iter::once(3..17).collect());
        assert_eq!(masked.text, "a: ***, b: c");
        assert_eq!(masked.moved(&(3..17)), 3..6);
        assert_eq!(masked.moved(&(0..1)), 0..1);
        assert_eq!(masked.moved(&(19..20)), 8..9);
        assert_eq!(masked.moved(&(0..23)), 0..12);
        assert_eq!(masked.moved(&(17..17)), 6..6);
        assert_eq!(masked.moved(&(5..9)), 3..6);
    }
}
