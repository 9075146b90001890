//! The current address space: one writer publishes, each vCPU reads through its own cache.
//!
//! A reader pays one load and a compare while nothing changes; it never writes a shared cache line.
//! Two things follow. A reader may use the old table until its next look-up, which is what a race of
//! an access with a BAR write gives on real hardware; and it may *keep* the old table while it is
//! halted, so a table owns nothing that must be freed in time.
//!
//! A new table is published before the write that caused it completes. Another vCPU that the guest
//! tells of the change therefore sees the new table.

use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};

use crate::space::AddressSpace;

/// The place where the current table is found.
#[derive(Debug, Clone, Default)]
pub struct Published(Arc<ArcSwap<AddressSpace>>);

impl Published {
    /// Publishes the first table.
    pub fn new(space: AddressSpace) -> Published {
        Published(Arc::new(ArcSwap::from_pointee(space)))
    }

    /// Replaces the table. Writers are serialised by their caller (the topology mutex).
    pub fn publish(&self, space: AddressSpace) {
        self.0.store(Arc::new(space));
    }

    /// The current table, for whoever is not on the access path.
    pub fn current(&self) -> Arc<AddressSpace> {
        self.0.load_full()
    }

    /// A reader for one thread.
    pub fn reader(&self) -> Reader {
        Reader(Cache::new(Arc::clone(&self.0)))
    }
}

/// One thread's view of the current table.
#[derive(Debug, Clone)]
pub struct Reader(Cache<Arc<ArcSwap<AddressSpace>>, Arc<AddressSpace>>);

impl Reader {
    /// The newest table. Never blocks.
    #[inline]
    pub fn space(&mut self) -> &AddressSpace {
        self.0.load()
    }
}
