//! Framebuffers that the host's firmware left and the kernel shows its console in: they hold the BAR in
//! which they lie, so that vfio-pci cannot have it.

use super::resource::HostBar;
use super::tree::Tree;

/// What the kernel calls such a range in `/proc/iomem`.
const NAMES: [&str; 7] = ["BOOTFB", "efifb", "vesafb", "simplefb", "simpledrm", "efidrm", "vesadrm"];
/// What the platform device behind such a range is called.
const DEVICES: [&str; 3] = ["simple-framebuffer", "efi-framebuffer", "vesa-framebuffer"];

/// A range that such a framebuffer has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Framebuffer {
    /// The name in `/proc/iomem`.
    pub name: String,
    /// First address.
    pub first: u64,
    /// Last address.
    pub last: u64,
    /// The file to which its device's name is written to take it from its driver, and that name.
    pub release: Option<(String, String)>,
}

/// All of them. A process without rights reads zeros for all addresses, and finds none.
pub(super) fn read(tree: &Tree) -> Vec<Framebuffer> {
    let text = tree.text("proc/iomem").unwrap_or_default();
    let mut found: Vec<Framebuffer> = text.lines().filter_map(range).collect();
    if !found.is_empty() {
        let release = release(tree);
        found.iter_mut().for_each(|framebuffer| framebuffer.release.clone_from(&release));
    }
    found
}

fn range(line: &str) -> Option<Framebuffer> {
    let (addresses, name) = line.trim().split_once(" : ")?;
    let (first, last) = addresses.split_once('-')?;
    let first = u64::from_str_radix(first, 16).ok()?;
    let last = u64::from_str_radix(last, 16).ok()?;
    (NAMES.contains(&name) && last > 0).then(|| Framebuffer { name: name.into(), first, last, release: None })
}

fn release(tree: &Tree) -> Option<(String, String)> {
    let devices = tree.names("sys/bus/platform/devices");
    let device = devices.into_iter().find(|name| DEVICES.iter().any(|known| name.starts_with(known)))?;
    let driver = tree.link(format!("sys/bus/platform/devices/{device}/driver"))?;
    Some((format!("/sys/bus/platform/drivers/{driver}/unbind"), device))
}

impl Framebuffer {
    /// Whether it lies in a BAR.
    pub fn is_in(&self, bar: &HostBar) -> bool {
        let end = bar.address.saturating_add(bar.size);
        (bar.address..end).contains(&self.first) || (bar.address..end).contains(&self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::super::resource::HostBarKind;
    use super::*;

    #[test]
    fn a_framebuffer_is_found_in_its_bar() {
        let fake = Fake::new();
        fake.write(
            "proc/iomem",
            "00001000-0009fbff : System RAM\ne0000000-febfffff : PCI Bus 0000:00\n  \
             fd000000-fdffffff : 0000:00:01.0\n    fd000000-fd2fffff : BOOTFB\n",
        );
        let found = read(fake.tree());
        assert_eq!(found.len(), 1);
        let bar = |address| HostBar {
            index: 0,
            kind: HostBarKind::Memory32,
            prefetchable: true,
            address,
            size: 16 << 20,
        };
        assert!(found[0].is_in(&bar(0xfd00_0000)));
        assert!(!found[0].is_in(&bar(0xfc00_0000)));
        assert_eq!(found[0].release, None);
        fake.link("sys/bus/platform/devices/simple-framebuffer.0/driver", "../../drivers/simple-framebuffer");
        let release = read(fake.tree()).remove(0).release;
        let file = "/sys/bus/platform/drivers/simple-framebuffer/unbind".to_owned();
        assert_eq!(release, Some((file, "simple-framebuffer.0".into())));
    }

    #[test]
    fn zeros_for_a_process_without_rights_are_no_framebuffer() {
        let fake = Fake::new();
        fake.write("proc/iomem", "00000000-00000000 : PCI Bus 0000:00\n  00000000-00000000 : BOOTFB\n");
        assert_eq!(read(fake.tree()), []);
    }
}
