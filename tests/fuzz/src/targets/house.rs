//! The HTTP side of a daemon for the targets that speak HTTP: the real listeners, on one thread with their clients.

use tokio::runtime::{Builder, Runtime};

use crate::http_support::{Setup, Stage};

/// What verbs on TCP must carry.
pub const TOKEN: &str = "secret";

struct House {
    runtime: Runtime,
    stage: Stage,
}

thread_local! {
    static HOUSE: House = House::new();
}

impl House {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let setup = Setup { admin_token: Some(TOKEN), max_connections: 1, ..Setup::default() };
        let stage = runtime.block_on(Stage::start(setup));
        Self { runtime, stage }
    }
}

/// Runs a client. The house serves while it runs, and stands for all inputs of this thread.
pub fn visit(client: impl AsyncFnOnce(&Stage)) {
    HOUSE.with(|house| {
        house.stage.beat();
        house.runtime.block_on(client(&house.stage));
    });
}
