//! What is wrong with the file, where, and what to do: one sentence each, rendered with the lines in question.

use std::fmt;
use std::ops::Range;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents, SourceSpan};

use super::mask;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is taken, and somebody should know.
    Warning,
}

/// One thing to say about the file. No secret is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// Where, as a path of keys: `backup.nightly.to[1]`; empty for the file as a whole.
    pub place: String,
    /// What is wrong.
    pub message: String,
    /// What stands beside the caret.
    pub label: String,
    /// What to do.
    pub help: Option<String>,
    /// Bytes of the text.
    pub span: Range<usize>,
    /// Another place that explains this one.
    pub related: Option<(Range<usize>, String)>,
}

/// How the reader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Columns; colours where wanted.
    Terminal { width: usize, color: bool },
    /// The same for every run: no colour, 100 columns.
    Plain,
}

/// More of them help nobody, and each is a picture to draw.
const SHOWN: usize = 50;

/// Longer lines are shown in part.
const LONG_LINE: usize = 320;
/// Longer places are underlined at their beginning only.
const LONG_PLACE: usize = 120;

/// A file that cannot be used, with everything that is wrong in it. Its text is masked where a secret may stand.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a refusal that nobody prints leaves the operator without the reason"]
pub struct Rejected {
    pub source_name: String,
    pub text: String,
    /// In order of place; at least one error.
    pub diagnostics: Vec<Diagnostic>,
}

impl Rejected {
    /// Masks `text`, whole values at `secrets` and whatever looks like one, and moves the places along.
    pub(super) fn new(
        source_name: &str,
        text: &str,
        mut diagnostics: Vec<Diagnostic>,
        secrets: Vec<Range<usize>>,
    ) -> Self {
        diagnostics.sort_by_key(|diagnostic| (diagnostic.span.start, diagnostic.severity));
        let masked = mask::Masked::new(text, secrets);
        masked.move_places(&mut diagnostics);
        shorten(&masked.text, &mut diagnostics);
        Self { source_name: source_name.to_owned(), text: masked.text, diagnostics }
    }

    pub fn render(&self, look: Look) -> String {
        draw(&self.source_name, &self.text, &self.diagnostics, look)
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Look::Plain))
    }
}

impl std::error::Error for Rejected {}

/// Draws diagnostics of a file that was taken: its warnings. Empty where there are none.
pub fn render(source_name: &str, text: &str, diagnostics: &[Diagnostic], look: Look) -> String {
    if diagnostics.is_empty() {
        return String::new();
    }
    let masked = mask::Masked::new(text, Vec::new());
    let mut diagnostics = diagnostics.to_vec();
    masked.move_places(&mut diagnostics);
    shorten(&masked.text, &mut diagnostics);
    draw(source_name, &masked.text, &diagnostics, look)
}

/// A place ends with its first line, and is not too long for it.
fn shorten(text: &str, diagnostics: &mut [Diagnostic]) {
    for diagnostic in diagnostics {
        let related = diagnostic.related.iter_mut().map(|(span, _)| span);
        for span in std::iter::once(&mut diagnostic.span).chain(related) {
            span.start = text.floor_char_boundary(span.start.min(text.len()));
            span.end = text.floor_char_boundary(span.end.min(span.start + LONG_PLACE)).max(span.start);
            let line = text[span.clone()].split(['\n', '\r']).next().unwrap_or("");
            span.end = span.start + line.len();
        }
    }
}

fn draw(source_name: &str, text: &str, diagnostics: &[Diagnostic], look: Look) -> String {
    let (width, color) = match look {
        Look::Terminal { width, color } => (width, color),
        Look::Plain => (100, false),
    };
    let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(width)
        .with_links(false)
        .with_context_lines(1)
        // The head names the caret's line and column, which terminals and editors open.
        .with_primary_span_start();
    let source = Source::new(source_name, text);
    let mut out = String::new();
    for diagnostic in diagnostics.iter().take(SHOWN) {
        let drawn = Drawn { diagnostic, source: &source };
        if handler.render_report(&mut out, &drawn).is_err() {
            // Writing to a string does not fail; a place outside the text would, and the sentence must still be said.
            out.push_str(&format!("{source_name}: {}\n", diagnostic.message));
        }
        out.push('\n');
    }
    out.push_str(&tally(source_name, diagnostics));
    out
}

/// `devstack.yaml: 2 errors, 1 warning`.
fn tally(source_name: &str, diagnostics: &[Diagnostic]) -> String {
    let count = |severity| diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity).count();
    let parts: Vec<_> = [(count(Severity::Error), "error"), (count(Severity::Warning), "warning")]
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, noun)| format!("{number} {noun}{}", if number == 1 { "" } else { "s" }))
        .collect();
    let more = match diagnostics.len().saturating_sub(SHOWN) {
        0 => String::new(),
        _ => format!("; the first {SHOWN} are shown"),
    };
    format!("{source_name}: {}{more}\n", parts.join(", "))
}

struct Drawn<'a> {
    diagnostic: &'a Diagnostic,
    source: &'a Source<'a>,
}

impl fmt::Debug for Drawn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.diagnostic.fmt(f)
    }
}

impl fmt::Display for Drawn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.diagnostic.message)
    }
}

impl std::error::Error for Drawn<'_> {}

impl miette::Diagnostic for Drawn<'_> {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.diagnostic.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
        self.diagnostic.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        // What was never read has nothing to show.
        Some(self.source).filter(|source| !source.text.is_empty()).map(|source| source as &dyn miette::SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = |range: &Range<usize>| SourceSpan::from((range.start, range.len()));
        let own = LabeledSpan::new_primary_with_span(Some(self.diagnostic.label.clone()), span(&self.diagnostic.span));
        let related = self.diagnostic.related.as_ref();
        let related = related.map(|(range, label)| LabeledSpan::new_with_span(Some(label.clone()), span(range)));
        Some(Box::new(std::iter::once(own).chain(related)))
    }
}

/// The text with its lines found once: drawing many places of a large file must not count its lines for each.
struct Source<'a> {
    name: &'a str,
    text: &'a str,
    /// Where each line starts.
    lines: Vec<usize>,
}

impl<'a> Source<'a> {
    fn new(name: &'a str, text: &'a str) -> Self {
        let breaks = text.match_indices('\n').map(|(at, _)| at + 1).filter(|start| *start < text.len());
        Self { name, text, lines: std::iter::once(0).chain(breaks).collect() }
    }

    fn start_of(&self, line: usize) -> usize {
        self.lines.get(line).copied().unwrap_or(self.text.len())
    }

    fn is_short(&self, line: usize) -> bool {
        self.start_of(line + 1) - self.start_of(line) <= LONG_LINE && line < self.lines.len()
    }

    fn line_of(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset).saturating_sub(1)
    }
}

impl miette::SourceCode for Source<'_> {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn miette::SpanContents<'a> + 'a>, MietteError> {
        let (from, to) = (self.line_of(span.offset()), self.line_of(span.offset() + span.len().saturating_sub(1)));
        let name = || self.name.to_owned();
        let column_of = |at: usize| self.text.get(self.start_of(from)..at).map_or(0, |before| before.chars().count());
        if before + after == 0 {
            // Asked for line and column of the place, for the head of the picture.
            let end = span.offset() + span.len();
            let data = self.text.get(span.offset()..end).ok_or(MietteError::OutOfBounds)?.as_bytes();
            let column = column_of(span.offset());
            return Ok(Box::new(MietteSpanContents::new_named(name(), data, *span, from, column, 1)));
        }
        let first = (from.saturating_sub(before)..from).find(|line| self.is_short(*line)).unwrap_or(from);
        let last = to + (to + 1..=to + after).take_while(|line| self.is_short(*line)).count();
        let (mut start, mut end) = (self.start_of(first), self.start_of(last + 1));
        let (mut first, mut column) = (first, 0);
        if from == to && !self.is_short(from) {
            first = from;
            // A part of the line around the place: nobody reads a line of a megabyte.
            start = self.text.floor_char_boundary(span.offset().saturating_sub(LONG_LINE / 4)).max(self.start_of(from));
            end = self.text.ceil_char_boundary(span.offset() + span.len() + LONG_LINE / 4).min(self.start_of(from + 1));
            column = column_of(start);
        }
        let data = self.text.get(start..end).ok_or(MietteError::OutOfBounds)?.as_bytes();
        let lines = data.iter().filter(|byte| **byte == b'\n').count().max(1);
        let contents = MietteSpanContents::new_named(name(), data, (start, end - start).into(), first, column, lines);
        Ok(Box::new(contents))
    }
}
