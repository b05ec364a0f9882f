//! The words of the command line. Help texts here are part of the product.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::exit::EXIT_CODES;
use crate::output::Format;

/// Deploy and watch services on Hypha.
#[derive(Debug, Parser)]
#[command(name = "hypha", version, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    /// Without a command: `status` when logged in.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// Form of the answer; the keys of `json` are a contract and only ever added to.
    #[arg(short, long, value_enum, global = true, default_value_t = Format::Table, value_name = "FORMAT")]
    pub(crate) output: Format,
    /// Leave out the headline of tables.
    #[arg(long, global = true)]
    pub(crate) no_headers: bool,
    /// Colours; `auto` honours NO_COLOR, CLICOLOR_FORCE and TERM=dumb.
    #[arg(long, value_enum, global = true, default_value_t = ColorChoice::Auto, value_name = "WHEN")]
    pub(crate) color: ColorChoice,
    /// Say nothing on stderr but warnings and errors.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Ask this root instead of the one of `hypha login`. Its login is used only if the address is the same.
    #[arg(long, global = true, env = "HYPHA_URL", value_name = "URL")]
    pub(crate) url: Option<String>,
    /// How long the root may take to answer one request.
    #[arg(long, global = true, default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub(crate) request_timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Log in to a root and remember it.
    Login(Login),
    /// Forget the login.
    Logout,
    /// Show who is logged in where.
    Whoami,
    /// Create what an SLA file describes, start it, and wait until it runs.
    Apply(Apply),
    /// List applications, services, instances, clusters or workers.
    Get(Get),
    /// Set how many instances of services run, and wait until they do.
    Scale(Scale),
    /// Delete applications, services or instances, and wait until they are gone; or workers that are gone already.
    #[command(
        visible_alias = "rm",
        after_help = "A worker is deleted once it is silent: drain it, stop its node-engine and netmanager, delete it.\n\
                            What it ran still is placed elsewhere at once; one that is heard from would join again."
    )]
    Delete(Delete),
    /// Show the last lines that instances wrote (the root keeps the last KiB of each).
    Logs(Logs),
    /// Show what has happened to services, instances, workers and clusters: the last 1000 events since the root was started.
    #[command(visible_alias = "ev")]
    Events(Events),
    /// Tell why instances are where and as they are, and what those that wait are missing.
    Why(Why),
    /// Place nothing new on workers, or in clusters; what runs there stays.
    Cordon(Cordon),
    /// Move what runs on workers to others, and wait until they are empty; what is under way comes to its end.
    Drain(Drain),
    /// Let workers or clusters have new instances again.
    Uncordon(Cordon),
    /// Show in one screen how things are, what is wrong first.
    #[command(visible_alias = "st")]
    Status,
    /// Show the version.
    Version,
    /// Print the completion script of a shell.
    #[command(after_help = "bash: source <(hypha completion bash)\n\
                            zsh:  source <(hypha completion zsh)\n\
                            fish: hypha completion fish | source")]
    Completion {
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Explain a command or a topic: exit-codes, environment, names, sla.
    Help {
        #[arg(value_name = "COMMAND|TOPIC")]
        words: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Login {
    /// Address of the root: `192.168.1.20`, `root.lan:10000`, `http://[2001:db8::1]:10000`.
    pub(crate) url: String,
    #[arg(short, long, default_value = "Admin")]
    pub(crate) user: String,
    /// Read the password from the first line of stdin instead of asking for it.
    #[arg(long)]
    pub(crate) password_stdin: bool,
}

/// How long a command that changes something stays to see it become true.
#[derive(Debug, Args)]
pub(crate) struct Patience {
    /// Leave as soon as the root has accepted.
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// How long to wait until it is true; the work goes on afterwards.
    #[arg(long, default_value = "2m", value_parser = duration, value_name = "TIME")]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// SLA file (v2, JSON), `-` for stdin.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Do nothing: show what would be done, and which clusters have room for one instance of each service now.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Create, but start no instance.
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) no_start: bool,
    #[command(flatten)]
    pub(crate) patience: Patience,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Get {
    /// apps (a), services (svc, s), instances (i), clusters (cl), workers (w, nodes).
    pub(crate) kind: Kind,
    /// Only these: `shop`, `shop/web`, `web`, `web/2`, or Oakestra's `app.ns.service.ns`.
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Only what belongs to this application.
    #[arg(short, long)]
    pub(crate) app: Option<String>,
    /// Stay and show what changes: a terminal is drawn anew, a pipe gets a line of JSON for each change.
    #[arg(short, long)]
    pub(crate) watch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Cordon {
    /// `pi-7`, or `berlin/pi-7` where two clusters have a worker of that name; `cluster/berlin` for all of a cluster.
    #[arg(value_name = "WORKER", required = true)]
    pub(crate) workers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Drain {
    /// `pi-7`, or `berlin/pi-7` where two clusters have a worker of that name.
    #[arg(value_name = "WORKER", required = true)]
    pub(crate) workers: Vec<String>,
    #[command(flatten)]
    pub(crate) patience: Patience,
}

#[derive(Debug, Args)]
pub(crate) struct Scale {
    /// `web=3`, `shop/web=3`.
    #[arg(required = true, value_name = "SERVICE=N", value_parser = wanted)]
    pub(crate) wanted: Vec<(String, usize)>,
    #[command(flatten)]
    pub(crate) patience: Patience,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// `app/shop`, `service/shop/web`, `instance/web/2`, `worker/pi-7` (or `node/pi-7`, `worker/berlin/pi-7`).
    #[arg(required = true, value_name = "KIND/NAME")]
    pub(crate) targets: Vec<String>,
    /// Do not ask; needed where there is no terminal.
    #[arg(short, long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) patience: Patience,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// `web`, `web/2`, `shop/web`, or a whole application.
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Stay and print what is new; instances that start later join by themselves.
    #[arg(short, long)]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Only of these and of what is in them: `shop`, `web/2`, `pi-7`, `cluster/berlin`, `worker`.
    #[arg(value_name = "SUBJECT")]
    pub(crate) subjects: Vec<String>,
    /// Stay and print what happens from then on, a line for each; with -o json as JSON.
    #[arg(short, long, visible_short_alias = 'f', visible_alias = "follow")]
    pub(crate) watch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Why {
    /// `web`, `web/2`, `shop/web`, or a whole application.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

/// The kinds of things that can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    #[value(name = "apps", aliases = ["app", "a", "application", "applications"])]
    App,
    #[value(name = "services", aliases = ["service", "svc", "s"])]
    Service,
    #[value(name = "instances", aliases = ["instance", "i"])]
    Instance,
    #[value(name = "clusters", aliases = ["cluster", "cl"])]
    Cluster,
    #[value(name = "workers", aliases = ["worker", "w", "nodes", "node"])]
    Worker,
}

impl Kind {
    /// The word for one of them, as in `service/shop/web`.
    pub(crate) const fn singular(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Service => "service",
            Self::Instance => "instance",
            Self::Cluster => "cluster",
            Self::Worker => "worker",
        }
    }

    /// The word that `get` lists them by.
    pub(crate) const fn plural(self) -> &'static str {
        match self {
            Self::App => "apps",
            Self::Service => "services",
            Self::Instance => "instances",
            Self::Cluster => "clusters",
            Self::Worker => "workers",
        }
    }
}

/// The whole grammar, with the exit codes under the help of each command.
pub(crate) fn grammar() -> clap::Command {
    let commands = Cli::command().after_long_help(EXIT_CODES);
    commands.mut_subcommands(|command| {
        let examples = command.get_after_help().map(|text| format!("{text}\n\n")).unwrap_or_default();
        command.after_long_help(format!("{examples}{EXIT_CODES}"))
    })
}

/// # Errors
/// Wrong arguments, or a request for help, as clap has them.
pub(crate) fn parse(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Cli, clap::Error> {
    let mut grammar = grammar();
    let matches = grammar.try_get_matches_from_mut(arguments)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut grammar))
}

/// Whether `arguments`, which as a whole are wrong, ask for JSON: a script wants the error in it too.
pub(crate) fn wants_json(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> bool {
    let words: Vec<String> = arguments.into_iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let json = |format: &str| format == "json" || format == "jsonl";
    words.iter().enumerate().any(|(at, word)| match word.as_str() {
        "-o" | "--output" => words.get(at + 1).is_some_and(|format| json(format)),
        word => word.strip_prefix("--output=").or_else(|| word.strip_prefix("-o")).is_some_and(json),
    })
}

/// `90`, `90s`, `2m`, `1h`, `500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("expected a time such as 90s, 2m or 1h, got {text:?}");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().map_err(|_not_a_number| invalid())?;
    let seconds = |factor: u64| number.checked_mul(factor).map(Duration::from_secs).ok_or_else(invalid);
    match &text[digits..] {
        "ms" => Ok(Duration::from_millis(number)),
        "" | "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(3600),
        _ => Err(invalid()),
    }
}

/// More instances than this in one command are a slip of the finger.
const MOST_INSTANCES: usize = 1000;

fn wanted(text: &str) -> Result<(String, usize), String> {
    let invalid = || format!("expected SERVICE=N, for example web=3, got {text:?}");
    let (service, count) = text.rsplit_once('=').ok_or_else(invalid)?;
    let count: usize = count.parse().map_err(|_not_a_number| invalid())?;
    if service.is_empty() {
        return Err(invalid());
    }
    if count > MOST_INSTANCES {
        return Err(format!("at most {MOST_INSTANCES} instances, got {count}"));
    }
    Ok((service.to_owned(), count))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Command, duration, grammar, parse, wanted};

    #[test]
    fn the_grammar_is_sound() {
        grammar().debug_assert();
    }

    #[test]
    fn durations_have_a_unit_or_are_seconds() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        for text in ["", "m", "-1s", "1d", "1.5s", "99999999999999999999s", "9999999999999999999h"] {
            assert!(duration(text).is_err(), "{text:?} was taken for a time");
        }
    }

    #[test]
    fn scale_wants_a_service_and_a_number() {
        assert_eq!(wanted("shop/web=3"), Ok(("shop/web".into(), 3)));
        for text in ["web", "=3", "web=", "web=-1", "web=many", "web=1001"] {
            assert!(wanted(text).is_err(), "{text:?} was taken for a wish");
        }
    }

    #[test]
    fn kinds_have_short_forms() {
        for (word, plural) in [("svc", "services"), ("a", "apps"), ("i", "instances"), ("cl", "clusters")] {
            let cli = parse(["hypha", "get", word].map(Into::into)).unwrap();
            let Some(Command::Get(get)) = cli.command else { panic!("get was read as {:?}", cli.command) };
            assert_eq!(get.kind.plural(), plural);
        }
    }

    #[test]
    fn json_is_recognized_among_wrong_arguments() {
        let json = |words: &[&str]| super::wants_json(words.iter().map(Into::into));
        assert!(
            json(&["hypha", "gte", "-o", "json"]) && json(&["hypha", "-ojsonl"]) && json(&["--output=json"])
        );
        assert!(!json(&["hypha", "gte", "-o"]) && !json(&["hypha", "json"]));
    }

    #[test]
    fn every_help_lists_the_exit_codes() {
        for command in grammar().get_subcommands_mut() {
            assert!(command.render_long_help().to_string().contains("130  stopped watching"));
        }
    }
}
