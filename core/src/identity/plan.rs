//! The addresses themselves: from what functions have to where it lies.

use trapline_devices::pci::{Bar, BarKind, Home, Places, Windows};
use trapline_devices::q35::{HIGH_RAM, LOW_RAM_LIMIT, RamSplit};
use trapline_io::addr::Position;
use trapline_io::device::Range;
use trapline_io::{Gpa, Port, Span};

use super::space::{Bounds, Owner, Pool, Space};
use super::{Ground, HostAddresses, Unfit};
use crate::firmware::placement::{Function, LOW, Placed, Plan, Window as Open};

/// What a guest has of ports for PCI.
const PORTS: Bounds = (0x1000, 0xffff);
/// The last address below 4 GiB.
const LAST_LOW: u64 = HIGH_RAM - 1;
/// The granularity of what ACPI tells of the root's windows above 4 GiB.
const GIB: u64 = 1 << 30;
/// No two functions share a page, which a memory slot has whole.
const PAGE: u64 = 4096;

/// Addresses, in the order of the functions.
#[derive(Clone, Debug)]
pub(super) struct Addresses {
    pub places: Vec<Places>,
    /// What was not kept, and why.
    pub told: Vec<String>,
}

/// Places all registers of `functions`, of which each keeps what is in the same place of `kept_by`.
pub(super) fn plan(
    functions: &[Function],
    kept_by: &[Option<HostAddresses>],
    ground: Ground<'_>,
) -> Result<Addresses, Unfit> {
    let nested = functions.iter().find(|function| function.bridge.is_some() && function.parent.is_some());
    if let Some(nested) = nested {
        return Err(Unfit::Nested { name: nested.name.clone() });
    }
    let keeps = |id: usize| kept_by.get(id).and_then(Option::as_ref);
    let places = (0..functions.len()).map(|id| Places {
        moves: keeps(id).map(|keeps| keeps.moves).unwrap_or_default(),
        ..Places::default()
    });
    let mut planner = Planner {
        functions,
        kept_by,
        ground,
        memory: platform(ground),
        ports: Space::default(),
        places: places.collect(),
        windows: Vec::new(),
        told: Vec::new(),
    };
    let rest = planner.keep()?;
    planner.open_windows()?;
    for span in ground.reserved {
        let bounds = (span.first().0, span.last().0);
        planner.memory.take(bounds, Owner::Platform, "what the host's IOMMU does not reach");
    }
    let rest = planner.place_beside(rest)?;
    planner.place(rest)?;
    planner.tell_bridges();
    Ok(Addresses { places: planner.places, told: planner.told })
}

/// What the machine itself has of memory.
fn platform(ground: Ground<'_>) -> Space {
    let mut space = Space::default();
    let mut take = |first, last, what| space.take((first, last), Owner::Platform, what);
    for (at, len) in ground.ram.pieces() {
        take(at.0, at.0 + (len - 1), "RAM");
    }
    take(0, 0xf_ffff, "its first MiB");
    take(LOW_RAM_LIMIT, LOW.0 - 1, "its configuration space");
    take(LOW.1 + 1, LAST_LOW, "its interrupt controllers and firmware");
    take(1 << ground.phys_bits, u64::MAX, "no addresses: its processors have too few address bits");
    space
}

impl Addresses {
    /// The same in the terms in which a firmware's own placement is told.
    pub fn as_plan(&self, ram: RamSplit) -> Plan {
        let mut plan = Plan::default();
        for (function, places) in self.places.iter().enumerate() {
            let placed = |home: &Home| {
                let last = home.address + (home.bar.size - 1);
                let at = match home.bar.kind {
                    BarKind::Io => Range::Ports(span((home.address, last), port)?),
                    _ => Range::Memory(span((home.address, last), memory)?),
                };
                Some(Placed { function, bar: home.index, at })
            };
            plan.bars.extend(places.bars.iter().filter_map(placed));
            let windows = places.windows.unwrap_or_default();
            let open = |prefetchable, at| Open { bridge: function, prefetchable, at };
            plan.windows.extend(windows.io.map(|span| open(false, Range::Ports(span))));
            plan.windows.extend(windows.memory.map(|span| open(false, Range::Memory(span))));
            plan.windows.extend(windows.prefetchable.map(|span| open(true, Range::Memory(span))));
        }
        plan.high = above(&plan, ram.end());
        plan
    }
}

/// What of a plan lies above all RAM, in whole GiB.
fn above(plan: &Plan, ram: u64) -> Option<Span<Gpa>> {
    let bars = plan.bars.iter().map(|placed| placed.at);
    let all = bars.chain(plan.windows.iter().map(|window| window.at));
    let high = all.filter_map(|range| match range {
        Range::Memory(span) if span.first().0 >= ram => Some(span),
        _ => None,
    });
    let hull = high.reduce(|one, other| {
        Span::new(one.first().min(other.first()), one.last().max(other.last())).unwrap_or(one)
    })?;
    Span::new(Gpa(hull.first().0 & !(GIB - 1)), Gpa(hull.last().0 | (GIB - 1)))
}

/// A register that has no address yet.
#[derive(Clone, Copy, Debug)]
struct Wanting {
    function: usize,
    index: u8,
    bar: Bar,
}

impl Wanting {
    fn size(&self) -> u64 {
        match self.bar.kind {
            BarKind::Io => self.bar.size,
            _ => self.bar.size.max(PAGE),
        }
    }

    fn anywhere(&self) -> bool {
        matches!(self.bar.kind, BarKind::Memory64 { .. })
    }
}

/// A window that is open, or is to be.
#[derive(Clone, Copy, Debug)]
struct Window {
    bridge: usize,
    pool: Pool,
    bounds: Bounds,
}

struct Planner<'a> {
    functions: &'a [Function],
    kept_by: &'a [Option<HostAddresses>],
    ground: Ground<'a>,
    memory: Space,
    ports: Space,
    places: Vec<Places>,
    windows: Vec<Window>,
    told: Vec<String>,
}

impl Planner<'_> {
    /// Puts down what is kept, and gives back what is not.
    fn keep(&mut self) -> Result<Vec<Wanting>, Unfit> {
        let mut rest = Vec::new();
        for function in 0..self.functions.len() {
            for wanting in self.wanting(function) {
                match self.address(wanting) {
                    Some(address) if self.keep_one(wanting, address)? => {}
                    _ => rest.push(wanting),
                }
            }
        }
        Ok(rest)
    }

    /// The registers of a function.
    fn wanting(&self, function: usize) -> Vec<Wanting> {
        let bars = self.functions.get(function).map_or(&[][..], |function| &function.bars);
        let bars = (0..).zip(bars).filter_map(|(index, bar)| Some((index, (*bar)?)));
        bars.map(|(index, bar)| Wanting { function, index, bar }).collect()
    }

    /// The address on the host, of a register that is to be kept. A ROM is not: the host has it nowhere, often.
    fn address(&self, wanting: Wanting) -> Option<u64> {
        let keeps = self.kept_by.get(wanting.function)?.as_ref()?;
        let kept = keeps.bars.iter().find(|(index, _)| *index == wanting.index)?;
        (wanting.bar.kind != BarKind::Rom).then_some(kept.1)
    }

    /// What messages call a function.
    fn name(&self, function: usize) -> &str {
        let keeps = self.kept_by.get(function).and_then(Option::as_ref);
        keeps.map_or(&self.functions[function].name, |keeps| &keeps.name)
    }

    /// Whether it can be kept.
    fn keep_one(&mut self, wanting: Wanting, address: u64) -> Result<bool, Unfit> {
        let Wanting { function, index, bar } = wanting;
        let name = self.name(function).to_owned();
        let last = address.saturating_add(bar.size - 1);
        let aligned = address != 0 && address & (bar.size - 1) == 0;
        let bounds = (address, last);
        if bar.kind == BarKind::Io {
            let inside = PORTS.0 <= address && last <= PORTS.1 && aligned;
            if !inside {
                self.told.push(format!(
                    "{name}: identity: its BAR {index} lies at the host's ports {address:#x}-{last:#x}; the guest has \
                     {:#x}-{:#x} for such, so that it lies elsewhere",
                    PORTS.0, PORTS.1
                ));
                return Ok(false);
            }
        } else if !aligned || (!wanting.anywhere() && last > LAST_LOW) {
            let what = "no place for a register of its size".into();
            return Err(Unfit::Taken { name, index, first: address, last, what });
        } else if self.functions[function].parent.is_some() && address > LAST_LOW && !prefetchable(bar) {
            return Err(Unfit::Above { name, index, address });
        }
        let owner = self.owner(wanting, Some(address));
        let what = format!("BAR {index} of {name}");
        let space = if bar.kind == BarKind::Io { &mut self.ports } else { &mut self.memory };
        if let Some(what) = space.in_the_way(bounds, owner) {
            let what = what.to_owned();
            return Err(Unfit::Taken { name, index, first: address, last, what });
        }
        space.take(bounds, owner, what);
        self.places[function].bars.push(Home { index, bar, address, kept: true });
        Ok(true)
    }

    /// Who has a register that is kept at `address`, or has none yet. What is prefetchable may pass through the
    /// other window of memory too: where some of it is kept above 4 GiB, what lies below needs that.
    fn owner(&self, wanting: Wanting, address: Option<u64>) -> Owner {
        let Some(bridge) = self.functions[wanting.function].parent else {
            return Owner::Function(wanting.function);
        };
        let high = address.map_or(wanting.anywhere(), |address| address > LAST_LOW);
        let pool = match wanting.bar.kind {
            BarKind::Io => Pool::Ports,
            _ if prefetchable(wanting.bar) && (high || !self.keeps_high(bridge)) => Pool::Prefetchable,
            _ => Pool::Memory,
        };
        Owner::Window(bridge, pool)
    }

    /// Whether something behind `bridge` is kept above 4 GiB.
    fn keeps_high(&self, bridge: usize) -> bool {
        let functions = self.functions.iter().enumerate();
        let behind = functions.filter(|(_, function)| function.parent == Some(bridge));
        let mut all = behind.flat_map(|(function, _)| self.wanting(function));
        all.any(|wanting| self.address(wanting).is_some_and(|address| address > LAST_LOW))
    }

    /// Opens the windows of bridges around what is kept behind them.
    fn open_windows(&mut self) -> Result<(), Unfit> {
        for (function, places) in self.places.clone().iter().enumerate() {
            for home in &places.bars {
                let wanting = Wanting { function, index: home.index, bar: home.bar };
                let Owner::Window(bridge, pool) = self.owner(wanting, Some(home.address)) else { continue };
                let old = self.window(bridge, pool).map(|window| window.bounds);
                let last = home.address + (home.bar.size - 1);
                let bounds =
                    old.map_or((home.address, last), |old| (old.0.min(home.address), old.1.max(last)));
                self.open(function, Window { bridge, pool, bounds })?;
            }
        }
        Ok(())
    }

    fn window(&self, bridge: usize, pool: Pool) -> Option<Window> {
        self.windows.iter().copied().find(|window| window.bridge == bridge && window.pool == pool)
    }

    /// Opens a window, or makes one wider, for `function`.
    fn open(&mut self, function: usize, window: Window) -> Result<(), Unfit> {
        let grain = grain(window.pool);
        let bounds = (window.bounds.0 & !(grain - 1), window.bounds.1 | (grain - 1));
        let owner = Owner::Window(window.bridge, window.pool);
        let name = self.name(window.bridge);
        let what = format!("what lies behind {name}");
        let space = if window.pool == Pool::Ports { &mut self.ports } else { &mut self.memory };
        if let Some(what) = space.foreign(bounds, owner) {
            let what = what.to_owned();
            let name = self.name(function).to_owned();
            return Err(Unfit::Window { name, first: bounds.0, last: bounds.1, what });
        }
        space.open(bounds, owner, what);
        self.windows.retain(|old| (old.bridge, old.pool) != (window.bridge, window.pool));
        self.windows.push(Window { bounds, ..window });
        Ok(())
    }

    /// Places what is behind a bridge whose window is open, there or right beside, and gives back the rest.
    fn place_beside(&mut self, mut wanting: Vec<Wanting>) -> Result<Vec<Wanting>, Unfit> {
        wanting.sort_by_key(|wanting| std::cmp::Reverse(wanting.size()));
        let mut rest = Vec::new();
        for wanting in wanting {
            match self.owner(wanting, None) {
                Owner::Window(bridge, pool) if self.window(bridge, pool).is_some() => {
                    self.place_in(wanting, bridge, pool)?;
                }
                _ => rest.push(wanting),
            }
        }
        Ok(rest)
    }

    /// Places a register in a window that is open, which may grow by what is free beside it.
    fn place_in(&mut self, wanting: Wanting, bridge: usize, pool: Pool) -> Result<(), Unfit> {
        let no_room = || self.no_room(wanting);
        let window = self.window(bridge, pool).ok_or_else(no_room)?;
        let owner = Owner::Window(bridge, pool);
        let (first, last) = window.bounds;
        let end = match pool {
            Pool::Ports => PORTS.1,
            _ if last <= LAST_LOW => LAST_LOW,
            _ => u64::MAX,
        };
        let space = if pool == Pool::Ports { &self.ports } else { &self.memory };
        let size = wanting.size();
        let fits = |at: &u64| {
            let grain = grain(pool);
            let bounds = (first.min(*at) & !(grain - 1), last.max(at + (size - 1)) | (grain - 1));
            space.foreign(bounds, owner).is_none()
        };
        let inside = space.lowest(size, size, window.bounds, owner);
        let above = || space.lowest(size, size, (last.saturating_add(1), end), owner).filter(fits);
        let below = || space.highest(size, size, (0, first.saturating_sub(1)), owner).filter(fits);
        let at = inside.or_else(above).or_else(below).ok_or_else(no_room)?;
        let bounds = (first.min(at), last.max(at + (size - 1)));
        self.open(wanting.function, Window { bounds, ..window })?;
        self.put(wanting, at, owner);
        Ok(())
    }

    /// Places all that is left: first what must lie below 4 GiB, the largest first.
    fn place(&mut self, rest: Vec<Wanting>) -> Result<(), Unfit> {
        let mut blocks: Vec<(Owner, Vec<Wanting>)> = Vec::new();
        for wanting in rest {
            let owner = self.owner(wanting, None);
            match blocks.iter_mut().find(|(other, _)| *other == owner && matches!(owner, Owner::Window(..))) {
                Some((_, block)) => block.push(wanting),
                None => blocks.push((owner, vec![wanting])),
            }
        }
        // A bridge's window that is not prefetchable has registers of 32 bits.
        let anywhere = |owner: Owner, block: &[Wanting]| {
            !matches!(owner, Owner::Window(_, Pool::Memory)) && block.iter().all(Wanting::anywhere)
        };
        let total = |block: &[Wanting]| block.iter().map(Wanting::size).sum::<u64>();
        blocks.sort_by_key(|(owner, block)| (anywhere(*owner, block), std::cmp::Reverse(total(block))));
        for (owner, block) in blocks {
            // The largest came first, so what follows it is aligned as well.
            let Some(first) = block.first().copied() else { continue };
            let Owner::Window(bridge, pool) = owner else {
                let at = self.find(&first, first.size(), first.size(), anywhere(owner, &block), owner)?;
                self.put(first, at, owner);
                continue;
            };
            let grain = grain(pool);
            let size = total(&block).next_multiple_of(grain);
            let at = self.find(&first, size, first.size().max(grain), anywhere(owner, &block), owner)?;
            self.open(first.function, Window { bridge, pool, bounds: (at, at + (size - 1)) })?;
            for wanting in block {
                self.place_in(wanting, bridge, pool)?;
            }
        }
        Ok(())
    }

    /// A free place for `first` and what goes with it.
    fn find(
        &self,
        first: &Wanting,
        size: u64,
        align: u64,
        anywhere: bool,
        owner: Owner,
    ) -> Result<u64, Unfit> {
        if first.bar.kind == BarKind::Io {
            return self.ports.highest(size, align, PORTS, owner).ok_or_else(|| self.no_room(*first));
        }
        let below = |within| self.memory.highest(size, align, within, owner);
        let high = (self.ground.ram.end().next_multiple_of(GIB), u64::MAX);
        below(LOW)
            .or_else(|| below((self.ground.ram.low, LOW_RAM_LIMIT - 1)))
            .or_else(|| self.memory.lowest(size, align, high, owner).filter(|_| anywhere))
            .ok_or_else(|| self.no_room(*first))
    }

    fn put(&mut self, wanting: Wanting, address: u64, owner: Owner) {
        let Wanting { function, index, bar } = wanting;
        let what = format!("BAR {index} of {}", self.name(function));
        let space = if bar.kind == BarKind::Io { &mut self.ports } else { &mut self.memory };
        space.take((address, address + (wanting.size() - 1)), owner, what);
        self.places[function].bars.push(Home { index, bar, address, kept: false });
    }

    fn no_room(&self, wanting: Wanting) -> Unfit {
        let Wanting { function, index, bar } = wanting;
        Unfit::NoRoom { name: self.name(function).to_owned(), index, size: bar.size }
    }

    /// Writes down the windows of all bridges, those that are closed too.
    fn tell_bridges(&mut self) {
        for (bridge, _) in self.functions.iter().enumerate().filter(|(_, function)| function.bridge.is_some())
        {
            let bounds = |pool| self.window(bridge, pool).map(|window| window.bounds);
            let windows = Windows {
                io: bounds(Pool::Ports).and_then(|bounds| span(bounds, port)),
                memory: bounds(Pool::Memory).and_then(|bounds| span(bounds, memory)),
                prefetchable: bounds(Pool::Prefetchable).and_then(|bounds| span(bounds, memory)),
            };
            self.places[bridge].windows = Some(windows);
        }
    }
}

fn span<A: Position>((first, last): Bounds, at: impl Fn(u64) -> Option<A>) -> Option<Span<A>> {
    Span::new(at(first)?, at(last)?)
}

fn memory(at: u64) -> Option<Gpa> {
    Some(Gpa(at))
}

fn port(at: u64) -> Option<Port> {
    u16::try_from(at).ok().map(Port)
}

fn grain(pool: Pool) -> u64 {
    if pool == Pool::Ports { Windows::PORTS } else { Windows::MEMORY }
}

fn prefetchable(bar: Bar) -> bool {
    matches!(bar.kind, BarKind::Memory32 { prefetchable: true } | BarKind::Memory64 { prefetchable: true })
}
