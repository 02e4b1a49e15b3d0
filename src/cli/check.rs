//! `tenure check`: a probe without a shell or an HTTP client around it.

use clap::{Args, ValueEnum};
use serde_json::json;

use super::exit::{Exit, Failure};
use super::output::Format;
use super::target::Election;

/// What is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Expect {
    /// This daemon leads now
    Leader,
    /// It has been in each queue and does not drain
    Ready,
    /// It has started
    Started,
    /// Its loop turns
    Live,
}

/// Flags of `check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
    #[command(flatten)]
    election: Election,
    /// What is expected
    #[arg(long, value_enum)]
    expect: Expect,
}

/// Exit code 0 where it is so, 4 where it is not, 5 where the daemon does not answer.
pub async fn check(args: CheckArgs, format: Format) -> Result<Exit, Failure> {
    let client = args.election.daemon.client()?;
    let (path, words) = match args.expect {
        Expect::Ready => ("/readyz".to_owned(), "ready"),
        Expect::Started => ("/startupz".to_owned(), "started"),
        Expect::Live => ("/livez".to_owned(), "live"),
        Expect::Leader => {
            let election = args.election.named()?.map(|e| format!("?election={e}")).unwrap_or_default();
            (format!("/leader{election}"), "the leader")
        }
    };
    let answer = client.get(&path, client.limit()).await.map_err(|e| e.failure(false))?;
    let holds = match answer.status.as_u16() {
        200 => true,
        503 => false,
        _ => return Err(answer.refusal()),
    };
    if format != Format::Text {
        format.print("", &json!({"expected": words, "holds": holds}))?;
    }
    if holds { Ok(Exit::Done) } else { Err(Failure::new(Exit::NotSo, format!("not {words}"))) }
}
