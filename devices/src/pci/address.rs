//! Where a function of the host sits: domain, bus, device, function.

use std::fmt;
use std::str::FromStr;

use super::Devfn;

/// The address of a PCI function, in the order of domain, bus, device and function.
///
/// Written `DDDD:BB:DD.F`, all hexadecimal, as sysfs and lspci have it; the domain may be left out
/// when it is 0000.
///
/// ```
/// use trapline_devices::pci::PciAddress;
/// let address: PciAddress = "01:00.1".parse().expect("well-formed");
/// assert_eq!(address.to_string(), "0000:01:00.1");
/// assert_eq!((address.domain(), address.bus(), address.device(), address.function()), (0, 1, 0, 1));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    domain: u32,
    bus: u8,
    devfn: Devfn,
}

/// A text that is no address of a PCI function.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given:?} is no PCI address: {problem}; an address is DDDD:BB:DD.F or BB:DD.F in hexadecimal, as 0000:01:00.0 \
     (trapline devices lists them)"
)]
pub struct AddressError {
    given: String,
    problem: &'static str,
}

impl PciAddress {
    /// An address by its parts; `None` where `device` is above 31 or `function` above 7.
    pub const fn new(domain: u32, bus: u8, device: u8, function: u8) -> Option<PciAddress> {
        match Devfn::new(device, function) {
            Some(devfn) => Some(PciAddress { domain, bus, devfn }),
            None => None,
        }
    }

    /// The domain (segment). More than 16 bits are used by Linux for domains of its own making, as
    /// those behind Intel's volume management devices.
    pub const fn domain(self) -> u32 {
        self.domain
    }

    /// The bus in its domain.
    pub const fn bus(self) -> u8 {
        self.bus
    }

    /// The device on its bus, 0 to 31.
    pub const fn device(self) -> u8 {
        self.devfn.device()
    }

    /// The function of its device, 0 to 7.
    pub const fn function(self) -> u8 {
        self.devfn.function()
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{}", self.domain, self.bus, self.device(), self.function())
    }
}

impl FromStr for PciAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<PciAddress, AddressError> {
        parse(text).map_err(|problem| AddressError { given: text.chars().take(40).collect(), problem })
    }
}

fn parse(text: &str) -> Result<PciAddress, &'static str> {
    let (rest, function) = text.rsplit_once('.').ok_or("there is no function behind a dot")?;
    let fields: Vec<&str> = rest.split(':').collect();
    let (domain, bus, device) = match *fields.as_slice() {
        [bus, device] => ("0000", bus, device),
        [domain, bus, device] => (domain, bus, device),
        _ => return Err("bus and device are two fields with a colon between them"),
    };
    // Linux writes a domain above ffff in as many digits as it needs.
    let domain = hex(domain, 4..=8).ok_or("the domain has four hexadecimal digits, or up to eight")?;
    let bus = hex(bus, 2..=2).and_then(|bus| u8::try_from(bus).ok());
    let device = hex(device, 2..=2).and_then(|device| u8::try_from(device).ok());
    let function = hex(function, 1..=1).and_then(|function| u8::try_from(function).ok());
    let bus = bus.ok_or("the bus has two hexadecimal digits")?;
    let device = device.ok_or("the device has two hexadecimal digits")?;
    let function = function.ok_or("the function is one digit from 0 to 7")?;
    PciAddress::new(domain, bus, device, function)
        .ok_or("the device is at most 1f, and the function at most 7")
}

/// A number of that many hexadecimal digits and nothing else.
fn hex(text: &str, digits: std::ops::RangeInclusive<usize>) -> Option<u32> {
    let plain = digits.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if plain { u32::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_forms_are_taken_and_sysfs_has_the_long_one() {
        for (text, long) in [
            ("0000:01:00.0", "0000:01:00.0"),
            ("01:00.0", "0000:01:00.0"),
            ("fF:1F.7", "0000:ff:1f.7"),
            ("10000:e1:00.0", "10000:e1:00.0"),
        ] {
            assert_eq!(text.parse::<PciAddress>().unwrap().to_string(), long);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_its_reason() {
        for (text, reason) in [
            ("", "behind a dot"),
            ("01:00", "behind a dot"),
            ("00.0", "two fields"),
            ("1:00.0", "bus has two"),
            ("+1:00.0", "bus has two"),
            ("001:01:00.0", "domain has four"),
            ("0:0000:01:00.0", "two fields"),
            ("0000:01:20.0", "at most 1f"),
            ("0000:01:00.8", "at most 7"),
            ("0000:01:00.00", "one digit"),
            ("0000:01:0é.0", "device has two"),
            ("000000001:01:00.0", "domain has four"),
        ] {
            let error = text.parse::<PciAddress>().unwrap_err().to_string();
            assert!(error.contains(reason) && !error.contains('\n'), "{text}: {error}");
        }
    }

    #[test]
    fn addresses_sort_as_lspci_prints_them() {
        let list = ["0000:00:1f.7", "0000:01:00.0", "0000:01:00.1", "0000:01:01.0", "0001:00:00.0"];
        let mut parsed: Vec<PciAddress> = list.iter().rev().map(|text| text.parse().unwrap()).collect();
        parsed.sort();
        assert_eq!(parsed.iter().map(ToString::to_string).collect::<Vec<_>>(), list);
    }

    proptest! {
        #[test]
        fn text_and_address_are_the_same(domain: u32, bus: u8, device in 0..=0x1f_u8, function in 0..=7_u8) {
            let address = PciAddress::new(domain, bus, device, function).unwrap();
            prop_assert_eq!(address.to_string().parse::<PciAddress>(), Ok(address));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = text.parse::<PciAddress>();
        }
    }
}
