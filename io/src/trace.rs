//! What each access was, one record of at most a cache line each, on its way from a vCPU to whoever
//! writes it down.
//!
//! ```text
//!  vCPU 0   Stages -> Recorder -> Lane  \
//!  vCPU 1   Stages -> Recorder -> Lane   }-> one thread takes the records and writes them
//!  owner of a token  -> Recorder -> Lane /
//! ```
//!
//! A vCPU never writes a file, waits, locks or allocates for its trace. It fills a [`Record`] with the
//! moments that [`crate::stages`] marks anyway and puts it into a [`Lane`] of its own, a ring with one
//! producer and one consumer. A full ring loses the record and counts it ([`Lane::lost`]). A machine
//! that is not traced pays the branch that is there for the stages ([`crate::completion::Caller::stages`]).
//!
//! What is posted has a second record, in the lane of its function: made by whoever carried it out, with no
//! vCPU ([`Record::vcpu`]) and no address, as both are unknown there. What KVM collected has only that
//! one. So all that a device sees is in the trace exactly once among the records that
//! [reach the device](Record::reaches_device), and sorted by [`Record::moment`] these stand in the order in
//! which the device saw them, since each moment is taken with the token held. A write that is merged with
//! others, or leaves in a batch, has the moment at which it was put with them and no end: nothing overtakes
//! it then.

mod filter;
mod lane;
mod record;
mod recorder;

pub use filter::{Filter, Rule};
pub use lane::Lane;
pub use record::{How, Record};
pub use recorder::Recorder;
pub(crate) use recorder::{Done, Moments};
