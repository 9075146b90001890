//! What both forms of a trace have in common.

use trapline_devices::assigned::overlay_name;
use trapline_io::Region;
use trapline_io::space::EndpointId;
use trapline_io::trace::Record;
use trapline_io::window::Mode;

use super::map::{Change, Map};

/// A function, as a trace names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    /// Vendor and device, of a PCI function.
    pub(super) id: Option<(u16, u16)>,
    /// Which of its regions 0 to 6 are what its base address registers and that of its ROM decode.
    pub(super) bars: [bool; 7],
}

impl Function {
    /// Whether this region is what a base address register decodes.
    pub(super) fn has_bar(&self, region: Region) -> bool {
        self.bars.get(usize::from(region.0)).is_some_and(|has| *has)
    }
}

/// The machine that is traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cast {
    pub(super) vcpus: u16,
    /// By their endpoints' numbers.
    pub(super) functions: Vec<Function>,
}

impl Cast {
    pub(super) fn function(&self, id: EndpointId) -> Option<&Function> {
        self.functions.get(usize::from(id.0))
    }
}

/// What happens beside accesses and changes of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// The legacy window of a function is carried out in another way.
    Window(EndpointId, Mode),
    /// The guest looks into the configuration space of another function through an overlay of this one, for the
    /// first time.
    Foreign(EndpointId, Region),
    /// The machine was reset.
    Reset,
}

/// Where records were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    Vcpu(u16),
    Function(EndpointId),
    /// Changes of the map, and marks.
    Events,
}

/// One form of a trace. All of it appends to `out`; times are nanoseconds since the trace began.
pub(super) trait Format: Send {
    /// The start of the file.
    fn begin(&mut self, cast: &Cast, out: &mut Vec<u8>);

    /// One access, in the order of [`Record::moment`]; its times count from the trace's beginning already.
    fn record(&mut self, record: &Record, cast: &Cast, map: &Map, out: &mut Vec<u8>);

    /// The map has changed, and is `map` now.
    fn mapped(&mut self, time: u64, change: &Change, cast: &Cast, map: &Map, out: &mut Vec<u8>);

    /// Something else that happened.
    fn marked(&mut self, time: u64, mark: Mark, cast: &Cast, out: &mut Vec<u8>);

    /// So many records were lost since this was last told.
    fn lost(&mut self, time: u64, lost: Lost, count: u64, cast: &Cast, out: &mut Vec<u8>);

    /// What must stand at the end of a file for it to be whole.
    fn footer(&self) -> &'static [u8];
}

/// A region's name: of a PCI function as VFIO numbers it, or what an overlay is called.
pub(super) fn region_name(function: &Function, region: Region) -> &'static str {
    const OF_PCI: [&str; 9] = ["bar0", "bar1", "bar2", "bar3", "bar4", "bar5", "rom", "config", "vga"];
    const OF_PLATFORM: [&str; 4] = ["region0", "region1", "region2", "region3"];
    let names = if function.id.is_some() { &OF_PCI[..] } else { &OF_PLATFORM[..] };
    let known = names.get(usize::from(region.0)).copied();
    let overlay = || overlay_name(region).filter(|_| function.id.is_some());
    known.or_else(overlay).unwrap_or("other")
}

/// A mode's name.
pub(super) fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Native => "native",
        Mode::Resting => "resting",
        Mode::Coalesced => "coalesced",
        Mode::Shadowed => "shadowed",
    }
}
