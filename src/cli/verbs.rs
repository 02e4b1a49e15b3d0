//! `tenure resign`, `drain`, `drained`: what changes something.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::exit::{Exit, Failure};
use super::output::{Format, cell, say};
use super::target::{Daemon, Election};
use crate::config::parse_duration;

/// A hand-over waits for the last promise, which comes on top of the request's own limit.
const HANDOVER: Duration = Duration::from_mins(1);

/// Flags of `resign`.
#[derive(Args, Debug)]
pub struct ResignArgs {
    #[command(flatten)]
    election: Election,
    /// Stay out of the queue for this long
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    cooldown: Duration,
}

/// Flags of `drain`.
#[derive(Args, Debug)]
pub struct DrainArgs {
    #[command(flatten)]
    daemon: Daemon,
}

/// Flags of `drained`.
#[derive(Args, Debug)]
pub struct DrainedArgs {
    #[command(flatten)]
    election: Election,
}

/// Steps down, and prints the new leader's id, if there is one already.
pub async fn resign(args: ResignArgs, format: Format) -> Result<Exit, Failure> {
    let (client, name) = args.election.resolve().await?;
    let body = json!({"cooldown_ms": u64::try_from(args.cooldown.as_millis()).unwrap_or(u64::MAX)});
    let path = format!("/v1/elections/{name}/resign");
    let answer = client.post(&path, &body, client.limit() + HANDOVER).await.map_err(|e| e.failure(true))?;
    let body = answer.accepted()?;
    if body.get("leader").is_some_and(Value::is_object) {
        say(&format!("handed over to {}, token {}", cell(&body, "/leader/id"), cell(&body, "/leader/generation")));
        format.print(&cell(&body, "/leader/id"), &body)?;
    } else {
        say("resigned; nobody else was queued");
        if format != Format::Text {
            format.print("", &body)?;
        }
    }
    Ok(Exit::Done)
}

/// Stops leading everywhere.
pub async fn drain(args: DrainArgs, format: Format) -> Result<Exit, Failure> {
    let client = args.daemon.client()?;
    let answer = client.post("/v1/drain", &json!({}), client.limit()).await.map_err(|e| e.failure(true))?;
    done(&answer.accepted()?, "draining: not leader from now on", format)
}

/// Hands over.
pub async fn drained(args: DrainedArgs, format: Format) -> Result<Exit, Failure> {
    let (client, name) = args.election.resolve().await?;
    let path = format!("/v1/elections/{name}/drained");
    let answer = client.post(&path, &json!({}), client.limit()).await.map_err(|e| e.failure(true))?;
    done(&answer.accepted()?, "handing over", format)
}

fn done(body: &Value, words: &str, format: Format) -> Result<Exit, Failure> {
    say(words);
    if format != Format::Text {
        format.print("", body)?;
    }
    Ok(Exit::Done)
}
