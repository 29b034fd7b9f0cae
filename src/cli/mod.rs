//! One file per verb, and all that prints. The arguments come in here and an exit code goes out.

#[macro_use]
mod output;

#[cfg(test)]
mod advice;
mod apply;
mod backups;
mod beside;
mod bootstrap;
mod check;
mod consent;
mod drill;
mod error;
pub mod init;
mod lines;
mod log;
mod measured;
mod outcome;
mod plan;
mod point;
mod recover;
mod restore;
mod running;
mod session;
mod show;
mod status;
mod tables;
mod unlock;
mod verify;

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::FilterExt as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

pub use error::{Exit, Failure};

use crate::model::ids::{LeaseId, RunId, ServiceName};
use crate::model::units::Span;

/// Keeps a Docker stack recoverable: declare it in devstack.yaml, review `plan`, run `apply`.
#[derive(Debug, Parser)]
#[command(name = "devstack", version, disable_help_subcommand = true, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Arguments {
    /// The file that declares the stack.
    #[arg(short, long, global = true, default_value = "devstack.yaml", value_name = "FILE")]
    file: PathBuf,

    #[command(subcommand)]
    verb: Verb,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, or nothing to do · 1 unexpected · 2 changes are pending (plan --detailed-exitcode) · 3 the file, the
arguments or a key are wrong · 4 a held step was not approved, or a guard refused · 5 the saved plan is stale · 6 another
apply holds the lease · 7 FAILED: a source or a run failed, is gone or could not be inspected; partly applied, or interrupted ·
8 FAILED: damage, a failed verification, drill or assertion; or DEGRADED (status, verify and drill always, plan and apply
under --strict)";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Look around in this folder and write a commented starter devstack.yaml.
    Init {
        /// Print it instead of writing it.
        #[arg(long)]
        stdout: bool,
        #[command(flatten)]
        from: bootstrap::FromArguments,
    },
    /// Check the file, and that the Compose files that it names are there; nothing else is looked at.
    Check {
        #[arg(long, value_enum, default_value_t)]
        format: TextOrJson,
    },
    /// Print the JSON Schema of the file.
    Schema,
    /// Show what differs from the file, and the steps that would change it. Changes nothing, takes no lock.
    Plan(plan::PlanArguments),
    /// Make it so: plan, ask, carry out, prove.
    Apply(apply::ApplyArguments),
    /// Take a run now, due or not: of everything, or of the services that are named.
    Backup(apply::BackupArguments),
    /// List the runs in the repositories.
    Backups {
        #[arg(long, value_enum, default_value_t)]
        format: TextOrJson,
    },
    /// Show a run: what it holds, what has been proven of it, when.
    Show {
        /// Its id, the beginning of one that no other run has, or `latest`.
        run: RunId,
        #[arg(long, value_enum, default_value_t)]
        format: TextOrJson,
    },
    /// Prove backups: hash the repository's files, read runs back, compare with their manifests.
    Verify(verify::VerifyArguments),
    /// Restore a service: beside by default, over the live data only with approval.
    Restore(restore::RestoreArguments),
    /// Bring back whatever of the stack is gone: files, containers, data, in order, each verified.
    Recover(recover::RecoverArguments),
    /// Recover in isolation, measure it, and remove it again: proof that the backups bring the stack back.
    Drill(drill::DrillArguments),
    /// Forget runs for good.
    Forget(apply::ForgetArguments),
    /// Per service: the last good run against the RPO, what is proven, the predicted recovery against the RTO.
    Status(status::StatusArguments),
    /// What earlier applies did.
    Log {
        /// At most this many of the newest entries.
        #[arg(short = 'n', long, default_value_t = 50)]
        lines: usize,
        /// Who approved what, and when, on whichever machine: from the repositories.
        #[arg(long)]
        approvals: bool,
        #[arg(long, value_enum, default_value_t)]
        format: TextOrJson,
    },
    /// Remove a lease that nobody holds any more, by its id.
    Unlock { lease: LeaseId },
    /// Print completions for a shell.
    Completions { shell: clap_complete::Shell },
}

impl Verb {
    /// Whether `--format json` was asked for: then an error is JSON too.
    fn is_for_programs(&self) -> bool {
        let format = match self {
            Self::Check { format }
            | Self::Backups { format }
            | Self::Show { format, .. }
            | Self::Log { format, .. } => *format,
            Self::Plan(arguments) => return arguments.is_for_programs(),
            Self::Apply(arguments) => arguments.consent.format,
            Self::Backup(arguments) => arguments.consent.format,
            Self::Restore(arguments) => arguments.consent.format,
            Self::Recover(arguments) => arguments.consent.format,
            Self::Drill(arguments) => arguments.format,
            Self::Forget(arguments) => arguments.consent.format,
            Self::Verify(arguments) => arguments.format,
            Self::Status(arguments) => arguments.format,
            Self::Init { .. } | Self::Schema | Self::Unlock { .. } | Self::Completions { .. } => TextOrJson::Text,
        };
        format == TextOrJson::Json
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum TextOrJson {
    #[default]
    Text,
    Json,
}

/// How steps are approved, for every verb that carries a plan out.
#[derive(Debug, Clone, Args)]
pub(crate) struct Consent {
    /// Skip the question. Covers what adds, restarts, or brings back what is gone; never what overwrites or deletes data, or what a
    /// guard holds: that takes --approve.
    #[arg(short, long)]
    yes: bool,
    /// Approve a held step by the word that the plan shows, such as `forget:local`; or all of a kind: `restore`. May be repeated.
    #[arg(long, value_name = "KIND[:RESOURCE]")]
    approve: Vec<String>,
    /// How many steps run at once.
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    parallel: u8,
    #[arg(long, value_enum, default_value_t)]
    format: TextOrJson,
    /// Words that other options stand for.
    #[arg(skip)]
    given: Vec<&'static str>,
    /// Nothing is begun while a word is missing.
    #[arg(skip)]
    whole: bool,
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    lines::parse_time(text, &jiff::tz::TimeZone::system(), Timestamp::now())
}

fn parse_span(text: &str) -> Result<Span, String> {
    text.parse::<Span>().map_err(|error| error.to_string())
}

/// Runs what the arguments ask for. The only place that turns errors into words and exit codes is `Failure::report`.
pub fn main() -> std::process::ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are answers; everything else is a wrong argument.
            let exit = if error.use_stderr() { Exit::Input } else { Exit::Done };
            let _ = error.print();
            return exit.into();
        }
    };
    let for_programs = arguments.verb.is_for_programs();
    leave_no_core();
    show_log();
    // Unwound, so that leases and logins are given back on the way.
    let exit = match std::panic::catch_unwind(|| run(arguments)) {
        Ok(Ok(exit)) => exit,
        Ok(Err(failure)) if for_programs => failure.report_as_json(),
        Ok(Err(failure)) => failure.report(),
        Err(panic) => std::panic::resume_unwind(panic),
    };
    output::ended(exit).into()
}

/// A core file would hold passwords and keys.
fn leave_no_core() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Core);
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum }) {
        eprintln!(
            "warning: a crash could leave a core file with secrets in it: {error}; run `ulimit -c 0` before devstack"
        );
    }
}

/// What the program and the library below it note, on standard error; `DEVSTACK_LOG=debug` shows more.
fn show_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("DEVSTACK_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("devstack=warn"));
    // These print what goes over the wire, a container's environment and an exec's among it: passwords. Whatever is
    // asked for, they are held back.
    let tells_secrets = |target: &str| {
        ["bollard", "hyper", "reqwest", "rustify", "vaultrs"].iter().any(|name| target.starts_with(name))
    };
    let discreet = tracing_subscriber::filter::filter_fn(move |meta| {
        !tells_secrets(meta.target()) || *meta.level() <= tracing::Level::WARN
    });
    // Where standard error can't be written, saying so there would end the process.
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).without_time().log_internal_errors(false);
    tracing_subscriber::registry().with(lines.with_filter(filter.and(discreet))).init();
}

fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let file = arguments.file;
    match arguments.verb {
        Verb::Init { stdout, from } => match from.folder() {
            None => init::run(&file, stdout),
            Some(folder) => bootstrap::run(&file, folder, &from),
        },
        Verb::Check { format } => check::run(&file, format),
        Verb::Schema => check::schema(),
        Verb::Plan(arguments) => plan::run(&file, &arguments),
        Verb::Apply(arguments) => apply::run(&file, &arguments),
        Verb::Backup(arguments) => apply::backup(&file, &arguments),
        Verb::Backups { format } => backups::run(&file, format),
        Verb::Show { run, format } => show::run(&file, &run, format),
        Verb::Verify(arguments) => verify::run(&file, &arguments),
        Verb::Restore(arguments) => restore::run(&file, &arguments),
        Verb::Recover(arguments) => recover::run(&file, &arguments),
        Verb::Drill(arguments) => drill::run(&file, &arguments),
        Verb::Forget(arguments) => apply::forget(&file, &arguments),
        Verb::Status(arguments) => status::run(&file, &arguments),
        Verb::Log { lines, approvals: true, format } => log::approvals(&file, lines, format),
        Verb::Log { lines, approvals: false, format } => log::run(&file, lines, format),
        Verb::Unlock { lease } => unlock::run(&file, &lease),
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "devstack", &mut script);
            print!("{}", String::from_utf8_lossy(&script));
            Ok(Exit::Done)
        }
    }
}

/// A service by name, as an argument.
fn known_service(session: &session::Session, name: &ServiceName) -> Result<(), Failure> {
    if session.loaded.spec.services.contains_key(name) {
        return Ok(());
    }
    let names: Vec<&str> = session.loaded.spec.services.keys().map(ServiceName::as_str).collect();
    Err(Failure::new(Exit::Input, format!("there is no service {name} in {}", session.loaded.path.display()))
        .hint(format!("its services are: {}", names.join(", "))))
}
