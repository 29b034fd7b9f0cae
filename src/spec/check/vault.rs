//! `vault`: an address, a login that is found outside of it, and nothing that contradicts itself.

use super::super::file::{Approle, Spec, VaultLogin};
use super::super::node::Place;
use super::{Findings, secrets};

pub(super) fn check(spec: &Spec, findings: &mut Findings<'_>) {
    let Some(vault) = &spec.vault else { return };
    let place = Place::of(["vault"]);
    let encrypted = vault.address.strip_prefix("https://");
    let host = encrypted.or_else(|| vault.address.strip_prefix("http://"));
    if host.is_none_or(|host| host.is_empty() || host.starts_with('/') || host.contains(['?', '#', ' '])) {
        findings.error(
            &place.key("address"),
            format!("`{}` is no address of a server", vault.address),
            "not http:// or https:// and a host",
            "write it as VAULT_ADDR has it: https://vault.example.com:8200",
        );
    } else if vault.ca.is_some() && encrypted.is_none() {
        findings.error(
            &place.key("ca"),
            "`vault.ca` is given, and the address has no TLS".to_owned(),
            "would not be used",
            "write the address with https://, or remove `ca`",
        );
    }
    let login = place.key("login");
    match &vault.login {
        VaultLogin::Token(token) => secrets::outside_of_vault(&login.key("token"), token, findings),
        VaultLogin::Approle(login_by) => approle(&login.key("approle"), login_by, findings),
    }
}

fn approle(place: &Place, approle: &Approle, findings: &mut Findings<'_>) {
    secrets::outside_of_vault(&place.key("role_id"), &approle.role_id, findings);
    secrets::outside_of_vault(&place.key("secret_id"), &approle.secret_id.reference(), findings);
}
