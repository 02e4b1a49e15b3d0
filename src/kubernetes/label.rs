//! By label: the leader's pod says `leader`, every other one `candidate`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use super::server::{Failure, MANAGER, Server, call, generation};
use super::{ELECTION, GENERATION, PREFIX, Turn, View};
use crate::election::ids::Generation;

const LEADER: &str = "leader";
const CANDIDATE: &str = "candidate";
/// Pods with a lower cost are deleted first when a Deployment shrinks: the leader goes last.
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What one pod says of itself.
#[derive(Debug)]
pub(super) struct Label {
    election: String,
    /// `etcd.prefix`, as a label's value.
    prefix: String,
    pod: String,
    /// The key of the label that names the role.
    key: String,
}

/// What a pod is to say.
#[derive(Clone, Copy, Debug)]
struct Mark {
    role: &'static str,
    generation: Generation,
}

impl Label {
    pub(super) fn new(election: &str, prefix: &str, pod: String, key: String) -> Self {
        Self { election: election.to_owned(), prefix: value(prefix), pod, key }
    }

    pub(super) async fn turn(&mut self, server: &mut Server, view: &View) -> Result<Turn, Failure> {
        let pods = server.api::<Pod>().await?;
        let read = call(format!("read pod {}", self.pod), pods.get_metadata_opt(&self.pod)).await?;
        let own = read.ok_or_else(|| {
            Failure::failed("find our own pod", format!("there is no pod {}; see kubernetes.pod", self.pod))
        })?;
        let own = own.metadata;
        let carried = generation(&own, &self.election);
        let led = view.leads();
        let (mut wrote, mut fenced) = (false, None);
        if let Some(ours) = led {
            let rivals = self.rivals(&pods).await?;
            let all = std::iter::once((self.pod.as_str(), carried))
                .chain(rivals.iter().map(|pod| (name(pod), generation(pod, &self.election))));
            let newest = all.max_by_key(|(_, generation)| *generation).filter(|(_, theirs)| *theirs > ours);
            fenced = newest.map(|(pod, theirs)| Failure::fenced(&format!("pod {pod}"), theirs, ours));
            // First the others, then ourselves: for a moment nobody is better than two.
            for rival in rivals.iter().filter(|_| fenced.is_none()) {
                view.still(led)?;
                wrote |= self.mark(server, &pods, rival, Mark { role: CANDIDATE, generation: ours }).await?;
            }
        }
        let mark = match led.filter(|_| fenced.is_none()) {
            Some(generation) => Mark { role: LEADER, generation },
            None => Mark { role: CANDIDATE, generation: carried },
        };
        view.still(led)?;
        wrote |= self.mark(server, &pods, &own, mark).await?;
        fenced.map_or(Ok(Turn { wrote, routed: led }), Err)
    }

    /// The other pods that are labelled leader.
    async fn rivals(&self, pods: &Api<Pod>) -> Result<Vec<ObjectMeta>, Failure> {
        let selector = format!("{ELECTION}={},{}={LEADER}", self.election, self.key);
        let params = ListParams::default().labels(&selector);
        let listed = call("list the pods that are labelled leader".to_owned(), pods.list_metadata(&params)).await?;
        // A pod that does not say where its election is was labelled by hand, or by a daemon that did not say it yet.
        let elsewhere = |pod: &ObjectMeta| {
            pod.labels.as_ref().and_then(|labels| labels.get(PREFIX)).is_some_and(|prefix| *prefix != self.prefix)
        };
        Ok(listed
            .items
            .into_iter()
            .map(|pod| pod.metadata)
            .filter(|pod| name(pod) != self.pod && !elsewhere(pod))
            .collect())
    }

    /// Makes a pod say it, unless it does. Returns whether that took a write.
    async fn mark(&self, server: &Server, pods: &Api<Pod>, pod: &ObjectMeta, mark: Mark) -> Result<bool, Failure> {
        let number = mark.generation.0.to_string();
        let cost = if mark.role == LEADER { "100" } else { "0" };
        let labels =
            [(self.key.as_str(), mark.role), (ELECTION, self.election.as_str()), (PREFIX, self.prefix.as_str())];
        let annotations = [(GENERATION, number.as_str()), (COST, cost)];
        let says = |map: &Option<BTreeMap<String, String>>, (key, value): (&str, &str)| {
            map.as_ref().and_then(|map| map.get(key)).is_some_and(|v| v == value)
        };
        if labels.iter().all(|l| says(&pod.labels, *l)) && annotations.iter().all(|a| says(&pod.annotations, *a)) {
            return Ok(false);
        }
        let patch = json!({"metadata": {
            "resourceVersion": pod.resource_version,
            "labels": BTreeMap::from(labels),
            "annotations": BTreeMap::from(annotations),
        }});
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let doing = format!("label pod {} {}", name(pod), mark.role);
        server.write(doing, pods.patch_metadata(name(pod), &params, &Patch::Merge(patch))).await?;
        Ok(true)
    }
}

fn name(pod: &ObjectMeta) -> &str {
    pod.name.as_deref().unwrap_or_default()
}

/// A prefix such as `/team/a` as what a label may hold, `team-a`: at most 63 characters, letters and digits at both ends.
fn value(prefix: &str) -> String {
    let may = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    let edge = |c: char| !c.is_ascii_alphanumeric();
    let text: String = prefix.trim_matches(edge).chars().take(63).map(may).collect();
    text.trim_end_matches(edge).to_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_prefix_becomes_the_value_of_a_label() {
        let long = format!("/{}/b", "a".repeat(62));
        for (prefix, value) in
            [("/tenure", "tenure"), ("/team/a_b.c/", "team-a_b.c"), ("/-é/x", "x"), ("", ""), (&long, &long[1..63])]
        {
            assert_eq!(super::value(prefix), value);
        }
    }
}
