//! Names and reasons come from files and from the world. None of them may move a cursor, close a fence, ping a person or
//! reverse the reading direction of what stands beside it.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Characters that change how others are shown: controls, direction marks, line separators, and what has no width.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Safe on a terminal: unsafe characters stand as `\u{1b}`.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_unsafe(c) {
            // Writing into a String does not fail.
            let _ = write!(clean, "\\u{{{:x}}}", u32::from(c));
        } else {
            clean.push(c);
        }
    }
    Cow::Owned(clean)
}

/// A code span of markdown: nothing in it is markup, and nobody is mentioned. A backtick would end it.
pub(super) fn code_span(text: &str) -> String {
    format!("`{}`", printable(text).replace('`', "'"))
}

/// Inside the double quotes of a mermaid label, where `#name;` stands for a character.
pub(super) fn mermaid_label(text: &str) -> String {
    let mut label = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '"' => label.push_str("#quot;"),
            '#' => label.push_str("#35;"),
            '<' => label.push_str("#lt;"),
            '>' => label.push_str("#gt;"),
            '&' => label.push_str("#amp;"),
            '`' => label.push_str("#96;"),
            '\\' => label.push_str("#92;"),
            other => label.push(other),
        }
    }
    label
}

/// Inside the double quotes of a DOT string.
pub(super) fn dot_string(text: &str) -> String {
    printable(text).replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_direction_marks_are_spelled_out() {
        assert_eq!(printable("a\u{1b}[31mb\nc\u{202e}d"), "a\\u{1b}[31mb\\u{a}c\\u{202e}d");
        assert_eq!(printable("größe → 7"), "größe → 7");
    }

    #[test]
    fn nothing_breaks_out_of_its_quotes() {
        assert_eq!(code_span("a` @everyone `b"), "`a' @everyone 'b`");
        assert_eq!(mermaid_label("a\"]; click x"), "a#quot;]; click x");
        assert_eq!(dot_string("a\"; \\"), "a\\\"; \\\\");
    }
}
