//! Secret references and where they resolve.

mod env_file;
mod error;
mod generate;
mod prompt;
mod resolve;
mod secret;
mod store;
mod vault;
mod whole_file;

pub use error::SecretError;
pub use generate::generate;
pub use secret::Secret;
pub use store::Secrets;
pub use vault::{
    Rotated, SealStatus, VaultAnswer, VaultDownload, VaultError, VaultServer, VaultStandIn, VaultUpload, Whereabouts,
};
pub use whole_file::{Attributes, write_whole};
