//! Colima, the virtual machine that Docker runs in on a Mac. Where an engine answers there is nothing to do.

use std::process::Command;

use super::RuntimeError;
use super::compose::output;
use crate::spec::file::ColimaRuntime;

/// The declared virtual machine.
#[derive(Debug, Clone)]
pub struct Colima {
    declared: ColimaRuntime,
}

impl Colima {
    pub fn new(declared: ColimaRuntime) -> Self {
        Self { declared }
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new("colima");
        command.arg(verb).args(["--profile", self.declared.profile.as_deref().unwrap_or("default")]);
        command
    }

    /// Whether it says that it runs. A machine that is stopped is an error of the program's, and no error here.
    pub fn is_running(&self) -> Result<bool, RuntimeError> {
        match output(self.command("status"), "colima status") {
            Ok(_) => Ok(true),
            Err(RuntimeError::Program { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Starts it with what is declared, where it does not run. Returns whether it had to.
    pub fn start(&self) -> Result<bool, RuntimeError> {
        if self.is_running()? {
            return Ok(false);
        }
        let mut command = self.command("start");
        if let Some(cpu) = self.declared.cpu {
            command.arg("--cpu").arg(cpu.to_string());
        }
        // Colima counts both in GiB.
        let gib = |size: crate::model::units::ByteSize| size.0.div_ceil(1 << 30).to_string();
        if let Some(memory) = self.declared.memory {
            command.arg("--memory").arg(gib(memory.into()));
        }
        if let Some(disk) = self.declared.disk {
            command.arg("--disk").arg(gib(disk.into()));
        }
        output(command, "colima start").map(|_| true)
    }
}
