//! What the demo shows: a table redrawn in place on a terminal, a line for each change elsewhere.

use std::fmt::Write as _;

use super::super::exit::Failure;
use super::super::output::{line, on_terminal, raw};
use crate::clock::{self, Instant};

/// One candidate as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    pub name: String,
    /// 0 of one that somebody else started again.
    pub pid: u32,
    /// The newest generation it has seen; its own while it leads.
    pub token: u64,
    pub state: State,
}

/// What it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Has not answered yet.
    Starts,
    Leads,
    Waits {
        role: String,
        queue: String,
    },
    /// Runs, but does not answer.
    Silent,
    Ended {
        how: String,
        /// The command that starts it again.
        again: String,
    },
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scene {
    pub actors: Vec<Actor>,
}

impl Scene {
    /// Who leads. The looks at the candidates are not simultaneous: of two leaders the one with the newer token is.
    pub fn leader(&self) -> Option<&Actor> {
        self.actors.iter().filter(|a| a.state == State::Leads).max_by_key(|a| a.token)
    }
}

/// The screen.
pub struct View {
    terminal: bool,
    began: Instant,
    last: Scene,
    /// Lines of the table on the screen, to go back over.
    drawn: usize,
    vacant_since: Option<Instant>,
}

impl View {
    pub fn new() -> Self {
        let began = clock::now();
        Self { terminal: on_terminal(), began, last: Scene::default(), drawn: 0, vacant_since: Some(began) }
    }

    /// What there is to try; stays above everything else.
    pub fn banner(hints: &[String]) -> Result<(), Failure> {
        let mut text = String::from("\nThree candidates, one leadership. To try from another terminal:\n");
        for hint in hints {
            let _ = writeln!(text, "  {hint}");
        }
        text.push_str("Ctrl-C ends the demo, and cleans up.\n");
        line(&text)
    }

    /// Shows what changed.
    pub fn draw(&mut self, scene: &Scene) -> Result<(), Failure> {
        let changes = self.changes(scene);
        let moved = *scene != self.last;
        self.last = scene.clone();
        for change in &changes {
            self.line(change)?;
        }
        if self.terminal && (moved || !changes.is_empty() || self.drawn == 0) { self.table(scene) } else { Ok(()) }
    }

    /// One line of history.
    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.erase()?;
        let at = clock::now().since(self.began);
        line(&format!("{:>4}.{}s  {text}", at.as_secs(), at.subsec_millis() / 100))
    }

    fn changes(&mut self, scene: &Scene) -> Vec<String> {
        let mut changes = Vec::new();
        for actor in &scene.actors {
            let before = self.last.actors.iter().find(|a| a.name == actor.name).map(|a| &a.state);
            if let State::Ended { how, again } = &actor.state
                && before != Some(&actor.state)
            {
                changes.push(format!("{} (pid {}) has ended: {how}; again with: {again}", actor.name, actor.pid));
            }
        }
        let key = |s: &Scene| s.leader().map(|l| (l.name.clone(), l.token));
        match (key(&self.last), key(scene)) {
            (before, Some((name, token))) if before.as_ref() != Some(&(name.clone(), token)) => {
                let vacant = self.vacant_since.take().map(|since| clock::now().since(since));
                let vacant =
                    vacant.map(|v| format!(" after {}.{}s without a leader", v.as_secs(), v.subsec_millis() / 100));
                let pid = scene.leader().map_or(0, |l| l.pid);
                changes.push(format!("{name} (pid {pid}) leads with token {token}{}", vacant.unwrap_or_default()));
            }
            (Some((name, token)), None) => {
                self.vacant_since = Some(clock::now());
                changes.push(format!("{name} no longer leads (token {token}); nobody does"));
            }
            _ => {}
        }
        changes
    }

    fn table(&mut self, scene: &Scene) -> Result<(), Failure> {
        self.erase()?;
        let rows: Vec<String> = scene.actors.iter().map(row).collect();
        raw(&format!("\n{}\n", rows.join("\n")))?;
        self.drawn = rows.len() + 1;
        Ok(())
    }

    fn erase(&mut self) -> Result<(), Failure> {
        match std::mem::take(&mut self.drawn) {
            0 => Ok(()),
            lines => raw(&format!("\x1b[{lines}A\x1b[J")),
        }
    }
}

/// Short enough for any terminal: a line that wraps could not be gone back over.
fn row(actor: &Actor) -> String {
    let Actor { name, pid, token, state } = actor;
    let what = match state {
        State::Starts => "starting".to_owned(),
        State::Leads => format!("\x1b[1;32mLEADER\x1b[0m     token {token}"),
        State::Waits { role, queue } if queue == "-" => role.clone(),
        State::Waits { role, queue } => format!("{role}  number {queue} in the queue"),
        State::Silent => "does not answer".to_owned(),
        State::Ended { .. } => "ended".to_owned(),
    };
    let pid = if *pid == 0 { "yours".to_owned() } else { format!("pid {pid}") };
    format!("  {name}  {pid:<12} {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor(name: &str, token: u64, state: State) -> Actor {
        Actor { name: name.to_owned(), pid: 7, token, state }
    }

    fn view() -> View {
        let began = clock::now();
        View { terminal: false, began, last: Scene::default(), drawn: 0, vacant_since: Some(began) }
    }

    #[test]
    fn there_is_one_line_for_each_change_and_none_without() {
        let waits = || State::Waits { role: "candidate".to_owned(), queue: "1".to_owned() };
        let mut view = view();
        let mut step = |actors: Vec<Actor>| {
            let scene = Scene { actors };
            let changes = view.changes(&scene);
            view.last = scene;
            changes
        };
        assert!(step(vec![actor("a", 0, State::Starts), actor("b", 0, State::Starts)]).is_empty());
        let changes = step(vec![actor("a", 1, State::Leads), actor("b", 1, waits())]);
        assert!(changes.len() == 1 && changes[0].starts_with("a (pid 7) leads with token 1 after 0."), "{changes:?}");
        assert!(step(vec![actor("a", 1, State::Leads), actor("b", 1, waits())]).is_empty());
        let ended = State::Ended { how: "signal: 9".to_owned(), again: "tenure run".to_owned() };
        let changes = step(vec![actor("a", 0, ended.clone()), actor("b", 1, waits())]);
        assert_eq!(
            changes,
            ["a (pid 7) has ended: signal: 9; again with: tenure run", "a no longer leads (token 1); nobody does"]
        );
        let changes = step(vec![actor("a", 0, ended), actor("b", 2, State::Leads)]);
        assert!(changes.len() == 1 && changes[0].starts_with("b (pid 7) leads with token 2"), "{changes:?}");
    }

    #[test]
    fn a_hand_over_between_two_looks_shows_the_newer_token() {
        let both = Scene { actors: vec![actor("a", 4, State::Leads), actor("b", 5, State::Leads)] };
        assert_eq!(both.leader().map(|l| l.token), Some(5));
    }
}
