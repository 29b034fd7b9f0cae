//! A recovery in isolation: the run's own Compose files, made over so that nothing of the live stack can be touched, and
//! looked at once more before anything is started.
//!
//! What is here is pure: the model in, the model out. Invariant: everything that is carried over is named in
//! `isolation/rules.rs`; what is not named there stops the drill.

mod gate;
mod id;
mod isolation;

pub use gate::{
    Created, CreatedContainer, CreatedMount, CreatedNetwork, CreatedVolume, Finding, HostSettings, inspect,
};
pub use id::{BadDrillId, DrillId, LABEL};
pub use isolation::{
    CopyFrom, Isolated, LeftOut, NewContainer, NewNetwork, NewVolume, NotIsolated, Problem, Provided, Request,
    ScratchCopy, StandsFor, isolate,
};
