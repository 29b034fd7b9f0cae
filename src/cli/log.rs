//! `log`: what earlier applies did, from the journal.

use std::path::Path;

use super::error::{Exit, Failure};
use super::session::Session;
use super::{TextOrJson, lines};
use crate::apply::journal::Journal;
use crate::plan::render::printable;

pub(super) fn run(file: &Path, count: usize, format: TextOrJson) -> Result<Exit, Failure> {
    let session = Session::open(file)?;
    let records = Journal::read(&session.state).map_err(|error| Failure::caused(Exit::Unexpected, "reading the journal", &error))?;
    if records.is_empty() && format == TextOrJson::Text {
        println!("Nothing yet: no apply has run here.");
    }
    for record in records.iter().skip(records.len().saturating_sub(count)) {
        match format {
            TextOrJson::Json => println!("{}", serde_json::json!(record)),
            TextOrJson::Text => println!("{}  {}", lines::time(record.at(), &session.zone), printable(&record.sentence())),
        }
    }
    Ok(Exit::Done)
}
