//! `tenure demo`: three candidates on a throw-away etcd, and who of them leads with which token.
//!
//! `place` where it all lies · `etcd` the store · `candidates` the daemons · `view` what is shown. Everything started here is
//! tied to this process, and everything written lies in one directory: both go when it ends, however it ends, but that
//! a SIGKILL leaves the directory behind.

mod candidates;
mod etcd;
mod place;
mod view;

use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;

use super::exit::{Exit, Failure};
use super::output::say;
use crate::clock::{self, Instant};
use crate::config::Env;
use candidates::Candidates;
use place::Place;
use view::{Scene, View};

/// Between two looks at the candidates.
const LOOK: Duration = Duration::from_millis(100);
/// From the start of the candidates to the first leader, at most.
const FIRST_LEADER: Duration = Duration::from_secs(30);

/// Flags of `demo`.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// End by itself this long after the first election, with a fail-over half-way [default: at Ctrl-C]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(10..=3600))]
    seconds: Option<u16>,
}

/// Runs the demo. Exit code 1 where nobody came to lead, where a token did not grow, and where its own fail-over failed.
pub async fn demo(args: DemoArgs) -> Result<Exit, Failure> {
    let mut stop = Stop::new().map_err(|e| Failure::failed(format!("signals: {e}")))?;
    let env = Env::of_process();
    let program = etcd::find(&env)?;
    let place = Place::make()?;
    say(&format!("etcd: {}\nfiles: {}", program.display(), place.path().display()));
    let mut store = tokio::select! {
        started = etcd::start(&program, &place) => started?,
        () = stop.wait() => return Ok(Exit::Done),
    };
    let mut candidates = Candidates::start(&place, store.url())?;
    let ended = show(&mut candidates, &args, &mut stop).await;
    // In this order: candidates that stop hand over and revoke their leases, for which they need the store.
    candidates.stop().await;
    store.stop();
    if let Err(failure) = &ended
        && !failure.message.is_empty()
    {
        say(&format!("the end of each log:\n{}", place.tails()));
    }
    ended
}

async fn show(candidates: &mut Candidates, args: &DemoArgs, stop: &mut Stop) -> Result<Exit, Failure> {
    let mut view = View::new();
    tokio::select! {
        () = candidates.ready() => {}
        () = stop.wait() => return Ok(Exit::Done),
    }
    View::banner(&candidates.hints())?;
    let length = args.seconds.map(|s| Duration::from_secs(u64::from(s)));
    let began = clock::now();
    let mut run = Run { length, first: None, killed: None, growth: Growth::default() };
    loop {
        let scene = candidates.look().await;
        run.growth.note(&scene)?;
        view.draw(&scene)?;
        if run.first.is_none() && scene.leader().is_some() {
            run.first = Some(clock::now());
        }
        if run.first.is_none() && clock::now().since(began) > FIRST_LEADER {
            return Err(Failure::failed("nobody came to lead"));
        }
        if run.due_to_kill()
            && let Some(leader) = scene.leader()
        {
            view.line(&format!("the demo kills the leader, {}, now: kill -9 {}", leader.name, leader.pid))?;
            candidates.kill(&leader.name);
            run.killed = Some(leader.token);
        }
        if run.over() {
            return run.verdict();
        }
        tokio::select! {
            () = sleep(LOOK) => {}
            () = stop.wait() => return Ok(Exit::Done),
        }
    }
}

/// One showing.
struct Run {
    length: Option<Duration>,
    /// When the first leader was seen.
    first: Option<Instant>,
    /// The token of the leader that the demo killed.
    killed: Option<u64>,
    growth: Growth,
}

impl Run {
    fn age(&self) -> Option<Duration> {
        self.first.map(|first| clock::now().since(first))
    }

    fn due_to_kill(&self) -> bool {
        let half = self.length.map(|l| l / 2);
        self.killed.is_none() && matches!((self.age(), half), (Some(age), Some(half)) if age >= half)
    }

    fn over(&self) -> bool {
        matches!((self.age(), self.length), (Some(age), Some(length)) if age >= length)
    }

    fn verdict(&self) -> Result<Exit, Failure> {
        match (self.killed, self.growth.newest) {
            (Some(before), newest) if newest > before => Ok(Exit::Done),
            (Some(before), _) => Err(Failure::failed(format!("nobody took over from the leader with token {before}"))),
            (None, _) => Err(Failure::failed("nobody led when the leader was to be killed")),
        }
    }
}

/// The promise that the demo is about, checked at every look.
#[derive(Debug, Default)]
struct Growth {
    newest: u64,
    holder: String,
}

impl Growth {
    fn note(&mut self, scene: &Scene) -> Result<(), Failure> {
        let Some(leader) = scene.leader() else { return Ok(()) };
        let stays = leader.token == self.newest && (leader.name == self.holder || self.holder.is_empty());
        if leader.token < self.newest || (leader.token == self.newest && !stays) {
            let (name, token) = (&leader.name, leader.token);
            return Err(Failure::failed(format!(
                "the token did not grow: {} had {}, {name} has {token}",
                self.holder, self.newest
            )));
        }
        self.newest = leader.token;
        self.holder.clone_from(&leader.name);
        Ok(())
    }
}

/// Ctrl-C, SIGTERM, and a terminal that is closed.
struct Stop([Signal; 3]);

impl Stop {
    fn new() -> std::io::Result<Self> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [a, b, c] = kinds.map(signal);
        Ok(Self([a?, b?, c?]))
    }

    async fn wait(&mut self) {
        let [a, b, c] = &mut self.0;
        tokio::select! {
            _ = a.recv() => {}
            _ = b.recv() => {}
            _ = c.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::view::{Actor, State};
    use super::*;

    fn scene(leader: Option<(&str, u64)>) -> Scene {
        let actor = |(name, token): (&str, u64)| Actor { name: name.to_owned(), pid: 1, token, state: State::Leads };
        Scene { actors: leader.map(actor).into_iter().collect() }
    }

    #[test]
    fn a_token_that_does_not_grow_ends_the_demo_as_failed() {
        let mut growth = Growth::default();
        for (step, good) in [
            (Some(("a", 1)), true),
            (None, true),
            (Some(("a", 1)), true),
            (Some(("b", 3)), true),
            (Some(("c", 3)), false),
            (Some(("a", 2)), false),
        ] {
            assert_eq!(growth.note(&scene(step)).is_ok(), good, "{step:?}");
        }
    }

    #[test]
    fn a_demo_whose_own_fail_over_failed_has_failed() {
        let run = |killed, newest| Run {
            length: Some(Duration::ZERO),
            first: Some(clock::now()),
            killed,
            growth: Growth { newest, holder: String::new() },
        };
        assert!(run(Some(1), 2).verdict().is_ok());
        assert!(run(Some(1), 1).verdict().is_err());
        assert!(run(None, 1).verdict().is_err());
    }
}
