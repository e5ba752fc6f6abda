//! The names of RPCs, as labels: a closed set, so that no caller can make up new ones.

use std::collections::HashMap;

use prost::Message;
use prost_types::FileDescriptorSet;

/// An RPC's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MethodLabel {
    /// `package.Service`.
    pub service: &'static str,
    /// `package.Service/Method`.
    pub method: &'static str,
    /// Whether it is called so often that its span must cost nothing at the default log level.
    pub hot: bool,
}

/// All RPCs that the server has, by path. Everything else is [`MethodTable::OTHER`].
#[derive(Debug, Default)]
pub struct MethodTable(HashMap<&'static str, MethodLabel>);

impl MethodTable {
    /// The label of whatever is not in a table. A path that nobody serves may hold anything, a token too.
    pub const OTHER: MethodLabel = MethodLabel { service: "_OTHER", method: "_OTHER", hot: true };

    /// RPCs whose spans are of level DEBUG, the rest being INFO: those on the verification path, and health checks.
    pub const HOT: [&'static str; 5] = [
        "latchkey.v1.TokenService/VerifyToken",
        "latchkey.v1.TokenService/VerifyTokens",
        "latchkey.v1.TokenService/StreamVerifyTokens",
        "grpc.health.v1.Health/Check",
        "grpc.health.v1.Health/Watch",
    ];

    /// A table of methods named `package.Service/Method`. Their names are kept for as long as the process lives: make
    /// one table per process.
    pub fn new<'a>(methods: impl IntoIterator<Item = &'a str>) -> Self {
        let mut table = Self::default();
        table.extend(methods);
        table
    }

    /// The methods in encoded descriptor sets, such as the reflection service is given.
    ///
    /// # Errors
    /// If one is no `FileDescriptorSet`.
    pub fn from_descriptor_sets(sets: &[&[u8]]) -> Result<Self, prost::DecodeError> {
        let mut table = Self::default();
        for set in sets {
            for file in FileDescriptorSet::decode(*set)?.file {
                for service in &file.service {
                    let name = |method: &prost_types::MethodDescriptorProto| {
                        format!("{}.{}/{}", file.package(), service.name(), method.name())
                    };
                    let names: Vec<String> = service.method.iter().map(name).collect();
                    table.extend(names.iter().map(String::as_str));
                }
            }
        }
        Ok(table)
    }

    fn extend<'a>(&mut self, methods: impl IntoIterator<Item = &'a str>) {
        for method in methods {
            let path: &'static str = Box::leak(format!("/{method}").into_boxed_str());
            let name = path.trim_start_matches('/');
            let service = name.split_once('/').map_or(name, |(service, _)| service);
            self.0.insert(path, MethodLabel { service, method: name, hot: Self::HOT.contains(&name) });
        }
    }

    /// The label of an HTTP path. Allocates nothing.
    pub fn get(&self, path: &str) -> MethodLabel {
        self.0.get(path).copied().unwrap_or(Self::OTHER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_labels_and_strangers_share_one() {
        let table = MethodTable::from_descriptor_sets(&[tonic_health::pb::FILE_DESCRIPTOR_SET]).unwrap();
        let label = table.get("/grpc.health.v1.Health/Check");
        assert_eq!(
            (label.service, label.method, label.hot),
            ("grpc.health.v1.Health", "grpc.health.v1.Health/Check", true)
        );
        assert_eq!(table.get("/lk_a_token_in_a_path"), MethodTable::OTHER);
        assert!(!MethodTable::new(["a.B/C"]).get("/a.B/C").hot);
    }
}
