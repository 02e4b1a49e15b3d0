//! What a daemon does with a lease: whether it works through each member, and how long it takes.

use std::time::Duration;

use super::super::found::words;
use super::super::{Findings, Member};
use super::{Level, Remarks, listing, millis};
use crate::config::{Config, duration_text};
use crate::etcd::{Kind, Origin, Round, Step};
use crate::timing::{EXPIRY_OVERSHOOT, GraceLost};

/// Writes this much slower than reads, and this slow, are the disk's doing: a read needs none.
const DISK_FACTOR: u32 = 5;
const DISK_SLOW: Duration = Duration::from_millis(100);

/// The rounds, each through one member.
pub(super) fn rounds(findings: &Findings, config: &Config, remarks: &mut Remarks) {
    // Of a proxy that shows by its list nothing more needs to be said.
    let members = findings.members.iter().filter(|m| !super::cluster::proxy(m));
    let played = members.filter_map(|m| m.round.as_ref().map(|round| (m, round)));
    let done = played.clone().filter(|(_, round)| round.failed.is_none()).count();
    let most = done * 2 > findings.members.len();
    let mut whole = Vec::new();
    for (member, round) in played.clone() {
        let proxied = between(member, round, remarks);
        match &round.failed {
            // The proxy's answers are what failed.
            Some(_) if proxied => {}
            Some((step, error)) if most && error.kind() == Kind::Unknown => {
                let text = format!(
                    "{} cannot {} ({}) while the others can: its disk hangs or is very slow, or it is cut off from them",
                    member.endpoint,
                    step.text(),
                    words(error)
                );
                remarks.say(Level::Warn, text);
            }
            Some((step, error)) => {
                let text = format!("{}: cannot {}: {}", member.endpoint, step.text(), words(error));
                remarks.say(Level::Bad, text);
            }
            None => whole.push(member.endpoint.clone()),
        }
    }
    unrelated(findings, remarks);
    let without = played.clone().any(|(_, round)| round.without_keys);
    if !whole.is_empty() && !without {
        let what = "a lease was granted, renewed, confirmed and revoked, a key on it elected and watched";
        remarks.say(Level::Good, format!("{what}, through {}", listing(&whole)));
    }
    if without {
        let below = format!("{}/doctor/", config.etcd.prefix);
        let text = format!(
            "etcd's role may not write below {below}: leases were tried, keys and watches were not; readwrite on the range of {below} lets doctor play a whole round"
        );
        remarks.say(Level::Note, text);
    }
    let granted = played.filter_map(|(_, round)| round.granted).max();
    if let Some(granted) = granted.filter(|granted| *granted != config.timing.ttl()) {
        let worst = granted + EXPIRY_OVERSHOOT + config.timing.vacancy_grace();
        let text = format!(
            "etcd grants a lease of {} where session.ttl asks for {} (the least is 1.5 of its --election-timeout): worst-case fail-over is {} then, not {}",
            duration_text(granted),
            duration_text(config.timing.ttl()),
            duration_text(worst),
            duration_text(config.timing.worst_failover()),
        );
        remarks.say(Level::Warn, text);
        if let Some(GraceLost { what, needed }) = config.timing.grace_lost(granted) {
            let (grace, needed) = (duration_text(config.timing.vacancy_grace()), duration_text(needed));
            let text = format!(
                "session.vacancy_grace of {grace} no longer keeps {what} with a lease of {}: that takes {needed}",
                duration_text(granted)
            );
            remarks.say(Level::Warn, text);
        }
    }
}

/// What stands between us and the member; whether it makes renewals worthless.
fn between(member: &Member, round: &Round, remarks: &mut Remarks) -> bool {
    let endpoint = &member.endpoint;
    if paced(round) {
        let text = format!(
            "{endpoint} answers the first renewal at once and the next one at its own pace, as etcd's grpc-proxy does: such an answer proves nothing, and no leadership would last; name the members themselves"
        );
        remarks.say(Level::Bad, text);
        return true;
    }
    let ids = |origins: &[Origin]| {
        let mut all: Vec<u64> = origins.iter().map(|o| o.member).filter(|id| *id != 0).collect();
        all.sort_unstable();
        all.dedup();
        all
    };
    let hex = |ids: &[u64]| listing(&ids.iter().map(|id| format!("{id:x}")).collect::<Vec<_>>());
    let (one, all) = (ids(&round.origins), ids(&[&round.origins[..], &round.elsewhere].concat()));
    if one.len() > 1 {
        let text = format!(
            "behind {endpoint} a proxy spreads the requests of one connection over members {}: a renewal must be confirmed by the member that answered it; name the members themselves",
            hex(&one)
        );
        remarks.say(Level::Bad, text);
        return true;
    }
    if all.len() > 1 && round.unseen == 0 {
        let text = format!(
            "behind {endpoint} members {} answer, one a connection: a balancer; name each member, so that the next one is asked when one hangs",
            hex(&all)
        );
        remarks.say(Level::Note, text);
    }
    false
}

/// The first answer at once, the next after a third of the TTL or not at all: the proxy's own rhythm (`leaseproxy` in etcd's
/// `server/proxy/grpcproxy/lease.go`).
fn paced(round: &Round) -> bool {
    let Some(granted) = round.granted else { return false };
    let Some(opened) = round.renewals.first().filter(|opened| **opened < granted / 20) else { return false };
    let late = |took: &Duration| *took > granted / 5 && *took > *opened * 10;
    let silent =
        matches!(&round.failed, Some((Step::Renew | Step::RenewAgain, error)) if error.kind() == Kind::Unknown);
    round.renewals[1..].iter().any(late) || silent
}

/// Servers that know nothing of each other.
fn unrelated(findings: &Findings, remarks: &mut Remarks) {
    let serving: Vec<&Member> = findings.members.iter().filter(|m| m.round.is_some()).collect();
    for (nth, member) in serving.iter().enumerate() {
        let Some(round) = &member.round else { continue };
        let mut clusters: Vec<u64> = round.origins.iter().chain(&round.elsewhere).map(|o| o.cluster).collect();
        clusters.retain(|id| *id != 0);
        clusters.sort_unstable();
        clusters.dedup();
        if round.unseen > 0 || clusters.len() > 1 {
            let text = format!(
                "{} is one address of several servers that know nothing of each other (what one was told, {} of {} connections did not know): a single etcd that was scaled is no cluster",
                member.endpoint,
                round.unseen,
                round.elsewhere.len()
            );
            remarks.say(Level::Bad, text);
            continue;
        }
        let next = serving[(nth + 1) % serving.len()];
        let same = |a: &Member, b: &Member| a.identity().map(|o| o.cluster) == b.identity().map(|o| o.cluster);
        // Of different clusters it is known already, and of two the first has said it.
        if round.unseen_by_next && same(member, next) && (serving.len() > 2 || nth == 0) {
            let text = format!(
                "{} and {} are not one cluster, though their ids are equal: what one was told, the other does not know; each was started by itself",
                member.endpoint, next.endpoint
            );
            remarks.say(Level::Bad, text);
        }
    }
}

/// How long reads and writes take, and which of the two is to blame.
pub(super) fn latency(findings: &Findings, config: &Config, remarks: &mut Remarks) {
    let (mut reads, mut writes, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for member in &findings.members {
        for read in &member.reads {
            match read {
                Ok(took) => reads.push((*took, &member.endpoint)),
                Err(why) if why.kind == Kind::Permission => {}
                Err(why) => failed.push(format!("{}: {}", member.endpoint, why.text)),
            }
        }
        writes.extend(member.round.iter().flat_map(|r| &r.writes).map(|took| (*took, &member.endpoint)));
    }
    if let Some(first) = failed.first() {
        let level = if reads.is_empty() { Level::Bad } else { Level::Warn };
        remarks.say(level, format!("{} linearizable reads failed: {first}", failed.len()));
    }
    let limit = config.timing.try_limit();
    let read = judged("linearizable reads take", &mut reads, limit, remarks);
    let mut disk = Vec::new();
    if let (Some(read), Some(write)) = (read, median(&mut writes))
        && write > DISK_SLOW
        && write > read * DISK_FACTOR
    {
        disk.push(format!(
            "writes take {} and reads {}: the disk of etcd is slow, not the way to it (`etcd_disk_wal_fsync_duration_seconds`)",
            millis(write),
            millis(read)
        ));
    }
    judged("writes take", &mut writes, limit.max(DISK_SLOW), remarks);
    for text in disk {
        remarks.say(Level::Warn, text);
    }
}

fn median(took: &mut [(Duration, &String)]) -> Option<Duration> {
    took.sort();
    took.get(took.len() / 2).map(|(took, _)| *took)
}

/// Says it, and returns the median.
fn judged(what: &str, took: &mut [(Duration, &String)], limit: Duration, remarks: &mut Remarks) -> Option<Duration> {
    let median = median(took)?;
    let (longest, at) = took.last()?;
    let level = match () {
        () if median >= limit => Level::Bad,
        () if *longest >= limit => Level::Warn,
        () => Level::Good,
    };
    let advice = match level {
        Level::Good => String::new(),
        _ => format!(" at {at}; a longer session.ttl, a faster disk of etcd, or less load there"),
    };
    let text = format!(
        "{what} {} (median) to {} (longest of {}); one try may take {} with this ttl{advice}",
        millis(median),
        millis(*longest),
        took.len(),
        duration_text(limit),
    );
    remarks.say(level, text);
    Some(median)
}

/// The setting that keeps promises where etcd ends leases early, if it is not set; in the words after a remedy.
pub(super) fn grace(findings: &Findings, config: &Config) -> String {
    let timing = &config.timing;
    let rounds = findings.members.iter().filter_map(|m| m.round.as_ref());
    let granted = rounds.filter_map(|r| r.granted).max().unwrap_or(timing.ttl());
    if timing.grace_keeps_promises(granted) {
        return String::new();
    }
    let (promises, one_leader) = (timing.grace_for_promises(granted), timing.grace_for_one_leader(granted));
    let partly = if promises < one_leader {
        format!(
            "session.vacancy_grace: {} keeps promises while the old leader reaches etcd, and ",
            duration_text(promises)
        )
    } else {
        "session.vacancy_grace: ".to_owned()
    };
    let wholly = if one_leader > timing.grace_most() {
        let ttl = Duration::from_secs(granted.as_secs());
        format!(
            "{} (which takes session.ttl: {}, for it is at most twice that)",
            duration_text(one_leader),
            duration_text(ttl)
        )
    } else {
        duration_text(one_leader)
    };
    format!(
        "; until then {partly}{wholly} keeps them and one leader, whatever it reaches, at that much slower crash fail-over"
    )
}
