//! Secret references and where they resolve.

mod error;
mod generate;
mod prompt;
mod resolve;
mod secret;

pub use error::SecretError;
pub use generate::generate;
pub use resolve::{resolve, resolve_passphrase};
pub use secret::Secret;
