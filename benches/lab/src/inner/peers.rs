//! What the guest's steps need in the outer machine: a disk with known contents, and a peer on a network.

use std::path::Path;

use anyhow::Result;

use super::{GUEST_ADDRESS, PEER_ADDRESS};
use crate::outer::{Device, Tree};

/// The slot of the peer's own network card on the outer machine's root bus.
const PEER_SLOT: u8 = 0x1e;

/// An NVMe controller whose disk is `file`, a raw image; what is written to it is lost at the end.
pub fn nvme(file: &Path) -> Device {
    let drive = format!("if=none,id=nvme,format=raw,snapshot=on,file={}", file.display());
    Device::new("nvme,drive=nvme,serial=trapline").with(&["-drive", &drive])
}

/// An e1000e for the guest, and on the same hub another one that stays with the outer machine.
pub fn network() -> Device {
    let peer = format!("e1000e,netdev=peer,bus=pcie.0,addr={PEER_SLOT:#x}");
    Device::new("e1000e,netdev=guest").with(&[
        "-netdev",
        "hubport,id=guest,hubid=0",
        "-netdev",
        "hubport,id=peer,hubid=0",
        "-device",
        &peer,
    ])
}

/// A shell command for the outer machine that gives the peer its address.
pub fn peer_up(tree: &Tree) -> Result<String> {
    let busybox = tree.busybox()?;
    let busybox = busybox.display();
    Ok(format!(
        "card=$(ls /sys/bus/pci/devices/0000:00:{PEER_SLOT:02x}.0/net) && \
         {{ {busybox} ip address show dev $card | grep -q {PEER_ADDRESS}/ || \
         {busybox} ip address add {PEER_ADDRESS}/24 dev $card; }} && {busybox} ip link set $card up"
    ))
}

/// A shell command for the outer machine that sends the guest three echo requests at a time until it has
/// answered all of one time; it fails after about `seconds`. (ping itself is content with a single answer, and the
/// guest waits for all three.)
pub fn ping_guest(tree: &Tree, seconds: u32) -> Result<String> {
    let busybox = tree.busybox()?;
    let busybox = busybox.display();
    Ok(format!(
        "end=$(($(date +%s) + {seconds})); \
         until {busybox} ping -A -c 3 -W 2 -s 1000 {GUEST_ADDRESS} | grep '3 packets received'; do \
         [ $(date +%s) -lt $end ] || exit 1; done"
    ))
}
