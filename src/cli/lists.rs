//! `tenure history` and `tenure candidates`.

use clap::Args;
use serde_json::Value;

use super::exit::{Exit, Failure};
use super::output::{Format, cell, table};
use super::target::Election;

/// Flags of `history`.
#[derive(Args, Debug)]
pub struct HistoryArgs {
    #[command(flatten)]
    election: Election,
    /// At most so many records
    #[arg(short = 'n', long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Only records older than this generation
    #[arg(long, value_name = "GENERATION")]
    before: Option<u64>,
}

/// Flags of `candidates`.
#[derive(Args, Debug)]
pub struct CandidatesArgs {
    #[command(flatten)]
    election: Election,
}

type Column = (&'static str, &'static str);

const HISTORY: &[Column] = &[
    ("TOKEN", "/generation"),
    ("HOLDER", "/holder"),
    ("CAUSE", "/cause"),
    ("ELECTED AT", "/elected_at"),
    ("LEADERLESS MS", "/leaderless_ms"),
    ("REVISION", "/revision"),
];
const CANDIDATES: &[Column] = &[
    ("QUEUE", "/position"),
    ("ID", "/id"),
    ("PRIORITY", "/priority"),
    ("URL", "/url"),
    ("LEASE", "/lease"),
    ("FOREIGN", "/foreign"),
];

/// Prints the changes of leadership, newest first.
pub async fn history(args: HistoryArgs, format: Format) -> Result<Exit, Failure> {
    let before = args.before.map(|b| format!("&before={b}")).unwrap_or_default();
    list(&args.election, &format!("history?limit={}{before}", args.limit), "history", HISTORY, format).await
}

/// Prints the queue.
pub async fn candidates(args: CandidatesArgs, format: Format) -> Result<Exit, Failure> {
    list(&args.election, "candidates", "candidates", CANDIDATES, format).await
}

async fn list(of: &Election, path: &str, key: &str, columns: &[Column], format: Format) -> Result<Exit, Failure> {
    let (client, name) = of.resolve().await?;
    let path = format!("/v1/elections/{name}/{path}");
    let body = client.get(&path, client.limit()).await.map_err(|e| e.failure(false))?.accepted()?;
    let items = body.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let head = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
    let rows = items.iter().map(|item| columns.iter().map(|(_, pointer)| cell(item, pointer)).collect());
    format.print(&table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()), &body)?;
    Ok(Exit::Done)
}
