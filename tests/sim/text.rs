//! A plan as text: one line a setting, one line a fault. What a failure prints, and what `SIM_PLAN` and `pinned` read.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use super::plan::{Attack, Fault, Kind, LEADER, Net, Plan};

impl Attack {
    const ALL: [Self; 4] = [Self::Quiet, Self::Faults, Self::OutOfBand, Self::Restore];

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Faults => "faults",
            Self::OutOfBand => "out-of-band",
            Self::Restore => "restore",
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Net { slow, slow_ms, lost, late, broken, silent } = self.net;
        writeln!(f, "attack {}", self.attack.word())?;
        writeln!(f, "seed {}\ndaemons {}\nelections {}", self.seed, self.daemons, self.elections)?;
        writeln!(f, "ttl {}\npromise {}\ngrace {}", self.ttl, self.promise, self.grace)?;
        writeln!(f, "by-revision {}\nstorm {}", u8::from(self.by_revision), self.storm)?;
        writeln!(f, "net slow={slow} slow-ms={slow_ms} lost={lost} late={late} broken={broken} silent={silent}")?;
        for (word, rates) in [("rates", &self.rates), ("clients", &self.clients)] {
            let rates: Vec<_> = rates.iter().map(ToString::to_string).collect();
            writeln!(f, "{word} {}", rates.join(" "))?;
        }
        self.faults.iter().try_for_each(|fault| writeln!(f, "{fault}"))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = format!("{} {}", self.at, self.kind.word());
        match self.node {
            LEADER => line += " leader",
            node => write!(line, " n{node}")?,
        }
        for (word, value) in [("e", u32::from(self.election)), ("span", self.span), ("arg", self.arg)] {
            if value > 0 {
                write!(line, " {word}={value}")?;
            }
        }
        f.write_str(&line)
    }
}

impl Plan {
    /// Reads it back. Panics on what it did not write: only people's own edits can be wrong.
    pub(super) fn parse(text: &str) -> Self {
        let mut plan = Self { rates: Vec::new(), clients: Vec::new(), faults: Vec::new(), ..Self::of(0) };
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let number = || rest.parse::<u32>().unwrap_or_else(|_| panic!("no number: {line}"));
            match word {
                "attack" => plan.attack = *find(&Attack::ALL, |a| a.word() == rest, line),
                "seed" => plan.seed = rest.parse().expect("a seed"),
                "daemons" => plan.daemons = number() as usize,
                "elections" => plan.elections = number() as usize,
                "ttl" => plan.ttl = number(),
                "promise" => plan.promise = number(),
                "grace" => plan.grace = number(),
                "by-revision" => plan.by_revision = number() == 1,
                "storm" => plan.storm = number(),
                "rates" => plan.rates = rates(rest),
                "clients" => plan.clients = rates(rest),
                "net" => plan.net = net(rest),
                _ => plan.faults.push(fault(line)),
            }
        }
        // Plans from before clients had clocks of their own.
        plan.clients.resize(plan.daemons, 0);
        plan
    }
}

fn rates(text: &str) -> Vec<i32> {
    text.split(' ').map(|rate| rate.parse().expect("a rate")).collect()
}

fn find<'a, T>(all: &'a [T], fits: impl Fn(&T) -> bool, line: &str) -> &'a T {
    all.iter().find(|one| fits(one)).unwrap_or_else(|| panic!("no such word: {line}"))
}

fn pairs(text: &str) -> BTreeMap<&str, u32> {
    text.split(' ').filter_map(|w| w.split_once('=')).map(|(k, v)| (k, v.parse().expect("a number"))).collect()
}

fn net(text: &str) -> Net {
    let pairs = pairs(text);
    let share = |word| u8::try_from(pairs.get(word).copied().unwrap_or(0)).expect("a share of 256");
    Net {
        slow: share("slow"),
        slow_ms: pairs.get("slow-ms").copied().unwrap_or(0),
        lost: share("lost"),
        late: share("late"),
        broken: share("broken"),
        silent: share("silent"),
    }
}

fn fault(line: &str) -> Fault {
    let mut words = line.split(' ');
    let at = words.next().and_then(|w| w.parse().ok()).unwrap_or_else(|| panic!("no time: {line}"));
    let word = words.next().unwrap_or_default();
    let kind = *find(Kind::ALL, |k| k.word() == word, line);
    let node = match words.next().unwrap_or_default() {
        "leader" => LEADER,
        node => node.trim_start_matches('n').parse().unwrap_or_else(|_| panic!("no daemon: {line}")),
    };
    let pairs = pairs(line);
    let value = |word| pairs.get(word).copied().unwrap_or(0);
    Fault { at, kind, node, election: u8::from(value("e") > 0), span: value("span"), arg: value("arg") }
}
