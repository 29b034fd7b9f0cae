//! Where a run was taken: so that the runs of two stacks of one name are never taken for those of one.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A machine, and a stack's place on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The machine's name, for people.
    pub host: String,
    /// A digest of the machine's id; none where it has none, as many containers do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// The folder of devstack.yaml, as it was given.
    pub folder: PathBuf,
    /// The same with its links followed, where that is another: a release folder behind `current`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real: Option<PathBuf>,
    /// The Compose project, where the file declares one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
}

/// A container that nobody named is called after its id.
const GENERATED: usize = 12;

impl Origin {
    /// Whether it is one place. A machine that was renamed stays the same one by its id; a container that is made anew for each
    /// run has neither a name nor, as a rule, an id of its own, and is known by its folder.
    pub fn is_same(&self, other: &Self) -> bool {
        let differ = |a: &Option<String>, b: &Option<String>| matches!((a, b), (Some(a), Some(b)) if a != b);
        let real = |it: &Self| it.real.clone().unwrap_or_else(|| it.folder.clone());
        let folder = self.folder == other.folder || real(self) == real(other);
        let machine = match (&self.machine, &other.machine) {
            (Some(here), Some(there)) => here == there,
            (None, _) | (_, None) => self.host == other.host || self.has_no_name() || other.has_no_name(),
        };
        folder && machine && !differ(&self.project, &other.project)
    }

    fn has_no_name(&self) -> bool {
        let is_digit = |c: char| matches!(c, '0'..='9' | 'a'..='f');
        self.host.len() == GENERATED && self.host.chars().all(is_digit)
    }
}

/// `/srv/shop on tower`.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.folder.display(), self.host)?;
        match &self.project {
            Some(project) => write!(f, " (project {project})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(host: &str, machine: Option<&str>, folder: &str) -> Origin {
        Origin { host: host.into(), machine: machine.map(Into::into), folder: folder.into(), real: None, project: None }
    }

    #[test]
    fn a_place_is_a_machine_a_folder_and_a_project() {
        let here = origin("tower", Some("m"), "/srv/shop");
        let container = |host| origin(host, None, "/work");
        let linked = |real: &str| Origin { real: Some(real.into()), ..origin("tower", Some("m"), "/srv/shop/current") };
        let project = |name: &str| Origin { project: Some(name.into()), ..here.clone() };
        for (case, same, a, b) in [
            ("itself", true, here.clone(), here.clone()),
            ("renamed", true, here.clone(), origin("castle", Some("m"), "/srv/shop")),
            ("another folder", false, here.clone(), origin("tower", Some("m"), "/srv/staging")),
            ("another machine of the same name", false, here.clone(), origin("tower", Some("n"), "/srv/shop")),
            ("the machine's id is not known", true, here.clone(), origin("tower", None, "/srv/shop")),
            ("neither id nor name", false, here.clone(), origin("castle", None, "/srv/shop")),
            ("a container made anew", true, container("0a1b2c3d4e5f"), container("f5e4d3c2b1a0")),
            ("a container in another folder", false, container("0a1b2c3d4e5f"), origin("f5e4d3c2b1a0", None, "/other")),
            ("containers with names", false, container("prod"), container("staging")),
            ("the next release", true, linked("/srv/shop/releases/1"), linked("/srv/shop/releases/2")),
            ("reached by its real path", true, linked("/srv/shop/r"), origin("tower", Some("m"), "/srv/shop/r")),
            ("another project", false, project("prod"), project("staging")),
            ("a project declared since", true, here.clone(), project("prod")),
        ] {
            assert_eq!((a.is_same(&b), b.is_same(&a)), (same, same), "{case}");
        }
    }
}
