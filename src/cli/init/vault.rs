//! What `devstack init` proposes for a Vault. Its backup needs a login, which nothing in the Compose files tells: so the
//! proposal is in comments, and says that Vault is not in the file before somebody has completed it.

use serde_json::Value;

use super::compose::words;
use super::{name_of, quoted, unused};

/// A Vault among the Compose services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultFound {
    /// The Compose service.
    pub container: String,
    /// Where it answers on this machine; None where no port is published.
    address: Option<String>,
    is_encrypted: bool,
    /// Further nodes. One file speaks of one Vault.
    pub others: Vec<String>,
}

/// None for a server in development mode: it keeps nothing.
pub fn find<'a>(services: impl Iterator<Item = (&'a str, &'a Value)>) -> Option<VaultFound> {
    let keeps = |service: &Value| !words(&service["command"]).split(' ').any(|word| word.trim_matches('-') == "dev");
    let mut kept = services.filter(|(_, service)| keeps(service));
    let (name, service) = kept.next()?;
    let published = service["ports"].as_array().into_iter().flatten().find_map(|port| {
        let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
        (number(&port["target"]) == Some(8200)).then(|| number(&port["published"])).flatten()
    });
    let is_encrypted = ["VAULT_ADDR", "VAULT_API_ADDR", "BAO_ADDR", "BAO_API_ADDR"]
        .iter()
        .any(|name| service["environment"][*name].as_str().is_some_and(|address| address.starts_with("https://")));
    let scheme = if is_encrypted { "https" } else { "http" };
    Some(VaultFound {
        container: name.to_owned(),
        address: published.map(|port| format!("{scheme}://127.0.0.1:{port}")),
        is_encrypted,
        others: kept.map(|(name, _)| name.to_owned()).collect(),
    })
}

impl VaultFound {
    /// For a file whose services have the names in `taken`.
    pub fn proposal(&self, taken: &[String]) -> Proposal {
        let mut about = vec![
            format!("{} is a Vault. IT IS NOT BACKED UP YET: devstack asks it by its API, and no login for that is known here.", self.container),
            "Make one (docs/vault.md, docs/engines/vault.md: an AppRole and its rights), take the `# ` off the lines below and".to_owned(),
            "off those under `services`, and correct the paths. As a plain volume it would be sealed after each backup.".to_owned(),
        ];
        if self.address.is_none() {
            about.push("It publishes no port 8200: publish it to 127.0.0.1, or write where it answers.".to_owned());
        }
        if !self.others.is_empty() {
            about.push(format!("Also found: {}. One file speaks of one Vault.", self.others.join(", ")));
        }
        let scheme = if self.is_encrypted { "https" } else { "http" };
        let address = self.address.clone().unwrap_or_else(|| format!("{scheme}://127.0.0.1:8200"));
        let mut section = vec!["vault:".to_owned(), format!("  address: {address}")];
        if self.is_encrypted {
            section.push(
                "  # ca: ./vault/ca.pem             where this machine does not trust its certificate".to_owned(),
            );
        }
        section.extend(
            [
                "  login: { approle: { role_id: { file: ./vault/role-id }, secret_id: { file: ./vault/secret-id } } }",
                "  # What opens it after a restore; asked for then, and not before:",
                "  unseal: { keys: [ { file: ./vault/keys.json } ] }",
                "  # So that these files come back too (`key_files` below), name who can decrypt them, elsewhere than here:",
                "  # escrow: [ { age: age1… } ]",
            ]
            .map(str::to_owned),
        );
        let commented = |lines: &[String]| lines.iter().map(|line| format!("# {line}\n")).collect();
        let name = unused(&name_of(&self.container, "vault"), taken);
        let container = quoted(&self.container);
        let service = [
            format!("  # {name}:"),
            format!("  #   source: {{ vault: {{ container: {container} }} }}"),
            "  #   # with `escrow`: key_files: [ ./vault/keys.json, ./vault/role-id, ./vault/secret-id ]".to_owned(),
        ];
        Proposal { about: commented(&about), section: commented(&section), service: service.join("\n") + "\n" }
    }
}

/// Comments. `section`, at the top of the file, and `service`, among its services, are right as they stand once the first `# `
/// is taken off each of their lines.
pub struct Proposal {
    pub about: String,
    pub section: String,
    pub service: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_server_that_keeps_something_is_one() {
        let dev = json!({ "command": ["server", "-dev"] });
        assert_eq!(find([("vault", &dev)].into_iter()), None);
        let kept = json!({ "command": ["server"], "environment": { "VAULT_API_ADDR": "https://vault:8200" },
            "ports": [ { "target": 8201, "published": "1" }, { "target": 8200, "published": "18200" } ] });
        let found = find([("dev", &dev), ("vault-1", &kept), ("vault-2", &kept)].into_iter()).unwrap();
        assert_eq!(found.container, "vault-1");
        assert_eq!(found.address.as_deref(), Some("https://127.0.0.1:18200"));
        assert_eq!(found.others, ["vault-2"]);
    }
}
