//! `init --from`: on a machine where nothing is left, the file as a run has kept it.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use jiff::tz::TimeZone;

use super::error::{Exit, Failure};
use super::lines;
use super::session::home;
use crate::model::chain;
use crate::model::ids::{RepositoryName, RunId, StackName};
use crate::model::observation::Run;
use crate::observe::Stores;
use crate::repository::{Presence, Store};
use crate::secrets::Secrets;
use crate::spec::file::{Key, Passphrase, Repository, SecretRef};
use crate::spec::{paths, read};

/// The file's name in a run.
const KEPT: &str = "devstack.yaml";

#[derive(Debug, Args)]
pub(super) struct FromArguments {
    /// Write the file as the newest run in the repository in this folder has it: the first step on an empty machine.
    #[arg(long, value_name = "FOLDER", conflicts_with = "stdout")]
    from: Option<PathBuf>,
    /// With --from: the file with the repository's passphrase. Without one of these it is asked for.
    #[arg(long, value_name = "FILE", requires = "from", group = "key")]
    passphrase_file: Option<PathBuf>,
    /// With --from: the environment variable that holds the passphrase.
    #[arg(long, value_name = "NAME", requires = "from", group = "key")]
    passphrase_env: Option<String>,
    /// With --from: the file with an age identity that opens the repository.
    #[arg(long, value_name = "FILE", requires = "from", group = "key")]
    identity: Option<PathBuf>,
    /// With --from: the gpg key that opens the repository, by its fingerprint or address.
    #[arg(long, value_name = "KEY", requires = "from", group = "key")]
    gpg: Option<String>,
    /// With --from: the stack, where the repository holds several.
    #[arg(long, value_name = "STACK", requires = "from")]
    stack: Option<StackName>,
    /// With --from: this run, by its id or the beginning of it, in place of the newest.
    #[arg(long, value_name = "RUN", requires = "from")]
    run: Option<RunId>,
}

impl FromArguments {
    pub(super) fn folder(&self) -> Option<&Path> {
        self.from.as_deref()
    }

    fn key(&self) -> Key {
        match (&self.passphrase_file, &self.passphrase_env, &self.identity, &self.gpg) {
            (Some(file), ..) => Key::Passphrase(Passphrase { file: Some(file.clone()), ..Passphrase::default() }),
            (_, Some(name), ..) => Key::Passphrase(Passphrase { env: Some(name.clone()), ..Passphrase::default() }),
            (_, _, Some(file), _) => Key::AgeIdentity(SecretRef { file: Some(file.clone()), ..SecretRef::default() }),
            (_, _, _, Some(key)) => Key::Gpg(key.clone()),
            _ => Key::Passphrase(Passphrase { prompt: true, ..Passphrase::default() }),
        }
    }
}

/// Nothing that is there is overwritten.
pub(super) fn run(file: &Path, folder: &Path, arguments: &FromArguments) -> Result<Exit, Failure> {
    if file.exists() {
        return Err(Failure::new(Exit::Input, format!("{} is there already, and stays as it is", file.display()))
            .hint("to write it elsewhere: `devstack --file OTHER init --from …`"));
    }
    let store = open(folder, arguments)?;
    let stack = stack(&store, folder, arguments.stack.as_ref())?;
    let run = chosen(&store, &stack, arguments.run.as_ref())?;
    let unreadable = |error| {
        Failure::caused(Exit::Verification, &format!("reading run {}", run.manifest.run), &error)
            .hint("an older one may be whole: `--run RUN`; `restic snapshots --tag record:manifest` lists them")
    };
    let kept = store.reader().and_then(|reader| reader.attachments(&run.record)).map_err(unreadable)?;
    let Some((_, bytes)) = kept.into_iter().find(|(name, _)| name == KEPT) else {
        let text = format!("run {} of {stack} holds no {KEPT}", run.manifest.run);
        return Err(Failure::new(Exit::Input, text)
            .hint("another may: `--run RUN`; `restic snapshots --tag record:manifest` lists them"));
    };
    let written = OpenOptions::new().write(true).create_new(true).open(file).and_then(|mut new| {
        new.write_all(&bytes)?;
        new.sync_all()
    });
    written.map_err(|error| Failure::caused(Exit::Unexpected, &format!("writing {}", file.display()), &error))?;
    let at = lines::time(run.manifest.started, &TimeZone::system());
    let place = run.manifest.origin.as_ref().map_or_else(String::new, |origin| format!(", taken at {origin}"));
    println!("Written: {}, as stack {stack} had it in run {} of {at}{place}.", file.display(), run.manifest.run);
    println!("{}", next(file, folder, &bytes));
    Ok(Exit::Done)
}

fn open(folder: &Path, arguments: &FromArguments) -> Result<Arc<Store>, Failure> {
    // Its paths are meant from where the person stands.
    let here =
        std::env::current_dir().map_err(|error| Failure::caused(Exit::Unexpected, "finding the folder", &error))?;
    let name: RepositoryName =
        "repository".parse().map_err(|error| Failure::caused(Exit::Unexpected, "naming", &error))?;
    let declared = Repository { path: folder.to_owned(), keys: vec![arguments.key()], compression: None };
    let home = home();
    let secrets = Arc::new(Secrets::new(None, None, &here, home.as_deref()));
    let stores = Stores::of(BTreeMap::from([(name.clone(), declared)]), &here, home.as_deref(), secrets);
    stores.read_around_damage();
    // Before anybody is asked for a passphrase.
    let look = stores.site(&name)?.look();
    match look.map_err(|error| Failure::caused(Exit::Input, &format!("looking at {}", folder.display()), &error))? {
        Presence::Present => Ok(stores.open(&name)?),
        Presence::Absent => Err(Failure::new(Exit::Input, format!("{} is no repository: it holds no `config` and `keys/`", folder.display()))
            .hint("give the folder that `path` of the repository named: the one with `config`, `data`, `index`, `keys`, `snapshots`")),
    }
}

fn stack(store: &Store, folder: &Path, asked: Option<&StackName>) -> Result<StackName, Failure> {
    let stacks = store.stacks().map_err(|error| Failure::caused(Exit::Verification, "listing the runs", &error))?;
    let listed = || stacks.iter().map(StackName::as_str).collect::<Vec<_>>().join(", ");
    let text = match (asked, stacks.as_slice()) {
        (Some(asked), _) if stacks.contains(asked) => return Ok(asked.clone()),
        (None, [one]) => return Ok(one.clone()),
        (_, []) => format!("{} holds no run of devstack", folder.display()),
        (Some(asked), _) => format!("{} holds no run of {asked}; its stacks are: {}", folder.display(), listed()),
        (None, _) => format!("{} holds several stacks: {}; say which by `--stack`", folder.display(), listed()),
    };
    Err(Failure::new(Exit::Input, text))
}

fn chosen(store: &Store, stack: &StackName, asked: Option<&RunId>) -> Result<Run, Failure> {
    let (facts, _) =
        store.facts_around(stack).map_err(|error| Failure::caused(Exit::Verification, "listing the runs", &error))?;
    let asked = match asked.filter(|asked| !asked.is_latest()) {
        Some(given) => {
            let found = given.among(facts.runs.iter().map(|run| &run.manifest.run));
            let found = found.map_err(|misnamed| Failure::new(Exit::Input, misnamed.to_string()))?;
            Some(found.unwrap_or_else(|| given.clone()))
        }
        None => None,
    };
    let is_meant = |run: &Run| match &asked {
        Some(asked) => run.manifest.run == *asked,
        // A safety copy tells of the moment of a mistake.
        None => !run.manifest.policy.is_safety(),
    };
    let newest = facts.runs.into_iter().filter(is_meant).max_by_key(|run| run.manifest.started);
    let text = || match &asked {
        Some(asked) => format!("there is no run {asked} of {stack} in this repository"),
        None => format!("there is no run of {stack} in this repository"),
    };
    newest.ok_or_else(|| Failure::new(Exit::Input, text()))
}

/// What the file wants before a recovery: the repository where it looks for it.
fn next(file: &Path, folder: &Path, bytes: &[u8]) -> String {
    let base = file.parent().filter(|base| !base.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let declared = read::parse(KEPT, bytes, base).map(|loaded| loaded.spec.repositories);
    let home = home();
    let is_here = declared.as_ref().is_ok_and(|declared| {
        declared.values().any(|one| real(&paths::resolve(base, home.as_deref(), &one.path)) == real(folder))
    });
    if is_here {
        return "  next: `devstack recover --dry-run`, then `devstack recover`".to_owned();
    }
    let places = declared.map(|declared| {
        declared.iter().map(|(name, one)| format!("{name}: {}", one.path.display())).collect::<Vec<_>>().join(", ")
    });
    let places = match places {
        Ok(places) => places,
        Err(error) => return format!("  next: it can't be read by this devstack ({}); correct it", chain(&error)),
    };
    format!(
        "  It looks for its repositories elsewhere ({places}): correct in it the path of the one in {}, and those of its keys where they moved with it.\n\
         \x20 next: `devstack recover --dry-run`, then `devstack recover`",
        folder.display()
    )
}
