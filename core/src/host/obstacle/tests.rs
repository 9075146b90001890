//! Hosts with one thing in the way each.

use super::super::fake::Fake;
use super::super::{Host, PciAddress};
use super::*;

const CARD: &str = "0000:01:00.0";
const AUDIO: &str = "0000:01:00.1";
const GUEST: u64 = 2 << 30;

/// A host where nothing is in the way: a card and its audio function, both given away.
fn good() -> Fake {
    let fake = Fake::new();
    fake.function("0000:00:01.0", "8086:1901", 0x06_0400, Some("pcieport"), Some(13));
    fake.function(CARD, "10de:1b80", 0x03_0000, Some("vfio-pci"), Some(13));
    fake.function(AUDIO, "10de:10f0", 0x04_0300, Some("vfio-pci"), Some(13));
    fake.write("dev/kvm", "");
    fake.write("dev/vfio/vfio", "");
    fake.write("dev/vfio/13", "");
    fake.write("proc/interrupts", " 25:  0  IR-PCI-MSI  eth0\n");
    fake.write("sys/module/vfio_pci/parameters/disable_vga", "N\n");
    fake
}

fn card(fake: &Fake) -> Vec<Obstacle> {
    let host = Host::read(fake.tree().clone());
    let address: PciAddress = CARD.parse().unwrap();
    let found = host.obstacles_of(host.function(address).unwrap());
    assert!(found.iter().all(|obstacle| !obstacle.text.contains('\n')));
    found
}

fn host(fake: &Fake) -> Vec<Obstacle> {
    Host::read(fake.tree().clone()).obstacles(GUEST)
}

#[track_caller]
fn only(found: Vec<Obstacle>, code: Kind, stops: bool, words: &[&str]) {
    let [obstacle] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((obstacle.code, obstacle.stops), (code, stops), "{}", obstacle.text);
    for word in words {
        assert!(obstacle.text.contains(word), "{word}: {}", obstacle.text);
    }
}

#[test]
fn nothing_is_in_the_way_of_a_good_host() {
    let fake = good();
    assert_eq!((card(&fake), host(&fake)), (vec![], vec![]));
}

#[test]
fn the_hosts_obstacles_say_what_to_do() {
    let fake = good();
    std::fs::remove_file(fake.root().join("dev/kvm")).unwrap();
    only(host(&fake), Kind::Kvm, true, &["/dev/kvm", "firmware"]);

    let fake = good();
    fake.write("proc/interrupts", " 25:  0  PCI-MSI  eth0\n");
    only(host(&fake), Kind::InterruptRemapping, true, &["allow_unsafe_interrupts=1"]);
    fake.write("sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts", "Y\n");
    assert_eq!(host(&fake), []);

    let fake = good();
    std::fs::remove_file(fake.root().join("dev/vfio/vfio")).unwrap();
    only(host(&fake), Kind::VfioNode, true, &["modprobe"]);

    let fake = good();
    fake.write("proc/self/limits", "Max locked memory         8388608   8388608   bytes\n");
    fake.write("proc/self/status", "CapEff:\t0000000000000000\n");
    only(host(&fake), Kind::Memlock, true, &["8 MiB", "2 GiB", "ulimit -l"]);
    assert_eq!(Host::read(fake.tree().clone()).obstacles(8 << 20), []);
}

#[test]
fn a_host_without_iommu_says_so_once() {
    let fake = Fake::new();
    fake.function(CARD, "10de:1b80", 0x03_0000, Some("nouveau"), None);
    fake.write("dev/kvm", "");
    fake.write("sys/firmware/acpi/tables/DMAR", "");
    only(host(&fake), Kind::NoIommu, true, &["intel_iommu=on"]);
    assert_eq!(card(&fake), []);
}

#[test]
fn a_function_of_the_hosts_driver_names_the_command_and_its_companions() {
    let fake = good();
    fake.function(CARD, "10de:1b80", 0x03_0000, Some("nouveau"), Some(13));
    fake.function(AUDIO, "10de:10f0", 0x04_0300, Some("snd_hda_intel"), Some(13));
    only(
        card(&fake),
        Kind::NotBound,
        true,
        &["driver nouveau", "trapline bind 0000:01:00.0", "0000:01:00.1 (snd_hda_intel)", "group 13"],
    );
}

#[test]
fn what_the_host_does_with_a_function_is_told() {
    let fake = good();
    fake.function(CARD, "10de:1b80", 0x03_0000, Some("nouveau"), Some(13));
    fake.set(CARD, "drm/card1/dev", "226:1\n");
    fake.write("proc/500/comm", "Xorg\n");
    fake.link("proc/500/fd/12", "/dev/dri/card1");
    let found = card(&fake);
    assert_eq!(found.iter().map(|obstacle| obstacle.code).collect::<Vec<_>>(), [Kind::NotBound, Kind::InUse]);
    assert_eq!(found[1].text, "the host uses it: process 500 (Xorg) has /dev/dri/card1 open");
}

#[test]
fn a_group_is_held_by_drivers_only() {
    let fake = good();
    fake.function(AUDIO, "10de:10f0", 0x04_0300, Some("snd_hda_intel"), Some(13));
    only(card(&fake), Kind::GroupNotViable, true, &["0000:01:00.1 (snd_hda_intel)", "trapline bind"]);
    // Without a driver it does not hinder.
    std::fs::remove_file(fake.root().join(format!("sys/bus/pci/devices/{AUDIO}/driver"))).unwrap();
    assert_eq!(card(&fake), []);
    // A bridge of the host that has a driver does, and is not to be had.
    fake.function("0000:00:1f.0", "8086:a305", 0x06_0100, Some("lpc_ich"), Some(13));
    only(card(&fake), Kind::GroupNotViable, true, &["0000:00:1f.0 (lpc_ich)", "another slot"]);
}

#[test]
fn a_function_that_a_guest_has_names_the_process() {
    let fake = good();
    fake.write("proc/77/comm", "qemu-system-x86\n");
    fake.link("proc/77/fd/9", "/dev/vfio/13");
    only(card(&fake), Kind::InUse, true, &["process 77 (qemu-system-x86)"]);
}

#[test]
fn a_framebuffer_stops_only_what_vfio_pci_does_not_take_it_from() {
    let fake = good();
    let bar = "0x00000000fd000000 0x00000000fdffffff 0x0000000000042208\n";
    fake.set(CARD, "resource", bar);
    fake.write("proc/iomem", "fd000000-fdffffff : 0000:01:00.0\n  fd000000-fd2fffff : BOOTFB\n");
    only(card(&fake), Kind::Framebuffer, true, &["BAR 0", "BOOTFB", "initcall_blacklist=sysfb_init"]);
    fake.link("sys/bus/platform/devices/simple-framebuffer.0/driver", "../../drivers/simple-framebuffer");
    only(
        card(&fake),
        Kind::Framebuffer,
        true,
        &["echo simple-framebuffer.0 > /sys/bus/platform/drivers/simple-framebuffer/unbind"],
    );
    fake.link(&format!("sys/bus/pci/devices/{CARD}/driver"), "../../../bus/pci/drivers/nouveau");
    let found = card(&fake);
    let framebuffer = found.iter().find(|obstacle| obstacle.code == Kind::Framebuffer).unwrap();
    assert!(!framebuffer.stops && framebuffer.text.contains("console"), "{}", framebuffer.text);
}

#[test]
fn weaknesses_do_not_stop() {
    let fake = good();
    fake.set(
        CARD,
        "resource",
        &format!("{}0x00000000000c0000 0x00000000000dffff 0x0000000000000212\n", "0x0 0x0 0x0\n".repeat(6)),
    );
    only(card(&fake), Kind::ShadowedRom, false, &["rom=FILE"]);
    let host = Host::read(fake.tree().clone());
    let function = host.function(CARD.parse().unwrap()).unwrap();
    only(host.unseen_by_run(function, true), Kind::ShadowedRom, false, &["rom=FILE"]);
    assert_eq!(host.unseen_by_run(function, false), [], "with rom=FILE");

    let fake = good();
    fake.set(CARD, "reset_method", "\n");
    only(card(&fake), Kind::NoReset, false, &["bus"]);

    let fake = good();
    fake.set(CARD, "power_state", "D3cold\n");
    only(card(&fake), Kind::Asleep, false, &["d3cold_allowed"]);

    let fake = good();
    fake.write("sys/module/vfio_pci/parameters/disable_vga", "Y\n");
    only(card(&fake), Kind::NoLegacyVga, false, &["disable_vga"]);
    std::fs::remove_file(fake.root().join("sys/module/vfio_pci/parameters/disable_vga")).unwrap();
    only(card(&fake), Kind::NoLegacyVga, false, &["CONFIG_VFIO_PCI_VGA"]);
}

#[test]
fn virtual_functions_and_bridges_stop() {
    let fake = good();
    fake.set(CARD, "sriov_numvfs", "4\n");
    only(card(&fake), Kind::VirtualFunctions, true, &["4 virtual functions", "sriov_numvfs"]);
    let host = Host::read(fake.tree().clone());
    let port = host.function("00:01.0".parse().unwrap()).unwrap();
    only(host.obstacles_of(port), Kind::Bridge, true, &["bridge"]);
}

#[test]
fn names_of_kinds_are_those_that_programs_know() {
    let obstacle = limits(Kind::GroupNotViable, "x");
    assert_eq!(
        serde_json::to_string(&obstacle).unwrap(),
        r#"{"code":"group-not-viable","stops":false,"text":"x"}"#
    );
}
