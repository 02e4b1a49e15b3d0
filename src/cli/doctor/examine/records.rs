//! What the elections' records hold: some let nobody be elected, however well etcd does.

use super::super::Findings;
use super::{Level, Remarks};
use crate::config::Config;
use crate::etcd::{Flaw, Kind, Obstacle};

pub(super) fn records(findings: &Findings, config: &Config, remarks: &mut Remarks) {
    for (election, read) in &findings.records {
        match read {
            Ok(obstacles) => obstacles.iter().for_each(|obstacle| say(election, obstacle, config, remarks)),
            // Rights are told of by themselves, and a cluster that is not known as well.
            Err(why) if matches!(why.kind, Kind::Permission | Kind::Auth | Kind::Undecided) => {}
            Err(why) => {
                let text = format!("whether the records of {election} let anybody be elected is unknown: {}", why.text);
                remarks.say(Level::Warn, text);
            }
        }
    }
}

fn say(election: &str, obstacle: &Obstacle, config: &Config, remarks: &mut Remarks) {
    let Obstacle { key, flaw } = obstacle;
    let history = format!("{}/history/{election}/", config.etcd.prefix);
    let (level, text) = match flaw {
        Flaw::NoGeneration(why) => (
            Level::Bad,
            format!(
                "nobody is elected in {election}: {key} holds no generation record ({why}); put back the newest record below {history} (docs/operations.md has the command); a key that is deleted begins at 1 again where no daemon remembers more"
            ),
        ),
        Flaw::Largest => (
            Level::Bad,
            format!(
                "nobody is elected in {election}: {key} holds the largest generation there is; see \"the largest generation\" in docs/operations.md"
            ),
        ),
        Flaw::Term(term) => (
            Level::Warn,
            format!("{key} carries term {term}: a candidate with a lower one (ours is 0) is not elected in {election}"),
        ),
        Flaw::NoControl => (
            Level::Bad,
            format!(
                "nobody new is elected in {election}: {key} holds no control record, which counts as a pause; mend or delete it"
            ),
        ),
        Flaw::Paused => (Level::Warn, format!("nobody new is elected in {election}: it is paused by {key}")),
    };
    remarks.say(level, text);
}
