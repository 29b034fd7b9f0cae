//! What can go wrong with a repository, each with its kind, its place and the next step.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

use rustic_core::RusticError;

use super::disk::DamagedFile;
use crate::model::damage::Subject;
use crate::model::ids::SnapshotId;
use crate::model::outcome::FailureKind;

#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    #[error("cannot {act} {path}: check that the disk is mounted and that you may read and write there")]
    Io {
        act: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot {act} in the repository {site}")]
    Store {
        act: &'static str,
        site: PathBuf,
        #[source]
        source: Cause,
    },
    #[error("{file} is damaged: {why}; restore this file from another copy of the repository")]
    Damaged {
        file: PathBuf,
        why: String,
        #[source]
        source: Option<Cause>,
    },
    #[error("{path} holds {found} and no repository: choose an empty folder, or the one with the repository")]
    Foreign { path: PathBuf, found: String },
    #[error("there is no repository in {path}: check the path, or create it with `devstack apply`")]
    NoRepository { path: PathBuf },
    #[error("there is a repository in {path} already: open it, or choose another folder")]
    Exists { path: PathBuf },
    #[error("the key `{label}` does not open the repository {site}: check the passphrase it refers to")]
    WrongKey { site: PathBuf, label: String },
    #[error("no declared key opens the repository {site}: {}", reasons(.why))]
    NoOperableKey { site: PathBuf, why: Vec<(String, String)> },
    #[error("the key `{label}` cannot be used: {why}")]
    Key {
        label: String,
        why: String,
        #[source]
        source: Option<io::Error>,
    },
    #[error(
        "the key {id} is the last one that is known to open the repository: add another key and open with it first"
    )]
    LastKey { id: String },
    #[error("the repository's setting is not possible: {why}")]
    Setting { why: String },
    #[error("interrupted; nothing of it was kept")]
    Interrupted,
    #[error("not everything was stored, so that nothing of it was kept: {}{}", .findings.join("; "), and_more(*.more))]
    Incomplete {
        findings: Vec<String>,
        /// How many findings there are beside the first twenty.
        more: u64,
        /// The source changed while it was read: the next try may succeed.
        changed: bool,
    },
    #[error("the snapshot {snapshot} has no {path}: choose another run, or list it with `devstack show RUN`")]
    NoSuchPath { snapshot: SnapshotId, path: String },
    #[error("the repository has no snapshot {snapshot}: somebody deleted it; plan again")]
    NoSuchSnapshot { snapshot: SnapshotId },
    #[error("the record in snapshot {snapshot} cannot be used: {why}")]
    Record {
        snapshot: SnapshotId,
        why: String,
        #[source]
        source: Option<serde_json::Error>,
    },
    #[error("{path} in snapshot {} cannot be read back: {why}", .snapshot.short())]
    Content {
        snapshot: SnapshotId,
        path: PathBuf,
        why: String,
        /// The file of data whose bytes are wrong, where one is known to be.
        pack: Option<Box<str>>,
        #[source]
        source: Option<Cause>,
    },
    #[error("cannot restore {path}: check that its folder can be written and has room")]
    Restore {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is in the snapshot and cannot be restored: {why}")]
    Refused { path: PathBuf, why: String },
    #[error("cannot hand on what was read from {path}")]
    Sink {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("a restic program holds {count} locks in {site}: wait until it ends, or run `restic unlock`")]
    ResticLocked { site: PathBuf, count: usize },
}

fn reasons(why: &[(String, String)]) -> String {
    match why {
        [] => "none is declared".to_owned(),
        why => why.iter().map(|(label, why)| format!("`{label}`: {why}")).collect::<Vec<_>>().join("; "),
    }
}

fn and_more(more: u64) -> String {
    if more == 0 { String::new() } else { format!("; and {more} more") }
}

impl RepositoryError {
    /// Whether it is tried again, and which exit code it is.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Io { source, .. } | Self::Restore { source, .. } | Self::Sink { source, .. } => kind_of_io(source),
            Self::Store { source, .. } => source.io().map_or(FailureKind::Permanent, kind_of_io),
            Self::Damaged { .. } | Self::Content { .. } => FailureKind::Damage,
            // A foreign folder is a wrong path in the file.
            Self::WrongKey { .. } | Self::NoOperableKey { .. } | Self::Key { .. } | Self::Foreign { .. } => {
                FailureKind::Key
            }
            Self::Incomplete { changed: true, .. } | Self::ResticLocked { .. } => FailureKind::Transient,
            Self::NoSuchSnapshot { .. } | Self::Exists { .. } => FailureKind::NeedsReplan,
            Self::NoRepository { .. }
            | Self::LastKey { .. }
            | Self::Setting { .. }
            | Self::Interrupted
            | Self::Incomplete { changed: false, .. }
            | Self::NoSuchPath { .. }
            | Self::Record { .. }
            | Self::Refused { .. } => FailureKind::Permanent,
        }
    }

    /// What is damaged, as far as it can be remembered, and how that is said. None where nothing is, or where nobody could read it.
    pub fn damage(&self) -> Option<(Option<Subject>, String)> {
        let text = || crate::model::chain(self);
        match self {
            Self::Content { pack: Some(pack), .. } => Some((Some(Subject::Pack(pack.to_string())), text())),
            Self::Content { source: Some(source), .. } if source.is_io() => None,
            Self::Content { .. } | Self::Damaged { .. } => Some((None, text())),
            _ => None,
        }
    }

    /// A file that was listed a moment ago is not there.
    pub(super) fn is_of_something_gone(&self) -> bool {
        match self {
            Self::Store { source, .. } => source.io().is_some_and(|error| error.kind() == io::ErrorKind::NotFound),
            Self::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Self::NoSuchSnapshot { .. } => true,
            _ => false,
        }
    }

    /// An error of the library: damage that our own backend found is told as such, the rest with what was being done.
    pub(super) fn store(act: &'static str, site: &std::path::Path, error: Box<RusticError>) -> Self {
        let cause = Cause(error);
        match cause.damaged_file() {
            Some(file) => Self::Damaged { file: file.path.clone(), why: file.why.to_owned(), source: Some(cause) },
            None => Self::Store { act, site: site.to_owned(), source: cause },
        }
    }
}

fn kind_of_io(error: &io::Error) -> FailureKind {
    match error.kind() {
        io::ErrorKind::TimedOut
        | io::ErrorKind::Interrupted
        | io::ErrorKind::WouldBlock
        | io::ErrorKind::ResourceBusy
        | io::ErrorKind::StaleNetworkFileHandle
        | io::ErrorKind::NetworkDown => FailureKind::Transient,
        _ => FailureKind::Permanent,
    }
}

/// An error of rustic_core, told in one line: its own Display is a page of guidance for another program.
pub struct Cause(pub(super) Box<RusticError>);

impl Cause {
    fn sources(&self) -> impl Iterator<Item = &(dyn Error + 'static)> {
        std::iter::successors(self.0.source(), |error| (*error).source())
    }

    fn damaged_file(&self) -> Option<&DamagedFile> {
        self.sources().find_map(|error| error.downcast_ref::<DamagedFile>())
    }

    pub(super) fn is_io(&self) -> bool {
        self.io().is_some()
    }

    fn io(&self) -> Option<&io::Error> {
        self.sources().find_map(|error| error.downcast_ref::<io::Error>())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = in_one_line(&self.0.display_log());
        for page in self.sources().map(ToString::to_string).filter(|page| is_page(page)) {
            let inner = in_one_line(&page);
            if !text.contains(&inner) {
                text = format!("{text}: {inner}");
            }
        }
        f.write_str(&text)
    }
}

/// What the library prints of an error within an error.
fn is_page(text: &str) -> bool {
    text.contains("`rustic_core`")
}

/// The library's page as one line: what it did, and the message of the error inside, which it prints as a page of its own with a
/// backtrace behind. The cause is told by whoever walks the sources.
fn in_one_line(log: &str) -> String {
    let text = log.strip_prefix("Error: ").unwrap_or(log);
    let ends =
        [" (kind: related to", ": caused by:", " : backtrace", "Backtrace:", " at BlobLocation", "`rustic_core`"];
    let head = ends.iter().filter_map(|end| text.find(end)).min().map_or(text, |end| &text[..end]);
    let inner = text.split_once("Message:").and_then(|(_, page)| page.lines().map(str::trim).find(|it| !it.is_empty()));
    let parts = [Some(head), inner].into_iter().flatten().map(|part| part.trim_end_matches(['.', ' ']));
    let joined = parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
    joined.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.display_log())
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // Pages are told above; `aead::Error`, the name of a type, tells nobody anything.
        let is_told = |text: &str| is_page(text) || !text.contains(' ');
        self.sources().find(|source| !is_told(&source.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_the_library_is_told_in_one_line() {
        let page = "Error: error processing Pack:64 at BlobLocation { offset: 44 } (kind: related to cryptographic operations): \
            `rustic_core` experienced an error related to `cryptographic operations`.\n\nMessage:\nData decryption failed, MAC \
            check failed.\n\nFor more information, see: https://example.org\n\nCaused by:\naead::Error\n\nBacktrace:\n   0: main\n";
        assert_eq!(in_one_line(page), "error processing Pack:64: Data decryption failed, MAC check failed");
        for (page, line) in [
            ("Error: cannot read /a (kind: related to the backend): caused by: No such file", "cannot read /a"),
            ("Error: no blob\nof that id (kind: related to x) : backtrace", "no blob of that id"),
            ("Error: of another kind", "of another kind"),
            ("`rustic_core` experienced an error.\n\nMessage:\nIt went wrong.\n\nBacktrace:\n  0: x", "It went wrong"),
        ] {
            assert_eq!(in_one_line(page), line);
        }
    }
}
