//! Secret references and where they resolve.

mod secret;

pub use secret::Secret;
