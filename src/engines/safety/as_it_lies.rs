//! The copy of a database that its own engine can't read to its end: its files, byte for byte. A restore over what is broken is
//! the one that is needed most.

use super::ENGINE;
use crate::engines::files::Files;
use crate::engines::sqlite::set_aside_with_journals;
use crate::engines::{Engine, EngineError, Ground, Proven, Restored, TakeRequest, Work, for_source};
use crate::model::observation::{Observed, SourceState};
use crate::model::run::Taken;
use crate::model::step::RestoreTarget;
use crate::repository::Reader;
use crate::spec::file::{Source, SqliteSource};

pub(super) struct AsItLies<'a> {
    own: Box<dyn Engine>,
    declared: &'a SqliteSource,
    ground: &'a Ground,
}

impl<'a> AsItLies<'a> {
    pub fn new(source: &Source, declared: &'a SqliteSource, ground: &'a Ground) -> Self {
        Self { own: for_source(source, ground), declared, ground }
    }

    /// The database and what lies beside it, as far as it is there.
    fn files(&self) -> Files {
        let declared = self.declared.path.display();
        let all = ["", "-journal", "-wal"].map(|ending| format!("{declared}{ending}"));
        let there = all.into_iter().filter(|path| self.ground.path(path.as_ref()).symlink_metadata().is_ok());
        Files::new(&there.collect::<Vec<_>>(), &[], self.ground)
    }
}

impl Engine for AsItLies<'_> {
    fn observe(&self) -> Observed<SourceState> {
        self.own.observe()
    }

    fn take(&self, request: TakeRequest<'_>, work: &Work<'_>) -> Result<Taken, EngineError> {
        let again = TakeRequest { tags: request.tags.clone(), parent: None, ..request };
        match self.own.take(request, work) {
            Err(EngineError::Sqlite { .. }) => {
                Ok(Taken { engine: ENGINE.to_owned(), ..self.files().take(again, work)? })
            }
            taken => taken,
        }
    }

    fn prove(&self, reader: &Reader, taken: &Taken, work: &Work<'_>) -> Result<Proven, EngineError> {
        self.files().prove(reader, taken, work)
    }

    fn restore(
        &self,
        reader: &Reader,
        taken: &Taken,
        target: &RestoreTarget,
        work: &Work<'_>,
    ) -> Result<Restored, EngineError> {
        let mut notes = Vec::new();
        if !matches!(target, RestoreTarget::Beside { .. }) {
            // A -wal of what is there now would be replayed into what comes back.
            let aside = set_aside_with_journals(&self.ground.path(&self.declared.path))?;
            notes.extend(aside.iter().map(|path| format!("moved aside: {}", path.display())));
        }
        let restored = self.files().restore(reader, taken, target, work)?;
        notes.extend(restored.notes);
        Ok(Restored { notes, ..restored })
    }
}
