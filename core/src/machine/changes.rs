//! Writes that change the map, and parts that take their own.

use std::sync::Arc;

use trapline_io::Access;
use trapline_io::completion::Caller;
use trapline_io::path;
use trapline_io::space::EndpointId;

use crate::topology::Topology;

/// Who carries out the writes that change the map: the topology, but where a part has its own.
pub(super) fn by(
    own: Vec<Option<Arc<dyn path::Topology>>>,
    topology: &Arc<Topology>,
) -> Arc<dyn path::Topology> {
    let topology = Arc::clone(topology);
    if own.iter().any(Option::is_some) { Arc::new(Changes { own, topology }) } else { topology }
}

/// See [`by`].
struct Changes {
    own: Vec<Option<Arc<dyn path::Topology>>>,
    topology: Arc<Topology>,
}

impl path::Topology for Changes {
    fn change(&self, caller: &mut Caller, endpoint: EndpointId, access: Access) {
        match self.own.get(usize::from(endpoint.0)).and_then(Option::as_ref) {
            Some(own) => own.change(caller, endpoint, access),
            None => self.topology.change(caller, endpoint, access),
        }
    }
}
