//! What is public of an X.509 certificate, and worth knowing of one that a service mounts.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ids::Digest;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The file that it lies in: from the folder of devstack.yaml, or in full where it is elsewhere.
    pub path: String,
    pub subject: String,
    pub issuer: String,
    /// In hexadecimal, as openssl has it but for case.
    pub serial: String,
    /// DNS names and IP addresses.
    pub names: Vec<String>,
    pub not_before: Timestamp,
    /// The last moment at which it is good.
    pub not_after: Timestamp,
    pub is_ca: bool,
    /// Of its DER.
    pub sha256: Digest,
}

impl Certificate {
    /// Its subject; where that is empty, as it may be, its names or its serial number.
    pub fn title(&self) -> String {
        match self {
            Self { subject, .. } if !subject.is_empty() => subject.clone(),
            Self { names, .. } if !names.is_empty() => names.join(", "),
            Self { serial, .. } => format!("serial {serial}"),
        }
    }
}
