//! The endpoints together: one cluster, with a quorum, of versions that are fit.

use std::collections::BTreeMap;

use super::super::version::Version;
use super::super::{Findings, Member};
use super::{Level, Remarks, listing};
use crate::clock;
use crate::config::Config;
use crate::election::ids::{ClusterId, MemberId};
use crate::election::one_cluster::{Identity, OneCluster};
use crate::etcd::{Kind, ListedMember, Origin};

/// Is enough of etcd there?
pub(super) fn quorum(findings: &Findings, config: &Config, remarks: &mut Remarks) {
    let members = &findings.members;
    let refused = members.iter().any(|m| m.read.as_ref().is_err_and(|f| f.kind == Kind::Auth));
    if members.len() == 1 {
        let text = "one endpoint only: name every member, so that the loss of one costs nothing";
        remarks.say(Level::Note, text);
    }
    let serving = members.iter().filter(|m| m.serves()).count();
    if members.len() > 1 && serving == 0 && !refused {
        remarks.say(Level::Bad, "no member serves requests: etcd has no quorum, or is out of reach");
    } else if serving > 0
        && let Some(who) = unpinned(findings, config)
    {
        remarks.say(Level::Bad, format!("a daemon would campaign nowhere: {who}"));
    } else if members.len() > 1 && serving * 2 <= members.len() && !refused {
        let text =
            format!("{serving} of {} endpoints serve requests: one more that fails may stop everything", members.len());
        remarks.say(Level::Bad, text);
    }
}

/// Why a daemon that remembers no cluster would heed nobody, if so: judged by the daemon's own rule.
fn unpinned(findings: &Findings, config: &Config) -> Option<String> {
    let members = &findings.members;
    let urls: Vec<&str> = members.iter().map(|m| m.endpoint.as_str()).collect();
    let endpoints: Vec<String> = members.iter().map(|m| m.endpoint.clone()).collect();
    let mut one = OneCluster::new(&endpoints, config.etcd.cluster_id, None, config.timing.ttl());
    let now = clock::now();
    for (index, member) in members.iter().enumerate() {
        match member.identity() {
            Some(origin) => {
                let said = Identity { cluster: ClusterId(origin.cluster), member: MemberId(origin.member) };
                one.heard(now, index, said);
            }
            None => one.silent(now, index),
        }
    }
    for (origin, list) in members.iter().filter_map(|m| m.listed.as_ref().ok()).filter(|(o, _)| o.cluster != 0) {
        let list: Vec<_> = list.iter().map(|m| (MemberId(m.id), m.client_urls.clone())).collect();
        one.listed(now, ClusterId(origin.cluster), &list);
    }
    let found = one.describe(now, &urls);
    match one.pin() {
        None => Some(format!(
            "no majority of etcd.endpoints belongs to one cluster, where each member counts once: {found}; list the members of one cluster, each once, or name it in etcd.cluster_id"
        )),
        Some(pin) if members.iter().filter_map(Member::identity).all(|origin| origin.cluster != pin.0) => {
            Some(format!("no endpoint belongs to cluster {pin}, which etcd.cluster_id names: {found}"))
        }
        Some(_) => None,
    }
}

/// Who belongs where, by the ids in their answers.
pub(super) fn identities(findings: &Findings, remarks: &mut Remarks) {
    let mut clusters: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for member in &findings.members {
        if let Some(origin) = member.identity() {
            clusters.entry(origin.cluster).or_default().push(member.endpoint.clone());
        }
    }
    if clusters.len() > 1 {
        let each: Vec<String> = clusters.iter().map(|(id, who)| format!("{id:x}: {}", listing(who))).collect();
        let text = format!(
            "the endpoints belong to {} clusters ({}): name the members of one, or daemons could not agree on who leads",
            clusters.len(),
            each.join("; ")
        );
        remarks.say(Level::Bad, text);
    }
}

/// One member under several endpoints.
pub(super) fn twice(findings: &Findings, remarks: &mut Remarks) {
    // Servers that were started alike, each by itself, have equal ids as well: those were told of.
    if findings.members.iter().filter_map(|m| m.round.as_ref()).any(|round| round.unseen_by_next || round.unseen > 0) {
        return;
    }
    let mut members: BTreeMap<(u64, u64), Vec<String>> = BTreeMap::new();
    for member in &findings.members {
        if let Some(origin) = member.identity() {
            members.entry((origin.cluster, origin.member)).or_default().push(member.endpoint.clone());
        }
    }
    for who in members.values().filter(|who| who.len() > 1) {
        let text = "are the same member: list each member once, since it counts once, among all that are listed";
        remarks.say(Level::Warn, format!("{} {text}", listing(who)));
    }
}

/// Whether it makes its list up, as etcd's grpc-proxy does (`clusterProxy` in `server/proxy/grpcproxy/cluster.go`).
pub(super) fn proxy(member: &Member) -> bool {
    let made_up = |(origin, list): &(Origin, Vec<ListedMember>)| origin.cluster == 0 || list.iter().any(|m| m.id == 0);
    member.listed.as_ref().is_ok_and(made_up)
}

/// The endpoints against what etcd lists.
pub(super) fn listed(findings: &Findings, remarks: &mut Remarks) {
    let one = findings.members.iter().filter_map(Member::identity).all({
        let mut first = None;
        move |origin| *first.get_or_insert(origin.cluster) == origin.cluster
    });
    for member in &findings.members {
        if proxy(member) {
            let text = format!(
                "{} is etcd's grpc-proxy, which renews leases by itself: no renewal through it proves anything; name the members themselves",
                member.endpoint
            );
            remarks.say(Level::Bad, text);
            return;
        }
    }
    let lists = findings.members.iter().filter_map(|m| m.listed.as_ref().ok());
    if let Some((_, list)) = lists.max_by_key(|(origin, _)| origin.revision)
        && one
    {
        let known: Vec<u64> = findings.members.iter().filter_map(Member::identity).map(|o| o.member).collect();
        let silent: Vec<&str> =
            findings.members.iter().filter(|m| m.identity().is_none()).map(|m| m.endpoint.as_str()).collect();
        let absent = list.iter().filter(|m| !known.contains(&m.id));
        // One that keeps silent may stand under an endpoint by its URL.
        let absent: Vec<String> = absent
            .filter(|m| !m.client_urls.iter().any(|url| silent.contains(&url.trim_end_matches('/'))))
            .map(|m| format!("{} ({})", m.name, m.client_urls.join(", ")))
            .collect();
        if !absent.is_empty() && absent.len() > silent.len() {
            let text = format!("etcd has {} members; not among the endpoints: {}", list.len(), listing(&absent));
            remarks.say(Level::Note, text);
        }
    }
    refusals(findings, remarks);
}

/// What some patch levels tell to root alone.
fn refusals(findings: &Findings, remarks: &mut Remarks) {
    let refused = |failed: &super::super::Failed| matches!(failed.kind, Kind::Permission | Kind::Auth);
    for member in findings.members.iter().filter(|m| m.serves()) {
        let mut what = Vec::new();
        if member.status.as_ref().is_err_and(refused) {
            what.push("its status".to_owned());
        }
        if member.listed.as_ref().is_err_and(refused) {
            what.push("its list of members".to_owned());
        }
        if !what.is_empty() {
            let text = "to root alone, as some patch levels do; its version is from plain HTTP, and learners and alarms do not show";
            remarks.say(Level::Note, format!("{} tells {} {text}", member.endpoint, listing(&what)));
        }
    }
}

/// Known faults of the versions that run.
pub(super) fn versions(findings: &Findings, config: &Config, remarks: &mut Remarks) {
    let mut known: Vec<Version> = Vec::new();
    for member in findings.members.iter().filter(|m| m.answers()) {
        match member.version().map(Version::parse) {
            Some(Some(version)) if !known.contains(&version) => known.push(version),
            Some(Some(_)) => {}
            Some(None) | None => remarks.say(Level::Note, format!("{} does not tell its version", member.endpoint)),
        }
    }
    if known.len() > 1 {
        let all: Vec<String> = known.iter().map(ToString::to_string).collect();
        let text = format!("members of different versions ({}): as in an upgrade, not for good", all.join(", "));
        remarks.say(Level::Note, text);
    }
    for version in known {
        judge(version, findings, config, remarks);
    }
}

fn judge(version: Version, findings: &Findings, config: &Config, remarks: &mut Remarks) {
    if version.is_ancient() {
        let text = format!("etcd {version} is older than 3.4, which is the oldest that works");
        remarks.say(Level::Bad, text);
        return;
    }
    for fault in version.faults(config.etcd.username.is_some()) {
        let grace = if fault.ends_leases { super::lease::grace(findings, config) } else { String::new() };
        let text = format!("etcd {version} {}: upgrade to {} or later{grace}", fault.what, fault.fixed_in());
        remarks.say(Level::Warn, text);
    }
    match version.better() {
        Some(better) => remarks.say(Level::Note, format!("etcd {version}: {better} or later is recommended")),
        None => remarks.say(Level::Good, format!("etcd {version} is recent")),
    }
}
