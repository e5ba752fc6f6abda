//! Looks up the server's methods by path, from its descriptors and the table of policies.

use std::sync::LazyLock;

use prost_types::FileDescriptorSet;

use super::policy::{POLICIES, Policy};
use crate::grpc::contract::{VERIFY_TOKEN, VERIFY_TOKENS, served_files};

/// Every method of the server.
pub static METHODS: LazyLock<Methods> = LazyLock::new(|| Methods::of(&served_files()));

/// How a method is called, and whether the gate answers it itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MethodKind {
    /// Takes one message.
    Unary,
    /// Takes a stream of messages.
    ClientStreaming,
    /// VerifyToken, which the gate answers.
    VerifyToken,
    /// VerifyTokens, which the gate answers.
    VerifyTokens,
}

/// A method of the server.
#[derive(Debug)]
pub struct Method {
    path: String,
    /// Its index among all methods.
    pub index: usize,
    /// What the gate requires of its calls.
    pub policy: &'static Policy,
    /// How it is called.
    pub kind: MethodKind,
    /// Whether it streams responses: then its deadline ends the response stream, too.
    pub streams_out: bool,
    /// The full name of its request message.
    pub input: String,
}

/// The methods of the server by path.
#[derive(Debug)]
pub struct Methods {
    /// The index of VerifyToken, the most frequent call, which is compared first.
    verify_token: usize,
    /// The methods sorted by path.
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
                    let kind = match path.as_str() {
                        VERIFY_TOKEN => MethodKind::VerifyToken,
                        VERIFY_TOKENS => MethodKind::VerifyTokens,
                        _ if method.client_streaming() => MethodKind::ClientStreaming,
                        _ => MethodKind::Unary,
                    };
                    let input = method.input_type().trim_start_matches('.').to_owned();
                    let streams_out = method.server_streaming();
                    sorted.push(Method { path, index: 0, policy, kind, streams_out, input });
                }
            }
        }
        sorted.sort_by(|a, b| a.path.cmp(&b.path));
        sorted.dedup_by(|a, b| a.path == b.path);
        sorted.iter_mut().enumerate().for_each(|(index, method)| method.index = index);
        let verify_token = sorted.iter().position(|method| method.path == VERIFY_TOKEN).expect("it is in the contract");
        Self { verify_token, sorted }
    }

    /// Returns the number of methods.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Returns all methods, sorted by path.
    #[cfg(test)]
    pub fn all(&self) -> &[Method] {
        &self.sorted
    }

    /// Finds the method of a path, without allocating.
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
