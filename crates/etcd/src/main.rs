//! The server process: a member of a cluster behind etcd's flags, ports, log lines and data directory.
//!
//! What it is: the only place of the server with clocks, threads, sockets and signals. It moves values between the
//! lanes of `etcdserver` and the connections of clients.
//!
//! What it must not know: how a request changes state, page and record layouts.
//!
//! Reading order: `config` (what the user asked for), `logging`, `start.rs` (from configuration to a running member
//! and back), `member` (threads and queues around the lanes), `net` (connections of clients), `rafthttp`
//! (other members), `v3rpc` (one file per service), `http` (health, version, metrics, the peer port).

// This crate faces the outside: it reads clocks and owns threads. The rules of the crates below do not bind it.
#![allow(clippy::disallowed_methods, reason = "clocks and threads belong to the process")]

mod chores;
mod config;
mod http;
mod logging;
mod member;
mod metrics;
mod net;
mod rafthttp;
mod runtime;
mod start;
mod tls;
mod v3rpc;

use std::process::ExitCode;

use config::raw::{EnvironmentNote, RawConfig, Source, UsageError};
use config::{Config, flags, help};
use logging::{Form, Level, Logger, Rotation, Settings};

/// Returns memory to the system after load, and costs less per request than the system's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let early = Logger::early();
    if let Some(proxy @ ("gateway" | "grpc-proxy")) = arguments.get(1).map(String::as_str) {
        eprintln!("etcd {proxy}: not available in this version; run the proxy of another release of etcd");
        return ExitCode::FAILURE;
    }
    let (config, logger) = match read_config(&arguments, &early) {
        Ok(read) => read,
        Err(code) => return code,
    };
    start::run(&config, &logger)
}

/// Reads and judges flags, environment and configuration file, in etcd's order and with its lines.
fn read_config(arguments: &[String], early: &Logger) -> Result<(Config, Logger), ExitCode> {
    let mut raw = RawConfig::default();
    let rest = match raw.read_arguments(&arguments[1..]) {
        Ok(rest) => rest,
        Err(UsageError::Help) => {
            eprint!("{}", help::USAGE);
            print!("{}", help::flags());
            return Err(ExitCode::SUCCESS);
        }
        Err(UsageError::Wrong(text)) => {
            eprintln!("{text}\n{}", help::USAGE);
            return Err(ExitCode::from(2));
        }
    };
    if raw.text("version") == "true" {
        print_version();
        return Err(ExitCode::SUCCESS);
    }
    let running = |logger: &Logger| logger.info("Running: ", &[("args", arguments.to_vec().into())]);
    let refuse = |error: String| {
        running(early);
        early.warn("failed to verify flags", &[("error", error.into())]);
        Err(ExitCode::FAILURE)
    };
    if let Some(word) = rest.first() {
        return refuse(format!("{word:?} is not a valid flag"));
    }
    if let Err(error) = read_file_or_environment(&mut raw, early) {
        return refuse(error);
    }
    let logger = match open_logger(&raw) {
        Ok(logger) => logger,
        Err(error) => return refuse(error),
    };
    let warnings = raw.warnings.clone();
    match Config::check(raw) {
        Ok(config) => {
            say_before_running(&config, &warnings, &logger);
            running(&logger);
            Ok((config, logger))
        }
        Err(error) => {
            running(&logger);
            logger.warn("failed to verify flags", &[("error", error.into())]);
            Err(ExitCode::FAILURE)
        }
    }
}

/// A configuration file replaces flags and environment altogether.
fn read_file_or_environment(raw: &mut RawConfig, early: &Logger) -> Result<(), String> {
    let variables: Vec<(String, String)> = std::env::vars_os()
        .map(|(key, value)| (key.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .collect();
    let from_environment = variables.iter().find(|(key, value)| key == "ETCD_CONFIG_FILE" && !value.is_empty());
    let path = match (raw.text("config-file"), from_environment) {
        ("", Some((_, path))) => path.clone(),
        (path, _) => path.to_string(),
    };
    if path.is_empty() {
        for note in raw.read_environment(&variables)? {
            match note {
                EnvironmentNote::Used(flag, value) => early.info(
                    "recognized and used environment variable",
                    &[
                        ("variable-name", format!("ETCD_{}", flag.name.to_uppercase().replace('-', "_")).into()),
                        ("variable-value", value.into()),
                    ],
                ),
                EnvironmentNote::Unknown(variable) => {
                    early.warn("unrecognized environment variable", &[("environment-variable", variable.into())]);
                }
                EnvironmentNote::Shadowed(variable) => early.fatal(
                    "conflicting environment variable is shadowed by corresponding command-line flag (either unset \
                     environment variable or disable flag))",
                    &[("environment-variable", variable.into())],
                ),
            }
        }
        return Ok(());
    }
    let contents = std::fs::read_to_string(&path)
        .map_err(|error| format!("open {path}: {}", start::system_words(&error)))?;
    let mut from_file = RawConfig::default();
    from_file.read_file(&contents)?;
    *raw = from_file;
    let flag = flags::find("config-file").expect("the table has it");
    raw.set(flag, &path, Source::CommandLine);
    early.info(
        "loaded server configuration, other configuration command line flags and environment variables will be \
         ignored if provided",
        &[("path", path.into())],
    );
    Ok(())
}

fn open_logger(raw: &RawConfig) -> Result<Logger, String> {
    config::check_logging(raw)?;
    let Some(level) = Level::parse(raw.text("log-level")) else {
        eprintln!("panic: unrecognized level: {:?}", raw.text("log-level"));
        std::process::exit(2);
    };
    let rotation = match raw.text("enable-log-rotation") {
        "true" => Some(Rotation::parse(raw.text("log-rotation-config-json"))?),
        _ => None,
    };
    let form = if raw.text("log-format") == "console" { Form::Console } else { Form::Json };
    let outputs = config::value::parse_list(raw.text("log-outputs"));
    Logger::new(&Settings { level, form, outputs, rotation })
}

fn say_before_running(config: &Config, warnings: &[String], logger: &Logger) {
    start::say_advice(config, logger);
    if config.raw.is_set("max-snapshots") {
        logger.warn("--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8.", &[]);
    }
    if config.raw.is_set("v2-deprecation") {
        logger.warn(
            "--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is enforced, \
             ignoring user input.",
            &[],
        );
    }
    if config.raw.text("logger") == "capnslog" {
        logger.warn("--logger=capnslog is removed in v3.5; lines are structured", &[]);
    }
    for warning in warnings {
        logger.warn(warning, &[]);
    }
}

fn print_version() {
    println!("etcd Version: {}", api::version::TRACKED);
    println!("Git SHA: {}", option_env!("MAINSTAY_GIT_SHA").unwrap_or("Not provided (use ./build instead of go build)"));
    println!("Go Version: none (Mainstay {})", env!("CARGO_PKG_VERSION"));
    println!("Go OS/Arch: {}/{}", std::env::consts::OS, start::go_arch());
}
