//! Where a PCI function sits on the host.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The host's address of a PCI function: domain, bus, device and function number.
///
/// ```
/// use trapline_devices::vfio::Address;
/// let address: Address = "0000:01:00.1".parse()?;
/// assert_eq!((address.bus, address.device, address.function), (1, 0, 1));
/// assert_eq!(address.to_string(), "0000:01:00.1");
/// assert_eq!("01:00.1".parse(), Ok(address));
/// # Ok::<(), trapline_devices::vfio::BadAddress>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Domain; 0 on most machines.
    pub domain: u32,
    /// Bus.
    pub bus: u8,
    /// Device, 0 to 31.
    pub device: u8,
    /// Function, 0 to 7.
    pub function: u8,
}

/// Text that is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no PCI address: it is written DDDD:BB:DD.F, as in 0000:01:00.0")]
pub struct BadAddress(String);

impl Address {
    /// Its folder in sysfs.
    pub fn sysfs(self) -> PathBuf {
        PathBuf::from(format!("/sys/bus/pci/devices/{self}"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Address { domain, bus, device, function } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function}")
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Address, BadAddress> {
        parse(text).ok_or_else(|| BadAddress(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Address> {
    let (slot, function) = text.rsplit_once('.')?;
    let mut parts = slot.rsplit(':');
    let device = number(parts.next()?, 2).filter(|device| *device < 32)?;
    let bus = number(parts.next()?, 2)?;
    let domain = parts.next().map_or(Some(0), |domain| number(domain, 8))?;
    if parts.next().is_some() {
        return None;
    }
    let function = number(function, 1).filter(|function| *function < 8)?;
    Some(Address {
        domain,
        bus: u8::try_from(bus).ok()?,
        device: u8::try_from(device).ok()?,
        function: u8::try_from(function).ok()?,
    })
}

/// At most `digits` hexadecimal digits and nothing else, not even a sign.
fn number(text: &str, digits: usize) -> Option<u32> {
    let fits = text.len() <= digits && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    u32::from_str_radix(text, 16).ok().filter(|_| fits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_shown_is_read(domain: u32, bus: u8, device in 0u8..32, function in 0u8..8) {
            let address = Address { domain, bus, device, function };
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }

        #[test]
        fn any_text_is_refused_or_read(text: String) {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "1",
            "01:00",
            "0000:01:00",
            "0000:01:20.0",
            "0000:01:00.8",
            "0:0000:01:00.0",
            "0000:101:00.0",
            "+1:00.0",
        ] {
            assert_eq!(text.parse::<Address>(), Err(BadAddress(text.to_owned())), "{text}");
        }
    }
}
