//! Flags of all commands, their environment variables, and the client that they describe.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use client::{Client, Config, Context, Credentials, Error, TlsSettings, srv};
use etcdutl::cli::{BAD_CONNECTION, BAD_FEATURE, ERROR, Exit, Flag, Invocation, Kind, Outcome};

use crate::log;
use crate::password;
use crate::print::{Format, Printer};

/// Flags of all commands.
pub(crate) static FLAGS: &[Flag] = &[
    Flag::text("auth-jwt-token", "", "JWT to log in with (not together with --user and --password)"),
    Flag::text("cacert", "", "file of the certificates that a server's certificate is checked against"),
    Flag::text("cert", "", "file of the client's own certificate"),
    Flag::new(Kind::Duration, "command-timeout", "5s", "how long a short command may take, dialling aside"),
    Flag::switch("debug", "log what the client does"),
    Flag::new(Kind::Duration, "dial-timeout", "2s", "how long opening a connection may take"),
    Flag::text("discovery-srv", "", "domain whose SRV records name the endpoints").letter('d'),
    Flag::text("discovery-srv-name", "", "service name in these SRV records"),
    Flag::new(Kind::Texts, "endpoints", "127.0.0.1:2379", "where the members listen for clients"),
    Flag::switch("hex", "print bytes in hex"),
    Flag::new(Kind::Bool, "insecure-discovery", "true", "take endpoints without TLS from SRV records"),
    Flag::switch(
        "insecure-skip-tls-verify",
        "do not check the server's certificate (CAUTION: for tests only, it makes TLS worthless)",
    ),
    Flag::new(Kind::Bool, "insecure-transport", "true", "connect without TLS"),
    Flag::new(Kind::Duration, "keepalive-time", "2s", "how long a connection may be idle before it is probed"),
    Flag::new(Kind::Duration, "keepalive-timeout", "6s", "how long such a probe may take"),
    Flag::text("key", "", "file of the key to the client's certificate"),
    Flag::int("max-recv-bytes", "longest answer in bytes (0: math.MaxInt32)"),
    Flag::int("max-request-bytes", "longest request in bytes (0: 2.0 MiB (2 * 1024 * 1024))"),
    Flag::text("password", "", "password to log in with (then --user is the name alone)"),
    Flag::text("user", "", "name[:password] to log in with (asks for the password where there is none)"),
    Flag::text("write-out", "simple", "output format (fields, json, protobuf, simple, table)").letter('w'),
];

/// Variables that are no flags. `ETCDCTL_API` once chose between two tools in one; every script still sets it.
const KNOWN_VARIABLES: &[&str] = &["ETCDCTL_API", "ETCDCTL_WATCH_KEY", "ETCDCTL_WATCH_RANGE_END"];

/// Everything a command needs to talk to a cluster and to print.
pub(crate) struct Session {
    /// The command line with the environment laid under it.
    pub(crate) invocation: Invocation,
    /// How results are printed.
    pub(crate) printer: Printer,
    /// How a client is made.
    pub(crate) config: Config,
}

impl Session {
    /// Reads the flags of all commands.
    pub(crate) fn open(invocation: &Invocation) -> Result<Session, Exit> {
        let mut invocation = invocation.clone();
        take_environment(&mut invocation)?;
        if invocation.switch("debug") {
            for flag in FLAGS {
                let (name, value) = (variable(flag.name), invocation.text(flag.name));
                let value = if flag.kind == Kind::Texts { format!("[{value}]") } else { value.to_owned() };
                etcdutl::cli::err(&format!("{name}={value}\n"));
            }
        }
        let Some(format) = Format::of_name(invocation.text("write-out")) else {
            return Err(Exit::new(BAD_FEATURE, "unsupported output format"));
        };
        let printer = Printer { format, hex: invocation.switch("hex"), value_only: false };
        let config = config(&invocation)?;
        Ok(Session { invocation, printer, config })
    }

    /// A client; logs in where there is a password.
    pub(crate) async fn client(&self) -> Result<Client, Exit> {
        connect(self.config.clone()).await
    }

    /// The deadline of a short command.
    pub(crate) fn context(&self) -> Context {
        Context::timeout(self.invocation.duration("command-timeout"))
    }

    /// The deadline of a command that may take long: only one that was asked for.
    pub(crate) fn context_if_given(&self) -> Context {
        if self.invocation.is_given("command-timeout") { self.context() } else { Context::none() }
    }
}

/// A client of these settings.
pub(crate) async fn connect(config: Config) -> Result<Client, Exit> {
    if config.endpoints.is_empty() {
        return Err(Exit::new(BAD_CONNECTION, "etcdclient: no available endpoints"));
    }
    Client::connect(config).await.map_err(|error| match error {
        Error::Config(_) => Exit::arguments(error),
        error => Exit::new(BAD_CONNECTION, error),
    })
}

/// Runs a command to its end on this thread.
pub(crate) fn block_on(future: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Exit::error(format!("start the runtime: {error}")))?;
    let outcome = runtime.block_on(future);
    // A thread may wait for a line of standard input that never comes.
    runtime.shutdown_background();
    outcome
}

fn variable(flag: &str) -> String {
    format!("ETCDCTL_{}", flag.to_uppercase().replace('-', "_"))
}

/// Flags that were not given take their values from the environment.
fn take_environment(invocation: &mut Invocation) -> Outcome {
    let flags = invocation.inherited();
    for (name, value) in std::env::vars() {
        if !name.starts_with("ETCDCTL_") {
            continue;
        }
        let shown = format!("{name}={value}");
        // An empty variable counts as one that nobody knows.
        let flag = flags.iter().find(|flag| variable(flag.name) == name && !value.is_empty());
        let Some(flag) = flag else {
            if !KNOWN_VARIABLES.contains(&name.as_str()) {
                let fields = [("environment-variable", shown.as_str())];
                log::line("warn", "", "etcdctl/global.rs", "unrecognized environment variable", &fields);
            }
            continue;
        };
        if invocation.is_given(flag.name) {
            let message = "conflicting environment variable is shadowed by corresponding command-line flag \
                           (either unset environment variable or disable flag))";
            let fields = [("environment-variable", name.as_str())];
            log::line("fatal", "", "etcdctl/global.rs", message, &fields);
            return Err(Exit::silent(ERROR));
        }
        // Go's etcdctl does without a variable that it cannot read, and says nothing.
        if let Err(why) = invocation.give(flag, value.clone()) {
            let fields = [("environment-variable", shown.as_str()), ("error", why.as_str())];
            log::line("warn", "", "etcdctl/global.rs", "unreadable environment variable is ignored", &fields);
        }
    }
    Ok(())
}

fn config(invocation: &Invocation) -> Result<Config, Exit> {
    let endpoints = endpoints(invocation)?;
    let limit = |name: &str, default: usize| match usize::try_from(invocation.int(name)) {
        Ok(0) | Err(_) => default,
        Ok(limit) => limit,
    };
    Ok(Config {
        tls: tls(invocation, &endpoints)?,
        endpoints,
        credentials: credentials(invocation, "user", "password", "auth-jwt-token", "Password: ")?,
        dial_timeout: invocation.duration("dial-timeout"),
        keepalive_time: Some(invocation.duration("keepalive-time")).filter(|time| *time > Duration::ZERO),
        keepalive_timeout: invocation.duration("keepalive-timeout"),
        max_request_bytes: limit("max-request-bytes", 2 << 20),
        max_answer_bytes: limit("max-recv-bytes", i32::MAX as usize),
        logger: "etcd-client".into(),
        log: Some(Arc::new(log::client_line)),
    })
}

/// A file flag: not given, or not empty.
pub(crate) fn file(invocation: &Invocation, name: &str) -> Result<Option<PathBuf>, Exit> {
    match invocation.text(name) {
        "" if invocation.is_given(name) => {
            Err(Exit::arguments(format!("empty string is passed to --{name} option")))
        }
        "" => Ok(None),
        path => Ok(Some(PathBuf::from(path))),
    }
}

/// The endpoints that DNS knows, if it was named, and knows any; else those of the flag.
fn endpoints(invocation: &Invocation) -> Result<Vec<String>, Exit> {
    let given = || invocation.texts("endpoints").iter().map(|endpoint| endpoint.trim().to_owned()).collect();
    let domain = invocation.text("discovery-srv");
    if domain.is_empty() {
        return Ok(given());
    }
    let mut found =
        srv::endpoints("etcd-client", domain, invocation.text("discovery-srv-name")).map_err(Exit::error)?;
    if !invocation.switch("insecure-discovery") {
        found.retain(|endpoint| {
            let is_secure = !endpoint.starts_with("http://");
            if !is_secure {
                etcdutl::cli::err(&format!("ignoring discovered insecure endpoint {endpoint:?}\n"));
            }
            is_secure
        });
    }
    Ok(if found.is_empty() { given() } else { found })
}

fn tls(invocation: &Invocation, endpoints: &[String]) -> Result<Option<TlsSettings>, Exit> {
    let settings = TlsSettings {
        cert: file(invocation, "cert")?,
        key: file(invocation, "key")?,
        ca: file(invocation, "cacert")?,
        skip_verify: invocation.switch("insecure-skip-tls-verify"),
        server_name: None,
    };
    // As in Go's: TLS it is then, and certificates are those of the hosts, not of the domain.
    let is_named = !invocation.text("discovery-srv").is_empty() && !invocation.switch("insecure-discovery");
    let has_files = settings.cert.is_some() || settings.key.is_some() || settings.ca.is_some();
    let wanted = has_files || is_named || settings.skip_verify || !invocation.switch("insecure-transport");
    // An endpoint with https brings TLS along whatever is said here.
    let by_endpoint = endpoints.iter().any(|endpoint| endpoint.starts_with("https"));
    Ok((wanted || by_endpoint).then_some(settings))
}

/// Who to log in as, from flags of these names.
pub(crate) fn credentials(
    invocation: &Invocation,
    user: &str,
    password: &str,
    token: &str,
    prompt: &str,
) -> Result<Option<Credentials>, Exit> {
    let token = invocation.text(token);
    if !token.is_empty() {
        return Ok(Some(Credentials::Token(token.to_owned())));
    }
    let (user, given) = (invocation.text(user), invocation.text(password));
    if user.is_empty() {
        return Ok(None);
    }
    let (name, password) = if !given.is_empty() {
        (user.to_owned(), given.to_owned())
    } else if let Some((name, password)) = user.split_once(':') {
        (name.to_owned(), password.to_owned())
    } else {
        (user.to_owned(), password::ask(prompt)?)
    };
    Ok(Some(Credentials::Password { name, password }))
}
