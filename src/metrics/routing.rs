//! Routing in Kubernetes: families that exist only where it is configured.

use prometheus::{IntCounterVec, IntGauge};

use super::Metrics;
use super::families::Maker;
use crate::election::ids::{ElectionIndex, Generation};

/// What traffic is routed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteObject {
    /// Labels of pods.
    Pod,
    /// An `EndpointSlice`.
    EndpointSlice,
}

impl RouteObject {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::EndpointSlice => "endpoint_slice",
        }
    }
}

/// What came of changing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteWrite {
    /// Accepted.
    Ok,
    /// Refused by the API server: somebody wrote in between.
    Conflict,
    /// Not tried: a newer generation is there, or the object is not one that we may change.
    Refused,
    /// The API server did not do it, or did not answer; of reading too.
    Error,
}

impl RouteWrite {
    const ALL: [Self; 4] = [Self::Ok, Self::Conflict, Self::Refused, Self::Error];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Conflict => "conflict",
            Self::Refused => "refused",
            Self::Error => "error",
        }
    }
}

/// The series of routing one election by one kind of object; cheap to clone.
#[derive(Clone, Debug)]
pub struct RouteMetrics {
    writes: IntCounterVec,
    generation: IntGauge,
    object: RouteObject,
}

impl Metrics {
    /// Makes the families of routing exist. Once: a daemon routes one election.
    #[must_use]
    pub fn routing(&self, election: ElectionIndex, object: RouteObject) -> RouteMetrics {
        let m = Maker(&self.0.families.registry);
        let help = "Writes of what routes traffic to the leader, by what came of them; error counts failed reads too.";
        let writes = m.counters("kubernetes_writes_total", &["object", "result"], help);
        for result in RouteWrite::ALL {
            writes.with_label_values(&[object.as_str(), result.as_str()]);
        }
        let help = "The generation with which traffic is routed to this daemon, as the API server confirmed last; 0 while it is not.";
        let generation = m.gauges("kubernetes_route_generation", &["election"], help);
        let generation = generation.with_label_values(&[self.name(election).unwrap_or_default()]);
        RouteMetrics { writes, generation, object }
    }
}

impl RouteMetrics {
    /// A write came to this.
    pub fn wrote(&self, result: RouteWrite) {
        self.writes.with_label_values(&[self.object.as_str(), result.as_str()]).inc();
    }

    /// Traffic is routed here with this generation, or is not.
    pub fn routed(&self, generation: Option<Generation>) {
        self.generation.set(generation.map_or(0, |g| i64::try_from(g.0).unwrap_or(i64::MAX)));
    }
}
