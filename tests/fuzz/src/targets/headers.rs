//! Headers and query strings of requests that are otherwise in order, and foreign values in the headers of answers.
//!
//! Each answer is held against what the design says, worked out here anew.

use std::time::Duration;

use arbitrary::{Result, Unstructured};
use tokio::net::{TcpStream, UnixStream};

use super::house::{self, TOKEN};
use crate::http_support::{Reply, Stage, candidate, leader, try_exchange};

const LONG: Duration = Duration::from_mins(1);
/// The newest generation while the house leads.
const NEWEST: u64 = 42;

/// How urls begin that others wrote into etcd.
const URLS: [&str; 7] =
    ["", "http://10.0.0.5:4790", "https://h/app/", "http://u:p@h", "HTTP://h/#", "http://h?", "ftp://h/"];

/// One request, of the kind that the first byte names.
pub fn run(data: &[u8]) {
    house::visit(async |stage| {
        // An input that is too short asks for less.
        let _ = ask(stage, &mut Unstructured::new(data)).await;
    });
}

async fn ask(stage: &Stage, input: &mut Unstructured<'_>) -> Result<()> {
    stage.publisher.publish(leader(LONG));
    match input.int_in_range(0..=7)? {
        0 => gate(stage, input).await,
        1 => authorization(stage, input).await,
        2 => redirect(stage, input).await,
        3 => page_of_a_list(stage, input).await,
        4 => switch(stage, input).await,
        5 => election(stage, input).await,
        6 => wait(stage, input).await,
        _ => accept(stage, input).await,
    }
}

/// Every `Fencing-Token` is checked, and only the newest or a later one passes.
async fn gate(stage: &Stage, input: &mut Unstructured<'_>) -> Result<()> {
    let values = headers(input, "Fencing-Token")?;
    let number =
        |value: &String| value.bytes().all(|b| b.is_ascii_digit()).then(|| value.parse::<u64>().ok()).flatten();
    let tokens: Option<Vec<u64>> = values.iter().map(number).collect();
    let expected = match tokens {
        None => (403, "malformed"),
        Some(tokens) if tokens.iter().any(|token| *token < NEWEST) => (403, "stale"),
        Some(_) => (200, ""),
    };
    let reply = get(stage, "/gate", &lines("Fencing-Token", &values)).await;
    let code = if reply.status == 200 { String::new() } else { reply.code() };
    assert_eq!((reply.status, code.as_str()), expected, "{values:?}");
    Ok(())
}

/// A verb on TCP is let in with exactly one right token.
async fn authorization(stage: &Stage, input: &mut Unstructured<'_>) -> Result<()> {
    let values = headers(input, "Authorization")?;
    let right = |value: &String| {
        let (scheme, token) = value.split_once(' ')?;
        (scheme.eq_ignore_ascii_case("bearer") && token.trim_matches([' ', '\t']) == TOKEN).then_some(())
    };
    let admitted = values.len() == 1 && right(&values[0]).is_some();
    let stream = TcpStream::connect(stage.control).await.expect("somebody listens");
    let lines = lines("Authorization", &values);
    let reply = try_exchange(stream, "POST", "/v1/elections/billing/resign", &lines, b"").await.expect("an answer");
    assert_eq!(reply.status, if admitted { 409 } else { 401 }, "{values:?}");
    Ok(())
}

/// Whatever url others wrote into etcd: the answer leads there or nowhere, and its head holds nothing that they chose.
async fn redirect(stage: &Stage, input: &mut Unstructured<'_>) -> Result<()> {
    let mut snapshot = candidate();
    let named = snapshot.elections[0].leader.as_mut().expect("a leader");
    named.id = input.arbitrary::<&str>()?.to_owned();
    named.url = format!("{}{}", input.choose(&URLS)?, input.arbitrary::<&str>()?);
    let url = named.url.clone();
    stage.publisher.publish(snapshot);
    let tail = encode(input.arbitrary::<&str>()?);
    let reply = get(stage, &format!("/v1/elections/orders/redirect/{tail}?a={tail}"), "").await;
    if reply.status != 307 {
        assert_eq!((reply.status, reply.code().as_str()), (503, "no_leader"), "{url}");
        return Ok(());
    }
    let to = reply.header("location");
    let authority = |url: &str| {
        let (scheme, rest) = url.split_once("://")?;
        let host = rest.split(['/', '?', '#', '\\']).next()?;
        Some(format!("{}://{host}", scheme.to_ascii_lowercase()))
    };
    assert_eq!(authority(to), authority(&url), "{to}");
    assert!(to.ends_with(&format!("/{tail}?a={tail}")), "{to} for {url}");
    assert!(
        to.bytes().all(|b| b.is_ascii_graphic() && !b"\"<>\\".contains(&b))
            && !authority(to).is_some_and(|a| a.contains('@'))
    );
    let gate = get(stage, "/gate", "").await;
    assert_eq!(gate.status, 403);
    Ok(())
}

/// `limit` and `before` are whole numbers; of several the first counts.
async fn page_of_a_list(stage: &Stage, input: &mut Unstructured<'_>) -> Result<()> {
    let (pairs, query) = query(input, &["limit", "before"])?;
    let number = |name: &str, otherwise: u64| match first(&pairs, name) {
        None => Some(otherwise),
        Some(text) => text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten(),
    };
    let reply = get(stage, &format!("/v1/elections/orders/transitions?{query}"), "").await;
    match (number("limit", 100), number("before", 2_001)) {
        (Some(limit @ 1..), Some(before)) => {
            assert_eq!(reply.status, 200, "{query}");
            let count = reply.json()["transitions"].as_array().map(Vec::len);
            assert_eq!(count, usize::try_from(limit.min(1_000).min(before.saturating_sub(1))).ok(), "{query}");
        }
        _ => assert_eq!((reply.status, reply.code().as_str()), (400, "malformed"), "{query}"),
    }
    Ok(())
}

/// A switch is on, off, or refused.
async fn switch(stage: &Stage, input: &mut Unstructured<'_>) -> Result<()> {
    let (pairs, query) = query(input, &["verbose"])?;
    let reply = get(stage, &format!("/livez?{query}"), "").await;
    let expected = match first(&pairs, "verbose") {
        None | Some("false" | "0") => (200, "ok"),
        Some("" | "true" | "1") => (200, "[+]loop ok\nlivez check passed\n"),
        Some(_) => {
            assert_eq!((reply.status, reply.code().as_str()), (400, "malformed"), "{query}");
            return Ok(());
        }
    };
    assert_eq!((reply.status, reply.body.as_str()), expected, "{query}");
    Ok(())
}

/// Only a configured election is known, by exactly its name.
async fn election(stage: &Stage, input: &mut Unstructured<'_>) -> Result<()> {
    let (pairs, query) = query(input, &["election"])?;
    let reply = get(stage, &format!("/leader?{query}"), "").await;
    let expected = match first(&pairs, "election") {
        None | Some("orders") => 200,
        Some("billing") => 503,
        Some(_) => 404,
    };
    assert_eq!(reply.status, expected, "{query}");
    Ok(())
}

/// A duration or none, and an answer at once to whoever knows less than we do.
async fn wait(stage: &Stage, input: &mut Unstructured<'_>) -> Result<()> {
    let (_, query) = query(input, &["wait"])?;
    let reply = get(stage, &format!("/v1/elections/orders?after=0&{query}"), "").await;
    assert!(matches!(reply.status, 200 | 400), "{query}: {reply:?}");
    Ok(())
}

/// Any `Accept` is answered in one of the forms that there are.
async fn accept(stage: &Stage, input: &mut Unstructured<'_>) -> Result<()> {
    let lines = lines("Accept", &headers(input, "Accept")?);
    let page = get(stage, "/", &lines).await;
    assert!(
        page.status == 200 && ["application/json", "text/html; charset=utf-8"].contains(&page.header("content-type"))
    );
    let metrics = get(stage, "/metrics", &lines).await;
    let known = ["text/plain; version=0.0.4", "application/openmetrics-text; version=1.0.0"];
    let named = metrics.header("content-type");
    assert!(metrics.status == 200 && known.iter().any(|form| named.starts_with(form)), "{named}");
    Ok(())
}

async fn get(stage: &Stage, target: &str, lines: &str) -> Reply {
    let stream = UnixStream::connect(stage.socket()).await.expect("somebody listens");
    let reply = try_exchange(stream, "GET", target, lines, b"").await;
    let reply = reply.unwrap_or_else(|error| panic!("GET {target} {lines:?}: {error}"));
    assert_eq!(reply.header("cache-control"), "no-store", "GET {target} {lines:?}: {reply:?}");
    reply
}

/// Up to three values that may stand in a head. What is around them is no part of them.
fn headers(input: &mut Unstructured<'_>, name: &str) -> Result<Vec<String>> {
    let near: &[&str] = match name {
        "Fencing-Token" => &["41", "42", "43", "x"],
        "Authorization" => &["Bearer secret", "bearer", "Basic secret"],
        _ => &["text/html", "application/json", "application/openmetrics-text"],
    };
    let mut values = Vec::new();
    for _ in 0..input.int_in_range(0..=3)? {
        let text = input.arbitrary::<&str>()?.replace(|c: char| c.is_ascii_control() && c != '\t', "?");
        let text = if input.arbitrary()? { format!("{}{text}", input.choose(near)?) } else { text };
        values.push(text.trim_matches([' ', '\t']).to_owned());
    }
    Ok(values)
}

fn lines(name: &str, values: &[String]) -> String {
    values.iter().flat_map(|value| [name, ":  ", value, "\t\r\n"]).collect()
}

/// Pairs, and the query that says them: names of our own among others, and each character escaped in one way or another.
fn query(input: &mut Unstructured<'_>, ours: &[&str]) -> Result<(Vec<(String, String)>, String)> {
    let mut pairs = Vec::new();
    let mut text = String::new();
    for _ in 0..input.int_in_range(0..=4)? {
        let name = if input.ratio(3, 4)? { *input.choose(ours)? } else { input.arbitrary()? };
        let value: &str = match input.int_in_range(0..=5)? {
            0 => input.choose(&["1", "1000", "1001", "0", "18446744073709551615", "18446744073709551616", "+1"])?,
            1 => input.choose(&["orders", "billing", "true", "false", "1s", "99999999999999999y", "1m1"])?,
            _ => input.arbitrary()?,
        };
        text.extend([encode(name).as_str(), "=", &encode(value), "&"]);
        pairs.push((name.to_owned(), value.to_owned()));
    }
    Ok((pairs, text))
}

fn first<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// Letters and digits as they are, a space as `+`, everything else percent-encoded.
fn encode(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b' ' => "+".to_owned(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        _ => format!("%{byte:02x}"),
    };
    text.bytes().map(byte).collect()
}
