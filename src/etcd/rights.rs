//! What the role may do on the ranges of the protocol, found out without a write.

use etcd_client::{Compare, CompareOp, GetOptions, Txn, TxnOp};
use futures_util::StreamExt;
use futures_util::stream;

use super::error::{Error, Kind};
use super::keys::Keys;
use super::{Edge, Etcd};
use crate::election::ids::ElectionIndex;

/// Elections that are asked about at once.
const AT_ONCE: usize = 8;

/// One range of the protocol.
struct Range<'a> {
    from: &'a str,
    prefix: bool,
    written: bool,
}

impl Etcd {
    /// What etcd's role lacks of what queueing, leading, handing over and the record of it need, in the words of etcd's roles.
    /// One transaction where it lacks nothing.
    ///
    /// # Errors
    /// Why that is not known.
    pub async fn lacking(&self, election: ElectionIndex) -> Result<Vec<String>, Error> {
        self.edge.denied(self.edge.keys(election), true).await
    }

    /// Tries, per election, whether the etcd user may read and write what the protocol needs; writes nothing. What is denied
    /// is named, in the words of etcd's roles. An election that is only observed (`observed`) needs no right to write.
    ///
    /// # Errors
    /// Why that is not known.
    pub async fn permissions(&self, observed: &[bool]) -> Vec<(ElectionIndex, Result<Vec<String>, Error>)> {
        let elections = (0..self.edge.keys.len()).map(ElectionIndex);
        let asked = elections.map(|election| async move {
            let writes = !observed.get(election.0).copied().unwrap_or(false);
            (election, self.edge.denied(self.edge.keys(election), writes).await)
        });
        stream::iter(asked).buffered(AT_ONCE).collect().await
    }
}

impl Edge {
    async fn denied(&self, keys: &Keys, writes: bool) -> Result<Vec<String>, Error> {
        let ranges = [
            Range { from: &keys.generation, prefix: false, written: writes },
            Range { from: &keys.control, prefix: false, written: false },
            Range { from: &keys.candidates, prefix: true, written: writes },
            Range { from: &keys.history, prefix: true, written: writes },
        ];
        // All at once first: a refusal does not say what it refuses, but usually there is none.
        let all =
            ranges.iter().flat_map(|range| std::iter::once(read(range)).chain(range.written.then(|| write(range))));
        if self.permitted(impossible(&keys.generation, all.collect())).await? {
            return Ok(Vec::new());
        }
        let mut denied = Vec::new();
        for range in &ranges {
            let key = if range.prefix { format!("{}probe", range.from) } else { range.from.to_owned() };
            let reads = self.permitted(impossible(&key, vec![read(range)])).await?;
            let lacks_write = range.written && !self.permitted(impossible(&key, vec![write(range)])).await?;
            let what = if range.prefix { "the range of" } else { "the key" };
            let right = match (reads, lacks_write) {
                (true, false) => continue,
                (true, true) => "write",
                (false, _) if range.written => "readwrite",
                (false, _) => "read",
            };
            denied.push(format!("{right} on {what} {}", range.from));
        }
        Ok(denied)
    }

    async fn permitted(&self, txn: Txn) -> Result<bool, Error> {
        match self.txn(&self.patient("permissions"), txn).await {
            Ok(_) => Ok(true),
            Err(failed) if failed.error.kind() == Kind::Permission => Ok(false),
            Err(failed) => Err(failed.error),
        }
    }
}

/// A revision is never negative, so nothing is carried out; but etcd checks the rights of all branches before it compares
/// (`apply_auth.go`, `checkTxnAuth`), and that a compare's key may be read as well.
fn impossible(key: &str, ops: Vec<TxnOp>) -> Txn {
    Txn::new().when([Compare::mod_revision(key, CompareOp::Less, 0)]).and_then(ops)
}

fn read(range: &Range<'_>) -> TxnOp {
    let options = if range.prefix { GetOptions::new().with_prefix() } else { GetOptions::new() };
    TxnOp::get(range.from, Some(options.with_keys_only().with_limit(1)))
}

fn write(range: &Range<'_>) -> TxnOp {
    let key = if range.prefix { format!("{}probe", range.from) } else { range.from.to_owned() };
    TxnOp::put(key, "", None)
}
