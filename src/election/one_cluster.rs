//! One cluster: whose answers a daemon heeds, decided from the ids that come with them.
//!
//! Every answer of etcd carries the id of its cluster. A list of endpoints that are not one cluster would let two daemons lead
//! at once, each in a store of its own, so one id is *pinned*: by the configuration, by what an earlier run remembered, or by a
//! majority of the listed endpoints. A pin of a majority is the only one there can be, as long as the daemons' lists are alike:
//! members are counted by their ids, and an endpoint that is not known to be a member counts against everyone.
//!
//! Ids are no proof by themselves: servers that were started alike, each by itself, have the same ids of cluster and member. So
//! endpoints that answer as one member count once, however many they are, and the configuration's word is taken only where no two
//! of them do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::ids::{ClusterId, MemberId};
use super::mutant::{self, Mutant};
use crate::clock::Instant;

/// For how many TTLs an endpoint is not heeded that answered as different clusters in turn.
const SHUNNED_TTLS: u32 = 10;

/// Who answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The member.
    pub member: MemberId,
}

/// Whether an answer counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It is the pinned cluster's.
    Ours,
    /// No cluster is pinned yet.
    Undecided,
    /// It is another cluster's.
    Foreign {
        /// The one that is heeded.
        pinned: ClusterId,
    },
    /// It comes from an address that answers as one cluster and as another in turn.
    Mixed,
}

/// One endpoint of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Endpoint {
    /// Host and port, as a member list writes them.
    address: String,
    /// The newest answer, and when it came.
    said: Option<(Identity, Instant)>,
    /// The newest try was not answered.
    silent: bool,
    /// When the cluster in its answers changed last.
    changed: Option<Instant>,
    /// Not heeded before this moment.
    shunned_until: Option<Instant>,
}

/// What is known of the listed endpoints, and which cluster is heeded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OneCluster {
    endpoints: Vec<Endpoint>,
    /// The operator named the cluster: nothing else ever counts.
    configured: Option<ClusterId>,
    pin: Option<ClusterId>,
    /// Whether the pinned cluster has answered in this run.
    met: bool,
    ttl: Duration,
    /// Per cluster, each member's addresses.
    lists: BTreeMap<ClusterId, Vec<(MemberId, Vec<String>)>>,
    /// Since when every endpoint has answered as this one other cluster.
    elsewhere: Option<(ClusterId, Instant)>,
}

impl OneCluster {
    /// `configured` is the operator's word, which replaces the majority; `remembered` is what an earlier run pinned.
    #[must_use]
    pub fn new(
        endpoints: &[String],
        configured: Option<ClusterId>,
        remembered: Option<ClusterId>,
        ttl: Duration,
    ) -> Self {
        let endpoint = |url: &String| Endpoint {
            address: address(url),
            said: None,
            silent: false,
            changed: None,
            shunned_until: None,
        };
        Self {
            endpoints: endpoints.iter().map(endpoint).collect(),
            configured,
            pin: remembered.filter(|_| configured.is_none()),
            met: false,
            ttl,
            lists: BTreeMap::new(),
            elsewhere: None,
        }
    }

    /// The cluster that is heeded.
    #[must_use]
    pub const fn pin(&self) -> Option<ClusterId> {
        self.pin
    }

    /// Takes note of an answer, and judges it.
    pub fn heard(&mut self, now: Instant, endpoint: usize, said: Identity) -> Verdict {
        let (ttl, at) = (self.ttl, &mut self.endpoints[endpoint]);
        if at.said.is_some_and(|(before, _)| before.cluster != said.cluster) {
            if at.changed.is_some_and(|changed| now.since(changed) <= ttl) {
                at.shunned_until = Some(now + ttl * SHUNNED_TTLS);
            }
            at.changed = Some(now);
        }
        (at.said, at.silent) = (Some((said, now)), false);
        if self.pin.is_none() {
            self.pin = self.decided(now);
        }
        self.met |= self.pin == Some(said.cluster);
        self.note_elsewhere(now);
        self.verdict(now, endpoint, said.cluster)
    }

    /// Judges an answer that was taken note of.
    #[must_use]
    pub fn verdict(&self, now: Instant, endpoint: usize, cluster: ClusterId) -> Verdict {
        if mutant::on(Mutant::ForeignClusterHeeded) {
            return Verdict::Ours;
        }
        match self.pin {
            _ if self.shunned(now, endpoint) => Verdict::Mixed,
            None => Verdict::Undecided,
            Some(pinned) if pinned != cluster => Verdict::Foreign { pinned },
            Some(_) => Verdict::Ours,
        }
    }

    /// Whether an endpoint has ever answered.
    #[must_use]
    pub fn has_answered(&self, endpoint: usize) -> bool {
        self.endpoints[endpoint].said.is_some()
    }

    /// Takes note that an endpoint did not answer.
    pub fn silent(&mut self, now: Instant, endpoint: usize) {
        self.endpoints[endpoint].silent = true;
        self.elsewhere = None;
        if self.pin.is_none() {
            self.pin = self.decided(now);
        }
    }

    /// Takes note of a cluster's list of members, each with the URLs for clients.
    pub fn listed(&mut self, now: Instant, cluster: ClusterId, members: &[(MemberId, Vec<String>)]) {
        let member = |(id, urls): &(MemberId, Vec<String>)| (*id, urls.iter().map(|url| address(url)).collect());
        self.lists.insert(cluster, members.iter().map(member).collect());
        if self.pin.is_none() {
            self.pin = self.decided(now);
        }
    }

    /// The endpoints whose list of members might decide, one for each cluster whose list is not known yet: some answered, none
    /// has a majority by answers alone, and others keep silent.
    #[must_use]
    pub fn wants_lists(&self) -> Vec<usize> {
        if self.pin.is_some() || !self.endpoints.iter().any(|e| e.said.is_none() && e.silent) {
            return Vec::new();
        }
        let mut asked: BTreeSet<ClusterId> = self.lists.keys().copied().collect();
        let answered = self.endpoints.iter().enumerate().filter(|(_, e)| !e.silent);
        answered.filter(|(_, e)| e.said.is_some_and(|(id, _)| asked.insert(id.cluster))).map(|(i, _)| i).collect()
    }

    /// Whether the endpoint's newest answer is another cluster's than the pinned one.
    #[must_use]
    pub fn is_foreign(&self, now: Instant, endpoint: usize) -> bool {
        let said = self.endpoints[endpoint].said;
        said.is_some_and(|(id, _)| {
            !matches!(self.verdict(now, endpoint, id.cluster), Verdict::Ours | Verdict::Undecided)
        })
    }

    /// The cluster that the store was moved to: every endpoint answers as this one. At the start at once; later only once that
    /// has held for one TTL, all of them having answered since. Never against the configuration.
    #[must_use]
    pub fn moved(&self, now: Instant) -> Option<ClusterId> {
        let (cluster, since) = self.elsewhere.filter(|_| self.configured.is_none())?;
        let held = |e: &Endpoint| e.said.is_some_and(|(_, at)| at.since(since) >= self.ttl);
        let sound = (0..self.endpoints.len()).all(|endpoint| !self.shunned(now, endpoint));
        (sound && (!self.met || self.endpoints.iter().all(held))).then_some(cluster)
    }

    /// From now on this one is heeded, and no other.
    pub const fn adopt(&mut self, cluster: ClusterId) {
        self.pin = Some(cluster);
        self.met = true;
        self.elsewhere = None;
    }

    /// Who answers where, for people. `urls` are those of the configuration.
    #[must_use]
    pub fn describe(&self, now: Instant, urls: &[&str]) -> String {
        let one = |(i, (endpoint, url)): (usize, (&Endpoint, &&str))| match endpoint.said {
            _ if self.shunned(now, i) => format!("{url} answers as different clusters in turn"),
            Some((id, _)) => {
                match self.endpoints[..i].iter().position(|e| e.said.is_some_and(|(other, _)| other == id)) {
                    Some(first) => {
                        format!("{url} answers as the same member of cluster {} as {}", id.cluster, urls[first])
                    }
                    None => format!("{url} is in cluster {}", id.cluster),
                }
            }
            None if self.lists.values().any(|list| member_at(list, &endpoint.address).is_some()) => {
                format!("{url} does not answer, though a cluster lists it")
            }
            None => format!("{url} does not answer"),
        };
        self.endpoints.iter().zip(urls).enumerate().map(one).collect::<Vec<_>>().join(", ")
    }

    fn shunned(&self, now: Instant, endpoint: usize) -> bool {
        self.endpoints[endpoint].shunned_until.is_some_and(|until| now < until)
    }

    fn note_elsewhere(&mut self, now: Instant) {
        let answers = self.endpoints.iter().map(|e| e.said.filter(|_| !e.silent).map(|(id, _)| id.cluster));
        let clusters: BTreeSet<_> = answers.collect();
        let mut clusters = clusters.into_iter();
        self.elsewhere = match (clusters.next().flatten(), clusters.next()) {
            (Some(one), None) if self.pin.is_some_and(|pin| pin != one) => match self.elsewhere {
                Some((same, since)) if same == one => Some((one, since)),
                _ => Some((one, now)),
            },
            _ => None,
        };
    }

    fn decided(&self, now: Instant) -> Option<ClusterId> {
        self.configured.map_or_else(|| self.majority(now), |named| self.named(now, named))
    }

    /// The cluster to which most of the listed endpoints belong, by distinct members.
    fn majority(&self, now: Instant) -> Option<ClusterId> {
        let members: BTreeSet<Identity> = (0..self.endpoints.len()).filter_map(|i| self.known(now, i)).collect();
        let clusters: BTreeSet<ClusterId> = members.iter().map(|id| id.cluster).collect();
        let votes = |cluster: &ClusterId| members.iter().filter(|id| id.cluster == *cluster).count();
        clusters.into_iter().find(|cluster| votes(cluster) * 2 > self.endpoints.len())
    }

    /// The cluster that the operator named, once each endpoint has answered or keeps silent, and no two answer as one member of it.
    fn named(&self, now: Instant, named: ClusterId) -> Option<ClusterId> {
        let asked = self.endpoints.iter().all(|e| e.said.is_some() || e.silent);
        let of_it = (0..self.endpoints.len()).filter(|i| !self.endpoints[*i].silent && !self.shunned(now, *i));
        let mut members = BTreeSet::new();
        let alone = of_it
            .filter_map(|i| self.endpoints[i].said)
            .filter(|(said, _)| said.cluster == named)
            .all(|(said, _)| members.insert(said.member));
        (asked && alone).then_some(named)
    }

    /// The member at an endpoint: by its answer; by the one list that names its address, where it keeps silent.
    fn known(&self, now: Instant, endpoint: usize) -> Option<Identity> {
        let at = &self.endpoints[endpoint];
        if self.shunned(now, endpoint) {
            return None;
        }
        if let Some((said, _)) = at.said {
            return Some(said);
        }
        let mut claims = self.lists.iter().filter_map(|(cluster, list)| {
            member_at(list, &at.address).map(|member| Identity { cluster: *cluster, member })
        });
        let first = claims.next().filter(|_| at.silent);
        if claims.next().is_some() { None } else { first }
    }
}

fn member_at(list: &[(MemberId, Vec<String>)], address: &str) -> Option<MemberId> {
    list.iter().find(|(_, addresses)| addresses.iter().any(|a| a == address)).map(|(id, _)| *id)
}

/// Host and port of a URL, as they are compared: no scheme, no path, lower case.
fn address(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest).to_ascii_lowercase()
}

#[cfg(test)]
#[path = "one_cluster_tests.rs"]
mod tests;
