//! Whether etcd lets this daemon do all that leading needs. Who may queue and never lead would stand in the way of those who may,
//! and a rolling update would go on to the last pod.
//!
//! It is asked at the start, and again, ever less often, until it may. What was once allowed is not asked again: a right that
//! is taken away from a running daemon shows in its log, and must not take all pods out of service at once.

use std::time::Duration;

use tokio::sync::watch;

use crate::clock::{self, Instant};
use crate::election::ids::{ElectionIndex, ElectionName};
use crate::etcd::Etcd;

/// The first pause between two rounds of questions, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// How often what lacks is said again.
const AGAIN: Duration = Duration::from_mins(1);

/// What is known of our rights.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// etcd has not said yet.
    Unknown,
    /// It refuses this.
    Lacks(String),
    /// All that is needed.
    All,
}

/// For readers; cheap to clone.
#[derive(Clone, Debug)]
pub struct Rights(watch::Receiver<State>);

impl Rights {
    /// Nothing is needed, or nothing is to be found out.
    #[must_use]
    pub fn all() -> Self {
        Self(watch::channel(State::All).1)
    }

    /// Asks for these elections, as long as the future is awaited.
    pub fn find_out(etcd: Etcd, elections: Vec<(ElectionIndex, ElectionName)>) -> (Self, impl Future<Output = ()>) {
        let (sender, receiver) = watch::channel(State::Unknown);
        (Self(receiver), ask(etcd, elections, sender))
    }

    /// Why this daemon is not fit to lead, if it is not, or if that is not known yet.
    #[must_use]
    pub fn wanting(&self) -> Option<String> {
        match &*self.0.borrow() {
            State::All => None,
            State::Unknown => Some("etcd has not said yet whether its role allows all that leading needs".to_owned()),
            State::Lacks(what) => Some(format!("etcd's role lacks {what}")),
        }
    }
}

async fn ask(etcd: Etcd, mut elections: Vec<(ElectionIndex, ElectionName)>, state: watch::Sender<State>) {
    let (mut pause, longest) = PAUSES;
    let mut said = None;
    loop {
        let mut lacking = Vec::new();
        let mut wanting = Vec::new();
        for (election, name) in elections {
            match etcd.lacking(election).await {
                Ok(lacks) if lacks.is_empty() => continue,
                Ok(lacks) => lacking.extend(lacks),
                Err(error) => tracing::debug!(%error, election = %name, "rights unknown"),
            }
            wanting.push((election, name));
        }
        elections = wanting;
        let found = match (elections.is_empty(), lacking.is_empty()) {
            (true, _) => State::All,
            (false, true) => State::Unknown,
            (false, false) => State::Lacks(lacking.join(", ")),
        };
        // An etcd that does not answer takes nothing back.
        let new =
            found != State::Unknown && state.send_if_modified(|known| std::mem::replace(known, found.clone()) != found);
        if new {
            pause = PAUSES.0;
        }
        match &found {
            State::Lacks(what) if new || said.is_none_or(|at: Instant| clock::now().since(at) >= AGAIN) => {
                said = Some(clock::now());
                tracing::warn!(
                    "etcd's role lacks {what}: without it this daemon may queue and never lead, so it is not ready"
                );
            }
            State::All => tracing::debug!("etcd's role allows all that leading needs"),
            State::Lacks(_) | State::Unknown => {}
        }
        if elections.is_empty() {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}
