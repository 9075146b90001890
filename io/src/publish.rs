//! The current address space: one writer publishes, each vCPU reads through its own cache.
//!
//! A reader pays one load and a compare while nothing changes; it never writes a shared cache line.
//! Two things follow. A reader may use the old table until its next look-up, which is what a race of
//! an access with a BAR write gives on real hardware; and it may *keep* the old table while it is
//! halted, so a table owns nothing that must be freed in time.
//!
//! A new table is published before the write that caused it completes. Another vCPU that the guest
//! tells of the change therefore sees the new table.

use std::fmt;
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, Cache};

use crate::space::AddressSpace;

/// The place where the current table is found.
#[derive(Debug, Clone, Default)]
pub struct Published {
    space: Arc<ArcSwap<AddressSpace>>,
    watcher: Arc<OnceLock<Watcher>>,
}

/// Who is told of each new table.
struct Watcher(Box<Watch>);

type Watch = dyn Fn(&Arc<AddressSpace>) + Send + Sync;

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watcher")
    }
}

impl Published {
    /// Publishes the first table.
    pub fn new(space: AddressSpace) -> Published {
        Published { space: Arc::new(ArcSwap::from_pointee(space)), watcher: Arc::default() }
    }

    /// Replaces the table. Writers are serialised by their caller (the topology mutex).
    pub fn publish(&self, space: AddressSpace) {
        let space = Arc::new(space);
        if let Some(watcher) = self.watcher.get() {
            watcher.0(&space);
        }
        self.space.store(space);
    }

    /// Tells `watcher` of each new table right before it is published, on the writer's thread; it must
    /// not block. Only the first counts.
    pub fn watch(&self, watcher: impl Fn(&Arc<AddressSpace>) + Send + Sync + 'static) {
        let _ = self.watcher.set(Watcher(Box::new(watcher)));
    }

    /// The current table, for whoever is not on the access path.
    pub fn current(&self) -> Arc<AddressSpace> {
        self.space.load_full()
    }

    /// A reader for one thread.
    pub fn reader(&self) -> Reader {
        Reader(Cache::new(Arc::clone(&self.space)))
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
