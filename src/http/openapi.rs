//! The description of this interface, made from the table of routes: what is in one is in the other.

use serde_json::{Map, Value, json};

use super::code::Code;
use super::routes::{Access, Endpoint, ROUTES, Route, Takes};

/// The `OpenAPI` 3.1 document of everything that the control listener serves.
pub fn document(version: &str) -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        paths.insert(route.template.to_owned(), path_item(route));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tenure",
            "version": version,
            "description": "Leader election with fencing tokens. The public listener serves the paths whose \
                            `x-listener` is `public`; the control listener serves all of them.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {"admin": {
                "type": "http",
                "scheme": "bearer",
                "description": "The content of http.admin_token_file; asked for on TCP control listeners only.",
            }},
        },
    })
}

fn path_item(route: &Route) -> Value {
    let methods: &[&str] = match route.takes {
        Takes::Get | Takes::Probe => &["get", "head", "options"],
        Takes::Post => &["post"],
        Takes::Any => &["get", "head", "options", "post", "put", "patch", "delete", "trace"],
    };
    let mut item = Map::new();
    let (in_path, others): (Vec<_>, Vec<_>) = parameters(route).into_iter().partition(|p| p["in"] == "path");
    item.insert("parameters".to_owned(), in_path.into());
    for method in methods {
        let mut operation = operation(route, method);
        if !lists_methods(route, method) {
            operation["parameters"] = others.clone().into();
        }
        item.insert((*method).to_owned(), operation);
    }
    Value::Object(item)
}

/// Whether this is the answer that only names the methods, whatever else the request says.
fn lists_methods(route: &Route, method: &str) -> bool {
    method == "options" && route.takes == Takes::Get
}

fn operation(route: &Route, method: &str) -> Value {
    let name: String = route.template.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let listener = if route.access == Access::Public { "public" } else { "control" };
    let mut operation = json!({
        "operationId": format!("{method}{name}"),
        "summary": summary(route.endpoint),
        "x-listener": listener,
        "responses": responses(route, method),
    });
    if let Some(schema) = body(route.endpoint) {
        let required = route.endpoint == Endpoint::Verify;
        operation["requestBody"] =
            json!({"required": required, "content": {"application/json": {"schema": reference(schema)}}});
    }
    if route.access == Access::Verb {
        operation["security"] = json!([{"admin": []}, {}]);
    }
    operation
}

fn parameters(route: &Route) -> Vec<Value> {
    let name = json!({"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"});
    let number = json!({"type": "integer", "minimum": 0, "maximum": u64::MAX});
    let query = |name: &str, schema: &Value, description: &str| json!({"name": name, "in": "query", "schema": schema, "description": description});
    let in_path = |name: &str, schema: &Value| json!({"name": name, "in": "path", "required": true, "schema": schema});
    let switch = json!({"enum": ["true", "false", "1", "0", ""]});
    let wait = json!({"type": "string", "pattern": "^[0-9]{1,6}(ms|s|m|h)$", "examples": ["1s"]});
    let mut all = Vec::new();
    if route.template.contains("{election}") {
        all.push(in_path("election", &name));
    } else if chooses(route) {
        all.push(query("election", &name, "Which election; the first of the configuration by default."));
    }
    if route.template.contains("{path}") {
        all.push(in_path("path", &json!({"type": "string"})));
    }
    match route.endpoint {
        Endpoint::Livez | Endpoint::Readyz | Endpoint::Startupz => {
            all.push(query("verbose", &switch, "List the checks."));
        }
        Endpoint::Token => {
            all.push(query(
                "wait",
                &wait,
                "Answer as soon as this daemon leads, after so long at the latest; 60s at the most.",
            ));
        }
        Endpoint::Status => {
            all.push(query(
                "wait",
                &wait,
                "Answer when something changes, after so long at the latest; 60s at the most.",
            ));
            all.push(query("version", &number, "With `wait`: answer as soon as the document's version is another."));
            all.push(query("after", &number, "With `wait`: answer when the generation passes this one or the role changes; the present one by default."));
        }
        Endpoint::LeaderObject => all.push(query("linearizable", &switch, "Ask etcd.")),
        Endpoint::Transitions | Endpoint::History => {
            let limit = json!({"type": "integer", "minimum": 1, "maximum": u64::MAX, "default": 100});
            all.push(query("limit", &limit, "How many at the most; more than 1000 is taken for 1000."));
            all.push(query("before", &number, "Only entries older than this sequence number or generation."));
        }
        Endpoint::Gate => all.push(json!({
            "name": "Fencing-Token", "in": "header", "schema": {"type": "string"},
            "description": "A token that the request carries; below the newest generation it is refused.",
        })),
        _ => {}
    }
    all
}

/// Whether `?election=` chooses: at the root, and not where a proxy puts its client's own path and query.
fn chooses(route: &Route) -> bool {
    let speaks = matches!(
        route.endpoint,
        Endpoint::Leader | Endpoint::Follower | Endpoint::Health | Endpoint::Gate | Endpoint::Token | Endpoint::Page
    );
    speaks && !route.template.contains("{path}")
}

fn summary(endpoint: Endpoint) -> &'static str {
    match endpoint {
        Endpoint::Livez => "Whether the daemon's own loop turns; never depends on etcd",
        Endpoint::Readyz => "Whether the daemon has started and is not draining; never means leadership",
        Endpoint::Startupz => "Whether the daemon has started",
        Endpoint::Leader => "Whether this daemon leads at this instant",
        Endpoint::Follower => "Whether this daemon does not lead and knows who does",
        Endpoint::Health => "Whether this daemon has a live session",
        Endpoint::Gate => "200 while this daemon leads, else 403; the body is never read",
        Endpoint::Redirect => "To the leader's url, with path and query kept",
        Endpoint::Token => "The fencing token, with a promise of how long nobody else leads",
        Endpoint::Elections => "The status documents of all elections",
        Endpoint::Status => "The status document of one election, at once or when something changes",
        Endpoint::LeaderObject => "Who leads",
        Endpoint::Candidates => "The queue in order, from etcd",
        Endpoint::Verify => "Whether a token is the one that leads now, from etcd",
        Endpoint::Resign => "Step down, hand over, queue again after the cooldown",
        Endpoint::Drain => "Stop leading in every election and keep the session",
        Endpoint::Undrain => "Take part again, after handing over what a drain still held",
        Endpoint::Drained => "The application has stopped acting: hand over now",
        Endpoint::Transitions => "This daemon's audit log, newest first",
        Endpoint::History => "The cluster-wide history, newest first, from etcd",
        Endpoint::Metrics => "Prometheus metrics",
        Endpoint::Version => "The program's version",
        Endpoint::OpenApi => "This document",
        Endpoint::Page => "The first election's status document, or a page for browsers",
    }
}

/// The documented answers: status, and the schema of its JSON body, if it has one.
fn answers(endpoint: Endpoint) -> &'static [(u16, &'static str)] {
    match endpoint {
        Endpoint::Livez | Endpoint::Readyz | Endpoint::Startupz => &[(200, ""), (400, "Problem"), (503, "Problem")],
        Endpoint::Leader | Endpoint::Follower | Endpoint::Health => {
            &[(200, "Status"), (400, "Problem"), (404, "Problem"), (503, "Status")]
        }
        Endpoint::Gate => &[(200, "Object"), (403, "Problem"), (404, "Problem")],
        Endpoint::Redirect => &[(200, "Object"), (307, "Object"), (404, "Problem"), (503, "Problem")],
        Endpoint::Token => &[(200, "Token"), (400, "Problem"), (404, "Problem"), (503, "Problem")],
        Endpoint::Elections => &[(200, "Elections")],
        Endpoint::Version | Endpoint::OpenApi => &[(200, "Object")],
        Endpoint::Status => &[(200, "Status"), (304, ""), (400, "Problem"), (404, "Problem")],
        Endpoint::LeaderObject => &[(200, "Leader"), (400, "Problem"), (404, "Problem"), (503, "Problem")],
        Endpoint::Candidates => &[(200, "Candidates"), (404, "Problem"), (503, "Problem")],
        Endpoint::Transitions => &[(200, "Transitions"), (400, "Problem"), (404, "Problem")],
        Endpoint::History => &[(200, "History"), (400, "Problem"), (404, "Problem"), (503, "Problem")],
        Endpoint::Verify => &[
            (200, "Object"),
            (400, "Problem"),
            (404, "Problem"),
            (408, "Problem"),
            (409, "Problem"),
            (413, "Problem"),
            (503, "Problem"),
        ],
        Endpoint::Resign | Endpoint::Undrain => &[
            (200, "Object"),
            (400, "Problem"),
            (401, "Problem"),
            (404, "Problem"),
            (408, "Problem"),
            (409, "Problem"),
            (413, "Problem"),
            (503, "Problem"),
        ],
        Endpoint::Drain => {
            &[(202, "Drain"), (400, "Problem"), (401, "Problem"), (408, "Problem"), (413, "Problem"), (503, "Problem")]
        }
        Endpoint::Drained => &[
            (202, "Object"),
            (400, "Problem"),
            (401, "Problem"),
            (404, "Problem"),
            (408, "Problem"),
            (409, "Problem"),
            (413, "Problem"),
            (503, "Problem"),
        ],
        Endpoint::Metrics => &[(200, "")],
        Endpoint::Page => &[(200, "Status"), (404, "Problem")],
    }
}

fn responses(route: &Route, method: &str) -> Value {
    if lists_methods(route, method) {
        let mut all = json!({"204": {"description": "`Allow` names the methods"}});
        if route.template.contains("{election}") {
            all["404"] = json!({"description": "Not Found", "content": {"application/problem+json": {"schema": reference("Problem")}}});
        }
        return all;
    }
    let mut all = Map::new();
    for (status, schema) in answers(route.endpoint) {
        let text = hyper::StatusCode::from_u16(*status).ok().and_then(|s| s.canonical_reason()).unwrap_or("Answer");
        let mut response = json!({"description": text, "headers": headers(route.endpoint, *status)});
        if !schema.is_empty() && method != "head" {
            let media = if *schema == "Problem" { "application/problem+json" } else { "application/json" };
            let mut content = json!({media: {"schema": reference(schema)}});
            if route.endpoint == Endpoint::Page && *status == 200 {
                content["text/html"] = json!({"schema": {"type": "string"}});
            }
            response["content"] = content;
        } else if let Some(media) = plain(route.endpoint).filter(|_| *status == 200 && method != "head") {
            response["content"] = json!({media: {"schema": {"type": "string"}}});
        }
        if checks(route.endpoint) && *status == 503 && method != "head" {
            response["content"]["text/plain"] = json!({"schema": {"type": "string"}});
        }
        all.insert(status.to_string(), response);
    }
    Value::Object(all)
}

/// The headers that an answer always has.
fn headers(endpoint: Endpoint, status: u16) -> Value {
    let names: &[&str] = match (endpoint, status) {
        (Endpoint::Gate, 200) => &["Fencing-Token", "Fencing-Holder"],
        (Endpoint::Token, 200) => &["Fencing-Token", "Fencing-Valid-For-Ms"],
        (Endpoint::Redirect, 307) => &["Location"],
        (Endpoint::Token | Endpoint::Redirect, 503) => &["Retry-After"],
        (_, 401) => &["WWW-Authenticate"],
        _ => &[],
    };
    let header = |name: &&str| ((*name).to_owned(), json!({"required": true, "schema": {"type": "string"}}));
    Value::Object(names.iter().chain(&["Cache-Control"]).map(header).collect())
}

const fn checks(endpoint: Endpoint) -> bool {
    matches!(endpoint, Endpoint::Livez | Endpoint::Readyz | Endpoint::Startupz)
}

fn plain(endpoint: Endpoint) -> Option<&'static str> {
    (checks(endpoint) || endpoint == Endpoint::Metrics).then_some("text/plain")
}

fn body(endpoint: Endpoint) -> Option<&'static str> {
    match endpoint {
        Endpoint::Verify => Some("Claim"),
        Endpoint::Resign => Some("Resign"),
        Endpoint::Drain => Some("Draining"),
        Endpoint::Undrain => Some("Nothing"),
        Endpoint::Drained => Some("Drained"),
        _ => None,
    }
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn object(required: &[&str], properties: &Value) -> Value {
    json!({"type": "object", "required": required, "properties": properties})
}

/// An object that always has all of these.
fn whole(properties: &Value) -> Value {
    let names: Vec<&str> = properties.as_object().map(|p| p.keys().map(String::as_str).collect()).unwrap_or_default();
    object(&names, properties)
}

fn closed(mut schema: Value) -> Value {
    schema["additionalProperties"] = json!(false);
    schema
}

fn schemas() -> Value {
    let text = json!({"type": "string"});
    let number = json!({"type": "integer", "minimum": 0});
    let maybe = |schema: Value| json!({"oneOf": [schema, {"type": "null"}]});
    let leader_members = json!({"id": text, "url": text, "generation": number, "elected_at": text});
    let session = whole(&json!({"lease": text, "ttl_ms": number}));
    let role = json!({"enum": crate::election::role::Role::ALL.map(crate::election::role::Role::as_str)});
    let reason = json!({"enum": crate::election::role::Reason::ALL.map(crate::election::role::Reason::as_str)});
    let status = json!({
        "election": text, "id": text, "name": text, "role": role, "generation": number, "term": number,
        "leader": maybe(reference("Leader")), "foreign": {"type": "boolean"}, "token": maybe(number.clone()), "version": number, "guard_ms": number,
        "promised_ms": number, "reason": reason, "since": text, "hlc": text, "paused": {"type": "boolean"},
        "session": maybe(session),
        "etcd": whole(&json!({
            "reachable": {"type": "boolean"}, "since": maybe(text.clone()), "for_ms": maybe(number.clone()), "last_error": maybe(text.clone()),
        })),
        "queue_position": maybe(number.clone()), "observed_revision": number,
        "last_update": maybe(text.clone()),
    });
    let token = json!({
        "election": text, "token": number, "term": number, "holder": text, "valid_for_ms": number, "guard_ms": number,
    });
    let line = json!({
        "seq": number, "time": text, "hlc": text, "election": text, "id": text, "from": role, "to": role,
        "old_generation": number, "new_generation": number, "reason": reason, "detail": text,
    });
    let maybe_text = maybe(text.clone());
    let record = json!({
        "generation": number, "term": number, "holder": maybe_text, "url": maybe_text, "cause": text, "elected_at": text,
        "hlc": text, "revision": number, "leaderless_ms": number,
    });
    let candidate = json!({
        "position": number, "id": maybe_text, "url": maybe_text, "term": maybe(number.clone()),
        "priority": maybe(json!({"type": "integer"})), "lease": text, "create_revision": number,
        "foreign": {"type": "boolean"},
    });
    let day = json!({"type": "integer", "minimum": 0, "maximum": 86_400_000});
    let any = json!({"type": "integer", "minimum": 0, "maximum": u64::MAX});
    let list = |name: &str, of: &Value| object(&[name], &json!({name: {"type": "array", "items": of}}));
    let code = json!({"enum": Code::ALL.iter().map(|code| code.as_str()).collect::<Vec<_>>()});
    let problem = json!({"type": text, "title": text, "status": {"type": "integer"}, "code": code, "detail": text});
    json!({
        "Object": {"type": "object"},
        "Elections": list("elections", &reference("Status")),
        "Candidates": list("candidates", &whole(&candidate)),
        "Transitions": list("transitions", &whole(&line)),
        "History": list("history", &whole(&record)),
        "Leader": whole(&leader_members),
        "Status": whole(&status),
        "Token": whole(&token),
        "Problem": whole(&problem),
        "Claim": closed(object(&["token"], &json!({"token": {"type": "integer", "minimum": 0, "maximum": u64::MAX}}))),
        "Resign": closed(object(&[], &json!({"cooldown_ms": day, "token": maybe(any.clone())}))),
        "Draining": closed(object(&[], &json!({"hand_over": {"type": "boolean"}, "timeout_ms": maybe(day.clone())}))),
        "Drain": whole(&json!({
            "draining": {"type": "boolean"}, "held": {"type": "array", "items": text}, "hands_over_at": maybe_text,
        })),
        "Drained": closed(object(&[], &json!({"token": maybe(any)}))),
        "Nothing": closed(object(&[], &json!({}))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let document = document("1");
        let paths = document["paths"].as_object().expect("paths");
        assert_eq!(paths.len(), ROUTES.len(), "no template occurs twice");
        for route in ROUTES {
            let item = &paths[route.template];
            for method in route.allow().split(", ") {
                assert!(item[method.to_lowercase()]["responses"].is_object(), "{method} {}", route.template);
            }
        }
    }

    #[test]
    fn references_lead_somewhere_and_operation_ids_are_unique() {
        let document = document("1");
        let text = document.to_string();
        for reference in text.split("#/components/schemas/").skip(1).map(|t| t.split('"').next().unwrap_or_default()) {
            assert!(document["components"]["schemas"][reference].is_object(), "{reference}");
        }
        let ids: Vec<_> = text.split("\"operationId\":\"").skip(1).map(|t| t.split('"').next()).collect();
        let distinct: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
    }
}
