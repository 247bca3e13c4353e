//! The client itself: its settings, its token, and its log.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::ErrorCode;
use api::etcdserverpb::AuthenticateRequest;

use crate::call::Context;
use crate::connection::Dial;
use crate::endpoint::{Endpoint, Scheme};
use crate::error::Error;
use crate::pool::Pool;
use crate::tls;

/// Who to log in as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// A name and a password, exchanged for a token at the start and whenever the token is refused.
    Password {
        /// The user.
        name: String,
        /// Its password.
        password: String,
    },
    /// A token from elsewhere.
    Token(String),
}

/// A value in a log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// Text.
    Text(String),
    /// A number.
    Number(u64),
}

/// One line that the client would like to be logged.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// `warn`, `info`.
    pub level: &'static str,
    /// Name of the logger: which client it is.
    pub logger: String,
    /// File and line of the code that logs.
    pub caller: String,
    /// The message.
    pub message: &'static str,
    /// What belongs to it, in order.
    pub fields: Vec<(&'static str, Field)>,
}

/// Where log lines go.
pub type Log = Arc<dyn Fn(&LogLine) + Send + Sync>;

/// Settings of a client.
#[derive(Clone)]
pub struct Config {
    /// At least one.
    pub endpoints: Vec<String>,
    /// TLS, for endpoints that do not say otherwise.
    pub tls: Option<tls::Settings>,
    /// Who to log in as.
    pub credentials: Option<Credentials>,
    /// How long logging in may take at the start.
    pub dial_timeout: Duration,
    /// An idle connection with calls under way is probed after this.
    pub keepalive_time: Option<Duration>,
    /// And given up after this.
    pub keepalive_timeout: Duration,
    /// Longest request.
    pub max_request_bytes: usize,
    /// Longest answer.
    pub max_answer_bytes: usize,
    /// Name in log lines.
    pub logger: String,
    /// Where log lines go; nowhere without it.
    pub log: Option<Log>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            endpoints: vec!["127.0.0.1:2379".into()],
            tls: None,
            credentials: None,
            dial_timeout: Duration::from_secs(2),
            keepalive_time: None,
            keepalive_timeout: Duration::from_secs(20),
            max_request_bytes: 2 << 20,
            max_answer_bytes: i32::MAX as usize,
            logger: "etcd-client".into(),
            log: None,
        }
    }
}

impl fmt::Debug for Config {
    // The password stays out of debug output.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("endpoints", &self.endpoints).field("tls", &self.tls).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Shared {
    config: Config,
    pool: Arc<Pool>,
    token: Mutex<Option<String>>,
    first: String,
}

/// A client of a cluster. Clones share connections and token.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

impl Client {
    /// Makes a client and, with a password, logs in. Connections are opened when a call needs one.
    ///
    /// # Errors
    /// Settings that make no sense, and failed logins. A cluster without auth takes any login.
    pub async fn connect(config: Config) -> Result<Client, Error> {
        let client = Client::new(config)?;
        if matches!(client.shared.config.credentials, Some(Credentials::Password { .. })) {
            let context = Context::timeout(client.shared.config.dial_timeout);
            match client.log_in(context).await {
                Err(error) if !error.is(ErrorCode::AuthNotEnabled) => return Err(error),
                _ => {}
            }
        }
        Ok(client)
    }

    fn new(config: Config) -> Result<Client, Error> {
        let endpoints: Vec<Endpoint> = config.endpoints.iter().map(|given| Endpoint::parse(given)).collect();
        let Some(first) = endpoints.first() else {
            return Err(Error::Config("etcdclient: no available endpoints".into()));
        };
        // As in Go's client the first endpoint decides for all whether there is TLS.
        let tls = match first.scheme() {
            Scheme::Http | Scheme::Unix => None,
            Scheme::None => config.tls.as_ref().map(tls::Settings::client_config).transpose()?,
            Scheme::Https | Scheme::Unixs => Some(config.tls.clone().unwrap_or_default().client_config()?),
        };
        let dial = Dial {
            tls,
            server_name: config.tls.as_ref().and_then(|tls| tls.server_name.clone()),
            keepalive_time: config.keepalive_time,
            keepalive_timeout: config.keepalive_timeout,
        };
        let token = match &config.credentials {
            Some(Credentials::Token(token)) => Some(token.clone()),
            _ => None,
        };
        let first = first.authority();
        let pool = Pool::new(endpoints, dial);
        Ok(Client { shared: Arc::new(Shared { config, pool, token: Mutex::new(token), first }) })
    }

    /// A client of one endpoint with the same settings and token.
    ///
    /// # Errors
    /// Settings that make no sense.
    pub fn only(&self, endpoint: &str) -> Result<Client, Error> {
        let config = Config { endpoints: vec![endpoint.to_owned()], ..self.shared.config.clone() };
        let client = Client::new(config)?;
        client.set_token(self.token());
        Ok(client)
    }

    /// The settings it was made with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// The endpoints as they were given.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.shared.pool.endpoints().iter().map(|endpoint| endpoint.given().to_owned()).collect()
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.shared.pool
    }

    pub(crate) fn token(&self) -> Option<String> {
        self.shared.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_token(&self, token: Option<String>) {
        *self.shared.token.lock().unwrap_or_else(PoisonError::into_inner) = token;
    }

    /// Exchanges name and password for a new token.
    pub(crate) async fn log_in(&self, context: Context) -> Result<(), Error> {
        let Some(Credentials::Password { name, password }) = &self.shared.config.credentials else {
            return Ok(());
        };
        // An old token must not travel with the login.
        self.set_token(None);
        let request = AuthenticateRequest { name: name.clone(), password: password.clone() };
        let answer = Box::pin(self.call(request, context)).await?;
        self.set_token(Some(answer.token));
        Ok(())
    }

    pub(crate) fn can_log_in(&self) -> bool {
        matches!(self.shared.config.credentials, Some(Credentials::Password { .. }))
    }

    /// What log lines call the cluster: unique per client, and its first endpoint.
    pub(crate) fn target(&self) -> String {
        format!("etcd-endpoints://{:p}/{}", Arc::as_ptr(&self.shared), self.shared.first)
    }

    pub(crate) fn log(
        &self,
        level: &'static str,
        line: u32,
        message: &'static str,
        fields: Vec<(&'static str, Field)>,
    ) {
        if let Some(log) = &self.shared.config.log {
            log(&LogLine {
                level,
                logger: self.shared.config.logger.clone(),
                caller: format!("client/call.rs:{line}"),
                message,
                fields,
            });
        }
    }
}
