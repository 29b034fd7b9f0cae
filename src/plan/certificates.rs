//! Certificates that end soon, or have ended. devstack saves them and does not renew them: a note says who does.

use jiff::Timestamp;

use super::Planner;
use crate::model::certificate::Certificate;
use crate::model::observation::{Observed, SourceState};
use crate::model::plan::Note;
use crate::model::units::Span;
use crate::spec::file::Source;

impl Planner<'_> {
    pub(super) fn report_certificates(&mut self) {
        for (name, seen) in &self.observation.certificates {
            let Some(Source::Certificates(source)) = self.spec.services.get(name).map(|service| &service.source) else {
                continue;
            };
            match seen {
                Observed::Known(certificates) => {
                    for certificate in certificates {
                        if let Some(text) = ending(certificate, self.now, source.warn()) {
                            self.report.expiring.push(Note::new(format!("{name}/{}", certificate.path), text));
                        }
                    }
                }
                // Of a source that is gone, or can't be seen itself, its own note says so.
                Observed::Unknown { reason } => {
                    let state = self.observation.services.get(name);
                    if matches!(state, Some(Observed::Known(SourceState::HasData { .. }))) {
                        self.report.unknown.push(Note::new(format!("{name}/certificates"), reason.clone()));
                    }
                }
            }
        }
    }
}

/// What is said of a certificate at `now`; nothing of one that is good for longer than `warn`.
fn ending(certificate: &Certificate, now: Timestamp, warn: Span) -> Option<String> {
    let end = certificate.not_after;
    let when = if end < now {
        format!("expired {} ago", Span::between(end, now))
    } else if Span::between(now, end) <= warn {
        format!("expires in {} ({})", Span::between(now, end), end.strftime("%Y-%m-%d %H:%M UTC"))
    } else {
        return None;
    };
    let (title, issuer) = (certificate.title(), &certificate.issuer);
    Some(format!("{title} {when}; renew it where it was issued (issuer {issuer})"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::ids::Digest;
    use crate::plan::fixtures::{NOW, World, at, service, small};

    fn certificate(path: &str, subject: &str, not_after: &str) -> Certificate {
        Certificate {
            path: path.into(),
            subject: subject.into(),
            issuer: "CN=Shop CA".into(),
            serial: "2a".into(),
            names: vec!["www.shop.example".into(), "10.0.0.7".into()],
            not_before: at("2026-01-01T00:00:00Z"),
            not_after: at(not_after),
            is_ca: false,
            sha256: Digest::of(path),
        }
    }

    fn world(source: Value, seen: Observed<Vec<Certificate>>) -> World {
        let mut spec = small();
        spec["services"]["tls"] = json!({ "source": { "certificates": source } });
        let mut world = World::settled(spec);
        world.observation.certificates.insert(service("tls"), seen);
        world
    }

    fn expiring(source: Value, certificates: Vec<Certificate>) -> Vec<(String, String)> {
        let notes = world(source, Observed::Known(certificates)).plan().report.expiring;
        notes.into_iter().map(|note| (note.resource, note.text)).collect()
    }

    #[test]
    fn what_ends_within_the_time_or_has_ended_is_told_with_its_issuer_and_nothing_else_is() {
        assert_eq!(NOW, "2026-11-24T11:00:00Z");
        let told = expiring(
            json!({ "paths": ["certs/"] }),
            vec![
                certificate("certs/old.pem", "CN=old", "2026-11-21T11:00:00Z"),
                certificate("certs/soon.pem", "CN=soon", "2026-12-01T04:00:00Z"),
                certificate("certs/edge.pem", "CN=edge", "2026-12-24T11:00:00Z"),
                certificate("certs/late.pem", "CN=late", "2026-12-24T11:00:01Z"),
                certificate("/etc/ssl/now.pem", "", NOW),
            ],
        );
        let renew = "renew it where it was issued (issuer CN=Shop CA)";
        let expected = [
            ("tls/certs/old.pem", format!("CN=old expired 3 d ago; {renew}")),
            ("tls/certs/soon.pem", format!("CN=soon expires in 6 d 17 h (2026-12-01 04:00 UTC); {renew}")),
            ("tls/certs/edge.pem", format!("CN=edge expires in 30 d (2026-12-24 11:00 UTC); {renew}")),
            (
                "tls//etc/ssl/now.pem",
                format!("www.shop.example, 10.0.0.7 expires in 0 s (2026-11-24 11:00 UTC); {renew}"),
            ),
        ];
        assert_eq!(told, expected.map(|(resource, text)| (resource.to_owned(), text)));
    }

    #[test]
    fn the_file_says_how_long_before() {
        let soon = || vec![certificate("certs/soon.pem", "CN=soon", "2026-12-01T04:00:00Z")];
        assert_eq!(expiring(json!({ "paths": ["certs/"], "warn": "6d" }), soon()).len(), 0);
        assert_eq!(expiring(json!({ "paths": ["certs/"], "warn": "7d" }), soon()).len(), 1);
    }

    #[test]
    fn one_that_ends_changes_no_step_and_troubles_nobody() {
        let plan = |end| {
            world(json!({ "paths": ["certs/"] }), Observed::Known(vec![certificate("certs/a.pem", "CN=a", end)])).plan()
        };
        let (ended, good) = (plan("2026-01-02T00:00:00Z"), plan("2036-01-02T00:00:00Z"));
        assert_eq!((ended.report.expiring.len(), good.report.expiring.len()), (1, 0));
        assert_eq!(ended.steps, good.steps);
        assert!(!ended.report.is_troubled());
    }

    #[test]
    fn what_could_not_be_read_is_unknown_unless_its_source_says_so_already() {
        let unread = Observed::Unknown { reason: "reading certs/a.pem failed".to_owned() };
        let mut world = world(json!({ "paths": ["certs/"] }), unread);
        let note = Note::new("tls/certificates", "reading certs/a.pem failed");
        assert!(world.plan().report.unknown.contains(&note));
        world.source("tls", SourceState::Gone);
        assert!(!world.plan().report.unknown.contains(&note));
    }
}
