//! Consent by harm: the one table of what is asked before a step is carried out. It asks the more, the harder the harm is,
//! whatever the verb, and the same on a terminal as in a script. `docs/consent.md` prints it.

use super::step::{Action, Approval, Effect, Restore, RestoreTarget, Step};

/// What a step does to what is there, the mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Harm {
    /// It reads, or adds.
    Adds,
    /// A service stands still for a while.
    Stops,
    /// What is gone or empty gets its data back; what is there stays.
    BringsBack,
    /// Runs go by the retention rule that somebody has approved.
    ByRule,
    /// Something goes on that a guard holds back, because it looks like a mistake.
    Passes,
    Overwrites,
    Deletes,
}

/// How a command is given its answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Somebody sits there.
    Terminal,
    /// `--yes`, or a verb that is a yes by itself.
    Yes,
    /// A plan that somebody has saved and read.
    Reviewed,
    /// None of these.
    Nobody,
}

/// What it takes for a step to be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Nothing,
    /// One yes, for all steps of the plan together.
    Yes,
    /// That yes, and the step's own word, typed.
    WordTyped,
    /// `--approve WORD`: without it the step is held.
    WordGiven,
    /// Nothing of the plan is begun.
    Refused,
}

impl Harm {
    pub const ALL: [Self; 7] =
        [Self::Adds, Self::Stops, Self::BringsBack, Self::ByRule, Self::Passes, Self::Overwrites, Self::Deletes];

    pub fn of(step: &Step) -> Self {
        match (step.effect, &step.approval) {
            (Effect::DeletesData, Approval::ByRule) => Self::ByRule,
            (Effect::DeletesData, Approval::NotNeeded | Approval::Needed { .. }) => Self::Deletes,
            (Effect::OverwritesData, _) => Self::Overwrites,
            (Effect::Safe | Effect::Restarts, Approval::Needed { .. }) => Self::Passes,
            (Effect::Safe | Effect::Restarts, _) if fills(&step.action) => Self::BringsBack,
            (Effect::Restarts, _) => Self::Stops,
            (Effect::Safe, _) => Self::Adds,
        }
    }

    /// Whether one yes is not enough.
    pub fn needs_a_word(self) -> bool {
        self >= Self::Passes
    }

    /// The table.
    pub fn asked(self, way: Way) -> Asked {
        match way {
            Way::Terminal if self.needs_a_word() => Asked::WordTyped,
            Way::Terminal => Asked::Yes,
            Way::Yes if self.needs_a_word() => Asked::WordGiven,
            Way::Yes | Way::Reviewed => Asked::Nothing,
            Way::Nobody => Asked::Refused,
        }
    }

    /// As it is said before a question.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Adds => "adds or reads",
            Self::Stops => "stops a service for a while",
            Self::BringsBack => "brings back what is gone",
            Self::ByRule => "forgets by the approved rule",
            Self::Passes => "passes a guard",
            Self::Overwrites => "overwrites data",
            Self::Deletes => "deletes data",
        }
    }
}

/// A restore to where its source lives, over nothing that is there.
fn fills(action: &Action) -> bool {
    matches!(action, Action::Restore(Restore { target: RestoreTarget::InPlace | RestoreTarget::Missing, .. }))
}

/// Whether `--approve WORD` approves the step whose word is `token`: its own word, `KIND:RESOURCE`, or the kind alone for every
/// step of that kind, so that a script need not know which services there are.
pub fn covers(word: &str, token: &str) -> bool {
    word == token || kind(token) == word
}

/// The kinds of words that steps wait for. `recover` is `apply`'s own: it has what is lost brought back first.
pub const KINDS: [&str; 12] = [
    "accept",
    "adopt",
    "age",
    "create",
    "forget",
    "project",
    "recover",
    "remove-key",
    "restore",
    "retention",
    "rollback",
    "take",
];

/// `restore` of `restore:postgres`.
pub fn kind(token: &str) -> &str {
    token.split_once(':').map_or(token, |(kind, _)| kind)
}

/// What each verb may do: the second half of the table. A verb of which `is_a_yes` holds is not asked for one.
pub struct Verb {
    pub name: &'static str,
    pub harms: &'static [Harm],
    pub is_a_yes: bool,
    pub told: &'static str,
}

/// In the order of the documentation.
pub const VERBS: [Verb; 9] = [
    Verb {
        name: "apply",
        harms: &[Harm::Adds, Harm::Stops, Harm::ByRule, Harm::Passes, Harm::Deletes],
        is_a_yes: false,
        told: "",
    },
    Verb {
        name: "apply --approve recover",
        harms: &[Harm::Adds, Harm::Stops, Harm::BringsBack, Harm::Passes],
        is_a_yes: false,
        told: "first what `recover` does, then the rest; without that word `apply` brings nothing back",
    },
    Verb {
        name: "backup",
        harms: &[Harm::Adds, Harm::Stops, Harm::Passes],
        is_a_yes: true,
        told: "what passes a guard stays held without its word",
    },
    Verb {
        name: "restore",
        harms: &[Harm::Adds],
        is_a_yes: true,
        told: "beside what is there, into a new or empty folder",
    },
    Verb {
        name: "restore --in-place",
        harms: &[Harm::Adds, Harm::Stops, Harm::BringsBack, Harm::Passes, Harm::Overwrites],
        is_a_yes: false,
        told: "",
    },
    Verb {
        name: "recover",
        harms: &[Harm::Adds, Harm::Stops, Harm::BringsBack, Harm::Passes],
        is_a_yes: false,
        told: "all of it or nothing: while a word is missing, nothing is begun; --accept-age is the word `age`",
    },
    Verb {
        name: "recover --replace",
        harms: &[Harm::Adds, Harm::Stops, Harm::BringsBack, Harm::Passes, Harm::Overwrites, Harm::Deletes],
        is_a_yes: false,
        told: "as `recover`; it deletes where a server no longer starts and its volumes are emptied, after their copy",
    },
    Verb {
        name: "recover --rollback",
        harms: &[Harm::Adds, Harm::Stops, Harm::Passes, Harm::Overwrites],
        is_a_yes: false,
        told: "all of it or nothing",
    },
    Verb { name: "forget", harms: &[Harm::Deletes], is_a_yes: false, told: "" },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn said(asked: Asked) -> &'static str {
        match asked {
            Asked::Nothing => "nothing",
            Asked::Yes => "one yes for the plan",
            Asked::WordTyped => "that yes, and its word typed",
            Asked::WordGiven => "held without `--approve WORD`",
            Asked::Refused => "nothing is begun",
        }
    }

    fn tables() -> String {
        let mut out = "| a step that | at a terminal | with `--yes` | from a saved plan | with none of these |\n|---|---|---|---|---|\n"
            .to_owned();
        for harm in Harm::ALL {
            let ways = [Way::Terminal, Way::Yes, Way::Reviewed, Way::Nobody].map(|way| said(harm.asked(way)));
            out += &format!("| {} | {} |\n", harm.as_str(), ways.join(" | "));
        }
        out += "\n| verb | what its steps may do | |\n|---|---|---|\n";
        for verb in VERBS {
            let harms: Vec<_> = verb.harms.iter().map(|harm| harm.as_str()).collect();
            let yes = if verb.is_a_yes { "the command is the yes" } else { "" };
            let told: Vec<&str> = [yes, verb.told].into_iter().filter(|text| !text.is_empty()).collect();
            out += &format!("| `{}` | {} | {} |\n", verb.name, harms.join(", "), told.join("; "));
        }
        out
    }

    #[test]
    fn the_documentation_has_this_table() {
        let tables = tables();
        assert!(include_str!("../../docs/consent.md").contains(&tables), "docs/consent.md must have\n\n{tables}");
    }

    #[test]
    fn the_harder_the_harm_the_more_is_asked_in_every_way() {
        let much = |asked| match asked {
            Asked::Nothing => 0,
            Asked::Yes => 1,
            Asked::WordGiven => 2,
            Asked::WordTyped => 3,
            Asked::Refused => 4,
        };
        for pair in Harm::ALL.windows(2) {
            for way in [Way::Terminal, Way::Yes, Way::Reviewed, Way::Nobody] {
                assert!(much(pair[0].asked(way)) <= much(pair[1].asked(way)), "{pair:?} {way:?}");
            }
        }
        for harm in [Harm::Overwrites, Harm::Deletes] {
            assert_eq!(harm.asked(Way::Yes), Asked::WordGiven, "--yes covers {harm:?}");
        }
    }

    #[test]
    fn a_word_covers_its_step_and_a_kind_all_of_its_kind_and_nothing_else() {
        for (word, token, is_covered) in [
            ("restore:a", "restore:a", true),
            ("restore", "restore:a", true),
            ("restore:", "restore:a", false),
            ("restore:a", "restore:ab", false),
            ("rest", "restore:a", false),
            ("a", "restore:a", false),
            ("", "restore:a", false),
            ("age", "restore:age", false),
        ] {
            assert_eq!(covers(word, token), is_covered, "{word} {token}");
        }
    }
}
