//! Whether etcd lets us do all that leading needs, found out without doing any of it.

use etcd_client::{Compare, CompareOp, GetOptions, Txn, TxnOp};

use super::Etcd;
use super::error::{Error, Kind};
use super::keys::Keys;
use crate::election::ids::ElectionIndex;

impl Etcd {
    /// What etcd's role lacks of what queueing, leading, handing over and the record of it need, in the words of etcd's roles.
    /// One transaction where it lacks nothing.
    ///
    /// # Errors
    /// Why that is not known.
    pub async fn lacking(&self, election: ElectionIndex) -> Result<Vec<String>, Error> {
        let keys = self.edge.keys(election);
        match self.edge.txn(&self.edge.patient("permissions"), everything(keys)).await {
            Ok(_) => Ok(Vec::new()),
            // The refusal does not say of what.
            Err(failed) if failed.error.kind() == Kind::Permission => self.edge.denied(keys, true).await,
            Err(failed) => Err(failed.error),
        }
    }
}

/// All that the transactions of an election touch. A revision is never negative, so nothing of it is written; etcd checks the
/// rights of compares and of both branches before it compares (`apply_auth.go`, `checkTxnAuth`).
fn everything(keys: &Keys) -> Txn {
    let put = |key: String| TxnOp::put(key, "", None);
    let first = || GetOptions::new().with_prefix().with_keys_only().with_limit(1);
    Txn::new()
        .when([Compare::mod_revision(keys.generation.clone(), CompareOp::Less, 0)])
        .and_then([
            put(keys.generation.clone()),
            put(format!("{}probe", keys.candidates)),
            put(format!("{}probe", keys.history)),
        ])
        .or_else([
            TxnOp::get(keys.control.clone(), None),
            TxnOp::get(keys.candidates.clone(), Some(first())),
            TxnOp::get(keys.history.clone(), Some(first())),
        ])
}
