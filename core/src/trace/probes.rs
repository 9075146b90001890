//! Where a machine puts what is to be traced.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Thread;

use trapline_io::space::{AddressSpace, EndpointId};
use trapline_io::stages::now;
use trapline_io::trace::{Filter, Lane, Recorder};
use trapline_io::window::Mode;

use super::format::{Lost, Mark};
use crate::parts::{Parts, ServedBy};

/// Records of a vCPU: 2 MiB, which at a million exits a second lasts for 32 ms.
const OF_VCPU: usize = 32768;
/// Records of a function whose writes may be posted or collected.
const OF_ADAPTER: usize = 16384;
/// Records of any other.
const OF_FUNCTION: usize = 1024;
/// Changes of the map and marks that wait.
const NOTES: usize = 256;

/// The rings and the filter of a trace.
#[derive(Debug)]
pub struct Probes {
    filter: Arc<Filter>,
    vcpus: Vec<Arc<Lane>>,
    functions: Vec<Arc<Lane>>,
    notes: Notes,
}

/// The other ends.
pub(super) struct Intake {
    pub(super) filter: Arc<Filter>,
    pub(super) lanes: Vec<(Lost, Arc<Lane>)>,
    pub(super) notes: Receiver<Note>,
    pub(super) lost_notes: Arc<AtomicU64>,
}

/// What happened, and when on the stages' clock.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) time: u64,
    pub(super) news: News,
}

/// See [`Note`].
#[derive(Debug)]
pub(super) enum News {
    Map(Arc<AddressSpace>),
    Mark(Mark),
}

impl Probes {
    pub(super) fn new(parts: &[Parts], cpus: u16, filter: Arc<Filter>) -> (Probes, Intake) {
        let vcpus: Vec<Arc<Lane>> = (0..cpus).map(|_| Arc::new(Lane::new(OF_VCPU))).collect();
        let capacity = |part: &Parts| match part.served_by {
            ServedBy::Own => OF_ADAPTER,
            ServedBy::Shared => OF_FUNCTION,
        };
        let functions: Vec<Arc<Lane>> =
            parts.iter().map(|part| Arc::new(Lane::new(capacity(part)))).collect();
        let of_vcpus = vcpus.iter().zip(0..).map(|(lane, id)| (Lost::Vcpu(id), Arc::clone(lane)));
        let of_functions = functions.iter().zip(0..);
        let of_functions = of_functions.map(|(lane, id)| (Lost::Function(EndpointId(id)), Arc::clone(lane)));
        let lanes = of_vcpus.chain(of_functions).collect();
        let (sender, receiver) = sync_channel(NOTES);
        let notes = Notes { sender, lost: Arc::default() };
        let lost_notes = Arc::clone(&notes.lost);
        let intake = Intake { filter: Arc::clone(&filter), lanes, notes: receiver, lost_notes };
        (Probes { filter, vcpus, functions, notes }, intake)
    }

    /// The recorder of a vCPU, for [`trapline_io::stages::Stages`]; to be made once.
    pub fn of_vcpu(&self, vcpu: u16) -> Option<Recorder> {
        let lane = self.vcpus.get(usize::from(vcpu))?;
        Some(Recorder::of_vcpu(vcpu, Arc::clone(lane), Arc::clone(&self.filter)))
    }

    /// The recorder of whoever owns a function; to be made once.
    pub fn of_function(&self, function: EndpointId) -> Option<Recorder> {
        let lane = self.functions.get(usize::from(function.0))?;
        Some(Recorder::of_function(function, Arc::clone(lane), Arc::clone(&self.filter)))
    }

    /// For what happens beside accesses.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Full rings wake this thread.
    pub(super) fn wake(&self, thread: &Thread) {
        for lane in self.vcpus.iter().chain(&self.functions) {
            lane.wake(thread.clone());
        }
    }
}

/// Takes news of a machine for its trace. Clones lead to the same trace. Nothing here blocks; what comes faster
/// than it is written is lost and counted.
#[derive(Clone, Debug)]
pub struct Notes {
    sender: SyncSender<Note>,
    lost: Arc<AtomicU64>,
}

impl Notes {
    /// The legacy window of a function is carried out in this way from now on.
    pub fn window(&self, function: EndpointId, mode: Mode) {
        self.send(News::Mark(Mark::Window(function, mode)));
    }

    /// The machine was reset.
    pub fn reset(&self) {
        self.send(News::Mark(Mark::Reset));
    }

    pub(super) fn map(&self, space: &Arc<AddressSpace>) {
        self.send(News::Map(Arc::clone(space)));
    }

    fn send(&self, news: News) {
        if self.sender.try_send(Note { time: now(), news }).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }
}
