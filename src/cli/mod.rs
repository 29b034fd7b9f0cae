//! One file per verb, and all that prints.

pub mod init;
