//! Docker: where its engine is, what containers are there, what runs in them. Containers are made by Compose; nothing
//! here makes any but short-lived visitors to volumes.

mod archive;
mod colima;
mod compose;
mod connect;
mod dialled;
mod containers;
mod docker;
mod error;
mod exec;
mod held;
mod labelled;
mod lifecycle;
mod made;
mod programs;
mod stopped;
mod unit;
mod visit;
mod written;

pub use archive::{Download, Upload};
pub use colima::Colima;
pub use compose::{Compose, KEPT_MODEL, KeptCompose, Making, Resolved, run_program};
pub use containers::{Containers, StandIn};
pub use docker::Docker;
pub use error::RuntimeError;
pub use exec::{Command, Finished, Input, Output, Patience, masked};
pub use held::LookedInto;
pub use labelled::Made;
pub use made::{MadeModel, Order};
pub use programs::Told;
pub use stopped::{Paused, Stopped, StoppedBook};
pub use visit::{Visit, Visited};
