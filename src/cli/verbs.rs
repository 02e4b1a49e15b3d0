//! `tenure resign`, `drain`, `undrain`, `drained`: what changes something.

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
    /// Only from the leadership with this token: a late repetition then ends no newer one (exit code 4)
    #[arg(long)]
    token: Option<u64>,
}

/// Flags of `drain`.
#[derive(Args, Debug)]
pub struct DrainArgs {
    #[command(flatten)]
    daemon: Daemon,
    /// Hand over as soon as the last promise has run out, instead of waiting for the application's word
    #[arg(long, conflicts_with = "timeout")]
    hand_over: bool,
    /// Hand over by itself after this long [default: as the daemon's configuration says]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

/// Flags of `undrain`.
#[derive(Args, Debug)]
pub struct UndrainArgs {
    #[command(flatten)]
    daemon: Daemon,
}

/// Flags of `drained`.
#[derive(Args, Debug)]
pub struct DrainedArgs {
    #[command(flatten)]
    election: Election,
    /// Only the leadership with this token: a late repetition then ends no newer one (exit code 4)
    #[arg(long)]
    token: Option<u64>,
}

/// Steps down, and prints the new leader's id, if there is one already.
pub async fn resign(args: ResignArgs, format: Format) -> Result<Exit, Failure> {
    let (client, name) = args.election.resolve().await?;
    let mut body = json!({"cooldown_ms": millis(args.cooldown)});
    if let Some(token) = args.token {
        body["token"] = token.into();
    }
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
    let mut body = json!({});
    if args.hand_over {
        body["hand_over"] = true.into();
    }
    if let Some(timeout) = args.timeout {
        body["timeout_ms"] = millis(timeout).into();
    }
    let answer = client.post("/v1/drain", &body, client.limit()).await.map_err(|e| e.failure(true))?;
    let body = answer.accepted()?;
    done(&body, &held(&body, args.hand_over), format)
}

/// What a drain does, in words.
fn held(body: &Value, hand_over: bool) -> String {
    let names: Vec<_> = body.get("held").and_then(Value::as_array).into_iter().flatten().collect();
    let names: Vec<_> = names.iter().filter_map(|name| name.as_str()).collect();
    let names = names.join(", ");
    match (names.is_empty(), hand_over) {
        (true, _) => {
            "draining: it led nothing, and takes part in no election until `tenure undrain` or a restart".to_owned()
        }
        (false, true) => format!("no longer leading {names}; handing over as soon as the last promise has run out"),
        (false, false) => format!(
            "no longer leading {names}. Nobody leads until you run `tenure drained` or `tenure undrain`, stop this daemon, or {} comes",
            cell(body, "/hands_over_at")
        ),
    }
}

/// Takes part again.
pub async fn undrain(args: UndrainArgs, format: Format) -> Result<Exit, Failure> {
    let client = args.daemon.client()?;
    let answer = client.post("/v1/undrain", &json!({}), client.limit()).await.map_err(|e| e.failure(true))?;
    done(&answer.accepted()?, "taking part again; what the drain still held is handed over first", format)
}

/// Hands over.
pub async fn drained(args: DrainedArgs, format: Format) -> Result<Exit, Failure> {
    let (client, name) = args.election.resolve().await?;
    let path = format!("/v1/elections/{name}/drained");
    let body = args.token.map_or_else(|| json!({}), |token| json!({"token": token}));
    let answer = client.post(&path, &body, client.limit()).await.map_err(|e| e.failure(true))?;
    done(&answer.accepted()?, &format!("handing over {name}"), format)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn done(body: &Value, words: &str, format: Format) -> Result<Exit, Failure> {
    say(words);
    if format != Format::Text {
        format.print("", body)?;
    }
    Ok(Exit::Done)
}
