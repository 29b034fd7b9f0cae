//! Programs of the person's around a backup: what is run before and after a service is taken, or a whole policy.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ids::{PolicyName, RunId, ServiceName};
use super::units::Span;

/// One program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// The program and its arguments. No shell reads them: for one, write [sh, -c, "…"].
    pub run: Vec<String>,
    /// Inside this service of the Compose project, or container; on this machine, in the folder of devstack.yaml, if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// It is ended after this, with all that it started; 5m if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// What it means when it fails: `fail`, or `warn`. `fail` if not given: before a backup, nothing is taken; after it, what was
    /// taken is kept, and the command ends with 7.
    #[serde(default, skip_serializing_if = "OnFailure::is_usual")]
    pub on_failure: OnFailure,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    #[default]
    Fail,
    Warn,
}

impl OnFailure {
    fn is_usual(&self) -> bool {
        *self == Self::Fail
    }
}

/// Those of a service or a policy, each in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hooks {
    /// Before it is taken. One that fails stops those behind it, and the backup.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<Hook>,
    /// After it was taken, or could not be: each of them, whatever became of the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<Hook>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Before,
    After,
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
        }
    }
}

impl Hooks {
    pub fn of(&self, phase: Phase) -> &[Hook] {
        match phase {
            Phase::Before => &self.before,
            Phase::After => &self.after,
        }
    }
}

impl Hook {
    pub fn timeout(&self) -> Span {
        self.timeout.unwrap_or(Span::from_secs(300))
    }

    /// For people, short.
    pub fn shown(&self) -> String {
        /// A script on one line is known by its beginning.
        const LONGEST: usize = 60;
        let words: Vec<String> = self.run.iter().map(|word| quoted(word)).collect();
        let whole = words.join(" ").replace(char::is_control, " ");
        match whole.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("{}…", &whole[..end]),
            None => whole,
        }
    }
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_owned() } else { format!("'{word}'") }
}

/// A hook as a step: what is run, for which run, and whose it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HookStep {
    pub run: RunId,
    pub policy: PolicyName,
    /// None: the policy's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    pub phase: Phase,
    /// Its place in the list.
    pub index: usize,
    pub hook: Hook,
}

impl HookStep {
    /// The service or the policy.
    pub fn owner(&self) -> String {
        match &self.service {
            Some(service) => service.to_string(),
            None => self.policy.whole().to_string(),
        }
    }
}

/// How a hook ended, as it stands in the manifest of its run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookRun {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    pub phase: Phase,
    pub command: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    pub took: Span,
    /// Why, where it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// The end of what it printed, without secrets of the file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
}

impl fmt::Display for HookRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = self.service.as_ref().map_or("the backup", ServiceName::as_str);
        let place = self.container.as_ref().map_or_else(String::new, |container| format!(" in {container}"));
        write!(f, "{} {of}: `{}`{place}: ", self.phase.as_str(), self.command)?;
        match &self.failed {
            None => write!(f, "done in {}", self.took),
            Some(why) => write!(f, "FAILED: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_is_shown_on_one_short_line() {
        let hook = |run: &[&str]| Hook {
            run: run.iter().map(|word| (*word).to_owned()).collect(),
            container: None,
            timeout: None,
            on_failure: OnFailure::Fail,
        };
        assert_eq!(hook(&["./freeze.sh", "--all", "a b", ""]).shown(), "./freeze.sh --all 'a b' ''");
        assert_eq!(hook(&["sh", "-c", "a\nb\u{1b}[31m"]).shown(), "sh -c 'a b [31m'");
        let long = hook(&["echo", &"ä".repeat(100)]).shown();
        assert!(long.ends_with("ä…") && long.chars().count() == 61, "{long}");
    }
}
