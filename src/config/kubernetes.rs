//! The `kubernetes` section.

use std::net::IpAddr;

use super::env::Env;
use super::node::Scalar;
use super::values::{Parsed, quoted, text, word};
use super::walk::{Section, Walk};
use super::{ElectionConfig, KubernetesConfig, Route};

const DEFAULT_LABEL: &str = "tenure.dev/role";
/// Labels that are ours, or that Kubernetes itself acts by.
const TAKEN: &[&str] = &["tenure.dev/election", "tenure.dev/prefix", "pod-template-hash"];
/// The longest label value and the longest name of a Service or namespace.
const LABEL_MAX: usize = 63;

/// `route`, as a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    None,
    Label,
    EndpointSlice,
}

/// `None` for `route: none`, and where the walk has problems.
pub(super) fn kubernetes(
    walk: &mut Walk,
    top: &Section,
    elections: &[ElectionConfig],
    env: &Env,
) -> Option<KubernetesConfig> {
    let section = walk.section(top, "kubernetes");
    let words = [("none", By::None), ("label", By::Label), ("endpoint_slice", By::EndpointSlice)];
    let by = walk.value(&section, "route", By::None, |s| word(s, &words));
    let wanted = walk.optional(&section, "election", text);
    let label = walk.optional(&section, "label", label_key);
    let service = walk.optional(&section, "service", |s| name(s, "a Service", "orders-leader"));
    let pod = walk.optional(&section, "pod", pod_name);
    let namespace = walk.optional(&section, "namespace", |s| name(s, "a namespace", "default"));
    let address = walk.optional(&section, "address", address);
    let election = election(walk, &section, elections, wanted.as_deref());
    if by == By::None {
        return None;
    }
    if !cfg!(feature = "kubernetes") {
        let what = "this build has no Kubernetes in it; accepted: `route: none`, or a build with the cargo feature `kubernetes`";
        walk.complain(section.place("route"), section.key("route"), what);
    }
    let pod = pod.or_else(|| host(walk, &section, env));
    let route = match by {
        By::EndpointSlice => {
            for key in ["service", "address"].into_iter().filter(|key| !section.has(key)) {
                let what = "`route: endpoint_slice` needs it; accepted: service, a Service without a selector, and address, such as ${POD_IP}";
                walk.complain(section.place(key), section.key(key), what);
            }
            service.zip(address).map(|(service, address)| Route::EndpointSlice { service, address })
        }
        By::Label | By::None => Some(Route::Label { label: label.unwrap_or_else(|| DEFAULT_LABEL.to_owned()) }),
    };
    let election = election?;
    if election.observe {
        let what = "this daemon only observes that election, so it is never routed to; accepted: an election that it queues for, or `route: none`";
        walk.complain(section.place("election"), section.key("election"), what);
    }
    if !is_name(election.name.as_str(), false) {
        let what = format!(
            "the name of the election becomes a label; accepted: one of at most {LABEL_MAX} characters that ends with a letter or digit"
        );
        walk.complain(section.place("election"), section.key("election"), what);
    }
    Some(KubernetesConfig { election: election.name.clone(), pod: pod?, namespace, route: route? })
}

/// The one that is named; without a name, the first.
fn election<'e>(
    walk: &mut Walk,
    section: &Section,
    elections: &'e [ElectionConfig],
    wanted: Option<&str>,
) -> Option<&'e ElectionConfig> {
    let Some(wanted) = wanted else { return elections.first() };
    let found = elections.iter().find(|e| e.name.as_str() == wanted);
    // Where the list itself is wrong, that is what to mend first.
    if found.is_none() && walk.clean("elections") {
        let what = "not one of the elections of this daemon; accepted: a name that `elections` lists";
        walk.complain(section.place("election"), section.key("election"), what);
    }
    found
}

/// The host name, which Kubernetes makes the pod's name.
fn host(walk: &mut Walk, section: &Section, env: &Env) -> Option<String> {
    if section.has("pod") {
        return None; // Broken, and reported.
    }
    let host = env.filled("HOSTNAME").filter(|host| is_subdomain(host));
    if host.is_none() {
        let what = "there is no host name that could be a pod's; accepted: this pod's name, such as ${POD_NAME}";
        walk.complain(section.place("pod"), section.key("pod"), what);
    }
    host.map(str::to_owned)
}

/// Letters and digits, with `-` (and `_` and `.` where they are let) between them; lower case where `dns`.
fn is_name(text: &str, dns: bool) -> bool {
    let edge = |c: char| c.is_ascii_digit() || c.is_ascii_lowercase() || (!dns && c.is_ascii_uppercase());
    let inner = |c: char| edge(c) || c == '-' || (!dns && matches!(c, '_' | '.'));
    text.len() <= LABEL_MAX && text.starts_with(edge) && text.ends_with(edge) && text.chars().all(inner)
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(|part| is_name(part, true))
}

fn name(scalar: &Scalar, what: &str, example: &str) -> Parsed<String> {
    let name = text(scalar)?;
    if is_name(&name, true) {
        return Ok(name);
    }
    Err(format!("{} is no name of {what}; accepted: up to {LABEL_MAX} of a-z 0-9 -, such as {example}", quoted(scalar)))
}

fn pod_name(scalar: &Scalar) -> Parsed<String> {
    let pod = text(scalar)?;
    if is_subdomain(&pod) {
        return Ok(pod);
    }
    Err(format!("{} is no name of a pod; accepted: up to 253 of a-z 0-9 - ., such as ${{POD_NAME}}", quoted(scalar)))
}

fn label_key(scalar: &Scalar) -> Parsed<String> {
    let key = text(scalar)?;
    let (prefix, bare) = key.split_once('/').map_or((None, key.as_str()), |(prefix, bare)| (Some(prefix), bare));
    if TAKEN.contains(&key.as_str()) {
        return Err(format!("{} is taken; accepted: another label, such as {DEFAULT_LABEL}", quoted(scalar)));
    }
    if prefix.is_none_or(is_subdomain) && is_name(bare, false) {
        return Ok(key);
    }
    Err(format!("{} is no key of a label; accepted: such as {DEFAULT_LABEL}", quoted(scalar)))
}

fn address(scalar: &Scalar) -> Parsed<IpAddr> {
    let text = text(scalar)?;
    let address = text.parse::<IpAddr>().ok().map(|address| address.to_canonical());
    // The API server refuses the others in a slice.
    let local = |address: &IpAddr| match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let good = address.filter(|a| !(a.is_unspecified() || a.is_loopback() || a.is_multicast() || local(a)));
    good.ok_or_else(|| {
        format!("{} is no address that others could reach a pod by; accepted: such as ${{POD_IP}}", quoted(scalar))
    })
}
