//! The names of RPCs, as labels: a closed set, so that no caller can make up new ones.

use prost::Message;
use prost_types::FileDescriptorSet;

/// Names an RPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MethodLabel {
    /// `package.Service`.
    pub service: &'static str,
    /// `package.Service/Method`.
    pub method: &'static str,
    /// Whether it is called so often that its span must cost nothing at the default log level.
    pub hot: bool,
    /// Its number among the labels of its table.
    pub(super) index: usize,
}

/// Maps the paths of all RPCs that the server has. Everything else is [`MethodTable::OTHER`].
#[derive(Debug, Default)]
pub struct MethodTable {
    /// In the order of [`MethodTable::HOT`], so that the hottest is found by one comparison.
    hot: Vec<(&'static str, MethodLabel)>,
    /// In the order of their paths.
    rest: Vec<(&'static str, MethodLabel)>,
}

impl MethodTable {
    /// The label of a path that is not in a table. Such a path may hold anything, even a token.
    pub const OTHER: MethodLabel = MethodLabel { service: "_OTHER", method: "_OTHER", hot: true, index: 0 };

    /// RPCs whose spans are of level DEBUG, the rest being INFO: those on the verification path, and health checks. The
    /// hottest first.
    pub const HOT: [&'static str; 5] = [
        "latchkey.v1.TokenService/VerifyToken",
        "latchkey.v1.TokenService/VerifyTokens",
        "latchkey.v1.TokenService/StreamVerifyTokens",
        "grpc.health.v1.Health/Check",
        "grpc.health.v1.Health/Watch",
    ];

    /// Builds a table of methods named `package.Service/Method`. Their names are kept for as long as the process lives:
    /// make one table per process.
    pub fn new<'a>(methods: impl IntoIterator<Item = &'a str>) -> Self {
        let mut table = Self::default();
        table.extend(methods);
        table
    }

    /// Builds a table of the methods in encoded descriptor sets.
    ///
    /// # Errors
    /// If a set is not a `FileDescriptorSet`.
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
            let hot = Self::HOT.iter().position(|hot| *hot == name);
            let label = MethodLabel { service, method: name, hot: hot.is_some(), index: self.labels() };
            if hot.is_some() { self.hot.push((path, label)) } else { self.rest.push((path, label)) }
        }
        self.hot.sort_by_key(|(_, label)| Self::HOT.iter().position(|hot| *hot == label.method));
        self.rest.sort_by_key(|(path, _)| *path);
    }

    /// Counts the labels, [`MethodTable::OTHER`] included.
    pub(super) fn labels(&self) -> usize {
        self.hot.len() + self.rest.len() + 1
    }

    /// Returns the label of an HTTP path. Allocates nothing.
    pub fn get(&self, path: &str) -> MethodLabel {
        if let Some((_, label)) = self.hot.iter().find(|(hot, _)| *hot == path) {
            return *label;
        }
        let found = self.rest.binary_search_by_key(&path, |(path, _)| path);
        found.map_or(Self::OTHER, |index| self.rest[index].1)
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

    #[test]
    fn every_method_is_found_under_a_number_of_its_own_whatever_the_order_they_came_in() {
        let mut names = vec!["z.Z/Z", "a.A/A", "m.M/M", "a.A/B"];
        names.extend(MethodTable::HOT.into_iter().rev());
        let table = MethodTable::new(names.iter().copied());
        let mut indices: Vec<_> = names
            .iter()
            .map(|name| {
                let label = table.get(&format!("/{name}"));
                assert_eq!((label.method, label.hot), (*name, MethodTable::HOT.contains(name)));
                label.index
            })
            .chain([MethodTable::OTHER.index])
            .collect();
        indices.sort_unstable();
        assert_eq!(indices, (0..table.labels()).collect::<Vec<_>>());
        for stranger in ["", "/", "z.Z/Z", "/z.Z/Z/", "/a.A/AA"] {
            assert_eq!(table.get(stranger), MethodTable::OTHER, "{stranger:?}");
        }
    }
}
