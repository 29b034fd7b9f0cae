//! `devstack.yaml`: its types, its reading with diagnostics, its JSON Schema.

pub mod file;
mod services;
