//! The firmware's rule once more, told by ranks and sums over all entries, with numbers that do not end: slow,
//! and without the lists that [`super::super::seabios`] keeps.

use trapline_devices::pci::BarKind;

use super::super::*;

/// What the firmware programs: a register, or a bridge's window by the kind of its list.
pub type What = (FunctionId, Option<u8>, usize);
/// First address and size.
pub type Where = (i128, i128);

const PAGE: i128 = 4096;
const GIB: i128 = 1 << 30;

#[derive(Clone, Copy, Debug)]
struct Item {
    what: What,
    bus: usize,
    /// Registers in the order of buses and devices, then windows by falling bus.
    turn: usize,
    size: i128,
    align: i128,
    wide: bool,
}

fn up(value: i128, unit: i128) -> i128 {
    (value + unit - 1).div_euclid(unit) * unit
}

fn bus_numbers(
    functions: &[Function],
    above: Option<usize>,
    next: &mut usize,
    out: &mut Vec<(usize, usize)>,
) {
    let mut here: Vec<usize> = (0..functions.len())
        .filter(|id| functions[*id].parent == above && functions[*id].bridge.is_some())
        .collect();
    here.sort_by_key(|id| functions[*id].devfn);
    for id in here {
        *next += 1;
        out.push((id, *next));
        bus_numbers(functions, Some(id), next, out);
    }
}

/// Where the firmware puts everything, be it sensible or not; `None` where it stops.
pub fn addresses(version: Version, guest: &Guest<'_>) -> Option<Vec<(What, Where)>> {
    let functions = guest.functions;
    let mut numbers = Vec::new();
    bus_numbers(functions, None, &mut 0, &mut numbers);
    let bus_of = |bridge: Option<usize>| {
        bridge.map_or(Some(0), |id| numbers.iter().find(|(of, _)| *of == id).map(|(_, bus)| *bus))
    };
    let bits = version.believes(guest.phys_bits, guest.vendor);
    let top = bits.map(|bits| i128::from(version.top(bits, guest.ram.high)));
    let pads = guest.ram.high > 0 && (top.is_some() || version >= Version(1, 17, 0));

    let mut order: Vec<usize> =
        (0..functions.len()).filter(|id| bus_of(functions[*id].parent).is_some()).collect();
    order.sort_by_key(|id| (bus_of(functions[*id].parent), functions[*id].devfn));
    let mut items = Vec::new();
    for id in order {
        for bar in 0..7_u8 {
            let Some(it) = functions[id].bars[usize::from(bar)] else { continue };
            let (list, wide) = match it.kind {
                BarKind::Io => (0, false),
                BarKind::Memory32 { prefetchable } => (1 + usize::from(prefetchable), false),
                BarKind::Memory64 { prefetchable } => (1 + usize::from(prefetchable), true),
                BarKind::Rom => (1, false),
            };
            let size = i128::from(it.size).max(if list == 0 { 0 } else { PAGE });
            let bus = bus_of(functions[id].parent)?;
            items.push(Item { what: (id, Some(bar), list), bus, turn: items.len(), size, align: size, wide });
        }
    }
    for (id, bus) in numbers.iter().rev() {
        for list in 0..3 {
            let inside: Vec<Item> =
                items.iter().filter(|item| item.bus == *bus && item.what.2 == list).copied().collect();
            let unit = if list == 0 { 4096 } else { 2 << 20 };
            let mut align = inside.iter().map(|item| item.align).max().unwrap_or(1).max(unit);
            let wide = list == 2 && inside.iter().all(|item| item.wide);
            let hot = functions[*id].bridge.unwrap().hot_plug;
            if hot && wide && pads {
                let room = top.unwrap_or(0) / 2048;
                align = if version < Version(1, 16, 4) { room } else { room.max(align) };
            }
            let least = if hot && list != 0 { align } else { 0 };
            let size = up(inside.iter().map(|item| item.size).sum::<i128>().max(least), align);
            let above = bus_of(functions[*id].parent)?;
            items.push(Item { what: (*id, None, list), bus: above, turn: items.len(), size, align, wide });
        }
    }

    let root = |list: usize, wide: bool| -> Vec<Item> {
        let usb = |item: &Item| functions[item.what.0].class == 0x0c03;
        let chosen = |item: &&Item| item.bus == 0 && item.what.2 == list && wide == (item.wide && !usb(item));
        items.iter().filter(chosen).copied().collect()
    };
    let sum = |items: &[Item]| items.iter().map(|item| item.size).sum::<i128>();
    let align = |items: &[Item]| items.iter().map(|item| item.align).max().unwrap_or(1);
    let all = |list: usize| [root(list, false), root(list, true)].concat();
    let low = |memory: &[Item], pref: &[Item]| -> Option<(i128, i128)> {
        let down = |end: i128, items: &[Item]| (end - sum(items)).div_euclid(align(items)) * align(items);
        let (at_memory, at_pref) = if align(memory) < align(pref) {
            let at = down(0xfec0_0000, memory);
            (at, down(at, pref))
        } else {
            let at = down(0xfec0_0000, pref);
            (down(at, memory), at)
        };
        (at_memory.min(at_pref) >= 0xc000_0000).then_some((at_memory, at_pref))
    };
    let ports = sum(&all(0));
    if ports >= 0xf000 {
        return None;
    }
    let mut starts = vec![(all(0), if ports < 0x4000 { 0xc000 } else { 0x1000 })];
    match low(&all(1), &all(2)) {
        Some((memory, pref)) if !pads => starts.extend([(all(1), memory), (all(2), pref)]),
        _ => {
            let [memory, pref] = [root(1, false), root(2, false)];
            let at = low(&memory, &pref)?;
            starts.extend([(memory, at.0), (pref, at.1)]);
            let [memory, pref] = [root(1, true), root(2, true)];
            let mut from = i128::from(guest.floor).max((4 << 30) + i128::from(guest.ram.high));
            if let Some(top) = top {
                let mut size = up(sum(&memory), GIB) + up(sum(&pref), GIB);
                if pads {
                    size = up(size, top / 8);
                }
                from = from.max(top - size);
                // Its numbers end at zero.
                if top < size {
                    from = 1 << 64;
                }
                let taken = |span: &Span<Gpa>| {
                    from < i128::from(span.last().0) + 1 && i128::from(span.first().0) < from + size
                };
                if guest.reserved.iter().any(taken) {
                    from -= size;
                }
            }
            let at_memory = up(up(from, align(&memory)), GIB);
            let at_pref = up(up(at_memory + sum(&memory), align(&pref)), GIB);
            starts.extend([(memory, at_memory), (pref, at_pref)]);
        }
    }

    let mut found = Vec::new();
    for (items_here, start) in starts {
        walk(&items, &numbers, &items_here, start, &mut found);
    }
    Some(found)
}

/// An entry's address: where its list begins, and all that ranks before it.
fn walk(
    all: &[Item],
    numbers: &[(usize, usize)],
    here: &[Item],
    start: i128,
    found: &mut Vec<(What, Where)>,
) {
    for item in here {
        let rank = |item: &Item| (-item.align, -item.size, item.turn);
        let before: i128 = here.iter().filter(|other| rank(other) < rank(item)).map(|other| other.size).sum();
        let at = start + before;
        found.push((item.what, (at, item.size)));
        if let (id, None, list) = item.what {
            let bus = numbers.iter().find(|(of, _)| *of == id).unwrap().1;
            let inside: Vec<Item> =
                all.iter().filter(|item| item.bus == bus && item.what.2 == list).copied().collect();
            walk(all, numbers, &inside, at, found);
        }
    }
}
