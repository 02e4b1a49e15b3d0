//! Answers that are lost, and silences: what nobody was told is found out by reading.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Daemon, Etcd, Link, eventually, eventually_within, leader_above, leader_of};

/// How a lost answer's silence ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    /// The answer comes after all.
    Late,
    /// The connection breaks at once: nobody ever hears that answer.
    Reset,
    /// It breaks after the request has run out of time.
    ResetLater,
}

impl Ending {
    /// `given_up`: the request has run out of time.
    async fn of(self, link: &Link, given_up: impl AsyncFnMut() -> bool) {
        if self == Self::ResetLater {
            eventually("the request runs out of time", given_up).await;
        }
        if self != Self::Late {
            link.reset();
        }
        link.heal();
    }
}

/// What one test stands on: `direct` talks to etcd, `linked` through the link.
struct Scene {
    etcd: Etcd,
    link: Link,
    daemons: Vec<Daemon>,
}

const DIRECT: usize = 0;
const LINKED: usize = 1;
const LAST: usize = 2;

impl Scene {
    /// `direct` leads with 1; `linked` and `last` are queued behind it, in this order.
    async fn three() -> Self {
        let etcd = Etcd::start().await;
        let link = Link::to(&etcd).await;
        let mut daemons = vec![Daemon::builder("direct", &etcd).ttl("10s").start().await];
        leader_of(&daemons).await;
        daemons.push(Daemon::builder("linked", &link).ttl("10s").start().await);
        eventually("linked is queued", async || daemons[LINKED].is_queued().await).await;
        daemons.push(Daemon::builder("last", &etcd).ttl("10s").start().await);
        eventually("last is queued", async || daemons[LAST].is_queued().await).await;
        Self { etcd, link, daemons }
    }

    /// Ends the leadership of `direct`, which queues again behind the others.
    async fn depose_direct(&self) {
        let status = self.daemons[DIRECT].status().await.expect("a status");
        let lease = status["session"]["lease"].as_str().expect("a lease").to_owned();
        self.etcd.ctl(&["del", &format!("/tenure/elections/orders/{lease}")]).await;
    }

    /// The held request took effect: etcd holds this generation.
    async fn committed(&self, generation: u64) {
        eventually("the answer is held", async || self.link.has_dropped()).await;
        eventually("the request took effect", async || self.etcd.generation().await == generation).await;
    }

    /// All three stand in the queue once, and every generation so far has one record.
    async fn nothing_is_left_over(&self, generation: u64) {
        eventually("each stands in the queue once", async || {
            let queue = self.daemons[DIRECT].candidates().await;
            let mut ids: Vec<_> = queue.iter().map(|c| c["id"].as_str().unwrap_or("?").to_owned()).collect();
            ids.sort_unstable();
            if ids == ["direct", "last", "linked"] { Ok(()) } else { Err(queue) }
        })
        .await;
        assert_eq!(self.etcd.generation().await, generation);
        assert_eq!(self.etcd.history().await, (1..=generation).collect::<Vec<_>>());
        let records = self.daemons[DIRECT].history().await;
        assert_eq!(records.len() as u64, generation, "{records:?}");
    }
}

/// Goal: an elect transaction whose answer is lost makes one leader, one token and one record.
/// Method: the link holds all answers from that very request on.
async fn the_answer_to_elect_is_lost(ending: Ending) {
    let scene = Scene::three().await;
    scene.link.drop_answers_from("/tenure/history/orders/");
    scene.depose_direct().await;
    scene.committed(2).await;
    let linked = &scene.daemons[LINKED];
    assert_eq!(linked.leads_with().await, None, "it has not been told");
    ending.of(&scene.link, async || linked.logs().contains("it is unknown whether the election committed")).await;
    let (leader, generation) = leader_above(&scene.daemons, 1).await;
    assert_eq!((leader, generation), (LINKED, 2));
    scene.nothing_is_left_over(2).await;
    linked.resign().await;
    assert_eq!(leader_above(&scene.daemons, 2).await, (LAST, 3));
    scene.nothing_is_left_over(3).await;
}

#[tokio::test]
async fn a_late_answer_to_elect_makes_one_leader_and_one_token() {
    the_answer_to_elect_is_lost(Ending::Late).await;
}

#[tokio::test]
async fn a_lost_answer_to_elect_makes_one_leader_and_one_token() {
    the_answer_to_elect_is_lost(Ending::Reset).await;
}

#[tokio::test]
async fn an_elect_that_ran_out_of_time_makes_one_leader_and_one_token() {
    the_answer_to_elect_is_lost(Ending::ResetLater).await;
}

/// Goal: a hand-over whose answer is lost makes one successor, and whoever asked learns the truth.
/// Method: as for elect; the successor hears of it at once, by a connection of its own.
async fn the_answer_to_a_hand_over_is_lost(ending: Ending) {
    let scene = Scene::three().await;
    scene.depose_direct().await;
    assert_eq!(leader_above(&scene.daemons, 1).await, (LINKED, 2));
    scene.link.drop_answers_from("/tenure/history/orders/");
    let linked = &scene.daemons[LINKED];
    let body = json!({});
    let resign = linked.verb("resign", &body);
    let lost = async {
        scene.committed(3).await;
        assert_eq!(leader_above(&scene.daemons, 2).await, (LAST, 3));
        let given_up = async || linked.logs().contains("not handed over");
        ending.of(&scene.link, given_up).await;
    };
    let (answer, ()) = tokio::join!(resign, lost);
    let answer = answer.expect("an answer");
    match answer.status {
        // Found out by reading; whom it named can be read too.
        200 => assert_eq!(answer.json()["leader"]["id"], "last", "{}", answer.text()),
        503 => assert_eq!(answer.json()["code"], "outcome_unknown", "{}", answer.text()),
        _ => panic!("{}: {}", answer.status, answer.text()),
    }
    scene.nothing_is_left_over(3).await;
    assert_eq!(leader_of(&scene.daemons).await, (LAST, 3));
    scene.daemons[LAST].resign().await;
    assert_eq!(leader_above(&scene.daemons, 3).await, (DIRECT, 4));
    scene.nothing_is_left_over(4).await;
}

#[tokio::test]
async fn a_late_answer_to_a_hand_over_makes_one_successor() {
    the_answer_to_a_hand_over_is_lost(Ending::Late).await;
}

#[tokio::test]
async fn a_lost_answer_to_a_hand_over_makes_one_successor() {
    the_answer_to_a_hand_over_is_lost(Ending::Reset).await;
}

#[tokio::test]
async fn a_hand_over_that_ran_out_of_time_makes_one_successor() {
    the_answer_to_a_hand_over_is_lost(Ending::ResetLater).await;
}

/// Goal: a candidate whose first key was put, and that was not told, stands in the queue once.
/// Method: the link holds all answers from that put on, in each of the ways.
#[tokio::test]
async fn a_lost_answer_to_queue_leaves_one_key() {
    let etcd = Etcd::start().await;
    let mut daemons = vec![Daemon::builder("direct", &etcd).start().await];
    let (_, mut generation) = leader_of(&daemons).await;
    for ending in [Ending::Late, Ending::Reset, Ending::ResetLater] {
        let link = Link::to(&etcd).await;
        // Nothing else that a newcomer sends holds this.
        link.drop_answers_from("\"priority\":");
        daemons.push(Daemon::builder("linked", &link).start().await);
        eventually("the answer is held", async || link.has_dropped()).await;
        eventually("its key is there", async || etcd.queue().await.len() == 2).await;
        let timeouts = async || daemons[1].metric("etcd_requests_total", &["queue", "timeout"]).await > 0.0;
        ending.of(&link, timeouts).await;
        eventually("linked is queued", async || daemons[1].is_queued().await).await;
        let ids: Vec<Value> = daemons[0].candidates().await.iter().map(|c| c["id"].clone()).collect();
        assert_eq!(ids, ["direct", "linked"], "{ending:?}");
        daemons[0].resign().await;
        let (leader, next) = leader_above(&daemons, generation).await;
        assert_eq!((leader, next), (1, generation + 1), "{ending:?}");
        let linked = daemons.remove(1);
        linked.sigterm();
        assert!(linked.wait_exit().await.success());
        (_, generation) = leader_above(&daemons, next).await;
    }
    assert_eq!(etcd.history().await, (1..=generation).collect::<Vec<_>>());
}

/// Goal: after a silence longer than the TTL the daemon has stopped, and returns as a newcomer with a session of its own.
/// Method: black-hole the leader's etcd until another leads, then heal.
#[tokio::test]
async fn a_silence_longer_than_the_ttl_ends_the_session_and_nothing_else() {
    let etcd = Etcd::start().await;
    let link = Link::to(&etcd).await;
    let mut daemons = vec![Daemon::builder("linked", &link).ttl("2s").start().await];
    leader_of(&daemons).await;
    daemons.push(Daemon::builder("direct", &etcd).ttl("2s").start().await);
    eventually("direct is queued", async || daemons[1].is_queued().await).await;
    let lease = daemons[0].status().await.expect("a status")["session"]["lease"].clone();
    link.black_hole();
    let down = daemons[0].transition("it steps down", |t| t["from"] == "leader").await;
    assert_eq!(down["reason"], "guard_expired", "{down}");
    assert_eq!(leader_above(&daemons, 1).await, (1, 2));
    assert!(daemons[0].stepped_down_at().await < daemons[1].elected_at().await);
    link.heal();
    eventually("linked is queued again", async || daemons[0].is_queued().await).await;
    assert_ne!(daemons[0].status().await.expect("a status")["session"]["lease"], lease);
    let ids: Vec<Value> = daemons[1].candidates().await.iter().map(|c| c["id"].clone()).collect();
    assert_eq!(ids, ["direct", "linked"]);
    daemons[1].resign().await;
    assert_eq!(leader_above(&daemons, 2).await, (0, 3));
    eventually("no lease is left over", async || {
        let leases = etcd.leases().await;
        if leases.len() == 2 { Ok(()) } else { Err(leases) }
    })
    .await;
}

/// Goal: compaction and a restart of etcd, which kill every waiter of etcd's own recipe, cost neither place nor leadership.
/// Method: compact to the present and restart; then kill -9 the leader, and measure until the next in the queue leads.
#[tokio::test]
async fn waiters_live_through_compaction_and_a_restart_of_etcd() {
    let etcd = Etcd::start().await;
    let mut daemons = Vec::new();
    for id in ["a", "b", "c"] {
        daemons.push(Daemon::builder(id, &etcd).start().await);
        let newest = daemons.len() - 1;
        eventually("each gets its place", async || {
            daemons[newest].is_queued().await || daemons[newest].leads_with().await.is_some()
        })
        .await;
    }
    assert_eq!(leader_of(&daemons).await, (0, 1));
    for number in 0..20 {
        etcd.ctl(&["put", "elsewhere", &number.to_string()]).await;
    }
    let revision = etcd.revision().await.to_string();
    etcd.ctl(&["compaction", &revision]).await;
    let before = daemons[1].metric("watch_restarts_total", &[]).await;
    etcd.restart().await;
    for daemon in &daemons {
        eventually("it watches and renews again", async || {
            let health = daemon.probe("/health").await;
            let restarts = daemon.metric("watch_restarts_total", &[]).await;
            if health == Some(200) && restarts > before { Ok(()) } else { Err((health, restarts)) }
        })
        .await;
    }
    eventually("the leader has renewed since", async || {
        let status = daemons[0].status().await.expect("a status");
        if status["guard_ms"].as_u64() > Some(4000) { Ok(()) } else { Err(status) }
    })
    .await;
    assert_eq!(daemons[0].leads_with().await, Some(1), "leadership was kept");
    let ids: Vec<Value> = daemons[1].candidates().await.iter().map(|c| c["id"].clone()).collect();
    assert_eq!(ids, ["a", "b", "c"], "places were kept");
    daemons.remove(0).sigkill();
    let killed = Instant::now();
    assert_eq!(leader_above(&daemons, 1).await, (0, 2));
    // TTL, etcd's overshoot, and a second for two busy cores.
    let took = killed.elapsed();
    assert!(took < Duration::from_millis(5000 + 500 + 1000), "taken over after {took:?}");
}

/// Goal: a waiter whose etcd was silent for a while, and that missed its own election meanwhile, learns of it.
/// Method: hold everything of the waiter's for 3 s, far less than its TTL; the leader names it in that time.
#[tokio::test]
async fn a_waiter_that_heard_nothing_for_a_while_learns_that_it_leads() {
    let scene = Scene::three().await;
    scene.link.black_hole();
    let answer = scene.daemons[DIRECT].resign().await;
    assert_eq!(answer["leader"]["id"], "linked", "{answer}");
    // The silence is what is tested.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(scene.daemons[LINKED].leads_with().await, None, "it cannot know");
    scene.link.heal();
    let linked = &scene.daemons[LINKED];
    eventually_within("it learns", Duration::from_secs(4), async || linked.leads_with().await == Some(2)).await;
    scene.nothing_is_left_over(2).await;
}
