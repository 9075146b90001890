//! What of the host a latency depends on: read from /proc and /sys, without names or numbers that tell one
//! machine from another of its kind.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use trapline_vcpu::bare;

/// Files with one line each: the fact's name, and where it is read.
const LINES: [(&str, &str); 11] = [
    ("kernel", "proc/sys/kernel/osrelease"),
    ("SMT", "sys/devices/system/cpu/smt/control"),
    ("governor", "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
    ("frequency driver", "sys/devices/system/cpu/cpu0/cpufreq/scaling_driver"),
    ("idle driver", "sys/devices/system/cpu/cpuidle/current_driver"),
    ("processors", "sys/devices/system/cpu/online"),
    ("isolated processors", "sys/devices/system/cpu/isolated"),
    ("processors without ticks", "sys/devices/system/cpu/nohz_full"),
    ("NUMA nodes", "sys/devices/system/node/online"),
    ("transparent huge pages", "sys/kernel/mm/transparent_hugepage/enabled"),
    ("clock", "sys/devices/system/clocksource/clocksource0/current_clocksource"),
];

/// What of /proc/cpuinfo is told.
const PROCESSOR: [(&str, &str); 2] = [("processor", "model name"), ("microcode", "microcode")];

/// Whatever is known; `root` is `/`, but in tests.
pub fn facts(root: &Path) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            facts.insert(name.to_owned(), value);
        }
    };
    for (name, file) in LINES {
        add(name, line(&root.join(file)));
    }
    let cpuinfo = fs::read_to_string(root.join("proc/cpuinfo")).unwrap_or_default();
    for (name, key) in PROCESSOR {
        add(name, value(&cpuinfo, key));
    }
    let flags = value(&cpuinfo, "flags").unwrap_or_default();
    let virtual_machine = flags.split_whitespace().any(|flag| flag == "hypervisor");
    add("virtual machine", Some(if virtual_machine { "yes" } else { "no" }.into()));
    add("mitigations", mitigations(&root.join("sys/devices/system/cpu/vulnerabilities")));
    let huge = value(&fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default(), "HugePages_Total");
    add("huge pages set aside", huge);
    add("IOMMU", Some(iommu(&root.join("sys/class/iommu"))));
    add("KVM module", kvm_module(root));
    facts
}

/// What this kernel's KVM can do, by its names.
pub fn kvm(facts: &mut BTreeMap<String, String>) {
    match bare::capabilities() {
        Ok(list) => {
            let list: Vec<String> = list.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
            facts.insert("KVM".into(), list.join(" "));
        }
        Err(error) => tracing::warn!(%error, "what KVM can do is not known"),
    }
}

/// The first line of a file.
fn line(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.lines().next()?.trim().to_owned())
}

/// The value of a `key : value` line.
fn value(text: &str, key: &str) -> Option<String> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().to_owned())
}

/// What the kernel does against faults of the processor, those that it is not affected by apart.
fn mitigations(folder: &Path) -> Option<String> {
    let mut list = Vec::new();
    for entry in fs::read_dir(folder).ok()?.flatten() {
        let state = line(&entry.path()).unwrap_or_default();
        if state != "Not affected" {
            list.push(format!("{}: {state}", entry.file_name().to_string_lossy()));
        }
    }
    list.sort();
    Some(if list.is_empty() { "none needed".into() } else { list.join("; ") })
}

/// How many IOMMUs there are, and of what make: intel's are called dmar, amd's ivhd.
fn iommu(folder: &Path) -> String {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut kinds: Vec<String> = entries
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned()
        })
        .collect();
    kinds.sort();
    kinds.dedup();
    if kinds.is_empty() { "none".into() } else { kinds.join(", ") }
}

/// Which KVM this is, where it is a module, with the parameters that matter here.
fn kvm_module(root: &Path) -> Option<String> {
    let name = ["kvm_intel", "kvm_amd", "kvm_pvm"].into_iter();
    let name = name.into_iter().find(|name| root.join("sys/module").join(name).exists())?;
    let parameters = ["ept", "npt", "avic", "enable_apicv", "nested"].into_iter().filter_map(|parameter| {
        let value = line(&root.join("sys/module").join(name).join("parameters").join(parameter))?;
        Some(format!(" {parameter}={value}"))
    });
    Some(name.to_owned() + &parameters.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_host_is_told_by_what_matters() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        put(root, "proc/sys/kernel/osrelease", "6.12.95\n");
        let cpuinfo =
            "model name\t: Some CPU\nmicrocode\t: 0x17\nflags\t\t: fpu hypervisor\n\nmodel name\t: x\n";
        put(root, "proc/cpuinfo", cpuinfo);
        put(root, "proc/meminfo", "MemTotal: 1 kB\nHugePages_Total:      12\n");
        put(root, "sys/devices/system/cpu/vulnerabilities/mds", "Not affected\n");
        put(root, "sys/devices/system/cpu/vulnerabilities/spectre_v2", "Mitigation: IBRS\n");
        put(root, "sys/class/iommu/dmar0", "");
        put(root, "sys/class/iommu/dmar1", "");
        put(root, "sys/module/kvm_intel/parameters/ept", "Y\n");
        let facts = facts(root);
        let at = |name: &str| facts.get(name).map(String::as_str);
        assert_eq!(at("kernel"), Some("6.12.95"));
        assert_eq!((at("processor"), at("microcode")), (Some("Some CPU"), Some("0x17")));
        assert_eq!(at("virtual machine"), Some("yes"));
        assert_eq!(at("mitigations"), Some("spectre_v2: Mitigation: IBRS"));
        assert_eq!((at("huge pages set aside"), at("IOMMU")), (Some("12"), Some("dmar")));
        assert_eq!(at("KVM module"), Some("kvm_intel ept=Y"));
        assert_eq!(at("governor"), None);
    }
}
