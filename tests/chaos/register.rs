//! The store that the clients write to: with a fence, and beside it the same without, to show what the fence is for.
//!
//! The fence is what `docs/safety.md` asks of a store: it refuses a token below the highest it has seen, reads included. A read
//! without a fence would let an old leader write between a new leader's read and its write, and that write would be lost.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::client::{end_with_the_parent, option};
use super::history::{Apply, Record, Register, Writer, now};

/// One line of JSON to the store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    pub election: String,
    pub register: Register,
    pub client: String,
    pub token: u64,
    /// Grows with every attempt of a client: an older one of its own that was held up on its way is not applied. What
    /// happens under one token is the client's own affair, and tokens do not order it.
    pub attempt: u64,
    /// The whole new value of a write; none for a read.
    pub set: Option<BTreeSet<String>>,
}

/// One line of JSON back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    pub accepted: bool,
    /// What a read found.
    pub set: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Cell {
    highest: u64,
    attempts: BTreeMap<String, u64>,
    set: BTreeSet<String>,
}

/// All the cells and their one order.
#[derive(Debug)]
pub struct Store {
    cells: Mutex<BTreeMap<(String, Register), Cell>>,
    history: Writer,
}

impl Store {
    pub fn new(history: Writer) -> Self {
        Self { cells: Mutex::default(), history }
    }

    /// Applies a request. Its record is written before anybody can learn of it.
    pub fn apply(&self, request: Request) -> Answer {
        let Request { election, register, client, token, attempt, set } = request;
        let mut cells = self.cells.lock().expect("nobody panicked inside");
        let cell = cells.entry((election.clone(), register)).or_default();
        let last = cell.attempts.get(&client).copied().unwrap_or(0);
        let accepted = !register.has_fence() || (token >= cell.highest && attempt >= last);
        let (write, highest_before) = (set.is_some(), cell.highest);
        let (mut added, mut dropped) = (Vec::new(), Vec::new());
        if accepted {
            cell.highest = cell.highest.max(token);
            cell.attempts.insert(client.clone(), attempt);
            if let Some(set) = set {
                added = set.difference(&cell.set).cloned().collect();
                dropped = cell.set.difference(&set).cloned().collect();
                cell.set = set;
            }
        }
        let found = if accepted && !write { cell.set.clone() } else { BTreeSet::new() };
        let at = now();
        let applied = Apply { election, client, register, write, at, token, highest_before, accepted, added, dropped };
        self.history.record(&Record::Apply(applied));
        Answer { accepted, set: found }
    }
}

/// `register --listen HOST:PORT --history FILE`: serves until it is ended.
pub fn main(args: &[String]) -> Result<(), String> {
    let listen = option(args, "--listen")?;
    let file = option(args, "--history")?;
    let history = Writer::open(Path::new(file)).map_err(|e| format!("{file}: {e}"))?;
    let listener = TcpListener::bind(listen).map_err(|e| format!("{listen}: {e}"))?;
    end_with_the_parent();
    serve(&listener, &Arc::new(Store::new(history)));
    Ok(())
}

/// A thread for each connection: there are a few dozen clients.
fn serve(listener: &TcpListener, store: &Arc<Store>) {
    for stream in listener.incoming() {
        // A client that was gone before it was accepted.
        let Ok(stream) = stream else { continue };
        let store = Arc::clone(store);
        std::thread::spawn(move || {
            // A client that leaves, is cut off or sends half a line has asked for nothing, or learns nothing.
            let _ = answer(&stream, &store);
        });
    }
}

fn answer(stream: &TcpStream, store: &Store) -> std::io::Result<()> {
    // Longer than any stop of a client: what it sends when it goes on must arrive, that is the point.
    stream.set_read_timeout(Some(Duration::from_mins(1)))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let answer = store.apply(serde_json::from_str(&line)?);
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    let mut stream = stream;
    stream.write_all(&line)
}
