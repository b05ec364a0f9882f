//! The rules for one service.

use protocol::balancing::{BALANCING, Balancing};
use protocol::connectivity::{CONNECTIVITY, Connectivity};
use protocol::constraint::Constraint;
use protocol::outage::{ON_DISCONNECT, Outage, RECONCILE};
use serde_json::{Map, Value};

use super::{Check, join, kind, port, present, shortened};

/// What an image reference or a list of URLs may be long.
const CODE_MAX: usize = 4096;
pub(super) const WORD_MAX: usize = 64;
pub(super) const ELEMENTS_MAX: usize = 1024;
const ELEMENT_MAX: usize = 32 * 1024;
pub(super) const INSTANCES_MAX: u64 = 1000;
/// 16 TiB, in MB.
const MEMORY_MAX: u64 = 16 << 20;
const CPUS_MAX: u64 = 4096;
/// Past this, JSON readers in other languages lose digits.
const NUMBER_MAX: u64 = 1 << 53;

impl Check<'_> {
    pub(super) fn service(&mut self, service: &Map<String, Value>, path: &str) {
        if self.text(service, path, "microserviceID", usize::MAX).is_some_and(|id| !id.is_empty()) {
            self.wrong(&join(path, "microserviceID"), "expected to be empty: the root gives it");
        }
        self.virtualization(service, path);
        if let Some(code) = self.required_text(service, path, "code", CODE_MAX)
            && (code.is_empty() || code.contains(|sign: char| sign.is_whitespace() || sign.is_control()))
        {
            self.wrong(&join(path, "code"), "expected an image reference, without spaces");
        }
        for key in ["cmd", "args", "added_files", "arch", "vm_images"] {
            self.texts(service, path, key);
        }
        self.environment(service, path);
        for (key, max) in [
            ("memory", MEMORY_MAX),
            ("vcpus", CPUS_MAX),
            ("vgpus", CPUS_MAX),
            ("vtpus", CPUS_MAX),
            ("storage", NUMBER_MAX),
            ("bandwidth_in", NUMBER_MAX),
            ("bandwidth_out", NUMBER_MAX),
            ("instances", INSTANCES_MAX),
        ] {
            self.number(service, path, key, max);
        }
        for key in ["one_shot", "privileged"] {
            if let Some(value) = present(service, key)
                && !value.is_boolean()
            {
                self.wrong(&join(path, key), format!("expected true or false, got {}", kind(value)));
            }
        }
        for key in ["state", "platform"] {
            self.text(service, path, key, CODE_MAX);
        }
        if let Some(ports) = self.text(service, path, "port", CODE_MAX)
            && let Err(message) = port::check(ports)
        {
            self.wrong(&join(path, "port"), message);
        }
        self.addresses(service, path);
        self.constraints(service, path);
        self.volumes(service, path);
        if let Err(invalid) = Outage::read(service.get(ON_DISCONNECT), service.get(RECONCILE)) {
            self.wrong(&join(path, invalid.key), invalid.expected);
        }
        if let Err(invalid) = Balancing::read(service.get(BALANCING)) {
            self.wrong(&join(path, BALANCING), invalid.to_string());
        }
    }

    fn virtualization(&mut self, service: &Map<String, Value>, path: &str) {
        let Some(runtime) = self.required_text(service, path, "virtualization", WORD_MAX) else { return };
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if runtime.is_empty() || !runtime.bytes().all(is_word) {
            let expected = format!(
                "expected \"container\" or the name of another runtime, got {:?}",
                shortened(runtime)
            );
            self.wrong(&join(path, "virtualization"), expected);
        } else if runtime == "unikernel" && present(service, "arch").is_none() {
            self.wrong(&join(path, "arch"), "is required for unikernels: one architecture for each image");
        }
    }

    fn texts<'v>(
        &mut self,
        service: &'v Map<String, Value>,
        path: &str,
        key: &str,
    ) -> Vec<(String, &'v str)> {
        let mut texts = Vec::new();
        for (index, value) in self.list(service, path, key, ELEMENTS_MAX).into_iter().flatten().enumerate() {
            let path = format!("{path}.{key}[{index}]");
            match value.as_str() {
                None => self.wrong(&path, format!("expected text, got {}", kind(value))),
                Some(text) if text.len() > ELEMENT_MAX => {
                    self.wrong(&path, format!("expected at most {ELEMENT_MAX} bytes, got {}", text.len()));
                }
                Some(text) if text.contains('\0') => self.wrong(&path, "a zero byte cannot be passed on"),
                Some(text) => texts.push((path, text)),
            }
        }
        texts
    }

    fn environment(&mut self, service: &Map<String, Value>, path: &str) {
        for (path, text) in self.texts(service, path, "environment") {
            if text.split_once('=').is_none_or(|(name, _)| name.is_empty()) {
                self.wrong(&path, format!("expected NAME=VALUE, got {:?}", shortened(text)));
            }
        }
    }

    fn number(&mut self, object: &Map<String, Value>, path: &str, key: &str, max: u64) {
        let Some(value) = present(object, key) else { return };
        match value.as_u64() {
            Some(number) if number <= max => {}
            Some(number) => self.wrong(&join(path, key), format!("expected at most {max}, got {number}")),
            None => {
                let got = if value.is_number() { value.to_string() } else { kind(value).to_owned() };
                self.wrong(&join(path, key), format!("expected a whole number from 0 to {max}, got {got}"));
            }
        }
    }

    fn constraints(&mut self, service: &Map<String, Value>, path: &str) {
        let constraints = self.list(service, path, "constraints", ELEMENTS_MAX);
        for (index, constraint) in constraints.into_iter().flatten().enumerate() {
            let path = format!("{path}.constraints[{index}]");
            let before = self.violations.len();
            let value = constraint;
            let Some(constraint) = self.object(constraint, &path) else { continue };
            self.required_text(constraint, &path, "type", WORD_MAX);
            for key in ["area", "cluster", "node", "location"] {
                self.text(constraint, &path, key, CODE_MAX);
            }
            for key in ["threshold", "rigidness", "convergence_time"] {
                if let Some(value) = present(constraint, key)
                    && !value.is_number()
                {
                    self.wrong(&join(&path, key), format!("expected a number, got {}", kind(value)));
                }
            }
            if self.violations.len() == before
                && let Err(invalid) = Constraint::read(value)
            {
                self.wrong(&join(&path, invalid.key), invalid.expected);
            }
        }
        let connectivity = self.list(service, path, CONNECTIVITY, ELEMENTS_MAX);
        for (index, element) in connectivity.into_iter().flatten().enumerate() {
            if let Err(invalid) = Connectivity::read(element, &format!("{path}.{CONNECTIVITY}[{index}]")) {
                self.wrong(&invalid.path, invalid.expected);
            }
        }
    }

    fn volumes(&mut self, service: &Map<String, Value>, path: &str) {
        for (index, volume) in
            self.list(service, path, "volumes", ELEMENTS_MAX).into_iter().flatten().enumerate()
        {
            let path = format!("{path}.volumes[{index}]");
            let Some(volume) = self.object(volume, &path) else { continue };
            for key in ["volume_id", "csi_driver", "mount_path"] {
                self.required_text(volume, &path, key, CODE_MAX);
            }
        }
    }
}
