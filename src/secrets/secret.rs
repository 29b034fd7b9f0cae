//! A secret value: no Display, no Debug, no Serialize, wiped when dropped.

use serde::Deserialize;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Holds the value of a passphrase, a password or an identity. It is read only through [`Secret::expose`], so that every
/// place where it leaves can be found by that word.
#[derive(Clone, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The value itself. Never put it into an argument, a log, an error or a plan.
    pub fn expose(&self) -> &str {
        &self.0
    }
}
