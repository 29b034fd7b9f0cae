//! Certificates that services mount, and the keys beside them: files, taken, proven and put back as such (`files.rs`). What
//! comes with them is an inventory of the certificates.

mod x509;

use std::io;
use std::path::Path;

use super::files::Files;
use super::files_walk::{BELOW_BASE, ELSEWHERE};
use super::{Engine, EngineError, Ground, Proven, Restored, TakeRequest, Work};
use crate::model::cancel::Cancel;
use crate::model::certificate::Certificate;
use crate::model::ids::SnapshotId;
use crate::model::observation::{Observed, SourceState};
use crate::model::run::Taken;
use crate::model::step::RestoreTarget;
use crate::repository::{NodeKind, Reader};
use crate::spec::file::CertificatesSource;

/// A larger file is taken and not looked into: all authorities of the web are a quarter of it.
const LARGEST: u64 = 1 << 20;

pub(super) struct Certificates {
    files: Files,
    declared: String,
}

impl Certificates {
    pub(super) fn new(source: &CertificatesSource, ground: &Ground) -> Self {
        Self { files: Files::new(&source.paths, &source.exclude, ground), declared: source.paths.join(", ") }
    }

    /// Those that lie there now.
    pub(super) fn present(&self) -> Result<Vec<Certificate>, EngineError> {
        let mut certificates = Vec::new();
        for found in self.files.walk()? {
            let found = found.map_err(EngineError::io("walking through", &self.declared))?;
            let Some(named) = named(&found.inside) else { continue };
            if !found.metadata.is_file() || found.metadata.len() > LARGEST {
                continue;
            }
            match std::fs::read(&found.path) {
                Ok(bytes) => certificates.extend(x509::certificates(&named, &bytes)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(EngineError::io("reading", found.path)(error)),
            }
        }
        Ok(certificates)
    }
}

/// Those in a snapshot: read from what was taken, which the files may differ from by now.
fn taken(reader: &Reader, snapshot: &SnapshotId, cancel: &Cancel) -> Result<Vec<Certificate>, EngineError> {
    let mut certificates = Vec::new();
    for entry in reader.entries(snapshot)? {
        let (inside, facts) = entry?;
        let (Some(path), Some(named)) = (inside.to_str(), named(&inside)) else { continue };
        if facts.kind != NodeKind::File || facts.size.0 > LARGEST {
            continue;
        }
        let mut bytes = Vec::new();
        reader.read_stream(snapshot, path, &mut bytes, cancel, &|_| {})?;
        certificates.extend(x509::certificates(&named, &bytes));
    }
    Ok(certificates)
}

/// What stands at this place of a snapshot, as the file names it. A name that is no text has no place in the inventory.
fn named(inside: &Path) -> Option<String> {
    match (inside.strip_prefix(BELOW_BASE), inside.strip_prefix(ELSEWHERE)) {
        (Ok(below), _) => below.to_str().map(str::to_owned),
        (_, Ok(path)) => path.to_str().map(|path| format!("/{path}")),
        _ => None,
    }
}

impl Engine for Certificates {
    /// Gone and empty: as files are.
    fn observe(&self) -> Observed<SourceState> {
        self.files.observe()
    }

    fn take(&self, request: TakeRequest<'_>, work: &Work<'_>) -> Result<Taken, EngineError> {
        let allow_empty = request.allow_empty;
        let (files, certificates) = self.files.take_and_look(request, work, |reader, snapshot| {
            let certificates = taken(reader, snapshot, work.cancel)?;
            if certificates.is_empty() && !allow_empty {
                let what = format!(
                    "no certificate can be read in any file of {}: neither PEM nor DER; correct `paths` in the file, or \
                     declare them as `files`",
                    self.declared
                );
                return Err(EngineError::Refused { what });
            }
            Ok(certificates)
        })?;
        Ok(Taken { engine: "certificates".to_owned(), certificates, ..files })
    }

    fn prove(&self, reader: &Reader, taken: &Taken, work: &Work<'_>) -> Result<Proven, EngineError> {
        self.files.prove(reader, taken, work)
    }

    fn restore(
        &self,
        reader: &Reader,
        taken: &Taken,
        target: &RestoreTarget,
        work: &Work<'_>,
    ) -> Result<Restored, EngineError> {
        self.files.restore(reader, taken, target, work)
    }
}
