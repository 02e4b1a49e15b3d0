//! `tenure wait`: for scripts that go on only in a role.

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::client::Client;
use super::exit::{Exit, Failure};
use super::output::{Format, cell, say};
use super::status;
use super::target::Election;
use crate::clock;
use crate::config::{duration_text, parse_duration};

/// How long one poll waits. Short, so that a role taken between two polls is seen soon.
const POLL: Duration = Duration::from_secs(5);
/// Between tries at a daemon that does not answer: it may not have started yet.
const AGAIN: Duration = Duration::from_millis(250);

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Until {
    /// This daemon leads
    Leader,
    /// This daemon does not lead, and a leader is known
    Follower,
}

/// Flags of `wait`.
#[derive(Args, Debug)]
pub struct WaitArgs {
    #[command(flatten)]
    election: Election,
    /// What to wait for
    #[arg(long, value_enum)]
    until: Until,
    /// Give up after this long, with exit code 4 (5 if the daemon never answered) [default: never]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

impl Until {
    fn holds(self, document: &Value) -> bool {
        let leads = document.get("role").and_then(Value::as_str) == Some("leader");
        match self {
            Self::Leader => leads,
            Self::Follower => !leads && document.get("leader").is_some_and(Value::is_object),
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Leader => "to lead",
            Self::Follower => "to follow a leader",
        }
    }
}

/// Waits, and prints the document that ended it.
pub async fn wait(args: WaitArgs, format: Format) -> Result<Exit, Failure> {
    let deadline = args.timeout.map(|t| clock::now() + t);
    let mut last = Last::Nothing;
    loop {
        let left = deadline.map_or(POLL, |d| d.since(clock::now()));
        let round = tokio::time::timeout(left.max(Duration::from_millis(1)), look(&args, &mut last)).await;
        match round {
            Ok(Ok(document)) if args.until.holds(&document) => {
                let number = if args.until == Until::Leader { "/token" } else { "/leader/generation" };
                format.print(&cell(&document, number), &document)?;
                return Ok(Exit::Done);
            }
            Ok(Ok(document)) => {
                if !matches!(last, Last::Document(_)) {
                    announce(&args, &document);
                }
                last = Last::Document(document);
            }
            Ok(Err(failure)) if failure.exit == Exit::Unavailable => {
                if !matches!(last, Last::Silence) && io::stderr().is_terminal() {
                    say(&format!("waiting for the daemon: {}", failure.message));
                }
                last = Last::Silence;
                tokio::time::sleep(AGAIN).await;
            }
            Ok(Err(failure)) => return Err(failure),
            Err(_) => {}
        }
        if deadline.is_some_and(|d| clock::now() >= d) {
            let limit = duration_text(args.timeout.unwrap_or_default());
            return match last {
                Last::Document(_) => Err(Failure::new(Exit::NotSo, format!("not so within {limit}"))),
                Last::Nothing | Last::Silence => {
                    Err(Failure::new(Exit::Unavailable, format!("no answer within {limit}")))
                }
            };
        }
    }
}

enum Last {
    Nothing,
    Silence,
    Document(Value),
}

/// The first look is immediate; each later one waits for a change.
async fn look(args: &WaitArgs, last: &mut Last) -> Result<Value, Failure> {
    if let Last::Document(known) = last {
        let client: Client = args.election.daemon.client()?;
        return status::next(&client, known, POLL).await;
    }
    let (client, name) = args.election.resolve().await?;
    status::one(&client, &name).await
}

fn announce(args: &WaitArgs, document: &Value) {
    if io::stderr().is_terminal() {
        let [election, id, leader] = ["/election", "/id", "/leader/id"].map(|p| cell(document, p));
        say(&format!("waiting for {id} {} in {election}; leader now: {leader}", args.until.words()));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_follower_is_one_that_knows_a_leader() {
        let d = |role: &str, leader: Value| json!({"role": role, "leader": leader});
        assert!(Until::Leader.holds(&d("leader", json!({"id": "a"}))));
        assert!(Until::Follower.holds(&d("candidate", json!({"id": "a"}))));
        assert!(!Until::Follower.holds(&d("candidate", Value::Null)));
        assert!(!Until::Follower.holds(&d("leader", json!({"id": "a"}))));
    }
}
