//! What stands in the way of giving a function to a guest: each in one line that says what to do.

use std::fmt;

use serde::Serialize;

use super::environment::{Iommu, LegacyVga, Node, VfioPci};
use super::function::{Function, Reset};
use super::{Host, usage};
use crate::config::size::shown;

/// What is in the way. The names in JSON are those here, in lower case and with hyphens; they stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `/dev/kvm` is missing or forbidden.
    Kvm,
    /// The host uses no IOMMU.
    NoIommu,
    /// Interrupts are not remapped, and VFIO refuses.
    InterruptRemapping,
    /// The kernel has no vfio-pci.
    NoVfioPci,
    /// `/dev/vfio/vfio` is missing or forbidden.
    VfioNode,
    /// This user may lock too little memory.
    Memlock,
    /// It is a bridge.
    Bridge,
    /// It is in no IOMMU group.
    NoGroup,
    /// It is not bound to vfio-pci.
    NotBound,
    /// Another function keeps its group.
    GroupNotViable,
    /// The group's node is missing or forbidden.
    GroupNode,
    /// A guest has it, or the host uses it.
    InUse,
    /// The host's console holds a BAR.
    Framebuffer,
    /// It has virtual functions.
    VirtualFunctions,
    /// It has no reset of its own.
    NoReset,
    /// Its ROM is the shadow.
    ShadowedRom,
    /// The kernel does not forward legacy VGA.
    NoLegacyVga,
    /// It is in D3cold.
    Asleep,
}

/// Something in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Obstacle {
    /// What it is.
    pub code: Kind,
    /// Whether an assignment fails; if not, it works with less, or not in each case.
    pub stops: bool,
    /// One line: what was found, and what to do.
    pub text: String,
}

fn stops(code: Kind, text: impl fmt::Display) -> Obstacle {
    Obstacle { code, stops: true, text: text.to_string() }
}

fn limits(code: Kind, text: impl fmt::Display) -> Obstacle {
    Obstacle { stops: false, ..stops(code, text) }
}

impl Host {
    /// What is in the way of any assignment on this host, to a guest with `memory` bytes.
    pub fn obstacles(&self, memory: u64) -> Vec<Obstacle> {
        let environment = self.environment();
        let mut found = Vec::new();
        found.extend(kvm(environment.kvm_node));
        found.extend(iommu(environment.iommu));
        if environment.iommu == Iommu::On
            && !environment.interrupt_remapping
            && !environment.unsafe_interrupts
        {
            found.push(stops(
                Kind::InterruptRemapping,
                "interrupts are not remapped, so VFIO refuses: switch it on in the firmware's setup (x2APIC, VT-d), or \
                 trust the guest: modprobe vfio_iommu_type1 allow_unsafe_interrupts=1",
            ));
        }
        found.extend(vfio(environment.vfio_pci, environment.vfio_node));
        if let Some(limit) = environment.memlock.filter(|limit| *limit < memory) {
            found.push(stops(
                Kind::Memlock,
                format_args!(
                    "this user may lock {} of memory, and a guest with {} needs a little more than that: run as root, \
                     or ulimit -l unlimited (memlock in /etc/security/limits.conf)",
                    shown(limit),
                    shown(memory)
                ),
            ));
        }
        found
    }

    /// What is in the way of giving this function to a guest, besides [`Host::obstacles`].
    pub fn obstacles_of(&self, function: &Function) -> Vec<Obstacle> {
        if function.is_bridge() {
            return vec![stops(Kind::Bridge, "it is a bridge; only what sits behind one can be given away")];
        }
        let mut found = Vec::new();
        found.extend(self.binding(function));
        found.extend(self.framebuffer(function));
        found.extend(virtual_functions(function));
        found.extend(self.weaknesses(function));
        found
    }

    /// Those of them that a run which opens the function does not meet by itself, and whose outcome is a
    /// dark screen or a slow one: for a line each before it starts. `own_rom` says that the guest sees the
    /// function's own ROM.
    pub fn unseen_by_run(&self, function: &Function, own_rom: bool) -> Vec<Obstacle> {
        let mut found = self.obstacles_of(function);
        found.retain(|obstacle| match obstacle.code {
            Kind::ShadowedRom => own_rom,
            code => code == Kind::Framebuffer,
        });
        found
    }

    /// Group and driver.
    fn binding(&self, function: &Function) -> Vec<Obstacle> {
        let Some(group) = function.group else {
            // Without an IOMMU no function has one, and the host's obstacle says so.
            let alone = self.environment().iommu == Iommu::On;
            let text = "it is in no IOMMU group, so the IOMMU does not see it: it cannot be given away";
            return if alone { vec![stops(Kind::NoGroup, text)] } else { Vec::new() };
        };
        let holding: Vec<&Function> = self.companions(function).filter(|other| other.holds_group()).collect();
        let with = list(&holding);
        if !function.is_given() {
            let driver = function
                .driver
                .as_deref()
                .map_or("it has no driver".into(), |name| format!("driver {name} has it"));
            let with =
                if with.is_empty() { with } else { format!(" (and takes {with} of group {group} along)") };
            let what = format!("{driver}: trapline bind {} gives it to vfio-pci{with}", function.address);
            let uses = usage::of(self.tree(), function.address);
            let uses =
                uses.iter().map(|usage| limits(Kind::InUse, format_args!("the host uses it: {usage}")));
            return std::iter::once(stops(Kind::NotBound, what)).chain(uses).collect();
        }
        let mut found = Vec::new();
        if holding.iter().any(|other| other.is_bridge()) {
            let text = format!(
                "group {group} is not viable, since {with} is in it, which the host needs: put the card into another slot"
            );
            found.push(stops(Kind::GroupNotViable, text));
        } else if !with.is_empty() {
            let text = format!(
                "group {group} is not viable, since {with} is in it: trapline bind {} takes all of it",
                function.address
            );
            found.push(stops(Kind::GroupNotViable, text));
        }
        found.extend(self.group_node(group));
        for usage in usage::of(self.tree(), function.address) {
            found.push(stops(Kind::InUse, format_args!("it is given to a guest already: {usage}")));
        }
        found
    }

    fn group_node(&self, group: u32) -> Option<Obstacle> {
        match Node::read(self.tree(), &format!("dev/vfio/{group}")) {
            Node::Usable => None,
            Node::Missing => Some(stops(
                Kind::GroupNode,
                format_args!("/dev/vfio/{group} is missing: is udev, or devtmpfs on /dev, there?"),
            )),
            Node::Forbidden => Some(stops(
                Kind::GroupNode,
                format_args!(
                    "this user may not open /dev/vfio/{group}: run as root, or chown it to the user"
                ),
            )),
        }
    }

    fn framebuffer(&self, function: &Function) -> Option<Obstacle> {
        let framebuffers = self.environment().framebuffers.iter();
        let mut both = framebuffers.flat_map(|fb| function.bars.iter().map(move |bar| (fb, bar)));
        let (framebuffer, bar) = both.find(|(framebuffer, bar)| framebuffer.is_in(bar))?;
        let name = &framebuffer.name;
        if function.is_vga() && !function.is_given() {
            let text = format!("the host's console ({name}) is on it, and ends when it is bound to vfio-pci");
            return Some(limits(Kind::Framebuffer, text));
        }
        let cure = match &framebuffer.release {
            Some((file, device)) => format!("echo {device} > {file}"),
            None => "boot the host with initcall_blacklist=sysfb_init, or with another adapter as its boot adapter".into(),
        };
        let text = format!("BAR {} is held by the host's framebuffer {name}: {cure}", bar.index);
        Some(stops(Kind::Framebuffer, text))
    }

    /// What makes an assignment less than it could be.
    fn weaknesses(&self, function: &Function) -> Vec<Obstacle> {
        let mut found = Vec::new();
        if function.rom.is_some_and(|rom| rom.shadow) {
            found.push(limits(
                Kind::ShadowedRom,
                "its ROM is the copy that the host's firmware has already run, and the guest's BIOS stays dark on it: \
                 give rom=FILE with an untouched image (read it while another adapter is the boot adapter)",
            ));
        }
        match self.environment().vfio_pci {
            VfioPci::Loaded { legacy_vga: LegacyVga::Disabled } if function.is_vga() => found.push(limits(
                Kind::NoLegacyVga,
                "vfio-pci has disable_vga=Y, so the screen stays dark until the guest's own driver: load it without",
            )),
            VfioPci::Loaded { legacy_vga: LegacyVga::NotBuilt } if function.is_vga() => found.push(limits(
                Kind::NoLegacyVga,
                "this kernel is built without CONFIG_VFIO_PCI_VGA, so the screen stays dark until the guest's own \
                 driver: use a kernel that has it",
            )),
            _ => {}
        }
        if function.reset == Reset::None {
            found.push(limits(
                Kind::NoReset,
                "it has no reset of its own: a second guest may find it as the first one left it, unless its whole bus \
                 can be reset (all functions there bound to vfio-pci)",
            ));
        }
        if function.power.as_deref() == Some("D3cold") {
            found.push(limits(
                Kind::Asleep,
                format_args!(
                    "it is in D3cold; if it does not come back: echo 0 > /sys/bus/pci/devices/{}/d3cold_allowed before \
                     it is bound",
                    function.address
                ),
            ));
        }
        found
    }
}

/// Who takes a function from its driver takes its virtual functions from whoever has them.
pub(super) fn virtual_functions(function: &Function) -> Option<Obstacle> {
    let number = function.virtual_functions;
    let text = format!(
        "it has {number} virtual functions switched on: echo 0 > /sys/bus/pci/devices/{}/sriov_numvfs",
        function.address
    );
    (number > 0).then(|| stops(Kind::VirtualFunctions, text))
}

fn kvm(node: Node) -> Option<Obstacle> {
    match node {
        Node::Usable => None,
        Node::Missing => Some(stops(
            Kind::Kvm,
            "there is no /dev/kvm: switch virtualization on in the firmware's setup and load kvm_intel or kvm_amd",
        )),
        Node::Forbidden => Some(stops(
            Kind::Kvm,
            "this user may not open /dev/kvm: run as root, or join the group of /dev/kvm",
        )),
    }
}

fn iommu(iommu: Iommu) -> Option<Obstacle> {
    let text = match iommu {
        Iommu::On => return None,
        Iommu::Unused { intel: true } => {
            "the kernel does not use the IOMMU: boot the host with intel_iommu=on on the kernel's command line"
        }
        Iommu::Unused { intel: false } => {
            "the kernel does not use the IOMMU: boot the host without iommu=off or amd_iommu=off on its command line"
        }
        Iommu::Missing { intel: true } => {
            "there is no IOMMU: switch VT-d on in the firmware's setup, and boot the host with intel_iommu=on"
        }
        Iommu::Missing { intel: false } => {
            "there is no IOMMU: switch it on in the firmware's setup (AMD: IOMMU, Intel: VT-d); a virtual machine has \
             one only if its host gives it one"
        }
    };
    Some(stops(Kind::NoIommu, text))
}

fn vfio(driver: VfioPci, node: Node) -> Option<Obstacle> {
    match (driver, node) {
        (VfioPci::Missing, _) => Some(stops(
            Kind::NoVfioPci,
            "this kernel has no vfio-pci: install its other modules (linux-modules-extra), or one with CONFIG_VFIO_PCI",
        )),
        (_, Node::Forbidden) => {
            Some(stops(Kind::VfioNode, "this user may not open /dev/vfio/vfio: run as root, or chmod 666 it"))
        }
        (VfioPci::Loaded { .. }, Node::Missing) => {
            Some(stops(Kind::VfioNode, "there is no /dev/vfio/vfio: modprobe vfio_iommu_type1"))
        }
        // trapline bind loads the driver, which makes the node.
        _ => None,
    }
}

/// Functions with their drivers, for a sentence.
fn list(functions: &[&Function]) -> String {
    let one = |function: &&Function| match &function.driver {
        Some(driver) => format!("{} ({driver})", function.address),
        None => function.address.to_string(),
    };
    functions.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
