//! `devstack.yaml`: its types, its reading with diagnostics, its JSON Schema.

pub mod file;
pub mod paths;
pub mod schedule;
mod services;
