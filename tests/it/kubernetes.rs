//! Routing in Kubernetes follows the leader, and no late write of an old one gets past a newer one.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Daemon, DaemonBuilder, Etcd, KubeApi, NAMESPACE, eventually, fixture, leader_of};

pub const LABEL: &str = "label";
pub const SLICE: &str = "endpoint_slice";

const ROLE: &str = "tenure.dev/role";
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const SERVICE: &str = "orders";
const SLICE_NAME: &str = "orders-tenure";

/// A real etcd, three pods, a Service without a selector, and no more rights than the charts give.
pub struct Shop {
    pub etcd: Etcd,
    pub api: KubeApi,
    route: &'static str,
}

impl Shop {
    pub async fn open(route: &'static str) -> Self {
        let api = KubeApi::start(&format!("rbac-{route}.json")).await;
        for n in 0..3 {
            api.put("pods", &format!("pod-{n}"), json!({"metadata": {"labels": {"app": "orders"}}}));
        }
        let ports = json!([
            {"name": "http", "port": 80, "targetPort": 8080},
            {"name": "feed", "port": 9000, "protocol": "UDP", "appProtocol": "example.org/feed"},
        ]);
        api.put("services", SERVICE, json!({"spec": {"ports": ports}}));
        Self { etcd: Etcd::start().await, api, route }
    }

    /// The candidate in this pod. It learns its pod's name from the host name.
    pub fn candidate(&self, n: usize) -> DaemonBuilder {
        let pod = format!("pod-{n}");
        let builder = Daemon::builder(&pod, &self.etcd).set("kubernetes.route", self.route);
        let builder = match self.route {
            SLICE => builder.set("kubernetes.service", SERVICE).set("kubernetes.address", address(n)),
            _ => builder,
        };
        builder.env("HOSTNAME", &pod).env("KUBECONFIG", self.api.kubeconfig(&pod).display().to_string())
    }

    /// The same, of those whose deaths are waited for again and again.
    pub async fn mortal(&self, n: usize) -> Daemon {
        self.candidate(n).ttl("3s").start().await
    }

    pub async fn candidates(&self) -> Vec<Daemon> {
        vec![self.mortal(0).await, self.mortal(1).await, self.mortal(2).await]
    }

    /// The pods that traffic is routed to, each with the generation.
    pub fn routed(&self) -> Vec<(String, u64)> {
        if self.route == LABEL {
            let leads = |pod: &Value| pod["metadata"]["labels"][ROLE] == "leader";
            return self
                .api
                .all("pods")
                .iter()
                .filter(|pod| leads(pod))
                .map(|pod| (name(pod), generation(pod)))
                .collect();
        }
        let slice = self.slice();
        let endpoints = slice["endpoints"].as_array().into_iter().flatten();
        endpoints.map(|e| (e["targetRef"]["name"].as_str().unwrap_or("?").to_owned(), generation(&slice))).collect()
    }

    /// Waits until traffic is routed there and nowhere else, with all that belongs to it.
    pub async fn routes_to(&self, pod: &str, generation: u64) {
        let what = format!("traffic is routed to {pod} with {generation} by {}", self.route);
        eventually(&what, async || {
            let seen = self.routed();
            let right = seen == [(pod.to_owned(), generation)] && self.tidy(pod);
            if right { Ok(()) } else { Err((seen, self.api.all("pods"), self.slice())) }
        })
        .await;
    }

    /// Waits until the leader has found everything right: from then on it looks only every few seconds.
    pub async fn settles(&self, leader: &str) {
        eventually("the leader has read both objects, and not written", async || self.api.reads(leader) >= 2).await;
    }

    pub fn slice(&self) -> Value {
        self.api.get("endpointslices", SLICE_NAME)
    }

    pub fn edit_slice(&self, patch: Value) {
        self.api.edit("endpointslices", SLICE_NAME, patch);
    }

    /// Whether all that goes with the route is as it should be.
    fn tidy(&self, leader: &str) -> bool {
        if self.route == LABEL {
            return self.api.all("pods").iter().all(|pod| {
                let (labels, annotations) = (&pod["metadata"]["labels"], &pod["metadata"]["annotations"]);
                let (role, cost) = if name(pod) == leader { ("leader", "100") } else { ("candidate", "0") };
                // Pods without a daemon say nothing.
                labels[ROLE].is_null()
                    || (labels[ROLE] == role
                        && labels["tenure.dev/election"] == "orders"
                        && labels["tenure.dev/prefix"] == "tenure"
                        && annotations[COST] == cost)
            });
        }
        let slice = self.slice();
        let service = self.api.get("services", SERVICE);
        let (meta, endpoint) = (&slice["metadata"], &slice["endpoints"][0]);
        let owner =
            json!([{"apiVersion": "v1", "kind": "Service", "name": SERVICE, "uid": service["metadata"]["uid"]}]);
        let ports = json!([
            {"name": "http", "port": 8080, "protocol": "TCP"},
            {"name": "feed", "port": 9000, "protocol": "UDP", "appProtocol": "example.org/feed"},
        ]);
        let n = leader.rsplit('-').next().and_then(|n| n.parse().ok()).expect("a pod's number");
        let pod = json!({"kind": "Pod", "name": leader, "namespace": NAMESPACE});
        meta["labels"]["kubernetes.io/service-name"] == SERVICE
            && meta["labels"]["endpointslice.kubernetes.io/managed-by"] == "tenure.dev"
            && meta["ownerReferences"] == owner
            && slice["addressType"] == "IPv4"
            && slice["ports"] == ports
            && endpoint["addresses"] == json!([address(n)])
            && endpoint["conditions"] == json!({"ready": true, "serving": true, "terminating": false})
            && endpoint["targetRef"] == pod
    }

    /// No write was without a guard, beyond the rights, put a lower generation over a higher one, or emptied a slice of
    /// somebody else's.
    pub fn no_write_was_wrong(&self) {
        let writes = self.api.writes();
        assert!(!writes.is_empty(), "nothing was written");
        for write in writes {
            assert!(write.guarded && matches!(write.code, 200 | 201 | 409), "{write:?}");
            assert!(generation(&write.after) >= generation(&write.before), "a lower generation got past: {write:?}");
            let named = &write.before["endpoints"][0]["targetRef"]["name"];
            let emptied = !named.is_null() && write.after["endpoints"].is_null();
            assert!(!emptied || *named == *write.who, "not its own: {write:?}");
        }
    }
}

fn address(n: usize) -> String {
    format!("10.0.0.{}", 5 + n)
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().expect("every object has a name").to_owned()
}

/// 0 where there is none.
pub fn generation(object: &Value) -> u64 {
    let text = object["metadata"]["annotations"]["tenure.dev/generation"].as_str();
    text.map_or(0, |text| text.parse().expect("a number"))
}

/// Stopped by signal and on the way there: when this returns, no thread of it runs any more.
async fn freeze(daemon: &Daemon) {
    daemon.sigstop();
    let tasks = format!("/proc/{}/task", daemon.pid());
    eventually("every thread has stopped", async || {
        let mut threads = std::fs::read_dir(&tasks).expect("a running process").map(|t| t.expect("a thread").path());
        threads.all(|t| std::fs::read_to_string(t.join("stat")).is_ok_and(|s| s.contains(") T ")))
    })
    .await;
}

#[derive(Clone, Copy, Debug)]
enum End {
    Resigns,
    IsKilled,
    Freezes,
    Terminates,
}

/// Goal: whatever ends a leadership, traffic ends up at the next leader and nowhere else, and the old one's return changes
/// nothing.
async fn follows_through_fail_overs(route: &'static str) {
    let shop = Shop::open(route).await;
    let mut daemons = shop.candidates().await;
    let (mut leader, mut past) = leader_of(&daemons).await;
    shop.routes_to(daemons[leader].id(), past).await;
    for end in [End::Resigns, End::IsKilled, End::Freezes, End::Resigns, End::Terminates, End::Freezes] {
        let old = leader;
        match end {
            End::Resigns => drop(daemons[old].resign().await),
            End::IsKilled => daemons[old].sigkill(),
            End::Freezes => freeze(&daemons[old]).await,
            End::Terminates => {
                daemons[old].sigterm();
                daemons[old].wait_exit().await;
            }
        }
        let what = format!("traffic goes elsewhere after the leader {end:?}");
        let (pod, generation) = eventually(&what, async || match shop.routed().as_slice() {
            [(pod, generation)] if *generation > past => Ok((pod.clone(), *generation)),
            other => Err(other.to_vec()),
        })
        .await;
        leader = daemons.iter().position(|d| d.id() == pod).expect("one of ours");
        assert_eq!(daemons[leader].leads_with().await, Some(generation), "{pod} after {end:?}");
        match end {
            End::Resigns => {}
            End::Freezes => daemons[old].sigcont(),
            End::IsKilled | End::Terminates => daemons[old] = shop.mortal(old).await,
        }
        eventually("it queues again", async || daemons[old].is_queued().await).await;
        shop.routes_to(&pod, generation).await;
        past = generation;
    }
    shop.no_write_was_wrong();
}

#[tokio::test]
async fn the_label_follows_the_leader_through_every_kind_of_fail_over() {
    follows_through_fail_overs(LABEL).await;
}

#[tokio::test]
async fn the_slice_follows_the_leader_through_every_kind_of_fail_over() {
    follows_through_fail_overs(SLICE).await;
}

/// A leader whose write is on its way, provoked by `meddle`, and that is frozen before it arrives; and the next leader.
async fn late_write(shop: &Shop, meddle: impl FnOnce()) -> (Daemon, Daemon, u64) {
    let old = shop.candidate(0).start().await;
    let first = eventually("it leads", async || old.leads_with().await).await;
    shop.routes_to("pod-0", first).await;
    let new = shop.candidate(1).start().await;
    eventually("the next one is queued", async || new.is_queued().await).await;
    shop.api.hold("pod-0");
    meddle();
    eventually("its write is on the way", async || shop.api.parked("pod-0") > 0).await;
    freeze(&old).await;
    let next = eventually("the next one leads", async || new.leads_with().await).await;
    assert!(next > first, "generations grow: {first} then {next}");
    (old, new, next)
}

/// The code of the last write that was on its way.
async fn arrives(shop: &Shop) -> u16 {
    let before = shop.api.writes().len();
    shop.api.release("pod-0");
    let write = eventually("the late write arrives", async || {
        shop.api.writes().into_iter().skip(before).find(|write| write.who == "pod-0")
    })
    .await;
    write.code
}

/// Goal: a write decided before a pause, which arrives after a newer leader wrote, is refused by the API server.
/// Method: somebody meddles with the slice, so that the leader writes; the write is held up at the API server's door, the
/// leader frozen, and the write let in once its successor has written.
#[tokio::test]
async fn a_late_write_of_a_frozen_leader_to_the_slice_is_refused() {
    let shop = Shop::open(SLICE).await;
    let (old, _new, next) = late_write(&shop, || shop.edit_slice(json!({"endpoints": []}))).await;
    shop.routes_to("pod-1", next).await;
    let slice = shop.slice();
    assert_eq!(arrives(&shop).await, 409);
    assert_eq!(shop.slice(), slice, "it changed nothing");
    old.sigcont();
    eventually("it queues again", async || old.is_queued().await).await;
    shop.routes_to("pod-1", next).await;
    shop.no_write_was_wrong();
}

/// The same for a pod that is labelled leader: the winner has written to it.
#[tokio::test]
async fn a_late_write_of_a_frozen_leader_to_its_own_pod_is_refused() {
    let shop = Shop::open(LABEL).await;
    let meddle = || shop.api.edit("pods", "pod-0", json!({"metadata": {"annotations": {COST: "7"}}}));
    let (old, _new, next) = late_write(&shop, meddle).await;
    eventually("the winner has cleared it", async || shop.routed() == [("pod-1".to_owned(), next)]).await;
    assert_eq!(generation(&shop.api.get("pods", "pod-0")), next, "a late write must find a newer generation");
    assert_eq!(arrives(&shop).await, 409);
    old.sigcont();
    eventually("it queues again", async || old.is_queued().await).await;
    shop.routes_to("pod-1", next).await;
    shop.no_write_was_wrong();
}

/// What label mode cannot refuse: the late label of a pod that was not labelled leader, and so in nobody's list.
/// Goal: it does not last, even while the pod stays frozen.
#[tokio::test]
async fn a_label_that_comes_late_is_taken_away_by_the_leader() {
    let shop = Shop::open(LABEL).await;
    let meddle = || shop.api.edit("pods", "pod-0", json!({"metadata": {"labels": {ROLE: "candidate"}}}));
    let (_old, _new, next) = late_write(&shop, meddle).await;
    eventually("the winner is routed to", async || shop.routed() == [("pod-1".to_owned(), next)]).await;
    assert_eq!(arrives(&shop).await, 200, "nothing stands in its way");
    assert_eq!(shop.routed().len(), 2);
    shop.routes_to("pod-1", next).await;
}

#[tokio::test]
async fn what_somebody_else_does_to_the_slice_is_put_right() {
    let shop = Shop::open(SLICE).await;
    let daemon = shop.candidate(0).start().await;
    let generation = eventually("it leads", async || daemon.leads_with().await).await;
    shop.routes_to("pod-0", generation).await;
    let elsewhere = json!([{"addresses": ["10.9.9.9"], "conditions": {"ready": true}}]);
    for patch in [
        json!({"endpoints": elsewhere}),
        json!({"ports": null, "metadata": {"ownerReferences": null}}),
        json!({"metadata": {"annotations": null}}),
    ] {
        shop.settles("pod-0").await;
        shop.edit_slice(patch);
        shop.routes_to("pod-0", generation).await;
    }
    shop.settles("pod-0").await;
    shop.api.delete("endpointslices", SLICE_NAME);
    shop.routes_to("pod-0", generation).await;
    // What is not ours stays.
    shop.edit_slice(json!({"endpoints": [], "metadata": {"labels": {"team": "checkout"}}}));
    shop.routes_to("pod-0", generation).await;
    assert_eq!(shop.slice()["metadata"]["labels"]["team"], "checkout");
}

/// Goal: the slice is, to the letter, the one whose schema the tests of the charts check.
#[tokio::test]
async fn the_slice_is_the_one_of_the_fixture() {
    let shop = Shop::open(SLICE).await;
    let daemon = shop.candidate(0).start().await;
    let generation = eventually("it leads", async || daemon.leads_with().await).await;
    shop.routes_to("pod-0", generation).await;
    let slice = shop.slice();
    let mut fixture = fixture("endpoint_slice.json");
    // What the server makes up.
    for key in ["resourceVersion", "uid"] {
        fixture["metadata"][key] = slice["metadata"][key].clone();
    }
    fixture["metadata"]["ownerReferences"][0]["uid"] = slice["metadata"]["ownerReferences"][0]["uid"].clone();
    assert_eq!(slice, fixture, "{slice:#}");
}

#[tokio::test]
async fn what_somebody_else_does_to_labels_is_put_right() {
    let shop = Shop::open(LABEL).await;
    let daemons = [shop.candidate(0).start().await, shop.candidate(1).start().await];
    let (leader, generation) = leader_of(&daemons).await;
    let (pod, other) = (daemons[leader].id(), daemons[1 - leader].id());
    shop.routes_to(pod, generation).await;
    let role = |role: &str| json!({"metadata": {"labels": {ROLE: role}}});
    shop.settles(pod).await;
    shop.api.edit("pods", pod, role("candidate"));
    shop.routes_to(pod, generation).await;
    shop.api.edit("pods", other, role("leader"));
    shop.routes_to(pod, generation).await;
    // A pod that no daemon looks after: only the leader can.
    shop.settles(pod).await;
    let mut labels = led_by_us();
    labels["tenure.dev/prefix"] = Value::Null;
    shop.api.edit("pods", "pod-2", json!({"metadata": {"labels": labels}}));
    eventually("it is cleared", async || shop.api.get("pods", "pod-2")["metadata"]["labels"][ROLE] == "candidate")
        .await;
    shop.routes_to(pod, generation).await;
}

/// Goal: a generation above ours is not overwritten, until the annotation is taken away as the log says.
async fn gives_way_to_a_higher_generation(shop: &Shop, resource: &'static str, object: &str, before: Value) {
    shop.api.put(resource, object, before);
    let kept = || {
        let object = shop.api.get(resource, object);
        let meta = &object["metadata"];
        json!([meta["annotations"]["tenure.dev/generation"], meta["labels"], object["endpoints"]])
    };
    let before = kept();
    let daemon = shop.candidate(0).start().await;
    let generation = eventually("it leads", async || daemon.leads_with().await).await;
    eventually("it refuses", async || daemon.metric("kubernetes_writes_total", &["refused"]).await >= 2.0).await;
    if object == "pod-0" {
        assert_eq!(shop.api.get(resource, object)["metadata"]["labels"][ROLE], "candidate");
    } else {
        assert_eq!(kept(), before);
    }
    assert_eq!(kept()[0], NEWER);
    assert!(daemon.metric("kubernetes_route_generation", &["orders"]).await < 1.0);
    let command = format!(" {object} tenure.dev/generation-`");
    assert_eq!(daemon.logs().matches(&command).count(), 1, "{}", daemon.logs());
    shop.api.edit(resource, object, json!({"metadata": {"annotations": {"tenure.dev/generation": null}}}));
    shop.routes_to("pod-0", generation).await;
}

const NEWER: &str = "1000";

fn led_by_us() -> Value {
    json!({"tenure.dev/election": "orders", "tenure.dev/prefix": "tenure", ROLE: "leader"})
}

/// Goal: an election of the same name below another prefix, as of a second release in the namespace, is somebody else's.
/// Method: a pod that leads it with a higher generation neither fences ours nor is cleared by us.
#[tokio::test]
async fn an_election_of_the_same_name_below_another_prefix_is_somebody_elses() {
    let shop = Shop::open(LABEL).await;
    let mut labels = led_by_us();
    labels["tenure.dev/prefix"] = json!("other");
    let theirs = json!({"labels": labels, "annotations": {"tenure.dev/generation": NEWER}});
    shop.api.put("pods", "pod-1", json!({"metadata": theirs}));
    let before = shop.api.get("pods", "pod-1");
    let daemon = shop.candidate(0).start().await;
    let generation = eventually("it leads", async || daemon.leads_with().await).await;
    eventually("ours is labelled", async || shop.routed().contains(&("pod-0".to_owned(), generation))).await;
    shop.settles("pod-0").await;
    assert_eq!(shop.api.get("pods", "pod-1"), before);
}

/// Goal: a slice that a killed process left behind is emptied by the next one in its pod, though nobody can be elected.
/// Method: SIGKILL to the leader, an etcd that does not answer, and the pod's daemon starts again.
#[tokio::test]
async fn what_a_killed_leader_left_in_the_slice_is_withdrawn_by_its_successor_in_the_pod() {
    let shop = Shop::open(SLICE).await;
    let daemon = shop.mortal(0).await;
    let generation = eventually("it leads", async || daemon.leads_with().await).await;
    shop.routes_to("pod-0", generation).await;
    daemon.sigkill();
    shop.etcd.pause();
    let _other = shop.mortal(1).await;
    let _again = shop.mortal(0).await;
    eventually("nobody is routed to", async || shop.routed().is_empty()).await;
    assert_eq!(self::generation(&shop.slice()), generation, "the fence stays");
    shop.etcd.resume();
    shop.no_write_was_wrong();
}

#[tokio::test]
async fn a_slice_with_a_higher_generation_is_left_alone() {
    let shop = Shop::open(SLICE).await;
    let (labels, annotations) = (json!({"tenure.dev/election": "orders"}), json!({"tenure.dev/generation": NEWER}));
    let slice = json!({
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.9.9.9"]}],
        "metadata": {"labels": labels, "annotations": annotations},
    });
    gives_way_to_a_higher_generation(&shop, "endpointslices", SLICE_NAME, slice).await;
}

#[tokio::test]
async fn a_pod_labelled_leader_with_a_higher_generation_is_left_alone() {
    let shop = Shop::open(LABEL).await;
    let labels = led_by_us();
    let meta = json!({"labels": labels, "annotations": {"tenure.dev/generation": NEWER}});
    gives_way_to_a_higher_generation(&shop, "pods", "pod-1", json!({"metadata": meta})).await;
}

#[tokio::test]
async fn our_own_pod_with_a_higher_generation_is_not_labelled_leader() {
    let shop = Shop::open(LABEL).await;
    let meta = json!({"labels": {"tenure.dev/election": "orders"}, "annotations": {"tenure.dev/generation": NEWER}});
    gives_way_to_a_higher_generation(&shop, "pods", "pod-0", json!({"metadata": meta})).await;
}

/// Draining keeps the session and gives up the traffic at once.
async fn drain_withdraws(route: &'static str) {
    let shop = Shop::open(route).await;
    let daemon = shop.candidate(0).start().await;
    let generation = eventually("it leads", async || daemon.leads_with().await).await;
    shop.routes_to("pod-0", generation).await;
    let line = format!("\ntenure_kubernetes_route_generation{{election=\"orders\"}} {generation}\n");
    // Counted when the write is answered, which is after it can be seen.
    let counted = async || daemon.get("/metrics").await.is_ok_and(|page| page.text().contains(&line));
    eventually("the metric says so", counted).await;
    let drained = std::time::Instant::now();
    assert_eq!(daemon.post("/v1/drain", &json!({})).await.expect("an answer").status, 202);
    eventually("nobody is routed to", async || shop.routed().is_empty()).await;
    assert!(drained.elapsed() < Duration::from_secs(2), "{:?}", drained.elapsed());
    eventually("the metric says so", async || daemon.metric("kubernetes_route_generation", &["orders"]).await < 1.0)
        .await;
    shop.no_write_was_wrong();
}

#[tokio::test]
async fn draining_takes_the_label_away_at_once() {
    drain_withdraws(LABEL).await;
}

#[tokio::test]
async fn draining_empties_the_slice_at_once() {
    drain_withdraws(SLICE).await;
}
