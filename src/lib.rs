//! devstack keeps a Docker stack recoverable. See ARCHITECTURE.md for the map of the house.
//! The rooms, from the bottom up; a room knows only those above it in this list.

pub mod model;
pub mod spec;
pub mod runtime;
pub mod secrets;
pub mod repository;
pub mod engines;
pub mod observe;
pub mod plan;
pub mod apply;
pub mod drill;
pub mod cli;
