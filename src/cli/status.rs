//! `tenure status`: once, or at every change.

use std::time::Duration;

use clap::Args;
use futures_util::stream::{FuturesUnordered, StreamExt};
use serde_json::{Value, json};

use super::client::Client;
use super::exit::{Exit, Failure};
use super::output::{self, Format, cell, say, table};
use super::target::Election;

/// How long one poll waits for a change. Short enough that a change between two polls is seen soon.
const POLL: Duration = Duration::from_secs(30);
/// Between tries at a daemon that does not answer.
const AGAIN: Duration = Duration::from_secs(1);

/// Flags of `status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    #[command(flatten)]
    election: Election,
    /// Go on, and show every change
    #[arg(short, long)]
    watch: bool,
}

/// Prints the state of one election, or of all.
pub async fn status(args: StatusArgs, format: Format) -> Result<Exit, Failure> {
    let client = args.election.daemon.client()?;
    let named = args.election.named()?;
    let documents = fetch(&client, named.as_deref()).await?;
    show(&documents, named.is_some(), format)?;
    if args.watch { watch(&client, documents, format).await } else { Ok(Exit::Done) }
}

async fn fetch(client: &Client, named: Option<&str>) -> Result<Vec<Value>, Failure> {
    if let Some(name) = named {
        return Ok(vec![one(client, name).await?]);
    }
    let all = client.get("/v1/elections", client.limit()).await.map_err(|e| e.failure(false))?.accepted()?;
    Ok(all.get("elections").and_then(Value::as_array).cloned().unwrap_or_default())
}

/// The status document of one election.
pub async fn one(client: &Client, election: &str) -> Result<Value, Failure> {
    let path = format!("/v1/elections/{election}");
    client.get(&path, client.limit()).await.map_err(|e| e.failure(false))?.accepted()
}

/// The next document after `known`: at a change, or after `longest` at the latest.
///
/// A poll that ends without a change is followed by a plain question, so that what changed between two polls shows too.
pub async fn next(client: &Client, known: &Value, longest: Duration) -> Result<Value, Failure> {
    let election = cell(known, "/election");
    // A daemon of an earlier version knows none, and heeds the generation.
    let [version, after] = ["version", "generation"].map(|key| known.get(key).and_then(Value::as_u64).unwrap_or(0));
    let path = format!("/v1/elections/{election}?wait={}ms&after={after}&version={version}", longest.as_millis());
    let answer = client.get(&path, longest + client.limit()).await.map_err(|e| e.failure(false))?;
    if answer.status.as_u16() == 304 { one(client, &election).await } else { answer.accepted() }
}

async fn watch(client: &Client, mut shown: Vec<Value>, format: Format) -> Result<Exit, Failure> {
    let terminal = output::on_terminal() && format == Format::Text;
    let mut polls: FuturesUnordered<_> = (0..shown.len()).map(|i| poll(client, i, shown[i].clone())).collect();
    let mut silent = false;
    while let Some((i, polled)) = polls.next().await {
        match polled {
            Ok(document) => {
                silent = false;
                if differs(&shown[i], &document) {
                    shown[i] = document;
                    if terminal {
                        // Redrawn from the top: a table of a few lines needs no more.
                        output::raw("\x1b[H\x1b[2J")?;
                        show(&shown, shown.len() == 1, format)?;
                    } else {
                        show(&shown[i..=i], true, format)?;
                    }
                }
            }
            Err(failure) => {
                if !std::mem::replace(&mut silent, true) {
                    say(&format!("{}; trying again every {}s", failure.message, AGAIN.as_secs()));
                }
                tokio::time::sleep(AGAIN).await;
            }
        }
        polls.push(poll(client, i, shown[i].clone()));
    }
    Ok(Exit::Done)
}

async fn poll(client: &Client, i: usize, known: Value) -> (usize, Result<Value, Failure>) {
    (i, next(client, &known, POLL).await)
}

/// Whether anything changed that a watcher waits for; the guard runs down all the time.
fn differs(before: &Value, after: &Value) -> bool {
    let keys = ["role", "generation", "leader", "reason", "paused", "foreign"];
    keys.iter().any(|key| before.get(key) != after.get(key))
}

fn show(documents: &[Value], single: bool, format: Format) -> Result<(), Failure> {
    if format != Format::Text {
        let value =
            if single { documents.first().cloned().unwrap_or_default() } else { json!({"elections": documents}) };
        return format.print("", &value);
    }
    let head = ["ELECTION", "ROLE", "LEADER", "TOKEN", "GUARD", "QUEUE", "SINCE", "REASON"].map(str::to_owned).to_vec();
    let rows = documents.iter().map(row);
    output::line(&table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()))
}

fn row(d: &Value) -> Vec<String> {
    let flag = |key: &str, word: &'static str| if d.get(key) == Some(&Value::Bool(true)) { word } else { "" };
    let leader = match cell(d, "/leader/id").as_str() {
        "-" if d.get("foreign") == Some(&Value::Bool(true)) => "(foreign)".to_owned(),
        id => id.to_owned(),
    };
    let guard = match d.get("guard_ms").and_then(Value::as_u64) {
        None | Some(0) => "-".to_owned(),
        Some(ms) => format!("{}.{}s", ms / 1_000, ms % 1_000 / 100),
    };
    let role = format!("{}{}", cell(d, "/role"), flag("paused", " (paused)"));
    vec![
        cell(d, "/election"),
        role,
        leader,
        cell(d, "/generation"),
        guard,
        cell(d, "/queue_position"),
        cell(d, "/since"),
        cell(d, "/reason"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_who_leads_with_which_token() {
        let d = json!({"election": "orders", "id": "pod-0", "role": "leader", "generation": 42, "guard_ms": 7421,
            "leader": {"id": "pod-0"}, "queue_position": 0, "since": "2026-11-20T12:00:00.000Z", "reason": "elected"});
        assert_eq!(row(&d), ["orders", "leader", "pod-0", "42", "7.4s", "0", "2026-11-20T12:00:00.000Z", "elected"]);
        let d = json!({"election": "x", "role": "candidate", "generation": 0, "leader": null, "foreign": true, "paused": true});
        assert_eq!(row(&d)[..5], ["x", "candidate (paused)", "(foreign)", "0", "-"]);
    }

    #[test]
    fn a_guard_that_runs_down_is_no_change() {
        let d = |guard: u64, role: &str| json!({"role": role, "guard_ms": guard, "generation": 1});
        assert!(!differs(&d(1, "leader"), &d(2, "leader")));
        assert!(differs(&d(1, "leader"), &d(1, "follower")));
    }
}
