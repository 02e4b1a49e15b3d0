//! A Kubernetes API server in small: pods, services and endpoint slices with resource versions, and who may do what.
//!
//! It keeps to the real one's rules where ours depend on them: a stale `resourceVersion` is 409, so is creating what is
//! there; rights are those of a Role's `rules`; a label selector selects; an endpoint slice keeps its address type, gets
//! its defaults, and shows no endpoints as `null`. What was tried is recorded. A daemon finds it by a kubeconfig file, and
//! its token is its name.

use std::collections::HashSet;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::kube_store::{Call, Fault, KINDS, NAMESPACE, Refusal, Store, Write, merge};
use super::scratch;

/// The running server; it ends when this is dropped.
pub struct KubeApi {
    port: u16,
    state: Arc<State>,
    task: JoinHandle<()>,
    dir: TempDir,
}

struct State {
    store: Mutex<Store>,
    /// Daemons whose writes wait at the door.
    held: watch::Sender<HashSet<String>>,
}

impl KubeApi {
    /// With the rights of this file in `tests/fixtures`: an array as in a Role's `rules`.
    pub async fn start(rules: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port of loopback");
        let port = listener.local_addr().expect("it is bound").port();
        let state =
            Arc::new(State { store: Mutex::new(Store::new(fixture(rules))), held: watch::channel(HashSet::new()).0 });
        let served = Arc::clone(&state);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("loopback accepts");
                let state = Arc::clone(&served);
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let state = Arc::clone(&state);
                        // A task of its own: what has arrived is carried out, whether or not the client is still there.
                        let handled = tokio::spawn(async move { handle(&state, request).await });
                        async move { Ok::<_, Infallible>(handled.await.expect("the stub does not panic")) }
                    });
                    // Clients that go away are their own affair.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { port, state, task, dir: scratch("tenure-kube") }
    }

    /// The kubeconfig of this daemon. Its token is read from the file [`KubeApi::token_file`].
    pub fn kubeconfig(&self, who: &str) -> PathBuf {
        self.set_token(who, who);
        let path = self.dir.path().join(format!("{who}.kubeconfig"));
        std::fs::write(&path, kubeconfig(self.port, &self.token_file(who))).expect("the directory is ours");
        path
    }

    /// What it shows from now on; what comes before a `#` is who it is.
    pub fn set_token(&self, who: &str, token: &str) {
        std::fs::write(self.token_file(who), token).expect("the directory is ours");
    }

    pub fn revoke(&self, token: &str) {
        self.store().revoked.insert(token.to_owned());
    }

    fn token_file(&self, who: &str) -> PathBuf {
        self.dir.path().join(format!("{who}.token"))
    }

    pub fn set_fault(&self, fault: Fault) {
        self.store().fault = fault;
    }

    pub fn set_rules(&self, rules: Value) {
        self.store().rules = rules;
    }

    /// Writes of this daemon wait at the door from now on: sent, and not yet seen by anybody.
    pub fn hold(&self, who: &str) {
        self.state.held.send_modify(|held| {
            held.insert(who.to_owned());
        });
    }

    /// They come in.
    pub fn release(&self, who: &str) {
        self.state.held.send_modify(|held| {
            held.remove(who);
        });
    }

    /// How many of its requests wait at the door, or for ever.
    pub fn parked(&self, who: &str) -> usize {
        self.store().parked.get(who).copied().unwrap_or(0)
    }

    /// How often it has read since its last write.
    pub fn reads(&self, who: &str) -> usize {
        self.store().reads.get(who).copied().unwrap_or(0)
    }

    /// As an administrator: creates or replaces.
    pub fn put(&self, resource: &'static str, name: &str, object: Value) {
        self.store().set(resource, name, object);
    }

    /// As an administrator: a merge patch.
    pub fn edit(&self, resource: &'static str, name: &str, patch: Value) {
        let mut store = self.store();
        let mut object = store.get(resource, name);
        merge(&mut object, patch);
        store.set(resource, name, object);
    }

    /// As an administrator.
    pub fn delete(&self, resource: &'static str, name: &str) {
        self.store().objects.remove(&(resource, name.to_owned()));
    }

    /// `Value::Null` where there is none.
    pub fn get(&self, resource: &'static str, name: &str) -> Value {
        self.store().get(resource, name)
    }

    pub fn all(&self, resource: &'static str) -> Vec<Value> {
        let store = self.store();
        store.objects.iter().filter(|((r, _), _)| *r == resource).map(|(_, object)| object.clone()).collect()
    }

    /// Every write that daemons tried, in the order of their effects.
    pub fn writes(&self) -> Vec<Write> {
        self.store().writes.clone()
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.state.store()
    }
}

impl Drop for KubeApi {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A kubeconfig for a server on this port, whoever listens there.
pub fn kubeconfig(port: u16, token_file: &std::path::Path) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "it",
        "clusters": [{"name": "it", "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
        "users": [{"name": "it", "user": {"tokenFile": token_file}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it", "namespace": NAMESPACE}}],
    })
    .to_string()
}

/// A file in `tests/fixtures`.
pub fn fixture(file: &str) -> Value {
    let path = format!("{}/tests/fixtures/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

impl State {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while the writes of this daemon are held.
    async fn door(&self, who: &str) {
        let mut held = self.held.subscribe();
        if held.borrow().contains(who) {
            *self.store().parked.entry(who.to_owned()).or_default() += 1;
            held.wait_for(|held| !held.contains(who)).await.expect("the server lives");
            *self.store().parked.entry(who.to_owned()).or_default() -= 1;
        }
    }
}

async fn handle(state: &State, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let token = request.headers().get("authorization").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let token = token.strip_prefix("Bearer ").unwrap_or_default().to_owned();
    let who = token.split('#').next().unwrap_or_default().to_owned();
    let answer = match call(request).await {
        _ if who.is_empty() || state.store().revoked.contains(&token) => {
            Err((401, "Unauthorized", "Unauthorized".to_owned()))
        }
        Ok(call) => {
            if call.method != Method::GET {
                state.door(&who).await;
            }
            let fault = state.store().fault;
            match fault {
                Fault::Mute => {
                    *state.store().parked.entry(who.clone()).or_default() += 1;
                    std::future::pending::<()>().await;
                }
                Fault::Slow(by) => tokio::time::sleep(by).await,
                Fault::None | Fault::Contended(_) => {}
            }
            state.store().answer(&who, &call)
        }
        Err(refusal) => Err(refusal),
    };
    let (code, body) = answer.unwrap_or_else(|(code, reason, message)| (code, status(code, reason, &message)));
    let body = Full::new(Bytes::from(body.to_string()));
    let response = Response::builder().status(code).header("content-type", "application/json").body(body);
    response.expect("plain parts make a response")
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
}

async fn call(request: Request<Incoming>) -> Result<Call, Refusal> {
    let (head, body) = request.into_parts();
    let unknown = || (404, "NotFound", format!("the server could not find {}", head.uri));
    let mut parts: Vec<&str> = head.uri.path().trim_matches('/').split('/').collect();
    if parts.first() == Some(&"api") {
        parts.splice(0..1, ["apis", ""]);
    }
    let (group, resource, name) = match parts.as_slice() {
        ["apis", group, "v1", "namespaces", NAMESPACE, resource, name @ ..] if name.len() <= 1 => {
            (*group, *resource, name.first().map(ToString::to_string))
        }
        _ => return Err(unknown()),
    };
    let known = KINDS.iter().find(|(g, r, _)| *g == group && *r == resource).ok_or_else(unknown)?;
    let header = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let query = head.uri.query().unwrap_or_default();
    let selector = query.split('&').find_map(|pair| pair.strip_prefix("labelSelector=")).unwrap_or_default();
    let body = body.collect().await.map_err(|e| (400, "BadRequest", e.to_string()))?.to_bytes();
    let body = if body.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&body) };
    Ok(Call {
        method: head.method.clone(),
        group: group.to_owned(),
        resource: known.1,
        kind: known.2,
        name,
        selector: decoded(selector),
        metadata_only: header("accept").contains("as=PartialObjectMetadata"),
        content_type: header("content-type"),
        body: body.map_err(|e| (400, "BadRequest", e.to_string()))?,
    })
}

/// Percent-decoding, as far as selectors need it.
fn decoded(text: &str) -> String {
    text.replace("%3D", "=").replace("%2C", ",").replace("%2F", "/")
}
