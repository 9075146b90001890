//! The devices of the outer machine that are there to be assigned.
//!
//! Each sits behind a root port of its own, on a bus of its own: legacy VGA is routed to it alone, its ROM
//! is its own and not a shadow, and it can be reset through its port. The adapter that the outer machine
//! itself boots on is another one, on the root bus.

/// The slot of the first root port; slots below it have the boot adapter and the shared folders.
const FIRST_SLOT: usize = 4;

/// A device as QEMU knows it, and whether vfio-pci gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    model: String,
    companion: Option<String>,
    options: Vec<String>,
    bound: bool,
}

/// Where a device is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its name in the monitor: `d1`, `d2`, ... in the order of the devices.
    pub id: String,
    /// Its address in the outer machine.
    pub function: String,
    /// The address of its companion, if it has one.
    pub companion: Option<String>,
}

impl Device {
    /// A device of QEMU, with its properties behind commas: `VGA`, `virtio-vga`, `nvme,drive=a,serial=1`.
    /// A second one after a plus sign is its companion: another function of the same device.
    pub fn new(model: &str) -> Self {
        let (model, companion) = match model.split_once('+') {
            Some((model, companion)) => (model, Some(companion.to_owned())),
            None => (model, None),
        };
        Device { model: model.to_owned(), companion, options: Vec::new(), bound: true }
    }

    /// With options of QEMU that it needs, such as a drive or a network.
    pub fn with(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(|option| (*option).to_owned()));
        self
    }

    /// Left to the driver of the outer machine that claims it.
    pub fn unbound(mut self) -> Self {
        self.bound = false;
        self
    }

    /// Where the device with this number, from 0, is found.
    pub fn place(&self, number: usize) -> Place {
        let bus = number + 1;
        let companion = self.companion.as_ref().map(|_| format!("0000:{bus:02x}:00.1"));
        Place { id: format!("d{bus}"), function: format!("0000:{bus:02x}:00.0"), companion }
    }

    /// The options of QEMU for it.
    pub fn arguments(&self, number: usize) -> Vec<String> {
        let (port, slot) = (number + 1, number + FIRST_SLOT);
        let mut arguments = self.options.clone();
        let mut device = |text: String| arguments.extend(["-device".to_owned(), text]);
        device(format!("pcie-root-port,id=port{port},chassis={port},slot={port},addr={slot:#x}"));
        let many = if self.companion.is_some() { ",multifunction=on,addr=0.0" } else { "" };
        device(format!("{},bus=port{port},id=d{port}{many}", self.model));
        if let Some(companion) = &self.companion {
            device(format!("{companion},bus=port{port},id=d{port}-1,addr=0.1"));
        }
        arguments
    }
}

/// The functions of `devices` that vfio-pci gets.
pub fn bound(devices: &[Device]) -> Vec<String> {
    let places = devices.iter().enumerate().filter(|(_, device)| device.bound);
    places
        .flat_map(|(number, device)| {
            let place = device.place(number);
            std::iter::once(place.function).chain(place.companion)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_has_a_root_port_and_a_bus_of_its_own() {
        let devices = [Device::new("VGA"), Device::new("edu").unbound(), Device::new("cirrus-vga+edu")];
        assert_eq!(
            devices[2].arguments(2),
            [
                "-device",
                "pcie-root-port,id=port3,chassis=3,slot=3,addr=0x6",
                "-device",
                "cirrus-vga,bus=port3,id=d3,multifunction=on,addr=0.0",
                "-device",
                "edu,bus=port3,id=d3-1,addr=0.1",
            ]
        );
        assert_eq!(bound(&devices), ["0000:01:00.0", "0000:03:00.0", "0000:03:00.1"]);
        assert_eq!(devices[1].place(1).function, "0000:02:00.0");
    }

    #[test]
    fn what_a_device_needs_comes_before_it() {
        let disk = Device::new("nvme,drive=a,serial=1").with(&["-drive", "if=none,id=a,file=x"]);
        let arguments = disk.arguments(0);
        assert_eq!(arguments[..2], ["-drive", "if=none,id=a,file=x"]);
        assert_eq!(arguments[5], "nvme,drive=a,serial=1,bus=port1,id=d1");
    }
}
