//! What stands between, and what was never one cluster.

use super::*;

/// The address of a balancer that gives each connection to the next of `to`.
async fn balancer(to: Vec<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let mut next = to.iter().cycle();
        loop {
            let Ok((mut near, _)) = listener.accept().await else { return };
            let far = next.next().expect("a cycle").trim_start_matches("http://").to_owned();
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(far).await?;
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    format!("http://{address}")
}

/// A server by itself, with the same name and peer URL as every other one made here, and so with the same ids.
async fn alike() -> Etcd {
    let url = "http://127.0.0.1:1";
    Etcd::builder()
        .arg(&format!("--initial-advertise-peer-urls={url}"))
        .arg(&format!("--initial-cluster=m0={url}"))
        .start()
        .await
}

#[tokio::test]
async fn endpoints_of_several_clusters_are_named_with_the_cluster_of_each() {
    let [a, b, c] = [Etcd::start().await, Etcd::start().await, Etcd::start().await];
    let endpoints = [a.endpoint(), b.endpoint(), c.endpoint()];
    let visit = Config::of(&endpoints).visit().await;
    assert_eq!(visit.code, Some(1), "{}", visit.all);
    let line = visit.says("fail", "the endpoints belong to 3 clusters");
    for etcd in [&a, &b, &c] {
        let status: Value = serde_json::from_str(&etcd.ctl(&["endpoint", "status", "-w", "json"]).await).expect("JSON");
        let id = status[0]["Status"]["header"]["cluster_id"].as_u64().expect("an id");
        assert!(line.contains(&format!("{id:x}: {}", etcd.endpoint())), "{line}");
        nothing_is_left(etcd).await;
    }
}

#[tokio::test]
async fn servers_that_were_started_alike_are_no_cluster_though_their_ids_are_equal() {
    let [a, b] = [alike().await, alike().await];
    let visit = Config::of(&[a.endpoint(), b.endpoint()]).visit().await;
    assert_eq!(visit.code, Some(1), "{}", visit.all);
    assert!(visit.all.contains("are not one cluster, though their ids are equal"), "{}", visit.all);
    let through = balancer(vec![a.endpoint(), b.endpoint()]).await;
    let visit = Config::of(&[through]).visit().await;
    visit.says("fail", "is one address of several servers that know nothing of each other");
    assert_eq!(visit.code, Some(1), "{}", visit.all);
    nothing_is_left(&a).await;
    nothing_is_left(&b).await;
}

#[tokio::test]
async fn a_balancer_in_front_of_a_real_cluster_is_only_noted() {
    let etcd = Etcd::cluster(3).await;
    let through = balancer(etcd.endpoints()).await;
    let visit = Config::of(&[through]).visit().await;
    assert_eq!(visit.code, Some(0), "{}", visit.all);
    assert!(visit.all.contains("a balancer"), "{}", visit.all);
    nothing_is_left(&etcd).await;
}

/// Goal: a proxy that renews by itself is found, whichever way it shows, and nothing stays behind when the round breaks off.
/// Method: etcd's own grpc-proxy, which makes up a list of members only where it has an address to advertise.
#[tokio::test]
async fn etcds_grpc_proxy_is_found_by_its_list_and_by_its_rhythm() {
    let etcd = Etcd::start().await;
    for advertised in [true, false] {
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = etcd.command("etcd");
        command.args(["grpc-proxy", "start", "--endpoints"]).arg(etcd.endpoint().trim_start_matches("http://"));
        command.args(["--listen-addr", &address]);
        command.arg(format!("--advertise-client-url={}", if advertised { &address } else { "" }));
        let _proxy = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the proxy starts");
        eventually("the proxy listens", async || tokio::net::TcpStream::connect(&address).await.ok()).await;
        for ttl in ["3s", "10s"] {
            let visit = Config::of(&[format!("http://{address}")]).set("/session/ttl", ttl).visit().await;
            assert_eq!(visit.code, Some(1), "{advertised} {ttl}: {}", visit.all);
            assert!(visit.all.contains("etcd's grpc-proxy"), "{advertised} {ttl}: {}", visit.all);
            nothing_is_left(&etcd).await;
        }
    }
}

/// Method: each byte is delayed, so that a lease is there for seconds; then what a terminal sends.
#[tokio::test]
async fn nothing_is_left_when_a_person_stops_it() {
    let etcd = Etcd::start().await;
    let link = Link::to(&etcd).await;
    link.delay(Duration::from_millis(60));
    let config = Config::of(&[link.endpoint()]);
    let child = config.command(&[]).spawn().expect("it starts");
    eventually("a lease is there", async || {
        etcd.ctl(&["lease", "list"]).await.contains("found 1 leases").then_some(())
    })
    .await;
    let pid =
        rustix::process::Pid::from_raw(i32::try_from(child.id().expect("it runs")).expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("our own child");
    let output = child.wait_with_output().await.expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("stopped"), "{:?} {said}", output.status);
    nothing_is_left(&etcd).await;
}
