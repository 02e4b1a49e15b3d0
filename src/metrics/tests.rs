use super::*;

fn metrics() -> Metrics {
    let names = ["orders", "billing"].map(|n| ElectionName::parse(n).expect("a name"));
    Metrics::new("1.0", "abc", &names, &["http://a:2379".to_owned()], Duration::from_secs(10))
}
