//! The core's standing and the driver's notes as readers see them.

use super::Note;
use crate::election::Standing;
use crate::election::ids::ElectionName;
use crate::snapshot::{ElectionView, LeaderView};

/// One election for readers.
pub(super) fn view_of(name: &ElectionName, standing: &Standing<'_>, note: &Note) -> ElectionView {
    ElectionView {
        name: name.clone(),
        role: standing.role,
        own: standing.own,
        observed: standing.observed,
        term: standing.term,
        leader: standing.leader.map(|(record, holder)| LeaderView {
            id: holder.id.clone(),
            url: holder.url.clone(),
            generation: record.generation,
            elected_at: record.elected_at,
        }),
        foreign: standing.foreign,
        paused: standing.paused,
        leaving: standing.leaving,
        reason: standing.reason,
        since: note.since,
        hlc: note.hlc,
        queue_position: standing.queue_position,
        candidates: standing.queued,
        observed_revision: standing.revision,
        last_update: note.last_update,
    }
}
