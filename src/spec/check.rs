//! What the types cannot say: names that must exist, loops, schedules that cannot keep their objective, repositories that
//! would back up themselves. Every finding at once.

mod assertions;
mod backup;
mod circle;
mod home;
mod hooks;
mod left_out;
mod names;
mod objectives;
mod repositories;
mod runtime;
mod secrets;
mod services;
mod sources;
mod stores;
mod vault;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Range;
use std::path::Path;

use super::diagnostic::{Diagnostic, Severity};
use super::file::Spec;
use super::nearest::nearest;
use super::node::{Node, Place};
use super::structure::{did_you_mean, listing};

/// The version of the format that this program reads.
const VERSION: u32 = 1;

/// After this many findings names are no longer searched for what was meant: the search goes through all of them.
const SUGGESTED: usize = 20;

/// What the checks found.
#[derive(Debug)]
pub(super) struct Checked {
    /// Errors and warnings, in order of place.
    pub diagnostics: Vec<Diagnostic>,
    /// Values that may be secrets: to be masked.
    pub secrets: Vec<Range<usize>>,
}

/// What `~` stands for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Home<'a> {
    At(&'a Path),
    /// Nobody asks: it is a place of its own, apart from all others.
    Open,
    /// The environment does not say.
    Unset,
}

impl<'a> Home<'a> {
    fn path(self) -> Option<&'a Path> {
        match self {
            Self::At(path) => Some(path),
            Self::Open | Self::Unset => None,
        }
    }
}

/// `base` is the folder of the file and absolute.
pub(super) fn check(spec: &Spec, root: &Node, base: &Path, home: Home<'_>) -> Checked {
    let checked = Checked { diagnostics: Vec::new(), secrets: Vec::new() };
    let mut findings = Findings { root, has_vault: spec.vault.is_some(), checked };
    if spec.version != VERSION {
        findings.error(
            &Place::of(["version"]),
            format!("version {} is not one that this devstack reads", spec.version),
            "not 1",
            format!("write version: {VERSION}, or use the devstack that the file was written for"),
        );
    }
    names::check(spec, &mut findings);
    runtime::check(spec, &mut findings);
    vault::check(spec, &mut findings);
    services::check(spec, &mut findings);
    hooks::check(spec, &mut findings);
    repositories::check(spec, &mut findings);
    circle::check(spec, &mut findings);
    backup::check(spec, &mut findings);
    objectives::check(spec, &mut findings);
    assertions::check(spec, &mut findings);
    left_out::check(spec, &mut findings);
    stores::check(spec, base, home.path(), &mut findings);
    if matches!(home, Home::Unset) {
        home::check(&mut findings);
    }
    // Beside an error it would bury the cause, which may be the misspelt schedule itself.
    if findings.checked.diagnostics.iter().all(|it| it.severity != Severity::Error) {
        backup::unscheduled(spec, &mut findings);
    }
    let mut checked = findings.checked;
    checked.diagnostics.sort_by_key(|diagnostic| (diagnostic.span.start, diagnostic.severity));
    checked
}

struct Findings<'a> {
    root: &'a Node,
    /// Whether the file says where Vault is.
    has_vault: bool,
    checked: Checked,
}

impl Findings<'_> {
    fn error(&mut self, place: &Place, message: String, label: &str, help: impl Into<String>) {
        self.push(Severity::Error, place, message, label, help.into());
    }

    fn warning(&mut self, place: &Place, message: String, label: &str, help: impl Into<String>) {
        self.push(Severity::Warning, place, message, label, help.into());
    }

    fn push(&mut self, severity: Severity, place: &Place, message: String, label: &str, help: String) {
        self.checked.diagnostics.push(Diagnostic {
            severity,
            place: place.to_string(),
            message,
            label: label.to_owned(),
            help: Some(help),
            span: place.find(self.root),
            related: None,
        });
    }

    /// Points from the last finding to another place that explains it.
    fn see(&mut self, place: &Place, label: &str) {
        let span = place.find(self.root);
        if let Some(last) = self.checked.diagnostics.last_mut().filter(|last| last.span != span) {
            last.related = Some((span, label.to_owned()));
        }
    }

    /// The value at `place` may be a secret.
    fn mask(&mut self, place: &Place) {
        self.checked.secrets.push(place.find(self.root));
    }

    /// A list that names one thing twice.
    fn doubles<T: Ord + Display>(&mut self, place: &Place, items: &[T]) {
        let mut seen = BTreeMap::new();
        for (index, item) in items.iter().enumerate() {
            match seen.get(item) {
                None => {
                    seen.insert(item, index);
                }
                Some(first) => {
                    let message = format!("`{place}` names `{item}` twice");
                    self.error(&place.index(index), message, "and again", "remove one of the two");
                    self.see(&place.index(*first), "first here");
                }
            }
        }
    }

    /// A name that nothing in the file has.
    fn unknown<'n>(&mut self, place: &Place, what: &str, name: &str, known: impl Iterator<Item = &'n str> + Clone) {
        let message = format!("there is no {what} `{name}`");
        if self.checked.diagnostics.len() > SUGGESTED {
            return self.error(place, message, "not declared", format!("declare the {what}, or correct the name"));
        }
        // A list of hundreds helps nobody.
        let all = match known.clone().count() {
            0 => format!("the file declares no {what}"),
            1..=12 => format!("the file declares {}", listing(known.clone())),
            more => format!("the file declares {more} others"),
        };
        let help = did_you_mean(nearest(name, known), &all);
        self.error(place, message, "not declared", help);
    }
}
