//! A recovery in isolation: the run's own Compose files, made over so that nothing of the live stack can be touched, looked
//! at once more before anything is started, and brought back by the very steps of a recovery.
//!
//! `isolation`, `gate` and `id` are pure: the model in, the model out. Invariant: everything that is carried over is named
//! in `isolation/rules.rs`; what is not named there stops the drill. The rest acts: `carry_out` is one more user of `apply`.

mod carry_out;
mod copies;
mod created;
mod error;
mod gate;
mod id;
mod isolation;
mod point;
mod runner;
mod scratch;
mod stand_in;
mod vault;

pub use carry_out::{Means, Outcome};
pub use error::DrillError;
pub use gate::{
    Created, CreatedContainer, CreatedMount, CreatedNetwork, CreatedVolume, Finding, HostSettings, inspect,
};
pub use id::{BadDrillId, DrillId, LABEL};
pub use isolation::{
    CopyFrom, Isolated, LeftOut, NewContainer, NewNetwork, NewVolume, NotIsolated, Problem, Provided, Request,
    ScratchCopy, StandsFor, isolate,
};
pub use point::{Point, VaultTerms};
pub use scratch::{must_be_free, remove_kept, sweep};
pub use vault::hindrance;
