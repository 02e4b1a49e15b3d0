//! By `EndpointSlice`: a Service without a selector gets one slice, with the leader as its only endpoint.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ObjectReference, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Api;
use kube::api::PostParams;

use super::server::{Failure, MANAGER, Server, call, generation};
use super::{ELECTION, GENERATION, Turn, View};
use crate::election::ids::Generation;

/// The Service that a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Keeps Kubernetes' own controllers away from it.
const MANAGED_BY: (&str, &str) = ("endpointslice.kubernetes.io/managed-by", "tenure.dev");

/// The one slice.
#[derive(Debug)]
pub(super) struct Slice {
    election: String,
    pod: String,
    service: String,
    name: String,
    address: IpAddr,
    /// The newest generation that we may have written, until a newer one is seen there: a write whose answer was lost may
    /// still arrive.
    led: Option<Generation>,
    /// Whether the slice was looked at since this process started: one that names our pod is what a predecessor left.
    inherited: bool,
}

impl Slice {
    pub(super) fn new(election: &str, pod: String, service: String, address: IpAddr) -> Self {
        let name = format!("{service}-tenure");
        Self { election: election.to_owned(), pod, service, name, address, led: None, inherited: false }
    }

    pub(super) async fn turn(&mut self, server: &mut Server, view: &View) -> Result<Turn, Failure> {
        match view.leads() {
            Some(ours) => self.lead(server, view, ours).await,
            None => self.stand_down(server, view).await,
        }
    }

    async fn lead(&mut self, server: &mut Server, view: &View, ours: Generation) -> Result<Turn, Failure> {
        let slices = server.api::<EndpointSlice>().await?;
        let found = self.read(&slices).await?;
        if let Some(slice) = &found {
            self.may_take(slice, ours)?;
        }
        let services = server.api::<Service>().await?;
        let read = call(format!("read service {}", self.service), services.get_opt(&self.service)).await?;
        let service = read.ok_or_else(|| {
            Failure::failed("find the service", format!("there is no service {}; see kubernetes.service", self.service))
        })?;
        let next = self.naming_us(found.clone().unwrap_or_default(), &service, ours)?;
        view.still(Some(ours))?;
        self.led = Some(ours);
        let wrote = found.as_ref() != Some(&next);
        if wrote {
            self.write(server, &slices, &next).await?;
        }
        Ok(Turn { wrote, routed: Some(ours) })
    }

    /// Empties the slice if it still carries our generation, or that of a process that was killed in our pod.
    async fn stand_down(&mut self, server: &mut Server, view: &View) -> Result<Turn, Failure> {
        let at_rest = Turn { wrote: false, routed: None };
        if self.led.is_none() && self.inherited {
            return Ok(at_rest);
        }
        let slices = server.api::<EndpointSlice>().await?;
        let found = self.read(&slices).await?;
        self.inherited = true;
        let Some(mut slice) = found else { return Ok(at_rest) };
        let carried = generation(&slice.metadata, &self.election);
        let names_us = slice
            .endpoints
            .iter()
            .filter_map(|e| e.target_ref.as_ref())
            .any(|pod| pod.name.as_ref() == Some(&self.pod));
        // 0 is what a slice of another election carries.
        let Some(led) = self.led.or(Some(carried).filter(|carried| names_us && *carried > Generation(0))) else {
            return Ok(at_rest);
        };
        self.led = Some(led);
        if carried > led {
            self.led = None;
        }
        if carried != led || slice.endpoints.is_empty() {
            return Ok(at_rest);
        }
        slice.endpoints.clear();
        view.still(None)?;
        self.write(server, &slices, &slice).await?;
        Ok(Turn { wrote: true, routed: None })
    }

    async fn read(&self, slices: &Api<EndpointSlice>) -> Result<Option<EndpointSlice>, Failure> {
        call(format!("read endpoint slice {}", self.name), slices.get_opt(&self.name)).await
    }

    /// With the `resourceVersion` that was read; without one it must not exist yet.
    async fn write(&self, server: &Server, slices: &Api<EndpointSlice>, next: &EndpointSlice) -> Result<(), Failure> {
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let doing = format!("write endpoint slice {}", self.name);
        if next.metadata.resource_version.is_some() {
            server.write(doing, slices.replace(&self.name, &params, next)).await?;
        } else {
            server.write(doing, slices.create(&params, next)).await?;
        }
        Ok(())
    }

    fn may_take(&self, slice: &EndpointSlice, ours: Generation) -> Result<(), Failure> {
        let other = slice.metadata.labels.as_ref().and_then(|l| l.get(ELECTION)).filter(|e| **e != self.election);
        if let Some(other) = other {
            let what = format!(
                "endpoint slice {} belongs to the election {other}, and two must not share a service; if it is not used any \
                 more, delete it",
                self.name
            );
            return Err(Failure::Refused(what));
        }
        let theirs = generation(&slice.metadata, &self.election);
        if theirs > ours {
            return Err(Failure::fenced(&format!("endpointslice {}", self.name), theirs, ours));
        }
        if slice.address_type != self.address_type() {
            // Kubernetes lets nobody change it, and deleting is not a right that we ask for.
            let what = format!(
                "endpoint slice {} is of type {}, and kubernetes.address, {}, is not; delete it to change over",
                self.name, slice.address_type, self.address
            );
            return Err(Failure::Refused(what));
        }
        Ok(())
    }

    fn address_type(&self) -> &'static str {
        if self.address.is_ipv4() { "IPv4" } else { "IPv6" }
    }

    /// `slice` as it is to be while we lead: whatever else somebody wrote to what is ours is put right.
    fn naming_us(
        &self,
        mut slice: EndpointSlice,
        service: &Service,
        ours: Generation,
    ) -> Result<EndpointSlice, Failure> {
        let meta = &mut slice.metadata;
        meta.name = Some(self.name.clone());
        let labels = [(SERVICE_NAME, self.service.as_str()), MANAGED_BY, (ELECTION, self.election.as_str())];
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        meta.labels.get_or_insert_default().extend(labels.map(owned));
        meta.annotations.get_or_insert_default().insert(GENERATION.to_owned(), ours.0.to_string());
        meta.owner_references = Some(vec![owner(&service.metadata)]);
        let namespace = service.metadata.namespace.clone();
        let yes = |is| Some(is);
        self.address_type().clone_into(&mut slice.address_type);
        slice.endpoints = vec![Endpoint {
            addresses: vec![self.address.to_string()],
            conditions: Some(EndpointConditions { ready: yes(true), serving: yes(true), terminating: yes(false) }),
            target_ref: Some(ObjectReference {
                kind: Some("Pod".to_owned()),
                name: Some(self.pod.clone()),
                namespace,
                ..ObjectReference::default()
            }),
            ..Endpoint::default()
        }];
        slice.ports = Some(self.ports(service)?);
        Ok(slice)
    }

    /// Every port of the Service, with the number that it has in the pod.
    fn ports(&self, service: &Service) -> Result<Vec<EndpointPort>, Failure> {
        let refuse = |what: &str| Err(Failure::Refused(format!("service {} {what}", self.service)));
        let spec = service.spec.as_ref();
        if spec.and_then(|spec| spec.selector.as_ref()).is_some_and(|selector| !selector.is_empty()) {
            return refuse("has a selector, so Kubernetes itself sends its traffic to every pod; remove the selector");
        }
        let mut ports = Vec::new();
        for port in spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default() {
            let number = match &port.target_port {
                None => port.port,
                Some(IntOrString::Int(number)) => *number,
                Some(IntOrString::String(name)) => {
                    return refuse(&format!(
                        "has the named targetPort {name}, which only a selector could resolve; write the number"
                    ));
                }
            };
            // What the API server fills in is said, or the slice would differ from what was written for ever.
            ports.push(EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(number),
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                app_protocol: port.app_protocol.clone(),
            });
        }
        if ports.is_empty() { refuse("has no ports") } else { Ok(ports) }
    }
}

/// The slice goes when the Service does. Without `blockOwnerDeletion`, which would ask for one more right.
fn owner(service: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Service".to_owned(),
        name: service.name.clone().unwrap_or_default(),
        uid: service.uid.clone().unwrap_or_default(),
        block_owner_deletion: None,
        controller: None,
    }
}
