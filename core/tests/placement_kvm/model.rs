//! Functions that are nothing but registers, and ports with and without a slot above them.

use trapline::parts::{PartId, Parts};
use trapline_devices::pci::{Bar, BarKind, ConfigSpace, Devfn, Identity, Link};
use trapline_devices::q35::RootPort;
use trapline_io::device::{Claim, Claims};
use trapline_io::{Device, Fault, Region, Width};

/// Where a function sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spot {
    /// On bus 0.
    Root,
    /// Behind a port of its own.
    Port {
        /// The port says that it has a slot.
        hot_plug: bool,
    },
    /// Beside the function before it.
    Sibling,
}

/// A function.
#[derive(Clone, Debug)]
pub struct Shape {
    pub spot: Spot,
    pub bars: Vec<Bar>,
}

/// Its registers.
struct Model(ConfigSpace);

impl Model {
    fn new(bars: &[Bar]) -> Model {
        // A class that no driver of the firmware's takes: a processing accelerator.
        let id = Identity {
            vendor: 0x1b36,
            device: 0x00ff,
            revision: 0,
            class: 0x12_0000,
            subsystem: (0x1af4, 0x1100),
        };
        let mut config = ConfigSpace::new(id);
        let mut index = 0;
        for bar in bars {
            match bar.kind {
                BarKind::Rom => config.add_bar(6, *bar),
                _ => config.add_bar(index, *bar),
            }
            index += if matches!(bar.kind, BarKind::Memory64 { .. }) { 2 } else { 1 };
        }
        Model(config)
    }

    fn be_one_of_several(mut self) -> Model {
        self.0.preset(0x0e, Width::B1, 0x80);
        self
    }
}

impl Device for Model {
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        if region == Region::CONFIG { self.0.read_region(offset, width) } else { Err(Fault::NoRegister) }
    }

    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        match region {
            Region::CONFIG => self.0.write_region(offset, width, value).map(drop),
            _ => Err(Fault::NoRegister),
        }
    }

    fn reset(&mut self) {
        self.0.reset();
    }

    fn claims(&self) -> Claims {
        let ranges = (0..7).filter_map(|bar| Some(Claim::region(self.0.decoded(bar)?, Region(bar), 0)));
        Claims { ranges: ranges.collect(), bridge: None }
    }
}

/// A root port that says that it has a slot: bit 8 of its PCI Express Capabilities, at 4ah.
struct Slotted(RootPort);

impl Device for Slotted {
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        let value = self.0.read(region, offset, width)?;
        let bit = 0x4b_u64.checked_sub(offset).filter(|byte| *byte < width.bytes() as u64);
        Ok(value | bit.map_or(0, |byte| 1 << (8 * byte)))
    }

    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        self.0.write(region, offset, width, value)
    }

    fn reset(&mut self) {
        self.0.reset();
    }

    fn claims(&self) -> Claims {
        self.0.claims()
    }
}

/// The functions as parts, from device 1 of bus 0 on.
pub fn parts(shapes: &[Shape], parts: &mut Vec<Parts>) {
    let mut device = 0;
    let mut last: (Option<PartId>, u8, u8) = (None, 0, 0);
    for (number, shape) in shapes.iter().enumerate() {
        let (parent, slot, function) = match shape.spot {
            Spot::Root => {
                device += 1;
                (None, device, 0)
            }
            Spot::Port { hot_plug } => {
                device += 1;
                let port = RootPort::new(Link { speed: 4, lanes: 16 });
                let at = Devfn::new(device, 0).unwrap();
                let name = format!("port {device}");
                parts.push(if hot_plug {
                    Parts::function(name, Slotted(port), None, at, RootPort::TOPOLOGY)
                } else {
                    Parts::function(name, port, None, at, RootPort::TOPOLOGY)
                });
                (Some(parts.len() - 1), 0, 0)
            }
            Spot::Sibling => (last.0, last.1, last.2 + 1),
        };
        last = (parent, slot, function);
        let model = Model::new(&shape.bars);
        let model = if function == 0 { model.be_one_of_several() } else { model };
        let at = Devfn::new(slot, function).unwrap();
        parts.push(Parts::function(format!("model {number}"), model, parent, at, ConfigSpace::TOPOLOGY));
    }
}
