//! The folders of this checkout, and cargo as it is called from here.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// This checkout.
#[derive(Clone, Debug)]
pub struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

impl Workspace {
    /// Asks cargo where the workspace of the current folder lies.
    pub fn find() -> Result<Self> {
        let output = Command::new(cargo())
            .args(["locate-project", "--workspace", "--message-format", "plain"])
            .output()
            .context("cannot run cargo")?;
        let manifest = String::from_utf8(output.stdout).context("cargo names a folder that is not UTF-8")?;
        let Some(root) = Path::new(manifest.trim()).parent().filter(|_| output.status.success()) else {
            bail!("the current folder is not inside a checkout of trapline");
        };
        // As cargo reads it: relative to the current folder.
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(folder) => std::path::absolute(folder).context("CARGO_TARGET_DIR is empty")?,
            None => root.join("target"),
        };
        Ok(Workspace { root: root.to_owned(), target })
    }

    /// A command of cargo, run at the root of the workspace.
    pub fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(cargo());
        command.args(arguments).current_dir(&self.root);
        command
    }

    /// The same with only what others leave of the processors, and with a folder below `target` for what it builds:
    /// neither waits for the other.
    pub fn cargo_beside(&self, arguments: &[&str], folder: &str) -> Command {
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).arg(cargo()).args(arguments).current_dir(&self.root);
        command.env("CARGO_TARGET_DIR", self.target.join(folder));
        command
    }

    /// Builds what these words of cargo name, unless that was done, and finds the programs of these targets.
    ///
    /// The words are to name what the step of the tests names, or one target of the whole workspace: for some packages
    /// alone cargo chooses other features of what they use, and all of that would be built a second time.
    pub fn programs(&self, words: &[&str], targets: &[&str]) -> Result<Vec<PathBuf>> {
        let mut command = self.cargo(words);
        let output = command.args(["--message-format", "json"]).output().context("cannot run cargo")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{} cannot be built: {}", targets.join(" and "), errors.trim());
        let text = String::from_utf8_lossy(&output.stdout);
        let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let named =
            messages.filter(|message| targets.iter().any(|target| message["target"]["name"] == *target));
        let programs: Vec<PathBuf> =
            named.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).collect();
        ensure!(
            programs.len() == targets.len(),
            "cargo built {} of {}",
            programs.len(),
            targets.join(" and ")
        );
        Ok(programs)
    }

    /// The laboratory's own folder below `target`, made if need be.
    pub fn lab(&self) -> Result<PathBuf> {
        let folder = self.target.join("lab");
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder)
    }

    /// Builds the program under test as users get it.
    pub fn build_trapline(&self) -> Result<()> {
        eprintln!("Building trapline (minutes the first time)");
        let mut command = self.cargo(&["build", "--release", "--package", "trapline"]);
        if !command.status().context("cannot run cargo")?.success() {
            bail!("trapline does not build: see the messages above");
        }
        Ok(())
    }

    /// The program under test.
    pub fn trapline(&self) -> PathBuf {
        self.target.join("release/trapline")
    }
}

fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}
