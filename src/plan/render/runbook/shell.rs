//! Words of a shell: what the file and the runs say, so that it is one word whatever is in it.

use std::path::{Component, Path, PathBuf};

use crate::spec::file::SecretRef;

/// One word: as it is where nothing in it means anything to a shell, else in single quotes.
pub(super) fn quoted(text: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_@%+=:,./-".contains(letter);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    if text.chars().any(char::is_control) {
        // A line of its own could be taken for the end of the block.
        return format!("$'{}'", text.escape_default().to_string().replace("\\\"", "\""));
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A command with its arguments.
pub(super) fn words<'a>(all: impl IntoIterator<Item = &'a str>) -> String {
    all.into_iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// A path of the file: relative ones lie in the stack's folder, `~` is the home folder of who follows the runbook.
pub(super) fn path(given: &Path) -> String {
    let below = |folder: &str, rest: &Path| {
        let rest: PathBuf = rest.components().filter(|part| *part != Component::CurDir).collect();
        match rest.to_string_lossy() {
            rest if rest.is_empty() => folder.to_owned(),
            rest => format!("{folder}/{}", quoted(&rest)),
        }
    };
    match given.strip_prefix("~") {
        Ok(rest) => below("\"$HOME\"", rest),
        Err(_) if given.is_absolute() => quoted(&given.to_string_lossy()),
        Err(_) => below("\"$STACK\"", given),
    }
}

/// What a secret is to a shell: where it is found, never what it is.
pub(super) fn secret(reference: &SecretRef) -> String {
    match reference {
        SecretRef { env: Some(name), .. } => format!("\"${{{name}:?set {name} first}}\""),
        SecretRef { file: Some(file), .. } => format!("\"$(cat {})\"", path(file)),
        // Compose itself says what it makes of the file. One line of it.
        SecretRef { env_file: Some(file), name: Some(name), .. } => format!(
            "\"$(echo 'services: {{}}' | docker compose --file - --env-file {} config --environment | sed -n 's/^{name}=//p')\"",
            path(file)
        ),
        SecretRef { vault: Some(place), .. } => {
            let (secret, field) = place.rsplit_once('#').unwrap_or((place, "value"));
            format!("\"$(vault kv get -field={} {})\"", quoted(field), quoted(secret))
        }
        SecretRef { .. } => "''".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_one_word() {
        assert_eq!(quoted("/databases/shop.dump"), "/databases/shop.dump");
        assert_eq!(quoted("it's $HOME; rm -r *"), r"'it'\''s $HOME; rm -r *'");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("two\n'lines'"), r"$'two\n\'lines\''");
        assert_eq!(words(["psql", "-c", "select 1"]), "psql -c 'select 1'");
    }

    #[test]
    fn a_path_starts_where_the_file_means_it_to() {
        assert_eq!(path(Path::new("./backups")), "\"$STACK\"/backups");
        assert_eq!(path(Path::new(".")), "\"$STACK\"");
        assert_eq!(path(Path::new("~/.config/a key")), "\"$HOME\"/'.config/a key'");
        assert_eq!(path(Path::new("/srv/backups")), "/srv/backups");
    }

    #[test]
    fn a_secret_is_where_it_is_found() {
        let env = SecretRef { env: Some("PW".to_owned()), ..SecretRef::default() };
        assert_eq!(secret(&env), "\"${PW:?set PW first}\"");
        let file = SecretRef { env_file: Some(".env".into()), name: Some("PW".to_owned()), ..SecretRef::default() };
        assert_eq!(
            secret(&file),
            "\"$(echo 'services: {}' | docker compose --file - --env-file \"$STACK\"/.env config --environment | sed -n 's/^PW=//p')\""
        );
        let vault = SecretRef { vault: Some("secret/db#password".to_owned()), ..SecretRef::default() };
        assert_eq!(secret(&vault), "\"$(vault kv get -field=password secret/db)\"");
    }
}
