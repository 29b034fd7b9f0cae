//! Secret references and where they resolve.

mod error;
mod generate;
mod prompt;
mod resolve;
mod secret;
mod store;
mod vault;

pub use error::SecretError;
pub use generate::generate;
pub use secret::Secret;
pub use store::Secrets;
pub use vault::{SealStatus, VaultAnswer, VaultDownload, VaultError, VaultServer, VaultUpload};
