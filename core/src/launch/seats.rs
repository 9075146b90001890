//! Which guest slot and function each given device gets.
//!
//! Functions of one slot of the host that are given together sit on one slot of the guest, with the
//! numbers that they have on the host: a card and its audio function stay one card. A PCI Express
//! function sits behind a root port of its own, where its driver finds a link; a conventional one sits on
//! bus 0; `root-port=` says otherwise.

use anyhow::{Result, bail};
use trapline_devices::pci::Devfn;

use crate::host::PciAddress;

/// What is known of a device before it has a place.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    /// What messages call it.
    pub(super) name: String,
    /// Where it sits on the host; `None` for one that is no function of it.
    pub(super) host: Option<PciAddress>,
    /// Whether it has a PCI Express capability.
    pub(super) express: bool,
    /// Behind a root port or not, if somebody said so.
    pub(super) root_port: Option<bool>,
}

/// A device's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    /// Which card it belongs to, from 0 on.
    pub(super) card: usize,
    /// Its function number there.
    pub(super) function: u8,
    /// Whether the card has more than one.
    pub(super) multifunction: bool,
    /// Whether the card sits behind a root port.
    pub(super) behind_port: bool,
}

impl Seat {
    /// Device and function on the bus it is on; `card` is the place of the card on bus 0.
    pub(super) fn devfn(self, card: Devfn) -> Devfn {
        let device = if self.behind_port { 0 } else { card.device() };
        Devfn::new(device, self.function).unwrap_or_default()
    }

    /// Device numbers from the function's own up to that on bus 0.
    pub(super) fn path(self, card: Devfn) -> Vec<u8> {
        if self.behind_port { vec![0, card.device()] } else { vec![card.device()] }
    }
}

/// Seats in the order of `wishes`, and what is to be told of them.
///
/// # Errors
/// `root-port=` says this of one function of a card and that of another.
pub(super) fn plan(wishes: &[Wish]) -> Result<(Vec<Seat>, Vec<String>)> {
    let mut cards: Vec<(Option<Slot>, Vec<&Wish>)> = Vec::new();
    let mut which = Vec::with_capacity(wishes.len());
    for wish in wishes {
        let slot = wish.host.map(Slot::of);
        let known = cards.iter().position(|(other, _)| slot.is_some() && *other == slot);
        let card = known.unwrap_or(cards.len());
        match cards.get_mut(card) {
            Some((_, members)) => members.push(wish),
            None => cards.push((slot, vec![wish])),
        }
        which.push(card);
    }
    let mut told = Vec::new();
    let mut ports = Vec::with_capacity(cards.len());
    for (_, members) in &cards {
        ports.push(behind_port(members)?);
        let first = members.iter().min_by_key(|wish| wish.number());
        if let Some(first) = first.filter(|first| members.len() > 1 && first.number() != 0) {
            told.push(format!(
                "{}: function 0 of its card is not given, so this one is the guest's function 0",
                first.name
            ));
        }
    }
    let seat = |(wish, card): (&Wish, usize)| {
        let members = cards.get(card).map_or(&[][..], |(_, members)| members);
        let lowest = members.iter().map(|wish| wish.number()).min().unwrap_or(0);
        let function = if wish.number() == lowest { 0 } else { wish.number() };
        let behind_port = ports.get(card).copied().unwrap_or_default();
        Seat { card, function, multifunction: members.len() > 1, behind_port }
    };
    Ok((wishes.iter().zip(which).map(seat).collect(), told))
}

/// Domain, bus and device.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Slot(u32, u8, u8);

impl Slot {
    fn of(address: PciAddress) -> Slot {
        Slot(address.domain(), address.bus(), address.device())
    }
}

impl Wish {
    fn number(&self) -> u8 {
        self.host.map_or(0, PciAddress::function)
    }
}

/// Whether a card of these functions sits behind a root port.
fn behind_port(members: &[&Wish]) -> Result<bool> {
    let mut said: Option<(&Wish, bool)> = None;
    for wish in members {
        match (said, wish.root_port) {
            (Some((other, before)), Some(now)) if before != now => bail!(
                "{} and {} are functions of one card: root-port= must be the same for both",
                other.name,
                wish.name
            ),
            (None, Some(now)) => said = Some((wish, now)),
            _ => {}
        }
    }
    Ok(said.map_or_else(|| members.iter().any(|wish| wish.express), |(_, said)| said))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(host: Option<&str>, express: bool, root_port: Option<bool>) -> Wish {
        let name = host.unwrap_or("socket").to_owned();
        Wish { name, host: host.map(|host| host.parse().unwrap()), express, root_port }
    }

    fn seat(card: usize, function: u8, multifunction: bool, behind_port: bool) -> Seat {
        Seat { card, function, multifunction, behind_port }
    }

    #[test]
    fn express_functions_have_ports_and_others_do_not_unless_told() {
        let wishes = [
            wish(Some("01:00.0"), true, None),
            wish(Some("02:00.0"), false, None),
            wish(Some("03:00.0"), true, Some(false)),
            wish(Some("04:00.0"), false, Some(true)),
            wish(None, false, None),
            wish(None, false, None),
        ];
        let (seats, told) = plan(&wishes).unwrap();
        let ports: Vec<bool> = seats.iter().map(|seat| seat.behind_port).collect();
        assert_eq!(ports, [true, false, false, true, false, false]);
        let cards: Vec<usize> = seats.iter().map(|seat| seat.card).collect();
        assert_eq!(cards, [0, 1, 2, 3, 4, 5]);
        assert!(seats.iter().all(|seat| seat.function == 0 && !seat.multifunction));
        assert!(told.is_empty());
    }

    #[test]
    fn functions_of_one_slot_stay_one_card() {
        let wishes = [
            wish(Some("01:00.1"), true, None),
            wish(Some("02:00.0"), false, None),
            wish(Some("01:00.0"), true, None),
            wish(Some("0001:01:00.0"), false, None),
            wish(Some("01:00.3"), false, None),
        ];
        let (seats, told) = plan(&wishes).unwrap();
        let expected = [
            seat(0, 1, true, true),
            seat(1, 0, false, false),
            seat(0, 0, true, true),
            seat(2, 0, false, false),
            seat(0, 3, true, true),
        ];
        assert_eq!(seats, expected);
        assert!(told.is_empty());
    }

    #[test]
    fn there_is_always_a_function_0() {
        let (seats, told) = plan(&[wish(Some("01:00.1"), true, None)]).unwrap();
        assert_eq!((seats, told.len()), (vec![seat(0, 0, false, true)], 0));
        let wishes = [wish(Some("01:00.2"), false, None), wish(Some("01:00.1"), false, None)];
        let (seats, told) = plan(&wishes).unwrap();
        assert_eq!(seats, [seat(0, 2, true, false), seat(0, 0, true, false)]);
        assert_eq!(
            told,
            ["01:00.1: function 0 of its card is not given, so this one is the guest's function 0"]
        );
    }

    #[test]
    fn a_card_has_one_place() {
        let wishes = [wish(Some("01:00.0"), true, Some(true)), wish(Some("01:00.1"), true, Some(false))];
        let error = plan(&wishes).unwrap_err().to_string();
        assert!(error.contains("01:00.0 and 01:00.1") && error.contains("root-port="), "{error}");
    }

    #[test]
    fn the_path_of_interrupts_goes_by_the_port() {
        let card = Devfn::new(3, 0).unwrap();
        let behind = seat(0, 1, true, true);
        assert_eq!((behind.devfn(card), behind.path(card)), (Devfn::new(0, 1).unwrap(), vec![0, 3]));
        let on_root = seat(0, 1, true, false);
        assert_eq!((on_root.devfn(card), on_root.path(card)), (Devfn::new(3, 1).unwrap(), vec![3]));
    }
}
