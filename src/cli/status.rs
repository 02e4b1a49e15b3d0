//! `tenure status`: once, or at every change.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use futures_util::stream::{FuturesUnordered, StreamExt};
use serde_json::{Value, json};

use super::client::Client;
use super::exit::{Exit, Failure};
use super::output::{self, Format, cell, say, table};
use super::target::Election;
use crate::config::duration_text;

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
    let view = View { format, doctor: doctor(args.election.daemon.config.as_deref()) };
    view.show(&documents, named.is_some())?;
    if args.watch { watch(&client, documents, &view).await } else { Ok(Exit::Done) }
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

async fn watch(client: &Client, mut shown: Vec<Value>, view: &View) -> Result<Exit, Failure> {
    let terminal = output::on_terminal() && view.format == Format::Text;
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
                        view.show(&shown, shown.len() == 1)?;
                    } else {
                        view.show(&shown[i..=i], true)?;
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
    let reachable = |d: &Value| d.pointer("/etcd/reachable").cloned();
    keys.iter().any(|key| before.get(key) != after.get(key)) || reachable(before) != reachable(after)
}

/// How documents are shown.
struct View {
    format: Format,
    /// The command that tells more of etcd.
    doctor: String,
}

fn doctor(config: Option<&Path>) -> String {
    config.map_or_else(|| "tenure doctor".to_owned(), |file| format!("tenure doctor -c {}", file.display()))
}

impl View {
    fn show(&self, documents: &[Value], single: bool) -> Result<(), Failure> {
        if self.format != Format::Text {
            let value =
                if single { documents.first().cloned().unwrap_or_default() } else { json!({"elections": documents}) };
            return self.format.print("", &value);
        }
        shown(documents)?;
        // All elections of a daemon share one etcd.
        if let Some(words) = documents.first().and_then(unreachable) {
            output::warn(&format!("{words}; see \"{}\"", self.doctor));
        }
        Ok(())
    }
}

/// That etcd does not answer, since when, and why; `None` while it does.
fn unreachable(d: &Value) -> Option<String> {
    let etcd = d.get("etcd").filter(|etcd| etcd.get("reachable") == Some(&Value::Bool(false)))?;
    let why = match cell(etcd, "/last_error").as_str() {
        "-" => String::new(),
        why => format!(": {why}"),
    };
    Some(format!("etcd: unreachable for {}{why}", silence(etcd)))
}

/// For how long it has been so.
fn silence(etcd: &Value) -> String {
    duration_text(Duration::from_secs(etcd.get("for_ms").and_then(Value::as_u64).unwrap_or(0) / 1_000))
}

fn shown(documents: &[Value]) -> Result<(), Failure> {
    let head = ["ELECTION", "ROLE", "TOKEN", "GUARD", "QUEUE", "LEADER", "LEADER TOKEN", "SINCE", "REASON"];
    let head = head.map(str::to_owned).to_vec();
    let rows = documents.iter().map(row);
    output::line(&table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()))
}

fn row(d: &Value) -> Vec<String> {
    let flag = |key: &str, word: &'static str| if d.get(key) == Some(&Value::Bool(true)) { word } else { "" };
    let leader = match cell(d, "/leader/id").as_str() {
        "-" if d.get("foreign") == Some(&Value::Bool(true)) => "(foreign)".to_owned(),
        id => id.to_owned(),
    };
    let leads = d.get("role").and_then(Value::as_str) == Some("leader");
    // Who else leads is known from etcd alone.
    let leader = match d.get("etcd").filter(|_| unreachable(d).is_some() && leader != "-" && !leads) {
        Some(etcd) => format!("{leader} (as of {} ago)", silence(etcd)),
        None => leader,
    };
    let guard = match d.get("guard_ms").and_then(Value::as_u64) {
        None | Some(0) => "-".to_owned(),
        Some(ms) => format!("{}.{}s", ms / 1_000, ms % 1_000 / 100),
    };
    let role = format!("{}{}", cell(d, "/role"), flag("paused", " (paused)"));
    // The newest generation is the leader's: it is a token of ours only while that is us.
    let token = if leads { cell(d, "/generation") } else { "-".to_owned() };
    vec![
        cell(d, "/election"),
        role,
        token,
        guard,
        cell(d, "/queue_position"),
        leader,
        cell(d, "/leader/generation"),
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
            "leader": {"id": "pod-0", "generation": 42}, "queue_position": 0, "since": "2026-11-20T12:00:00.000Z", "reason": "elected"});
        let since = "2026-11-20T12:00:00.000Z";
        assert_eq!(row(&d), ["orders", "leader", "42", "7.4s", "0", "pod-0", "42", since, "elected"]);
        let d = json!({"election": "x", "role": "candidate", "generation": 0, "leader": null, "foreign": true, "paused": true});
        assert_eq!(row(&d)[..7], ["x", "candidate (paused)", "-", "-", "-", "(foreign)", "-"]);
        let d = json!({"election": "x", "role": "candidate", "generation": 42, "leader": {"id": "pod-0", "generation": 42}});
        assert_eq!(row(&d)[2], "-", "the leader's token is none of ours");
        assert_eq!(row(&d)[5..7], ["pod-0", "42"]);
    }

    #[test]
    fn an_etcd_that_does_not_answer_is_said_with_its_reason_and_makes_the_leader_an_old_one() {
        let etcd = |reachable: bool, error: Value| {
            json!({"reachable": reachable, "since": "2026-11-20T12:00:00.000Z",
            "for_ms": 14_300, "last_error": error})
        };
        let d = |etcd: Value| json!({"role": "candidate", "leader": {"id": "pod-0", "generation": 7}, "etcd": etcd});
        let silent = d(etcd(false, json!("http://a:2379: no answer within 1s")));
        assert_eq!(
            unreachable(&silent).as_deref(),
            Some("etcd: unreachable for 14s: http://a:2379: no answer within 1s")
        );
        assert_eq!(row(&silent)[5], "pod-0 (as of 14s ago)");
        assert_eq!(unreachable(&d(etcd(false, Value::Null))).as_deref(), Some("etcd: unreachable for 14s"));
        let well = d(etcd(true, json!("an old one")));
        assert_eq!((unreachable(&well), row(&well)[5].as_str()), (None, "pod-0"));
        assert!(differs(&silent, &well));
        assert_eq!(doctor(Some(Path::new("t.yaml"))), "tenure doctor -c t.yaml");
    }

    #[test]
    fn a_guard_that_runs_down_is_no_change() {
        let d = |guard: u64, role: &str| json!({"role": role, "guard_ms": guard, "generation": 1});
        assert!(!differs(&d(1, "leader"), &d(2, "leader")));
        assert!(differs(&d(1, "leader"), &d(1, "follower")));
    }
}
