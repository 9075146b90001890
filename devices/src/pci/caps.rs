//! Capabilities: the list of a device's own, and builders of those that functions of this machine share.

use trapline_io::Width;

use super::ConfigSpace;
use super::spec::{self, PowerControl, express};

/// Offset and id of each capability of a configuration space (PCI 3.0 section 6.7), of which `byte` gives
/// the first 256 bytes. Ends with a list in circles too, and yields no offset below 40h or above FCh.
pub fn capabilities(byte: impl Fn(u16) -> u8) -> impl Iterator<Item = (u16, u8)> {
    let present = u16::from(byte(spec::STATUS)) & spec::STATUS_CAPABILITIES != 0;
    let mut next = if present { byte(spec::CAPABILITIES) } else { 0 };
    let mut seen = [false; 256];
    std::iter::from_fn(move || {
        let at = u16::from(next & !3);
        if at < spec::FIRST_CAPABILITY || std::mem::replace(&mut seen[usize::from(at)], true) {
            return None;
        }
        next = byte(at + 1);
        Some((at, byte(at)))
    })
}

/// What kind of PCI Express function it is: the Device/Port Type field (PCI Express base
/// specification 5.0 section 7.5.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortType {
    /// An endpoint.
    Endpoint,
    /// An endpoint that needs I/O ports or other things of old.
    LegacyEndpoint,
    /// A root port of the root complex.
    RootPort,
    /// An endpoint on the root bus, without a link.
    IntegratedEndpoint,
}

impl PortType {
    const fn code(self) -> u32 {
        match self {
            PortType::Endpoint => 0,
            PortType::LegacyEndpoint => 1,
            PortType::RootPort => 4,
            PortType::IntegratedEndpoint => 9,
        }
    }
}

/// A link that a function tells software about. Nothing here moves faster or slower for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// 1 for 2.5 GT/s, 2 for 5, 3 for 8, 4 for 16, 5 for 32; others are taken as the nearest.
    pub speed: u8,
    /// Lanes, 1 to 32.
    pub lanes: u8,
}

impl Link {
    fn speed_and_width(self) -> u32 {
        u32::from(self.speed.clamp(1, 5)) | u32::from(self.lanes.clamp(1, 32)) << 4
    }
}

/// The PCI Express capability, version 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Express {
    /// The kind of function.
    pub port: PortType,
    /// The link, at its full speed and width; ignored for an integrated endpoint.
    pub link: Link,
}

impl Express {
    /// Adds the capability to `config`; its offset, or `None` if there is no room.
    ///
    /// There is no slot behind a root port: with one, firmware reserves windows for hot-plug that
    /// can misplace a large BAR.
    pub fn add_to(self, config: &mut ConfigSpace) -> Option<u16> {
        let at = config.add_capability(spec::CAP_EXPRESS, &[0; express::LENGTH - 2], &[])?;
        config.preset(at + express::CAPABILITIES, Width::B2, 2 | self.port.code() << 4);
        config.preset(at + express::DEVICE_CAPABILITIES, Width::B4, express::ROLE_BASED_ERRORS);
        // Error reporting, relaxed ordering, payload and read request sizes: kept, without effect.
        config.preset(at + express::DEVICE_CONTROL, Width::B2, 0x2810);
        config.allow(at + express::DEVICE_CONTROL, Width::B2, 0x78ff);
        config.allow_clear(at + express::DEVICE_STATUS, Width::B2, express::DEVICE_ERRORS.into());
        if self.port != PortType::IntegratedEndpoint {
            self.add_link(config, at);
        }
        if self.port == PortType::RootPort {
            config.allow(at + express::ROOT_CONTROL, Width::B2, 0x0f);
            config.allow_clear(at + express::ROOT_STATUS, Width::B4, express::PME_STATUS);
        }
        Some(at)
    }

    fn add_link(self, config: &mut ConfigSpace, at: u16) {
        let downstream = self.port == PortType::RootPort;
        let link = self.link.speed_and_width();
        let reporting = if downstream { express::LINK_ACTIVE_REPORTING } else { 0 };
        config.preset(at + express::LINK_CAPABILITIES, Width::B4, link | reporting);
        // ASPM, read completion boundary, common clock, extended synch; a downstream port can also
        // switch its link off.
        let disable = if downstream { u32::from(express::LINK_DISABLE) } else { 0 };
        config.allow(at + express::LINK_CONTROL, Width::B2, 0x00cb | disable);
        let active = if downstream { u32::from(express::LINK_ACTIVE) } else { 0 };
        let status = link | u32::from(express::SLOT_CLOCK) | active;
        config.preset(at + express::LINK_STATUS, Width::B2, status);
        let speed = link & 0xf;
        config.preset(at + express::LINK_CAPABILITIES_2, Width::B4, ((1 << speed) - 1) << 1);
        config.preset(at + express::LINK_CONTROL_2, Width::B2, speed);
        config.allow(at + express::LINK_CONTROL_2, Width::B2, 0x000f);
    }
}

/// The power management capability, version 1.2: D0 and D3hot, registers kept on the way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Power {
    at: u16,
}

impl Power {
    /// Adds the capability to `config`, or gives `None` if there is no room.
    pub fn add_to(config: &mut ConfigSpace) -> Option<Power> {
        let at = config.add_capability(spec::CAP_POWER, &[0; 6], &[])?;
        config.preset(at + spec::PMC, Width::B2, 3);
        let control = PowerControl::new().with_no_soft_reset(true);
        config.preset(at + spec::PMCSR, Width::B2, control.into_bits().into());
        config.allow(at + spec::PMCSR, Width::B2, 3);
        Some(Power { at })
    }

    /// Where the control register is.
    pub fn control_offset(self) -> u16 {
        self.at + spec::PMCSR
    }

    /// The state: 0 for D0, 3 for D3hot.
    pub fn state(self, config: &ConfigSpace) -> u8 {
        self.control(config).state()
    }

    /// Carries on after a write that may have touched the control register: D1 and D2 are not there,
    /// and a write that asks for them leaves the state as `before` (PCI PM 1.2 section 3.2.4).
    pub fn settle(self, config: &mut ConfigSpace, before: u8) {
        let control = self.control(config);
        if matches!(control.state(), 1 | 2) {
            let kept = control.with_state(before);
            config.set(self.control_offset(), Width::B2, kept.into_bits().into());
        }
    }

    fn control(self, config: &ConfigSpace) -> PowerControl {
        PowerControl::from_bits(config.word(self.control_offset()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pci::Identity;

    fn config() -> ConfigSpace {
        ConfigSpace::new(Identity {
            vendor: 0x1b36,
            device: 0x000c,
            revision: 0,
            class: 0x06_0400,
            subsystem: (0, 0),
        })
    }

    #[test]
    fn a_root_port_shows_its_link_and_no_slot() {
        let mut config = config();
        let express = Express { port: PortType::RootPort, link: Link { speed: 3, lanes: 16 } };
        let at = express.add_to(&mut config).unwrap();
        assert_eq!(config.read(spec::CAPABILITIES, Width::B1), u32::from(at));
        assert_eq!(config.read(at, Width::B4), 0x0042_0010);
        assert_eq!(config.read(at + express::LINK_CAPABILITIES, Width::B4), 0x0010_0103);
        assert_eq!(config.read(at + express::LINK_STATUS, Width::B2), 0x3103);
        assert_eq!(config.read(at + express::LINK_CAPABILITIES_2, Width::B4), 0b1110);
        assert_eq!(config.read(at + 0x14, Width::B4), 0, "slot capabilities");
    }

    #[test]
    fn an_integrated_endpoint_has_no_link() {
        let mut config = config();
        let express = Express { port: PortType::IntegratedEndpoint, link: Link { speed: 1, lanes: 1 } };
        let at = express.add_to(&mut config).unwrap();
        assert_eq!(config.read(at, Width::B4) >> 16, 0x0092);
        assert_eq!(config.read(at + express::LINK_CAPABILITIES, Width::B4), 0);
        config.write(at + express::LINK_CONTROL, Width::B2, 0xffff);
        assert_eq!(config.read(at + express::LINK_CONTROL, Width::B4), 0);
    }

    #[test]
    fn states_that_are_not_there_change_nothing() {
        let mut config = config();
        let power = Power::add_to(&mut config).unwrap();
        for (asked, is) in [(1, 0), (3, 3), (2, 3), (1, 3), (0, 0), (2, 0)] {
            let before = power.state(&config);
            config.write(power.control_offset(), Width::B1, asked);
            power.settle(&mut config, before);
            assert_eq!(power.state(&config), is, "asked for D{asked}");
        }
        assert_eq!(config.read(power.control_offset(), Width::B2), 0x0008);
    }

    #[test]
    fn a_full_list_takes_no_more() {
        let mut config = config();
        let express = Express { port: PortType::Endpoint, link: Link { speed: 1, lanes: 1 } };
        let added = std::iter::from_fn(|| express.add_to(&mut config)).take(10).count();
        assert_eq!(added, 3);
    }

    /// A configuration space whose list leads through these offsets and ids.
    fn space(list: &[(u8, u8)]) -> [u8; 256] {
        let mut space = [0; 256];
        space[usize::from(spec::STATUS)] = 0x10;
        let mut from = usize::from(spec::CAPABILITIES);
        for (at, id) in list {
            space[from] = *at;
            space[usize::from(*at)] = *id;
            from = usize::from(*at) + 1;
        }
        space
    }

    fn listed(space: &[u8; 256]) -> Vec<(u16, u8)> {
        capabilities(|at| space[usize::from(at)]).collect()
    }

    #[test]
    fn a_list_is_followed_if_there_is_one() {
        let mut space = space(&[(0x40, spec::CAP_POWER), (0x83, spec::CAP_EXPRESS)]);
        // The two low bits of a pointer are reserved (PCI 3.0 section 6.7).
        space[0x80..0x82].copy_from_slice(&[spec::CAP_MSI, 0]);
        assert_eq!(listed(&space), [(0x40, spec::CAP_POWER), (0x80, spec::CAP_MSI)]);
        space[usize::from(spec::STATUS)] = 0;
        assert_eq!(listed(&space), []);
    }

    #[test]
    fn a_list_that_never_ends_does() {
        assert_eq!(listed(&space(&[(0x40, 1), (0x50, 2), (0x40, 1)])), [(0x40, 1), (0x50, 2)]);
        assert_eq!(listed(&space(&[(0x10, 1)])), [], "in the header");
        assert_eq!(listed(&[0xff; 256]), [(0xfc, 0xff)], "a device that is gone");
    }

    proptest! {
        #[test]
        fn each_capability_is_listed_once_and_behind_the_header(bytes in any::<[[u8; 32]; 8]>()) {
            let space: [u8; 256] = bytes.concat().try_into().unwrap();
            let mut found: Vec<u16> = listed(&space).into_iter().map(|(at, _)| at).collect();
            prop_assert!(found.iter().all(|at| (0x40..=0xfc).contains(at) && at % 4 == 0));
            let all = found.len();
            found.sort_unstable();
            found.dedup();
            prop_assert_eq!(found.len(), all);
        }
    }
}
