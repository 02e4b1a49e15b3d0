pub mod event;
pub mod guard;
pub mod ids;
pub mod promise;
pub mod record;
pub mod role;
