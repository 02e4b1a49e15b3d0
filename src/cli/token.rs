//! `tenure token` and `tenure verify`.

use clap::Args;
use serde_json::json;

use super::exit::{Exit, Failure};
use super::output::{Format, cell};
use super::target::Election;

/// Flags of `token`.
#[derive(Args, Debug)]
pub struct TokenArgs {
    #[command(flatten)]
    election: Election,
}

/// Flags of `verify`.
#[derive(Args, Debug)]
pub struct VerifyArgs {
    #[command(flatten)]
    election: Election,
    /// The token
    token: u64,
}

/// Prints the token, a bare number in text; exit code 4 where this daemon does not lead.
pub async fn token(args: TokenArgs, format: Format) -> Result<Exit, Failure> {
    let (client, name) = args.election.resolve().await?;
    let path = format!("/v1/elections/{name}/token");
    let answer = client.get(&path, client.limit()).await.map_err(|e| e.failure(false))?;
    let body = answer.accepted()?;
    format.print(&cell(&body, "/token"), &body)?;
    Ok(Exit::Done)
}

/// Prints the verdict; exit code 4 for a token that is stale or was never issued.
pub async fn verify(args: VerifyArgs, format: Format) -> Result<Exit, Failure> {
    let (client, name) = args.election.resolve().await?;
    let path = format!("/v1/elections/{name}/verify");
    // A question, though it is a POST: nothing is left unknown when it fails.
    let body = json!({"token": args.token});
    let answer = client.post(&path, &body, client.limit()).await.map_err(|e| e.failure(false))?;
    // In other formats the refusal is printed whole, with everything else that the daemon says.
    if answer.status.is_success() || format == Format::Text && answer.body.get("verdict").is_some() {
        format.print(&cell(&answer.body, "/verdict"), &answer.body)?;
    }
    answer.accepted()?;
    Ok(Exit::Done)
}
