//! A host that tests build in a folder.

use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;

use super::tree::Tree;

/// A tree with nothing in it but what the test puts there.
#[derive(Debug)]
pub(crate) struct Fake {
    folder: TempDir,
    tree: Tree,
}

impl Fake {
    pub(crate) fn new() -> Fake {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::at(folder.path());
        Fake { folder, tree }
    }

    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }

    /// A file and the folders above it.
    pub(crate) fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.tree.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// A link and the folders above it.
    pub(crate) fn link(&self, path: &str, target: &str) {
        let path = self.tree.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = std::fs::remove_file(&path);
        symlink(target, path).unwrap();
    }

    /// A function of an ordinary kernel: no BARs, no ROM, resettable, awake. Its folder is where its
    /// link leads, as in sysfs.
    pub(crate) fn function(
        &self,
        address: &str,
        ids: &str,
        class: u32,
        driver: Option<&str>,
        group: Option<u32>,
    ) {
        let folder = format!("sys/devices/pci0000:00/{address}");
        let (vendor, device) = ids.split_once(':').unwrap();
        let header = u8::from(class >> 8 == 0x0604);
        let mut config = vec![0; 64];
        config[0x0e] = header;
        self.write(&format!("{folder}/config"), config);
        for (name, text) in [
            ("vendor", format!("0x{vendor}\n")),
            ("device", format!("0x{device}\n")),
            ("class", format!("{class:#08x}\n")),
            ("resource", "0x0000000000000000 0x0000000000000000 0x0000000000000000\n".repeat(7)),
            ("driver_override", "(null)\n".into()),
            ("reset_method", "flr bus\n".into()),
            ("power_state", "D0\n".into()),
            ("numa_node", "-1\n".into()),
            ("modalias", format!("pci:v0000{vendor}d0000{device}\n").to_uppercase()),
        ] {
            self.write(&format!("{folder}/{name}"), text);
        }
        self.link(
            &format!("sys/bus/pci/devices/{address}"),
            &format!("../../../devices/pci0000:00/{address}"),
        );
        if let Some(driver) = driver {
            self.write(&format!("sys/bus/pci/drivers/{driver}/unbind"), "");
            self.link(&format!("{folder}/driver"), &format!("../../../bus/pci/drivers/{driver}"));
        }
        if let Some(group) = group {
            self.write(&format!("sys/kernel/iommu_groups/{group}/type"), "DMA\n");
            self.link(&format!("{folder}/iommu_group"), &format!("../../../kernel/iommu_groups/{group}"));
        }
    }

    /// Changes a file of a function.
    pub(crate) fn set(&self, address: &str, name: &str, text: &str) {
        self.write(&format!("sys/bus/pci/devices/{address}/{name}"), text);
    }
}
