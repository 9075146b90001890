//! What the host itself does with a function: what would be lost if it were taken away.
//!
//! Not all of it can be seen: other users' processes and disks need root, and a disk that is driven by another way
//! than its block device (`/dev/sg0`, `/dev/nvme0`) has nothing here.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::PciAddress;
use super::function::DEVICES;
use super::tree::Tree;

/// A use of a function.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Usage {
    /// A file system on it is mounted, or it holds swap space, or somebody claims a disk of it for himself.
    Storage(String),
    /// A network interface of it is up.
    Network(String),
    /// A process has one of its nodes open.
    Process {
        /// The process.
        pid: u32,
        /// Its name.
        name: String,
        /// The node.
        node: String,
    },
}

/// All uses of a function that can be seen without touching it.
pub fn of(tree: &Tree, address: PciAddress) -> BTreeSet<Usage> {
    let mut found = storage(tree, address);
    let mut nodes: Vec<String> = disks(tree, address).iter().map(|disk| format!("/{disk}")).collect();
    for card in tree.names(format!("{DEVICES}/{address}/drm")) {
        nodes.push(format!("/dev/dri/{card}"));
    }
    if let Some(group) = tree.link(format!("{DEVICES}/{address}/iommu_group")) {
        nodes.push(format!("/dev/vfio/{group}"));
    }
    for device in tree.names(format!("{DEVICES}/{address}/vfio-dev")) {
        nodes.push(format!("/dev/vfio/devices/{device}"));
    }
    found.extend(networks(tree, address));
    found.extend(processes(tree, &nodes));
    found
}

/// The nodes of its disks, their partitions, and what is mapped onto them; without a slash before them.
fn disks(tree: &Tree, address: PciAddress) -> Vec<String> {
    let mut names = tree.names("sys/class/block");
    names.retain(|name| disk_is_on(tree, &Path::new("sys/class/block").join(name), address, 0));
    // A name may have slashes, which sysfs cannot have: cciss!c0d0.
    names.iter().map(|name| format!("dev/{}", name.replace('!', "/"))).collect()
}

/// Disks of a function that somebody claims: the kernel grants one claim, and a mount, LVM, RAID, encryption, swap space
/// and each disk of btrfs or ZFS is one. Each disk is opened, which keeps others from it for a moment and blocks on one
/// that is broken: for who is about to take the function away. Nothing is written.
pub fn claims(tree: &Tree, address: PciAddress) -> BTreeSet<Usage> {
    let flags = OFlags::EXCL | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let open = |disk: &String| OpenOptions::new().read(true).custom_flags(flags).open(tree.path(disk));
    disks(tree, address).iter().filter_map(|disk| claim(disk, open(disk))).collect()
}

/// What it means that a disk could be opened for this process alone, or could not.
fn claim(disk: &str, opened: io::Result<File>) -> Option<Usage> {
    let is_busy = opened.is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy);
    is_busy.then(|| Usage::Storage(format!("what has /{disk} (file system, volume, RAID, program)")))
}

fn networks(tree: &Tree, address: PciAddress) -> BTreeSet<Usage> {
    let folder = format!("{DEVICES}/{address}/net");
    let up = |name: &String| tree.text(format!("{folder}/{name}/operstate")).as_deref() == Some("up");
    tree.names(&folder).into_iter().filter(up).map(Usage::Network).collect()
}

/// Mounted file systems and swap space whose disk is this function's.
fn storage(tree: &Tree, address: PciAddress) -> BTreeSet<Usage> {
    let mut disks = Vec::new();
    for line in tree.text("proc/self/mountinfo").unwrap_or_default().lines() {
        // Identifier, parent, MAJOR:MINOR, root, mount point, ... - type, source.
        let (head, tail) = line.split_once(" - ").unwrap_or((line, ""));
        let mut head = head.split(' ').skip(2);
        let (Some(number), Some(point)) = (head.next(), head.nth(1)) else { continue };
        disks.push((PathBuf::from(format!("sys/dev/block/{number}")), point.to_owned()));
        // btrfs has a number of its own, and names one of its disks.
        let source = tail.split(' ').nth(1).and_then(|source| node(tree, source));
        disks.extend(source.map(|folder| (folder, point.to_owned())));
    }
    for line in tree.text("proc/swaps").unwrap_or_default().lines() {
        let Some(name) = line.split_whitespace().next() else { continue };
        disks.extend(node(tree, name).map(|folder| (folder, format!("swap space {name}"))));
    }
    let ours = |(folder, _): &(PathBuf, String)| disk_is_on(tree, folder, address, 0);
    disks.into_iter().filter(ours).map(|(_, what)| Usage::Storage(what)).collect()
}

/// The folder in sysfs of a block device by its node, which may be a link as those of device mapper.
fn node(tree: &Tree, name: &str) -> Option<PathBuf> {
    let name = name.strip_prefix("/dev/")?;
    let node = std::fs::canonicalize(tree.path("dev").join(name)).ok();
    let name = node.as_deref().and_then(Path::file_name).map_or(name.into(), |name| name.to_string_lossy());
    Some(PathBuf::from(format!("sys/class/block/{name}")))
}

/// Whether a block device's folder lies below the function, or one of those that it is made of does.
fn disk_is_on(tree: &Tree, folder: &Path, address: PciAddress, depth: u8) -> bool {
    let Ok(real) = std::fs::canonicalize(tree.path(folder)) else { return false };
    if is_below(&real, address) {
        return true;
    }
    // Mapped devices (LVM, encryption) name the disks below them; a chain of a few is common.
    let slaves = real.join("slaves");
    let below = tree.names(&slaves);
    if depth < 8 && below.iter().any(|slave| disk_is_on(tree, &slaves.join(slave), address, depth + 1)) {
        return true;
    }
    // An NVMe disk that several controllers may share belongs to a subsystem, which links to them.
    let is_subsystem = |folder: &&Path| {
        folder
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("nvme-subsys") && name != "nvme-subsystem")
    };
    let subsystem = real.ancestors().find(is_subsystem);
    let controllers = subsystem.map(|folder| (folder, tree.names(folder)));
    controllers.is_some_and(|(folder, names)| {
        let real = names.iter().flat_map(|name| std::fs::canonicalize(folder.join(name)));
        real.into_iter().any(|controller| is_below(&controller, address))
    })
}

fn is_below(folder: &Path, address: PciAddress) -> bool {
    let name = address.to_string();
    folder.components().any(|part| part.as_os_str() == name.as_str())
}

/// Who has one of these nodes open, as far as this process may look.
fn processes(tree: &Tree, nodes: &[String]) -> BTreeSet<Usage> {
    let mut found = BTreeSet::new();
    if nodes.is_empty() {
        return found;
    }
    for pid in tree.names("proc").iter().filter_map(|name| name.parse::<u32>().ok()) {
        let folder = format!("proc/{pid}/fd");
        for fd in tree.names(&folder) {
            let Ok(target) = std::fs::read_link(tree.path(format!("{folder}/{fd}"))) else { continue };
            if let Some(node) = nodes.iter().find(|node| target == Path::new(node)) {
                let name = tree.text(format!("proc/{pid}/comm")).unwrap_or_default();
                found.insert(Usage::Process { pid, name, node: node.clone() });
            }
        }
    }
    found
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Usage::Storage(mount) => write!(f, "{} is on it", plain(mount)),
            Usage::Network(name) => write!(f, "the network interface {} is up", plain(name)),
            Usage::Process { pid, name, node } => {
                write!(f, "process {pid} ({}) has {} open", plain(name), plain(node))
            }
        }
    }
}

/// A name as it may be shown: a process chooses its own, and a terminal obeys what is in it.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::*;

    fn uses(fake: &Fake) -> Vec<String> {
        let address = "0000:03:00.0".parse().unwrap();
        of(fake.tree(), address).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_disk_below_a_mapped_device_is_found() {
        let fake = Fake::new();
        fake.function("0000:03:00.0", "8086:5845", 0x01_0802, Some("nvme"), Some(4));
        assert!(uses(&fake).is_empty());
        let disk = "sys/devices/pci0000:00/0000:03:00.0/nvme/nvme0/nvme0n1";
        fake.write(&format!("{disk}/nvme0n1p1/dev"), "259:1\n");
        fake.link("sys/dev/block/259:1", &format!("../../../{disk}/nvme0n1p1"));
        fake.link("sys/class/block/nvme0n1p1", &format!("../../../{disk}/nvme0n1p1"));
        fake.write("sys/devices/virtual/block/dm-0/dev", "253:0\n");
        fake.link(
            "sys/devices/virtual/block/dm-0/slaves/nvme0n1p1",
            &format!("../../../../../../{disk}/nvme0n1p1"),
        );
        fake.link("sys/dev/block/253:0", "../../devices/virtual/block/dm-0");
        fake.write(
            "proc/self/mountinfo",
            "22 1 253:0 / / rw - ext4 /dev/mapper/root rw\n23 1 0:5 / /proc rw - proc p rw\n",
        );
        fake.write("proc/swaps", "Filename Type Size Used Priority\n/dev/nvme0n1p1 partition 1 0 -2\n");
        assert_eq!(uses(&fake), ["/ is on it", "swap space /dev/nvme0n1p1 is on it"]);
    }

    #[test]
    fn a_disk_of_an_nvme_subsystem_is_found() {
        // As QEMU's nvme has it under Linux 6.12: the disk is virtual, and its subsystem links to the controller.
        let fake = Fake::new();
        fake.function("0000:03:00.0", "1b36:0010", 0x01_0802, Some("nvme"), Some(4));
        fake.write("sys/devices/pci0000:00/0000:03:00.0/nvme/nvme0/state", "live\n");
        let subsystem = "sys/devices/virtual/nvme-subsystem/nvme-subsys0";
        fake.write(&format!("{subsystem}/nvme0n1/dev"), "259:0\n");
        fake.link(&format!("{subsystem}/nvme0"), "../../../pci0000:00/0000:03:00.0/nvme/nvme0");
        fake.link("sys/class/block/nvme0n1", "../../devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1");
        fake.write("proc/swaps", "Filename Type\n/dev/nvme0n1 partition 65532 0 -2\n");
        assert_eq!(uses(&fake), ["swap space /dev/nvme0n1 is on it"]);
        fake.link(&format!("{subsystem}/nvme0"), "../../../pci0000:00/0000:04:00.0/nvme/nvme0");
        assert!(uses(&fake).is_empty(), "another controller's");
    }

    #[test]
    fn a_file_system_without_a_disks_number_is_found_by_its_source() {
        let fake = Fake::new();
        fake.function("0000:03:00.0", "8086:2922", 0x01_0601, Some("ahci"), Some(4));
        fake.write("sys/devices/pci0000:00/0000:03:00.0/ata1/block/sda/sda2/dev", "8:2\n");
        fake.link("sys/class/block/sda2", "../../devices/pci0000:00/0000:03:00.0/ata1/block/sda/sda2");
        fake.write("dev/sda2", "");
        fake.link("dev/disk/by-uuid/12-34", "../../sda2");
        fake.write(
            "proc/self/mountinfo",
            "22 1 0:25 /@ / rw,noatime shared:1 - btrfs /dev/disk/by-uuid/12-34 rw\n",
        );
        assert_eq!(uses(&fake), ["/ is on it"]);
    }

    #[test]
    fn who_has_a_disk_itself_open_is_found() {
        let fake = Fake::new();
        fake.function("0000:03:00.0", "8086:5845", 0x01_0802, Some("nvme"), Some(4));
        let disk = "devices/pci0000:00/0000:03:00.0/nvme/nvme0/nvme0n1";
        for name in ["nvme0n1", "nvme0n1/nvme0n1p1", "nvme0n1/cciss!c0d0"] {
            let name = name.rsplit('/').next().unwrap();
            fake.write(&format!("sys/{disk}/{name}/dev"), "259:1\n");
            fake.link(&format!("sys/class/block/{name}"), &format!("../../{disk}/{name}"));
        }
        fake.write("sys/devices/pci0000:00/0000:04:00.0/nvme/nvme1/nvme1n1/dev", "259:2\n");
        fake.link("sys/class/block/nvme1n1", "../../devices/pci0000:00/0000:04:00.0/nvme/nvme1/nvme1n1");
        // Nobody has a claim to a file.
        fake.write("dev/nvme0n1", "");
        assert!(uses(&fake).is_empty());
        fake.write("proc/77/comm", "qemu\n");
        for (fd, node) in ["nvme0n1", "nvme0n1p1", "cciss/c0d0", "nvme1n1"].iter().enumerate() {
            fake.link(&format!("proc/77/fd/{fd}"), &format!("/dev/{node}"));
        }
        assert_eq!(
            uses(&fake),
            ["cciss/c0d0", "nvme0n1", "nvme0n1p1"]
                .map(|name| format!("process 77 (qemu) has /dev/{name} open"))
        );
    }

    #[test]
    fn a_disk_that_somebody_claims_is_in_use() {
        let opened = |errno: rustix::io::Errno| Err(errno.into());
        let busy = claim("dev/sdb", opened(rustix::io::Errno::BUSY)).unwrap();
        assert_eq!(busy.to_string(), "what has /dev/sdb (file system, volume, RAID, program) is on it");
        assert!(matches!(busy, Usage::Storage(_)), "not taken even by force");
        for errno in [rustix::io::Errno::NOENT, rustix::io::Errno::ACCESS, rustix::io::Errno::NOMEDIUM] {
            assert_eq!(claim("dev/sdb", opened(errno)), None);
        }
        assert_eq!(claim("dev/sdb", File::open("/dev/null")), None);
    }

    #[test]
    fn a_name_that_anybody_may_choose_is_one_line_without_escapes() {
        let fake = Fake::new();
        fake.function("0000:03:00.0", "8086:10d3", 0x02_0000, Some("e1000e"), Some(4));
        fake.write("proc/77/comm", "a\nb\x1b[2J\n");
        fake.link("proc/77/fd/5", "/dev/vfio/4");
        assert_eq!(uses(&fake), ["process 77 (a?b?[2J) has /dev/vfio/4 open"]);
    }

    #[test]
    fn interfaces_and_processes_are_found() {
        let fake = Fake::new();
        fake.function("0000:03:00.0", "8086:10d3", 0x02_0000, Some("e1000e"), Some(4));
        fake.write("sys/bus/pci/devices/0000:03:00.0/net/eth0/operstate", "down\n");
        fake.write("sys/bus/pci/devices/0000:03:00.0/net/eth1/operstate", "up\n");
        fake.write("proc/77/comm", "trapline\n");
        fake.link("proc/77/fd/5", "/dev/vfio/4");
        fake.link("proc/77/fd/6", "/dev/null");
        assert_eq!(
            uses(&fake),
            ["the network interface eth1 is up", "process 77 (trapline) has /dev/vfio/4 open"]
        );
    }
}
