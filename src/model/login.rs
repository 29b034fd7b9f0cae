//! What devstack logs in to Vault with, and for how long that is good.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::units::Span;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginState {
    pub by: LoginBy,
    pub issued: Timestamp,
    /// None for what does not expire.
    pub expires: Option<Timestamp>,
    /// None where they are not counted.
    pub logins_left: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoginBy {
    /// A secret-id of this role of the AppRole method that is mounted there.
    SecretId { mount: String, role: String },
    /// A token of the user's.
    Token { renewable: bool },
}

impl LoginState {
    /// How long it is good from its issue on.
    pub fn lifetime(&self) -> Option<Span> {
        self.expires.map(|expires| Span::between(self.issued, expires))
    }
}
