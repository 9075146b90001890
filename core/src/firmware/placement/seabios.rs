//! The rule itself, in the firmware's own order: see the page above.

use trapline_devices::pci::{Bar, BarKind};
use trapline_devices::q35::{HIGH_RAM, RamSplit};
use trapline_io::device::Range;
use trapline_io::{Gpa, Port, Span};

use super::misfit::{Misfit, Share};
use super::{Function, FunctionId, Guest, LOW, Placed, Plan, Version, Window, end_of};

/// A memory register takes at least this.
const PAGE: u64 = 4 << 10;
/// Granularity and least alignment of a bridge's window for ports.
const PORT_UNIT: u64 = 4 << 10;
/// The same for memory.
const MEMORY_UNIT: u64 = 2 << 20;
/// What lies above RAM begins and ends at a multiple of this.
const GIB: u64 = 1 << 30;
/// Ports below this sum lie high.
const FEW_PORTS: u64 = 0x4000;
/// Where they lie, and where more of them do.
const PORT_BASES: [u64; 2] = [0xc000, 0x1000];
/// More ports than this do not lie anywhere.
pub(super) const MOST_PORTS: u64 = 0xf000;
/// Serial bus, USB controller: drivers of the firmware need it below 4 GiB.
const CLASS_USB: u16 = 0x0c03;

/// The three lists, as indexes.
const PORTS: usize = 0;
const MEMORY: usize = 1;
const PREFETCHABLE: usize = 2;

/// Something that is given a range: a register, or a bridge's window.
#[derive(Clone, Copy, Debug)]
struct Entry {
    of: FunctionId,
    /// The register's index; `None` for a window.
    bar: Option<u8>,
    list: usize,
    size: u64,
    align: u64,
    /// Takes a 64-bit address.
    wide: bool,
}

/// Entries by alignment, then size, the largest first; of equal ones the one that came first.
#[derive(Clone, Debug, Default)]
struct List(Vec<Entry>);

impl List {
    fn insert(&mut self, entry: Entry) {
        let key = |entry: &Entry| (entry.align, entry.size);
        let at = self.0.partition_point(|other| key(other) >= key(&entry));
        self.0.insert(at, entry);
    }

    fn align(&self) -> u64 {
        self.0.first().map_or(1, |entry| entry.align)
    }

    fn sum(&self) -> u64 {
        self.0.iter().fold(0, |sum, entry| sum.saturating_add(entry.size))
    }

    /// Takes out what can lie above 4 GiB.
    fn take_wide(&mut self, functions: &[Function]) -> List {
        let is_usb = |entry: &Entry| functions.get(entry.of).is_some_and(|of| of.class == CLASS_USB);
        let (wide, rest) = self.0.iter().partition(|entry| entry.wide && !is_usb(entry));
        self.0 = rest;
        List(wide)
    }

    fn shares<'a>(&'a self, functions: &'a [Function]) -> impl Iterator<Item = Share> + 'a {
        self.0.iter().filter(|entry| entry.size > 0).map(|entry| {
            let name = functions.get(entry.of).map_or_else(String::new, |of| of.name.clone());
            Share { name, bar: entry.bar, size: entry.size }
        })
    }
}

/// A bus: the bridge that makes it, and what is to be placed on it.
struct Bus {
    bridge: Option<FunctionId>,
    /// The bus above, by number.
    parent: usize,
    lists: [List; 3],
}

/// Says where this version of SeaBIOS will put everything in this machine.
///
/// # Errors
/// What does not fit: the firmware would stop, or put something where it cannot work.
pub fn place(version: Version, guest: &Guest<'_>) -> Result<Plan, Misfit> {
    holds(guest.ram, guest.phys_bits)?;
    let believed = version.believes(guest.phys_bits, guest.vendor);
    let top = believed.map(|bits| version.top(bits, guest.ram.high));
    let pads = version.pads(believed.is_some(), guest.ram.high);
    let mut buses = number(guest.functions);
    size(guest.functions, &mut buses);
    for bus in (1..buses.len()).rev() {
        let room = if pads { top.map_or(0, |top| top >> 11) } else { 0 };
        open_windows(version, guest.functions, &mut buses, bus, room);
    }
    let mut out = Addresses { functions: guest.functions, plan: Plan::default() };
    let bases = lay_out(guest, &mut buses, top, pads, &mut out)?;
    out.hand_out(&mut buses, bases);
    out.check(guest)
}

/// Whether RAM ends where addresses of so many bits do, or before.
///
/// # Errors
/// [`Misfit::Ram`].
pub(crate) fn holds(ram: RamSplit, phys_bits: u8) -> Result<(), Misfit> {
    let end = HIGH_RAM.saturating_add(ram.high);
    let fits = ram.high == 0 || end <= end_of(phys_bits);
    if fits { Ok(()) } else { Err(Misfit::Ram { end, bits: phys_bits }) }
}

/// Buses by number: depth first, by the places of their bridges.
fn number(functions: &[Function]) -> Vec<Bus> {
    let mut buses = vec![Bus { bridge: None, parent: 0, lists: Default::default() }];
    descend(functions, &mut buses, None, 0);
    buses
}

fn descend(functions: &[Function], buses: &mut Vec<Bus>, above: Option<FunctionId>, parent: usize) {
    for id in on_bus(functions, above) {
        if functions.get(id).is_some_and(|function| function.bridge.is_some()) && buses.len() < 256 {
            let number = buses.len();
            buses.push(Bus { bridge: Some(id), parent, lists: Default::default() });
            descend(functions, buses, Some(id), number);
        }
    }
}

/// The functions right behind a bridge, by device and function number.
fn on_bus(functions: &[Function], above: Option<FunctionId>) -> Vec<FunctionId> {
    let here = functions.iter().enumerate().filter(|(_, function)| function.parent == above);
    let mut here: Vec<_> = here.map(|(id, function)| (function.devfn, id)).collect();
    here.sort_unstable();
    here.into_iter().map(|(_, id)| id).collect()
}

/// Puts every register into a list of its bus.
fn size(functions: &[Function], buses: &mut [Bus]) {
    for bus in buses {
        for id in on_bus(functions, bus.bridge) {
            let bars = functions.get(id).map_or([None; 7], |function| function.bars);
            for (index, bar) in (0..).zip(bars).filter_map(|(index, bar)| Some((index, bar?))) {
                let (list, wide) = kind(bar);
                let size = if list == PORTS { bar.size } else { bar.size.max(PAGE) };
                let entry = Entry { of: id, bar: Some(index), list, size, align: size, wide };
                bus.lists[list].insert(entry);
            }
        }
    }
}

/// The list that a register belongs to, and whether it takes a 64-bit address.
fn kind(bar: Bar) -> (usize, bool) {
    let memory = |prefetchable| if prefetchable { PREFETCHABLE } else { MEMORY };
    match bar.kind {
        BarKind::Io => (PORTS, false),
        BarKind::Memory32 { prefetchable } => (memory(prefetchable), false),
        BarKind::Memory64 { prefetchable } => (memory(prefetchable), true),
        BarKind::Rom => (MEMORY, false),
    }
}

/// Adds the windows of a bus's bridge to the bus above. `room` is what a bridge with a slot gets above 4 GiB, if
/// the firmware expects a guest that uses such addresses.
fn open_windows(version: Version, functions: &[Function], buses: &mut [Bus], bus: usize, room: u64) {
    let Some((bridge, parent)) = buses.get(bus).and_then(|bus| Some((bus.bridge?, bus.parent))) else {
        return;
    };
    let hot_plug = functions.get(bridge).and_then(|function| function.bridge).is_some_and(|it| it.hot_plug);
    for list in [PORTS, MEMORY, PREFETCHABLE] {
        let Some(inside) = buses.get(bus).map(|bus| &bus.lists[list]) else { return };
        let unit = if list == PORTS { PORT_UNIT } else { MEMORY_UNIT };
        let wide = list == PREFETCHABLE && inside.0.iter().all(|entry| entry.wide);
        let mut align = inside.align().max(unit);
        if hot_plug && wide && room > 0 {
            align = if version.aligns() { align.max(room) } else { room };
        }
        let mut sum = inside.sum();
        if hot_plug && list != PORTS {
            sum = sum.max(align);
        }
        let size = sum.checked_next_multiple_of(align).unwrap_or(u64::MAX);
        if let Some(parent) = buses.get_mut(parent) {
            parent.lists[list].insert(Entry { of: bridge, bar: None, list, size, align, wide });
        }
    }
}

/// Where the lists of bus 0 begin. What goes above 4 GiB is taken out of them, and handed out.
fn lay_out(
    guest: &Guest<'_>,
    buses: &mut [Bus],
    top: Option<u64>,
    pads: bool,
    out: &mut Addresses<'_>,
) -> Result<[u64; 3], Misfit> {
    let functions = guest.functions;
    let Some(root) = buses.first_mut() else { return Ok([0; 3]) };
    let ports = ports_base(&root.lists[PORTS], functions)?;
    let low = low_bases(&root.lists, functions);
    let [memory, prefetchable] = match low {
        Ok(bases) if !pads => bases,
        _ => {
            let high = [MEMORY, PREFETCHABLE].map(|list| root.lists[list].take_wide(functions));
            let bases = low_bases(&root.lists, functions)?;
            let (at, span) = high_bases(guest, &high, top, pads)?;
            out.plan.high = span;
            for (list, at) in high.iter().zip(at) {
                out.hand_out_list(buses, list, at);
            }
            bases
        }
    };
    Ok([ports, memory, prefetchable])
}

fn ports_base(ports: &List, functions: &[Function]) -> Result<u64, Misfit> {
    let [few, many] = PORT_BASES;
    match ports.sum() {
        sum if sum < FEW_PORTS => Ok(few),
        sum if sum < MOST_PORTS => Ok(many),
        needed => Err(Misfit::Ports { needed, shares: ports.shares(functions).collect() }),
    }
}

/// Where memory and prefetchable memory begin below 4 GiB.
fn low_bases(lists: &[List; 3], functions: &[Function]) -> Result<[u64; 2], Misfit> {
    // A space below address 0, so that what does not fit can be told as a sum.
    const BELOW: u64 = 1 << 62;
    let [_, memory, prefetchable] = lists;
    let swapped = memory.align() < prefetchable.align();
    let (lower, upper) = if swapped { (prefetchable, memory) } else { (memory, prefetchable) };
    let (first, last) = LOW;
    let end = BELOW + last + 1;
    let down = |end: u64, list: &List| Some(end.checked_sub(list.sum())? & !(list.align() - 1));
    let bases = down(end, upper).and_then(|base| Some((base, down(base, lower)?)));
    match bases {
        Some((upper, lower)) if lower >= BELOW + first => {
            let [upper, lower] = [upper - BELOW, lower - BELOW];
            Ok(if swapped { [upper, lower] } else { [lower, upper] })
        }
        _ => {
            let needed = bases.map_or(u64::MAX, |(_, lower)| end - lower);
            let shares = memory.shares(functions).chain(prefetchable.shares(functions));
            Err(Misfit::Low { needed, shares: shares.collect() })
        }
    }
}

/// Where memory and prefetchable memory begin above RAM, and all that they take in whole GiB.
fn high_bases(
    guest: &Guest<'_>,
    [memory, prefetchable]: &[List; 2],
    top: Option<u64>,
    pads: bool,
) -> Result<([u64; 2], Option<Span<Gpa>>), Misfit> {
    let beyond = |from: u64, end: Option<u64>| Misfit::High {
        from,
        end,
        bits: guest.phys_bits,
        shares: memory.shares(guest.functions).chain(prefetchable.shares(guest.functions)).collect(),
    };
    let up = |value: u64, unit: u64| value.checked_next_multiple_of(unit);
    let above_ram = HIGH_RAM.saturating_add(guest.ram.high).max(guest.floor);
    let (memory_sum, prefetchable_sum) = (memory.sum(), prefetchable.sum());
    let sums = || {
        let sum = up(memory_sum, GIB)?.checked_add(up(prefetchable_sum, GIB)?)?;
        top.filter(|_| pads).map_or(Some(sum), |top| up(sum, top >> 3))
    };
    let all = || {
        let mut from = above_ram;
        if let Some(top) = top {
            let sum = sums()?;
            from = from.max(top.checked_sub(sum)?);
            // It looks once: what lies further down may be taken too.
            let wanted = Span::of_len(Gpa(from), sum);
            if wanted.is_some_and(|wanted| guest.reserved.iter().any(|taken| taken.overlaps(wanted))) {
                from = from.checked_sub(sum)?;
            }
        }
        let first = up(up(from, memory.align())?, GIB)?;
        let second = up(up(first.checked_add(memory_sum)?, prefetchable.align())?, GIB)?;
        Some((first, second, up(second.checked_add(prefetchable_sum)?, GIB)?))
    };
    let (at, second, end) = all().ok_or_else(|| beyond(above_ram, None))?;
    let first = if memory_sum == 0 { second } else { at };
    if end > first && end > end_of(guest.phys_bits) {
        return Err(beyond(first, Some(end)));
    }
    Ok(([at, second], Span::of_len(Gpa(first), end - first)))
}

/// What has been handed out.
struct Addresses<'a> {
    functions: &'a [Function],
    plan: Plan,
}

impl Addresses<'_> {
    /// Everything on all buses, whose windows got their places from the bus above.
    fn hand_out(&mut self, buses: &mut [Bus], bases: [u64; 3]) {
        for (list, base) in [PORTS, MEMORY, PREFETCHABLE].into_iter().zip(bases) {
            let Some(root) = buses.first_mut() else { return };
            let entries = std::mem::take(&mut root.lists[list]);
            self.hand_out_list(buses, &entries, base);
        }
    }

    fn hand_out_list(&mut self, buses: &mut [Bus], list: &List, base: u64) {
        let mut at = base;
        for entry in &list.0 {
            self.hand_out_entry(buses, *entry, at);
            at = at.wrapping_add(entry.size);
        }
    }

    fn hand_out_entry(&mut self, buses: &mut [Bus], entry: Entry, at: u64) {
        let range = if entry.list == PORTS { ports(at, entry.size) } else { memory(at, entry.size) };
        match (entry.bar, range) {
            (Some(bar), Some(at)) => self.plan.bars.push(Placed { function: entry.of, bar, at }),
            (None, Some(at)) => {
                let prefetchable = entry.list == PREFETCHABLE;
                self.plan.windows.push(Window { bridge: entry.of, prefetchable, at });
            }
            // An empty window stays closed.
            _ => {}
        }
        if entry.bar.is_none()
            && let Some(bus) = buses.iter_mut().find(|bus| bus.bridge == Some(entry.of))
        {
            let inside = std::mem::take(&mut bus.lists[entry.list]);
            self.hand_out_list(buses, &inside, at);
        }
    }

    /// What the firmware does not look at.
    fn check(self, guest: &Guest<'_>) -> Result<Plan, Misfit> {
        let ram = Span::of_len(Gpa(HIGH_RAM), guest.ram.high);
        // What evades a reserved range from the top down may come to lie below 4 GiB.
        let around = [(0, LOW.0 - 1), (LOW.1 + 1, HIGH_RAM - 1)];
        let low = around.into_iter().filter_map(|(first, last)| Span::new(Gpa(first), Gpa(last)));
        let taken: Vec<_> = guest.reserved.iter().copied().chain(ram).chain(low).collect();
        let spans = self.plan.bars.iter().filter_map(|placed| match placed.at {
            Range::Memory(span) => Some((placed, span)),
            Range::Ports(_) => None,
        });
        for (placed, span) in spans {
            let share = || {
                let name = self.functions.get(placed.function).map_or_else(String::new, |of| of.name.clone());
                Share { name, bar: Some(placed.bar), size: span.extent().saturating_add(1) }
            };
            if !span.first().0.is_multiple_of(span.extent().saturating_add(1)) {
                return Err(Misfit::Crooked { at: span, share: share() });
            }
            if let Some(by) = taken.iter().find(|taken| taken.overlaps(span)) {
                return Err(Misfit::Taken { at: span, by: *by, share: share() });
            }
        }
        Ok(self.plan)
    }
}

fn ports(at: u64, size: u64) -> Option<Range> {
    Span::of_len(Port(u16::try_from(at).ok()?), size).map(Range::Ports)
}

fn memory(at: u64, size: u64) -> Option<Range> {
    Span::of_len(Gpa(at), size).map(Range::Memory)
}
