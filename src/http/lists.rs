//! Lists: the queue, this daemon's transitions, the cluster's history.

use hyper::StatusCode;
use serde_json::json as value;

use super::answer::{Answer, json};
use super::app::App;
use super::call::Call;
use super::document::{HistoryDocument, candidate, transition};

/// The queue in order, from etcd.
pub async fn candidates(app: &App, call: &Call) -> Answer {
    let e = call.election(&app.service.reader.load())?;
    let queue = call.question(app.service.control.candidates(e)).await?;
    let candidates: Vec<_> = queue.into_iter().enumerate().map(candidate).collect();
    Ok(json(StatusCode::OK, &value!({ "candidates": candidates })))
}

/// This daemon's audit log, newest first, from memory.
pub fn transitions(app: &App, call: &Call) -> Answer {
    let snapshot = app.service.reader.load();
    let e = call.election(&snapshot)?;
    let lines = app.service.control.transitions(e, call.page()?);
    let transitions: Vec<_> = lines.into_iter().map(|line| transition(line, &snapshot)).collect();
    Ok(json(StatusCode::OK, &value!({ "transitions": transitions })))
}

/// The cluster-wide record, newest first, from etcd.
pub async fn history(app: &App, call: &Call) -> Answer {
    let e = call.election(&app.service.reader.load())?;
    let records = call.question(app.service.control.history(e, call.page()?)).await?;
    let history: Vec<_> = records.into_iter().map(HistoryDocument::from).collect();
    Ok(json(StatusCode::OK, &value!({ "history": history })))
}
