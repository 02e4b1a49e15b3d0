//! The objects of [`KubeApi`](super::KubeApi), and the rules that the real API server holds their readers and writers to.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

/// The namespace of all objects.
pub const NAMESPACE: &str = "shop";

/// Group, resource and kind of what it keeps; all are `v1`.
pub(super) const KINDS: [(&str, &str, &str); 3] =
    [("", "pods", "Pod"), ("", "services", "Service"), ("discovery.k8s.io", "endpointslices", "EndpointSlice")];

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Takes requests and answers none.
    Mute,
    /// Takes that long to begin with each.
    Slow(Duration),
    /// Somebody else writes to every object right after it was read, so many times.
    Contended(usize),
}

/// A write that a daemon tried.
#[derive(Clone, Debug)]
pub struct Write {
    pub who: String,
    pub name: String,
    pub code: u16,
    /// Whether it named the `resourceVersion` that it is for, or was to create.
    pub guarded: bool,
    /// The object before and after; the same where the write was refused.
    pub before: Value,
    pub after: Value,
}

/// What the server keeps.
pub(super) struct Store {
    pub objects: BTreeMap<(&'static str, String), Value>,
    pub revision: u64,
    pub rules: Value,
    /// Tokens that are not accepted.
    pub revoked: HashSet<String>,
    pub fault: Fault,
    pub writes: Vec<Write>,
    /// Requests that wait at the door, or for ever, by daemon.
    pub parked: BTreeMap<String, usize>,
    /// Reads since the last write, by daemon.
    pub reads: BTreeMap<String, usize>,
}

/// A request, understood.
pub(super) struct Call {
    pub method: Method,
    pub group: String,
    pub resource: &'static str,
    pub kind: &'static str,
    pub name: Option<String>,
    pub selector: String,
    pub metadata_only: bool,
    pub content_type: String,
    pub body: Value,
}

/// Code, reason and message.
pub(super) type Refusal = (u16, &'static str, String);

impl Store {
    pub fn new(rules: Value) -> Self {
        Self {
            objects: BTreeMap::new(),
            revision: 100,
            rules,
            revoked: HashSet::new(),
            fault: Fault::None,
            writes: Vec::new(),
            parked: BTreeMap::new(),
            reads: BTreeMap::new(),
        }
    }

    pub fn answer(&mut self, who: &str, call: &Call) -> Result<(u16, Value), Refusal> {
        let (verb, code) = match (call.method.as_str(), &call.name) {
            ("GET", Some(_)) => ("get", 200),
            ("GET", None) => ("list", 200),
            ("POST", None) => ("create", 201),
            ("PUT", Some(_)) => ("update", 200),
            ("PATCH", Some(_)) => ("patch", 200),
            _ => return Err((405, "MethodNotAllowed", format!("{} is not for this", call.method))),
        };
        if !self.allows(verb, call) {
            let what = format!("{} is forbidden: User {who:?} cannot {verb} resource", call.resource);
            if call.method != Method::GET {
                self.record(who, call, 403, Value::Null);
            }
            return Err((403, "Forbidden", what));
        }
        let reads = self.reads.entry(who.to_owned()).or_default();
        *reads = if call.method == Method::GET { *reads + 1 } else { 0 };
        if verb == "list" {
            return Ok((code, self.list(call)));
        }
        let named = call.body["metadata"]["name"].as_str().unwrap_or_default();
        let name = call.name.clone().unwrap_or_else(|| named.to_owned());
        if verb == "get" {
            let object = self.found(call, &name)?;
            if let Fault::Contended(left @ 1..) = self.fault {
                self.fault = Fault::Contended(left - 1);
                let mut touched = object.clone();
                merge(&mut touched, json!({"metadata": {"annotations": {"somebody": left.to_string()}}}));
                self.set(call.resource, &name, touched);
            }
            return Ok((code, shown(call, object)));
        }
        let before = self.get(call.resource, &name);
        let written = self.next(verb, call, &name).and_then(|next| {
            admitted(call, &next)?;
            // As with the real one, a write that changes nothing is none.
            Ok(if next == before { before.clone() } else { self.set(call.resource, &name, next) })
        });
        let code = written.as_ref().map_or_else(|(code, ..)| *code, |_| code);
        self.record(who, call, code, before);
        written.map(|object| (code, shown(call, object)))
    }

    /// The object as the write would have it.
    fn next(&self, verb: &str, call: &Call, name: &str) -> Result<Value, Refusal> {
        let said = &call.body["metadata"];
        if verb == "create" {
            if !self.get(call.resource, name).is_null() {
                return Err((409, "AlreadyExists", format!("{} {name:?} already exists", call.resource)));
            }
            if !said["resourceVersion"].is_null() {
                return Err((400, "BadRequest", "resourceVersion should not be set on objects to be created".into()));
            }
            return Ok(call.body.clone());
        }
        let current = self.found(call, name)?;
        for key in ["resourceVersion", "uid"] {
            if !said[key].is_null() && said[key] != current["metadata"][key] {
                let what =
                    format!("Operation cannot be fulfilled on {} {name:?}: the object has been modified", call.kind);
                return Err((409, "Conflict", what));
            }
        }
        if verb == "update" {
            if call.body["addressType"] != current["addressType"] {
                return Err((422, "Invalid", "addressType: field is immutable".into()));
            }
            return Ok(call.body.clone());
        }
        if call.content_type != "application/merge-patch+json" {
            return Err((415, "UnsupportedMediaType", format!("{} is not for this", call.content_type)));
        }
        let mut next = current;
        merge(&mut next, call.body.clone());
        Ok(next)
    }

    fn allows(&self, verb: &str, call: &Call) -> bool {
        let says = |list: &Value, what: &str| list.as_array().is_some_and(|all| all.iter().any(|one| one == what));
        self.rules.as_array().expect("rules are an array").iter().any(|rule| {
            // A name restricts no list, and nothing that has none yet.
            let named = rule["resourceNames"].is_null()
                || call.name.as_ref().is_some_and(|name| says(&rule["resourceNames"], name));
            says(&rule["apiGroups"], &call.group)
                && says(&rule["resources"], call.resource)
                && says(&rule["verbs"], verb)
                && named
        })
    }

    fn list(&self, call: &Call) -> Value {
        let wanted: Vec<_> = call.selector.split(',').filter_map(|term| term.split_once('=')).collect();
        let all = self.objects.iter().filter(|((resource, _), object)| {
            let labels = &object["metadata"]["labels"];
            *resource == call.resource && wanted.iter().all(|(key, value)| labels[*key] == **value)
        });
        let items: Vec<_> = all.map(|(_, object)| shown(call, object.clone())).collect();
        let kind = if call.metadata_only { "PartialObjectMetadata" } else { call.kind };
        let version = if call.metadata_only { "meta.k8s.io/v1" } else { "v1" };
        let metadata = json!({"resourceVersion": self.revision.to_string()});
        json!({"kind": format!("{kind}List"), "apiVersion": version, "metadata": metadata, "items": items})
    }

    fn found(&self, call: &Call, name: &str) -> Result<Value, Refusal> {
        let object = self.get(call.resource, name);
        if object.is_null() {
            Err((404, "NotFound", format!("{} {name:?} not found", call.resource)))
        } else {
            Ok(object)
        }
    }

    pub fn get(&self, resource: &'static str, name: &str) -> Value {
        self.objects.get(&(resource, name.to_owned())).cloned().unwrap_or_default()
    }

    /// Stores it as the next revision, with what the server fills in.
    pub fn set(&mut self, resource: &'static str, name: &str, mut object: Value) -> Value {
        self.revision += 1;
        let (group, _, kind) = KINDS.into_iter().find(|(_, r, _)| *r == resource).expect("a kind that is kept");
        object["kind"] = kind.into();
        object["apiVersion"] = if group.is_empty() { "v1".into() } else { format!("{group}/v1").into() };
        let meta = &mut object["metadata"];
        (meta["name"], meta["namespace"]) = (name.into(), NAMESPACE.into());
        meta["resourceVersion"] = self.revision.to_string().into();
        if meta["uid"].is_null() {
            meta["uid"] = format!("00000000-0000-4000-8000-{:012}", self.revision).into();
        }
        if resource == "endpointslices" {
            for port in object["ports"].as_array_mut().into_iter().flatten() {
                for (key, default) in [("name", ""), ("protocol", "TCP")] {
                    if port[key].is_null() {
                        port[key] = default.into();
                    }
                }
            }
            if object["endpoints"].as_array().is_none_or(Vec::is_empty) {
                object["endpoints"] = Value::Null;
            }
        }
        self.objects.insert((resource, name.to_owned()), object.clone());
        object
    }

    fn record(&mut self, who: &str, call: &Call, code: u16, before: Value) {
        let named = call.body["metadata"]["name"].as_str();
        let name = call.name.clone().or(named.map(str::to_owned)).unwrap_or_default();
        let guarded = call.method == Method::POST || call.body["metadata"]["resourceVersion"].is_string();
        let after = self.get(call.resource, &name);
        self.writes.push(Write { who: who.to_owned(), name, code, guarded, before, after });
    }
}

/// What admission and validation of the real one say to an object.
fn admitted(call: &Call, object: &Value) -> Result<(), Refusal> {
    let invalid = |what: String| Err((422, "Invalid", what));
    for (key, value) in object["metadata"]["labels"].as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or("?");
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if value.len() > 63 || !value.chars().all(good) {
            return invalid(format!("metadata.labels: {key}: {value:?}"));
        }
    }
    for owner in object["metadata"]["ownerReferences"].as_array().into_iter().flatten() {
        if owner["blockOwnerDeletion"] == true {
            let what =
                "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on";
            return Err((403, "Forbidden", what.to_owned()));
        }
        if ["apiVersion", "kind", "name", "uid"].iter().any(|key| owner[*key].as_str().is_none_or(str::is_empty)) {
            return invalid(format!("metadata.ownerReferences: {owner}"));
        }
    }
    if call.resource != "endpointslices" {
        return Ok(());
    }
    for address in
        object["endpoints"].as_array().into_iter().flatten().filter_map(|e| e["addresses"].as_array()).flatten()
    {
        let parsed = address.as_str().and_then(|a| a.parse::<IpAddr>().ok());
        let kind = parsed.map(|a| if a.is_ipv4() { "IPv4" } else { "IPv6" });
        if parsed.is_none_or(|a| a.is_loopback()) || kind != object["addressType"].as_str() {
            return invalid(format!("endpoints[0].addresses: {address}"));
        }
    }
    let numbers = object["ports"].as_array().into_iter().flatten().all(|port| port["port"].is_u64());
    if numbers { Ok(()) } else { invalid(format!("ports: {}", object["ports"])) }
}

fn shown(call: &Call, object: Value) -> Value {
    if call.metadata_only {
        return json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]});
    }
    object
}

/// RFC 7386.
pub(super) fn merge(base: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else { return *base = patch };
    if !base.is_object() {
        *base = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            base.as_object_mut().expect("it was made one").remove(&key);
        } else {
            merge(&mut base[key], value);
        }
    }
}
