//! The addresses themselves: from what functions have to where it lies.

use trapline_devices::pci::{Bar, BarKind, Home, Places, Windows};
use trapline_devices::q35::{HIGH_RAM, LOW_RAM_LIMIT};
use trapline_io::addr::Position;
use trapline_io::{Gpa, Port, Span};

use super::space::{Bounds, Owner, Pool, Space};
use super::{Ground, Identity, Unfit};

/// What a guest has of ports for PCI.
const PORTS: Bounds = (0x1000, 0xffff);
/// What SeaBIOS and the root's first window have for BARs below 4 GiB.
const LOW: Bounds = (0xc000_0000, 0xfebf_ffff);
/// The last address below 4 GiB.
const LAST_LOW: u64 = HIGH_RAM - 1;
/// No two functions share a page, which a memory slot has whole.
const PAGE: u64 = 4096;

/// A function as it is before it has addresses.
#[derive(Clone, Debug)]
pub(super) struct Function {
    /// What messages call it.
    pub name: String,
    /// The bridge above it, by its place in the list.
    pub parent: Option<usize>,
    /// It is a bridge.
    pub bridge: bool,
    /// Its registers by index.
    pub bars: Vec<(u8, Bar)>,
    /// What it keeps.
    pub identity: Option<Identity>,
}

/// Addresses, in the order of the functions.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub places: Vec<Places>,
    /// What was not kept, and why.
    pub told: Vec<String>,
}

/// Places all registers of `functions`.
pub(super) fn plan(functions: &[Function], ground: Ground) -> Result<Plan, Unfit> {
    if let Some(nested) = functions.iter().find(|function| function.bridge && function.parent.is_some()) {
        return Err(Unfit::Nested { name: nested.name.clone() });
    }
    let places = functions.iter().map(|function| Places {
        moves: function.identity.as_ref().map(|identity| identity.moves).unwrap_or_default(),
        ..Places::default()
    });
    let mut planner = Planner {
        functions,
        ground,
        memory: platform(ground),
        ports: Space::default(),
        places: places.collect(),
        windows: Vec::new(),
        told: Vec::new(),
    };
    let rest = planner.keep()?;
    planner.open_windows()?;
    let rest = planner.place_beside(rest)?;
    planner.place(rest)?;
    planner.tell_bridges();
    Ok(Plan { places: planner.places, told: planner.told })
}

/// What the machine itself has of memory.
fn platform(ground: Ground) -> Space {
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
    ground: Ground,
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
        for (function, it) in self.functions.iter().enumerate() {
            let kept = it.identity.as_ref().map_or(&[][..], |identity| &identity.bars);
            for &(index, bar) in &it.bars {
                let wanting = Wanting { function, index, bar };
                let address = kept.iter().find(|(kept, _)| *kept == index && bar.kind != BarKind::Rom);
                match address {
                    Some((_, address)) if self.keep_one(wanting, *address)? => {}
                    _ => rest.push(wanting),
                }
            }
        }
        Ok(rest)
    }

    /// Whether it can be kept.
    fn keep_one(&mut self, wanting: Wanting, address: u64) -> Result<bool, Unfit> {
        let Wanting { function, index, bar } = wanting;
        let name = &self.functions[function].name;
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
            return Err(Unfit::Taken { name: name.clone(), index, first: address, last, what });
        } else if self.functions[function].parent.is_some() && address > LAST_LOW && !prefetchable(bar) {
            return Err(Unfit::Above { name: name.clone(), index, address });
        }
        let owner = self.owner(wanting, Some(address));
        let what = format!("BAR {index} of {name}");
        let space = if bar.kind == BarKind::Io { &mut self.ports } else { &mut self.memory };
        if let Some(what) = space.in_the_way(bounds, owner) {
            let (name, what) = (name.clone(), what.to_owned());
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
        let behind = self.functions.iter().filter(|function| function.parent == Some(bridge));
        let identities = behind.filter_map(|function| Some((function, function.identity.as_ref()?)));
        let mut kept = identities.flat_map(|(function, identity)| {
            identity.bars.iter().filter(|(index, _)| function.bars.iter().any(|(bar, _)| bar == index))
        });
        kept.any(|(_, address)| *address > LAST_LOW)
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
        let name = &self.functions[window.bridge].name;
        let what = format!("what lies behind {name}");
        let space = if window.pool == Pool::Ports { &mut self.ports } else { &mut self.memory };
        if let Some(what) = space.foreign(bounds, owner) {
            let (name, what) = (self.functions[function].name.clone(), what.to_owned());
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
        let anywhere = |block: &[Wanting]| block.iter().all(Wanting::anywhere);
        let total = |block: &[Wanting]| block.iter().map(Wanting::size).sum::<u64>();
        blocks.sort_by_key(|(_, block)| (anywhere(block), std::cmp::Reverse(total(block))));
        for (owner, block) in blocks {
            // The largest came first, so what follows it is aligned as well.
            let Some(first) = block.first().copied() else { continue };
            let Owner::Window(bridge, pool) = owner else {
                let at = self.find(&first, first.size(), first.size(), anywhere(&block), owner)?;
                self.put(first, at, owner);
                continue;
            };
            let grain = grain(pool);
            let size = total(&block).next_multiple_of(grain);
            let at = self.find(&first, size, first.size().max(grain), anywhere(&block), owner)?;
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
        // ACPI tells the root's windows up there in whole GiB.
        let high = (self.ground.ram.end().next_multiple_of(1 << 30), u64::MAX);
        below(LOW)
            .or_else(|| below((self.ground.ram.low, LOW_RAM_LIMIT - 1)))
            .or_else(|| self.memory.lowest(size, align, high, owner).filter(|_| anywhere))
            .ok_or_else(|| self.no_room(*first))
    }

    fn put(&mut self, wanting: Wanting, address: u64, owner: Owner) {
        let Wanting { function, index, bar } = wanting;
        let what = format!("BAR {index} of {}", self.functions[function].name);
        let space = if bar.kind == BarKind::Io { &mut self.ports } else { &mut self.memory };
        space.take((address, address + (wanting.size() - 1)), owner, what);
        self.places[function].bars.push(Home { index, bar, address, kept: false });
    }

    fn no_room(&self, wanting: Wanting) -> Unfit {
        let Wanting { function, index, bar } = wanting;
        Unfit::NoRoom { name: self.functions[function].name.clone(), index, size: bar.size }
    }

    /// Writes down the windows of all bridges, those that are closed too.
    fn tell_bridges(&mut self) {
        for (bridge, _) in self.functions.iter().enumerate().filter(|(_, function)| function.bridge) {
            let memory = |pool| span(self.window(bridge, pool)?.bounds, |at| Some(Gpa(at)));
            let port = |at| u16::try_from(at).ok().map(Port);
            let windows = Windows {
                io: self.window(bridge, Pool::Ports).and_then(|window| span(window.bounds, port)),
                memory: memory(Pool::Memory),
                prefetchable: memory(Pool::Prefetchable),
            };
            self.places[bridge].windows = Some(windows);
        }
    }
}

fn span<A: Position>((first, last): Bounds, at: impl Fn(u64) -> Option<A>) -> Option<Span<A>> {
    Span::new(at(first)?, at(last)?)
}

fn grain(pool: Pool) -> u64 {
    if pool == Pool::Ports { Windows::PORTS } else { Windows::MEMORY }
}

fn prefetchable(bar: Bar) -> bool {
    matches!(bar.kind, BarKind::Memory32 { prefetchable: true } | BarKind::Memory64 { prefetchable: true })
}
