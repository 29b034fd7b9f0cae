//! The reader of YAML with its limits, and its errors in words for people.

use std::ops::Range;

use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Error, Options};

use super::diagnostic::{Diagnostic, Severity};
use super::node::Node;

/// A file of ten thousand services is about this large; nothing larger was written by a person.
pub(super) const LARGEST: u64 = 1 << 20;

/// The format's own depth is eight; what goes further is a mistake or an attack.
const DEEPEST: usize = 24;

/// Limits so narrow that a hostile file of [`LARGEST`] bytes costs well under a second and some tens of megabytes.
fn options(duplicates: DuplicateKeyPolicy) -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEEPEST,
            flow_nesting_limit: DEEPEST,
            max_documents: 2,
            max_events: 600_000,
            max_nodes: 250_000,
            // Anchors save a few lines; hundreds are a bomb.
            max_anchors: 100,
            max_aliases: 500,
            max_recorded_anchor_events: 20_000,
            max_total_scalar_bytes: 2 << 20,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 20_000,
            max_replay_stack_depth: 8,
        },
        duplicate_keys: duplicates,
        // A merged key has no place of its own, and which of two wins is not for a backup to guess.
        merge_keys: MergeKeyPolicy::Error,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        // `on`, `yes` and `no` are names of services, not truth values.
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

/// The tree, with doubled keys in it: the structure's check reports each of them with both places.
pub(super) fn tree(text: &str) -> Result<Node, Box<Diagnostic>> {
    serde_saphyr::from_str_with_options(text, options(DuplicateKeyPolicy::PassThrough))
        .map_err(|error| Box::new(explain(text, &error)))
}

/// The typed file, after its structure has been found right.
pub(super) fn typed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Box<Diagnostic>> {
    serde_saphyr::from_str_with_options(text, options(DuplicateKeyPolicy::Error))
        .map_err(|error| Box::new(explain(text, &error)))
}

/// A Compose file as it is written. What devstack.yaml refuses is usual there: merges, tags, thousands of lines.
pub fn compose(text: &str) -> Result<serde_json::Value, String> {
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        merge_keys: MergeKeyPolicy::Merge,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        strict_booleans: false,
        reject_unsupported_tags: false,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.without_snippet().to_string())
}

fn explain(text: &str, error: &Error) -> Diagnostic {
    let error = error.without_snippet();
    let span = place(text, error);
    let at_tab = text.get(span.start..).is_some_and(|rest| rest.starts_with('\t'))
        || text.get(..span.start).is_some_and(|before| before.ends_with('\t'));
    let span = match error {
        _ if at_tab && !text[span.start..].starts_with('\t') => span.start - 1..span.start,
        // The place of a tag's error is the value behind it.
        Error::UnsupportedTag { .. } => {
            let line = text[..span.start].rfind('\n').map_or(0, |at| at + 1);
            text[line..span.start].rfind('!').map_or(span.clone(), |at| line + at..span.start)
        }
        _ => span,
    };
    let own = error.to_string();
    let (message, label, help) = match error {
        Error::MultipleDocuments { .. } => (
            "there is more than one document in the file".to_owned(),
            "a second document begins here".to_owned(),
            "remove the `---` or `...` line, or put the second stack into a file of its own".to_owned(),
        ),
        Error::UnknownAnchor { .. } => (
            "an alias refers to an anchor that is not there".to_owned(),
            "no `&anchor` of this name above".to_owned(),
            "put the value in quotes if the `*` is part of it, as in a glob: \"*.db\"".to_owned(),
        ),
        Error::MergeKeyNotAllowed { .. } => (
            "`<<` merges are not read".to_owned(),
            "which of two values wins would be a guess".to_owned(),
            "write the keys out, or use an alias for a whole value".to_owned(),
        ),
        Error::UnsupportedTag { .. } | Error::TaggedEnumMismatch { .. } => (
            "YAML tags mean nothing here".to_owned(),
            "a tag".to_owned(),
            "remove it; put the value in quotes if the `!` is part of it".to_owned(),
        ),
        Error::RecursiveReferencesRequireWeakTypes { .. } => (
            "an alias stands inside the value that it refers to".to_owned(),
            "refers to itself".to_owned(),
            "write the value out".to_owned(),
        ),
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. }
        | Error::AliasReplayCounterOverflow { .. } => beyond_the_limits(),
        // Reached within an alias, the limit is told in a sentence only.
        _ if own.contains("budget breached") || own.contains("limit exceeded") || own.contains("depth exceeded") => {
            beyond_the_limits()
        }
        Error::NullIntoString { .. } => (
            "a key has no name".to_owned(),
            "empty, or `~`".to_owned(),
            "give the key a name, or put it in quotes".to_owned(),
        ),
        _ if own.contains("recursion limit") || own.contains("nesting") || own.contains("depth") => (
            "the file is nested deeper than anything in it can mean".to_owned(),
            "too deep here".to_owned(),
            format!("nest at most {DEEPEST} deep; perhaps a bracket is not closed"),
        ),
        _ if at_tab => (
            "a tab stands where YAML wants spaces".to_owned(),
            "a tab".to_owned(),
            "indent with spaces; most editors can turn tabs into spaces for the whole file".to_owned(),
        ),
        _ => {
            let reason = without_place(&own);
            (format!("this is not YAML: {reason}"), "the reader stopped here".to_owned(), advice(&reason))
        }
    };
    Diagnostic {
        severity: Severity::Error,
        place: String::new(),
        message,
        label,
        help: Some(help),
        span,
        related: None,
    }
}

fn beyond_the_limits() -> (String, String, String) {
    (
        "the file asks for more than a file about one stack can need".to_owned(),
        "the limit is reached here".to_owned(),
        format!(
            "write values out in place of anchors and aliases, and nest at most {DEEPEST} deep; what YAML repeats by \
             aliases counts as often as it is repeated"
        ),
    )
}

/// The reader's own sentence without its `at line 3, column 4`, which the picture says better. Of what an alias repeats it
/// says more than one place.
fn without_place(own: &str) -> String {
    own.split(" at line ").next().unwrap_or(own).replace(['\n', '\r'], " ")
}

fn advice(reason: &str) -> String {
    let advice = if reason.contains("',' or") {
        "put the value in quotes if it holds a colon, a comma or a bracket; or close the bracket before it"
    } else if reason.contains("illegal placement of ':'") {
        "look at the line above for a bracket or a quote that is not closed"
    } else if reason.contains("\\u{") {
        "remove the character: it cannot be seen, and most editors find it by its code"
    } else if reason.contains("mapping values are not allowed") {
        "put the value in quotes if the colon is part of it, or begin a new line"
    } else if reason.contains("unclosed") || reason.contains("bracket") {
        "count the brackets and quotes from here on: one is missing, or one is too many"
    } else if reason.contains("unexpected character") || reason.contains("cannot start any token") {
        "put the value in quotes"
    } else if reason.contains("did not find expected") {
        "look at the indentation: keys of one mapping begin in the same column"
    } else if reason.contains("escape") {
        "use 'single quotes', in which a backslash is only a backslash"
    } else if reason.contains("string scalar") {
        "a key is plain text"
    } else {
        "look at the indentation and the quotes around this place"
    };
    advice.to_owned()
}

/// The byte that the reader stopped at; some of its errors have line and column (in characters) only.
fn place(text: &str, error: &Error) -> Range<usize> {
    let Some(location) = error.location() else { return 0..0 };
    let from_bytes = location.span().byte_offset().and_then(|offset| usize::try_from(offset).ok());
    let start = from_bytes.unwrap_or_else(|| {
        let line = usize::try_from(location.line()).unwrap_or(1).saturating_sub(1);
        let column = usize::try_from(location.column()).unwrap_or(1).saturating_sub(1);
        let start = text.match_indices('\n').map(|(at, _)| at + 1).nth(line.wrapping_sub(1)).filter(|_| line > 0);
        let start = if line == 0 { 0 } else { start.unwrap_or(text.len()) };
        let rest = text[start..].split('\n').next().unwrap_or("");
        start + rest.char_indices().nth(column).map_or(rest.len(), |(at, _)| at)
    });
    let start = text.floor_char_boundary(start.min(text.len()));
    let length = text[start..].chars().next().filter(|c| *c != '\n').map_or(0, char::len_utf8);
    start..start + length
}
