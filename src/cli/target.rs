//! The flags that say which daemon, and which of its elections, a command is about.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::client::{Client, Target};
use super::exit::{Exit, Failure};
use super::tls::TlsFiles;
use crate::config::{self, Config, Env, Listen, Overrides, parse_duration};
use crate::election::ids::ElectionName;

const DEFAULT: &str = "unix:/run/tenure/control.sock";

/// Which daemon.
#[derive(Args, Clone, Debug)]
pub struct Daemon {
    /// The daemon's control listener.
    #[arg(long, value_name = "ADDRESS", value_parser = Target::parse)]
    #[arg(
        help = "The daemon's control listener: unix:/path, http://host:port or https://host:port [default: $TENURE_CONTROL, that of the configuration file, unix:/run/tenure/control.sock]"
    )]
    pub control: Option<Target>,
    /// Where to look for both.
    #[arg(short, long, value_name = "FILE")]
    #[arg(
        help = "Take the control listener and the admin token's file from this configuration [default: $TENURE_CONFIG]"
    )]
    pub config: Option<PathBuf>,
    /// Holds the bearer token for verbs over TCP
    #[arg(long, value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// For https.
    #[command(flatten)]
    pub tls: TlsFiles,
    /// Limit for each request
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub request_timeout: Duration,
}

/// Which daemon and which election.
#[derive(Args, Clone, Debug)]
pub struct Election {
    /// Which daemon.
    #[command(flatten)]
    pub daemon: Daemon,
    /// The election.
    #[arg(short, long, value_name = "NAME", value_parser = election_name)]
    #[arg(help = "The election [default: $TENURE_ELECTION, the first one of the daemon]")]
    pub election: Option<ElectionName>,
}

fn election_name(text: &str) -> Result<ElectionName, String> {
    ElectionName::parse(text)
        .ok_or_else(|| "accepted: up to 128 of A-Z a-z 0-9 . _ -, a letter or digit first".to_owned())
}

impl Daemon {
    /// The client these flags describe.
    ///
    /// # Errors
    /// A configuration that is wrong, a token that cannot be read.
    pub fn client(&self) -> Result<Client, Failure> {
        let env = Env::of_process();
        let given = match (&self.control, env.filled("TENURE_CONTROL")) {
            (Some(target), _) => Some(target.clone()),
            (None, Some(text)) => {
                Some(Target::parse(text).map_err(|e| Failure::new(Exit::Usage, format!("TENURE_CONTROL: {e}")))?)
            }
            (None, None) => None,
        };
        let file = config_file(self.config.as_deref(), &env);
        // Where everything is said already, no file has to be right.
        let config = match file {
            Some(file) if given.is_none() || self.config.is_some() => Some(load(&file, env)?),
            _ => None,
        };
        let target = match (given, &config) {
            (Some(target), _) => target,
            (None, Some(config)) => of_config(config)?,
            (None, None) => Target::parse(DEFAULT).map_err(Failure::failed)?,
        };
        let token_file = self.admin_token_file.clone().or_else(|| config.and_then(|c| c.http.admin_token_file));
        let token = token_file.as_deref().map(token).transpose()?;
        Client::with(target, &self.tls, token.as_deref(), self.request_timeout)
    }
}

/// The configuration file: the flag's, or the environment's.
#[must_use]
pub fn config_file(flag: Option<&Path>, env: &Env) -> Option<PathBuf> {
    flag.map(Path::to_owned).or_else(|| env.filled("TENURE_CONFIG").map(PathBuf::from))
}

fn load(file: &Path, env: Env) -> Result<Config, Failure> {
    let overrides = Overrides { env, ..Overrides::default() };
    let loaded = config::load(Some(file), &overrides);
    loaded.map(|(config, _)| config).map_err(|report| Failure::new(Exit::Config, report.to_string()))
}

/// The control listener of a configuration: a socket before an address, since it needs no token and no certificate.
fn of_config(config: &Config) -> Result<Target, Failure> {
    let socket = config.http.control.iter().find_map(|l| match l {
        Listen::Unix(path) => Some(Target::Unix(path.clone())),
        Listen::Tcp(_) => None,
    });
    let tcp = config.http.control.iter().find_map(|l| match l {
        Listen::Tcp(address) => Some(*address),
        Listen::Unix(_) => None,
    });
    match (socket, tcp) {
        (Some(socket), _) => Ok(socket),
        (None, Some(address)) if address.port() == 0 => Err(Failure::new(
            Exit::Config,
            "the control listener has port 0, a free one; accepted: --control with the port it got",
        )),
        (None, Some(mut address)) => {
            // Listening everywhere is listening here.
            if address.ip().is_unspecified() {
                let here = if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
                address.set_ip(here);
            }
            let secure = config.http.tls.is_some();
            Ok(if secure { Target::Tls(address.to_string()) } else { Target::Tcp(address.to_string()) })
        }
        (None, None) => Err(Failure::new(Exit::Config, "the configuration has no control listener")),
    }
}

fn token(file: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| Failure::failed(format!("the admin token's file cannot be read: {e}")))?;
    Ok(text.trim().to_owned())
}

impl Election {
    /// The client, and the election's name, of which the daemon is asked where nobody said it.
    ///
    /// # Errors
    /// As [`Daemon::client`], and what the daemon answers.
    pub async fn resolve(&self) -> Result<(Client, String), Failure> {
        let client = self.daemon.client()?;
        if let Some(name) = self.named()? {
            return Ok((client, name));
        }
        let all = client.get("/v1/elections", client.limit()).await.map_err(|e| e.failure(false))?.accepted()?;
        let first = all.pointer("/elections/0/election").and_then(Value::as_str);
        let first = first.ok_or_else(|| Failure::failed("the daemon names no election"))?.to_owned();
        Ok((client, first))
    }

    /// The election's name, if a flag or the environment says one.
    ///
    /// # Errors
    /// A variable that holds no name.
    pub fn named(&self) -> Result<Option<String>, Failure> {
        if let Some(name) = &self.election {
            return Ok(Some(name.to_string()));
        }
        let env = Env::of_process();
        let Some(text) = env.filled("TENURE_ELECTION") else { return Ok(None) };
        election_name(text)
            .map(|n| Some(n.to_string()))
            .map_err(|e| Failure::new(Exit::Usage, format!("TENURE_ELECTION: {e}")))
    }
}
