//! What `init` could not decide, and has written into the file as a comment of one line.

use super::diagnostic::{Diagnostic, Severity};

/// How such a line begins.
pub const MARK: &str = "# QUESTION: ";

/// One warning for each question that nobody has answered yet.
pub(super) fn open(text: &str) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let bare = line.trim();
        if let Some(question) = bare.strip_prefix(MARK) {
            let indent = line.len() - line.trim_start().len();
            found.push(Diagnostic {
                severity: Severity::Warning,
                place: format!("line {}", text[..start].matches('\n').count() + 1),
                message: format!("an open question: {}", question.trim()),
                label: "not decided".to_owned(),
                help: Some("answer it in the file, then remove this line".to_owned()),
                span: start + indent..start + indent + bare.len(),
                related: None,
            });
        }
        start += line.len();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_open_question_is_named_with_its_line() {
        let text = "version: 1\n  # QUESTION: who writes it?\n# QUESTION about it\n# QUESTION: ünder?\r\nservices: {} # QUESTION: no";
        let found = open(text);
        let told: Vec<(&str, &str)> = found.iter().map(|it| (it.place.as_str(), it.message.as_str())).collect();
        assert_eq!(told, [("line 2", "an open question: who writes it?"), ("line 4", "an open question: ünder?")]);
        assert_eq!(&text[found[1].span.clone()], "# QUESTION: ünder?");
        assert_eq!(open(""), []);
    }
}
