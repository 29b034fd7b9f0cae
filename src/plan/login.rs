//! Whether the next scheduled run will still be let in to Vault.

use jiff::Timestamp;

use super::Planner;
use super::draft::NewStep;
use super::due::Intents;
use crate::model::login::{LoginBy, LoginState};
use crate::model::observation::Observed;
use crate::model::plan::Note;
use crate::model::step::Action;
use crate::model::units::Span;
use crate::spec::file::{SecretRef, Source, VaultLogin};

/// Where nothing is scheduled there is no next run to compare with: a week is long enough to act in.
const WITHOUT_SCHEDULE: Span = Span::from_hours(7 * 24);

/// A secret-id that has just been replaced and still ends too early would be no better for being replaced again.
const FRESH: f64 = 0.1;

/// Plans and looks log in too, so a few logins may be gone before the next run.
const FEW_LOGINS: u64 = 3;

impl Planner<'_> {
    /// Says that the login ends too early; replaces a secret-id that the file lets devstack replace.
    /// `due`: the runs of a plan that may replace it.
    pub(super) fn login(&mut self, due: Option<&Intents>) {
        let login = match &self.observation.login {
            None => return,
            Some(Observed::Known(login)) => login,
            Some(Observed::Unknown { reason }) => {
                let text = format!("until when the login is good is not known: {reason}");
                return self.report.expiring.push(Note::new("vault/login", text));
            }
        };
        let declared = self.spec.vault.as_ref();
        let rotates = declared.is_some_and(|vault| vault.rotates());
        let may_rotate = rotates && due.is_some() && !self.is_fresh(login);
        match (&login.by, self.ends_too_early(login)) {
            (LoginBy::SecretId { mount, role }, reason) if may_rotate => {
                let half = self.spent(login).is_some_and(|part| part > 0.5) && self.is_kept_by(due);
                let half = half.then(|| "more than half of its time is over".to_owned());
                let Some(reason) = reason.or(half) else { return };
                let action = Action::RotateSecretId { mount: mount.clone(), role: role.clone() };
                self.rotated = Some(self.draft.add(NewStep::new(action).because(reason)));
            }
            (_, Some(reason)) => {
                let text = format!("{reason}; {}", self.renewal(login, rotates));
                self.report.expiring.push(Note::new("vault/login", text));
            }
            (_, None) => {}
        }
    }

    /// A run that takes the Vault follows at once, so that it holds the new one: out of an older run comes a Vault that does
    /// not know it.
    fn is_kept_by(&self, due: Option<&Intents>) -> bool {
        let mut services = self.spec.services.iter();
        let Some((vault, _)) = services.find(|(_, service)| matches!(service.source, Source::Vault(_))) else {
            return true;
        };
        let policies = due.into_iter().flat_map(|due| due.keys()).filter_map(|name| self.spec.backup.get(name));
        policies.into_iter().any(|policy| self.spec.services_of(policy).contains(vault))
    }

    fn next_run(&self) -> Option<Timestamp> {
        let slots = self.spec.backup.keys().filter_map(|policy| self.calendar.slots(policy)?.next_after(self.now));
        slots.min()
    }

    fn ends_too_early(&self, login: &LoginState) -> Option<String> {
        let thing = match login.by {
            LoginBy::SecretId { .. } => "the secret-id",
            LoginBy::Token { .. } => "the token",
        };
        match login.logins_left {
            Some(0) => return Some(format!("{thing} was good for this login only: the next run is not let in")),
            Some(left) if left <= FEW_LOGINS => return Some(format!("{thing} is good for {left} more uses only")),
            Some(_) | None => {}
        }
        let expires = login.expires?;
        let shown = |time: Timestamp| time.strftime("%Y-%m-%d %H:%M UTC");
        if expires <= self.now {
            return Some(format!("{thing} has expired at {}", shown(expires)));
        }
        let when = format!("{thing} expires in {}, {}", Span::between(self.now, expires), shown(expires));
        match self.next_run() {
            Some(next) if expires <= next => Some(format!("{when}, before the next run at {}", shown(next))),
            None if expires <= WITHOUT_SCHEDULE.after(self.now) => Some(when),
            Some(_) | None => None,
        }
    }

    /// The part of its time that is over; none of what does not expire.
    fn spent(&self, login: &LoginState) -> Option<f64> {
        let spent = Span::between(login.issued, self.now).as_secs_f64();
        login.lifetime().map(|lifetime| spent / lifetime.as_secs_f64())
    }

    fn is_fresh(&self, login: &LoginState) -> bool {
        self.spent(login).is_some_and(|part| part <= FRESH)
    }

    /// The command that gives a longer one.
    fn renewal(&self, login: &LoginState, rotates: bool) -> String {
        let declared = self.spec.vault.as_ref().map(|vault| &vault.login);
        let kept = match declared {
            Some(VaultLogin::Approle(approle)) => Some(approle.secret_id.reference()),
            Some(VaultLogin::Token(reference)) => Some(reference.clone()),
            None => None,
        };
        match (&login.by, kept) {
            (LoginBy::SecretId { .. }, _) if rotates && !self.is_fresh(login) => {
                "the next `devstack apply` replaces it".to_owned()
            }
            (LoginBy::SecretId { mount, role }, _) if rotates => {
                let lifetime = login.lifetime().unwrap_or_default();
                format!(
                    "the role gives secret-ids that live {lifetime}: `vault write auth/{mount}/role/{role} secret_id_ttl=…` \
                     with more than the time between two runs"
                )
            }
            (LoginBy::SecretId { mount, role }, kept) => {
                let command = format!("vault write -f -field=secret_id auth/{mount}/role/{role}/secret-id");
                match kept {
                    Some(SecretRef { file: Some(file), .. }) => {
                        let file = file.display();
                        format!(
                            "`(umask 077; {command} >{file}.new && mv {file}.new {file})`, or `rotate: true` in the file"
                        )
                    }
                    Some(SecretRef { env: Some(name), .. }) => format!("`{command}`, into {name}"),
                    Some(_) | None => format!("`{command}`"),
                }
            }
            (LoginBy::Token { renewable: true }, Some(SecretRef { file: Some(file), .. })) => {
                format!("`VAULT_TOKEN=$(cat {}) vault token renew`", file.display())
            }
            (LoginBy::Token { renewable: true }, _) => "`vault token renew` with it".to_owned(),
            (LoginBy::Token { renewable: false }, _) => {
                "it can't be renewed: `vault token create`, or log in by `approle`".to_owned()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixtures::{NOW, World, at, small};
    use super::*;

    /// `small`, its login in a file. The next run is at 13:15, 2 h 15 min after `NOW`.
    fn world(rotate: bool, by: LoginBy, hours_gone: u64, hours_left: u64) -> World {
        let mut spec = small();
        let secret_id = json!({ "file": "secret-id", "rotate": rotate });
        spec["vault"] = json!({ "address": "http://127.0.0.1:8200",
            "login": { "approle": { "role_id": { "file": "role-id" }, "secret_id": secret_id } } });
        let mut world = World::settled(spec).with_history(2, 12);
        world.observation.login = Some(Observed::Known(LoginState {
            by,
            issued: Span::from_hours(hours_gone).before(at(NOW)),
            expires: Some(Span::from_hours(hours_left).after(at(NOW))),
            logins_left: None,
        }));
        world
    }

    fn secret_id() -> LoginBy {
        LoginBy::SecretId { mount: "approle".to_owned(), role: "devstack".to_owned() }
    }

    fn said(world: &World) -> String {
        world.plan().report.expiring.iter().map(|note| format!("{}: {}", note.resource, note.text)).collect()
    }

    fn login_of(world: &mut World) -> &mut LoginState {
        match &mut world.observation.login {
            Some(Observed::Known(login)) => login,
            other => panic!("{other:?}"),
        }
    }

    fn rotations(world: &World) -> Vec<String> {
        let steps = world.plan().steps;
        let rotations = steps.into_iter().filter(|step| matches!(step.action, Action::RotateSecretId { .. }));
        rotations.flat_map(|step| step.causes).collect()
    }

    #[test]
    fn a_login_that_ends_before_the_next_run_is_a_warning_with_the_command() {
        let text = said(&world(false, secret_id(), 22, 2));
        assert!(
            text.starts_with("vault/login: the secret-id expires in 2 h, 2026-11-24 13:00 UTC, before the next run"),
            "{text}"
        );
        assert!(
            text.contains("vault write -f -field=secret_id auth/approle/role/devstack/secret-id >secret-id.new"),
            "{text}"
        );
        assert_eq!(said(&world(false, secret_id(), 22, 3)), "");
        let text = said(&world(false, LoginBy::Token { renewable: true }, 22, 2));
        assert!(text.contains("the token expires") && text.contains("vault token renew"), "{text}");
    }

    #[test]
    fn one_that_is_used_up_or_of_which_nothing_is_known_is_a_warning_too() {
        let mut used = world(false, secret_id(), 1, 1000);
        login_of(&mut used).logins_left = Some(0);
        assert!(said(&used).contains("this login only"));
        login_of(&mut used).logins_left = Some(50);
        assert_eq!(said(&used), "");
        used.observation.login = Some(Observed::Unknown { reason: "denied".to_owned() });
        assert!(said(&used).contains("not known: denied"));
        used.observation.login = None;
        assert_eq!(said(&used), "");
    }

    #[test]
    fn what_may_be_rotated_is_rotated_in_time_and_once() {
        assert_eq!(rotations(&world(true, secret_id(), 10, 30)), Vec::<String>::new());
        assert_eq!(rotations(&world(true, secret_id(), 30, 10)), ["more than half of its time is over"]);
        let due = world(true, secret_id(), 22, 2);
        assert_eq!(rotations(&due).len(), 1);
        assert_eq!(said(&due), "");
        let mut unlimited = world(true, secret_id(), 30, 10);
        login_of(&mut unlimited).expires = None;
        assert!(rotations(&unlimited).is_empty() && said(&unlimited).is_empty());
        let hopeless = world(true, secret_id(), 0, 1);
        assert!(rotations(&hopeless).is_empty() && said(&hopeless).contains("secret_id_ttl"), "{}", said(&hopeless));
        let mut after = due;
        let login = login_of(&mut after);
        (login.issued, login.expires) = (at(NOW), Some(Span::from_hours(24).after(at(NOW))));
        assert!(rotations(&after).is_empty() && said(&after).is_empty());
    }
}
