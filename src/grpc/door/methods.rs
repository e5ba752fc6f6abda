//! The server's methods by path, made from its descriptors and the table of policies.

use std::sync::LazyLock;

use prost::Message;
use prost_types::FileDescriptorSet;

use super::policy::{POLICIES, Policy};
use crate::grpc::{
    service::router::{DESCRIPTORS, VERIFY_TOKEN, VERIFY_TOKENS},
    verification::verifications,
};

/// All methods of the server.
pub static METHODS: LazyLock<Methods> = LazyLock::new(|| Methods::of(&files()));

/// Everything that the server serves, as descriptors.
pub fn files() -> FileDescriptorSet {
    let sets = [
        DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let decoded = sets.map(|set| FileDescriptorSet::decode(set).expect("compiled with this binary"));
    FileDescriptorSet { file: decoded.into_iter().flat_map(|set| set.file).collect() }
}

/// A call's form on the wire, and whether the door answers it itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One message in.
    One,
    /// Many messages in.
    Many,
    /// One message in, which asks about a token: answered in the door.
    VerifyToken,
    /// The same, about many.
    VerifyTokens,
}

impl Form {
    /// As a verification.
    pub fn verification(self) -> Option<verifications::Form> {
        match self {
            Self::One | Self::Many => None,
            Self::VerifyToken => Some(verifications::Form::One),
            Self::VerifyTokens => Some(verifications::Form::Batch),
        }
    }
}

/// A method of the server.
#[derive(Debug)]
pub struct Method {
    path: String,
    /// Its number, among all.
    pub index: usize,
    /// What the door asks of it.
    pub policy: &'static Policy,
    /// How it is called.
    pub form: Form,
    /// Whether many messages come out: then its deadline ends the answer, too.
    pub streams_out: bool,
    /// The full name of its request message.
    pub input: String,
}

/// Methods by path.
#[derive(Debug)]
pub struct Methods {
    /// The hottest of all, looked for first.
    verify_token: usize,
    /// By path.
    sorted: Vec<Method>,
}

impl Methods {
    fn of(files: &FileDescriptorSet) -> Self {
        let mut sorted = Vec::new();
        for file in &files.file {
            for service in &file.service {
                for method in &service.method {
                    let name = format!("{}.{}/{}", file.package(), service.name(), method.name());
                    let policy = POLICIES.iter().find(|policy| policy.method == name);
                    let policy = policy.unwrap_or_else(|| panic!("{name} has no line in the table of policies"));
                    let path = format!("/{name}");
                    let form = match path.as_str() {
                        VERIFY_TOKEN => Form::VerifyToken,
                        VERIFY_TOKENS => Form::VerifyTokens,
                        _ if method.client_streaming() => Form::Many,
                        _ => Form::One,
                    };
                    let input = method.input_type().trim_start_matches('.').to_owned();
                    let streams_out = method.server_streaming();
                    sorted.push(Method { path, index: 0, policy, form, streams_out, input });
                }
            }
        }
        sorted.sort_by(|a, b| a.path.cmp(&b.path));
        sorted.dedup_by(|a, b| a.path == b.path);
        sorted.iter_mut().enumerate().for_each(|(index, method)| method.index = index);
        let verify_token = sorted.iter().position(|method| method.path == VERIFY_TOKEN).expect("it is in the contract");
        Self { verify_token, sorted }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// All of them.
    #[cfg(test)]
    pub fn all(&self) -> &[Method] {
        &self.sorted
    }

    /// The method of a path. Allocates nothing.
    pub fn get(&self, path: &str) -> Option<&Method> {
        let hottest = &self.sorted[self.verify_token];
        if hottest.path == path {
            return Some(hottest);
        }
        let index = self.sorted.binary_search_by(|method| method.path.as_str().cmp(path)).ok()?;
        Some(&self.sorted[index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_has_one_line_and_every_line_a_method() {
        let methods: Vec<_> = METHODS.all().iter().map(|method| method.policy.method).collect();
        for policy in POLICIES {
            let count = methods.iter().filter(|method| **method == policy.method).count();
            assert_eq!(count, 1, "{}", policy.method);
        }
        assert_eq!(methods.len(), POLICIES.len());
        assert_eq!(METHODS.len(), methods.len());
    }

    #[test]
    fn a_path_is_found_whole_or_not_at_all() {
        for method in METHODS.all() {
            assert_eq!(METHODS.get(&method.path).map(|found| found.index), Some(method.index));
            for stranger in [format!("{}/", method.path), method.path.to_lowercase(), method.path[1..].to_owned()] {
                assert!(METHODS.get(&stranger).is_none(), "{stranger}");
            }
        }
    }
}
