//! Parses the library's sources into modules: what each file imports, names and declares. Code for tests is left out.

use std::collections::BTreeMap;

use syn::{
    Attribute, ImplItemFn, Item, ItemFn, ItemMod, Macro, Path, TraitItemFn, UseTree, Visibility,
    visit::{self, Visit},
};

use crate::files::read;

/// A module's path from the crate's root.
pub type ModulePath = Vec<String>;

/// A path as it is written in a module.
#[derive(Debug)]
pub struct Mention {
    pub module: ModulePath,
    pub path: Vec<String>,
}

/// A `use` of a module, leaf by leaf.
#[derive(Debug)]
pub struct Import {
    pub module: ModulePath,
    pub path: Vec<String>,
    pub name: String,
    /// True for `pub use`, of whatever reach.
    pub exported: bool,
}

/// A file of the library.
#[derive(Debug, Default)]
pub struct Source {
    pub imports: Vec<Import>,
    pub mentions: Vec<Mention>,
    /// Names of structs, enums, unions, traits and type aliases.
    pub types: Vec<String>,
    /// Names of functions and methods.
    pub functions: Vec<String>,
}

/// The library: files by path, and the file of each module.
#[derive(Debug, Default)]
pub struct Library {
    pub files: BTreeMap<String, Source>,
    pub modules: BTreeMap<ModulePath, String>,
}

impl Library {
    /// Parses everything that `src/lib.rs` declares.
    pub fn parse() -> Self {
        let mut library = Self::default();
        library.add("src/lib.rs".to_owned(), Vec::new());
        assert!(library.files.len() > 150, "the sources were found: {}", library.files.len());
        library
    }

    fn add(&mut self, path: String, module: ModulePath) {
        let file = syn::parse_file(&read(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        self.modules.insert(module.clone(), path.clone());
        let folder = path.rsplit_once('/').expect("below src").0;
        let stem = path.trim_end_matches(".rs");
        let children = if stem.ends_with("/mod") || stem.ends_with("/lib") { folder } else { stem };
        let mut reader = Reader { module, source: Source::default(), declared: Vec::new() };
        reader.visit_file(&file);
        let Reader { source, declared, .. } = reader;
        self.files.insert(path.clone(), source);
        for (name, module, at) in declared {
            match at {
                Declared::Elsewhere(file) => self.add(format!("{folder}/{file}"), module),
                Declared::Here => _ = self.modules.insert(module, path.clone()),
                Declared::ByName => {
                    let file = format!("{children}/{name}.rs");
                    let nested = format!("{children}/{name}/mod.rs");
                    let exists = crate::files::root().join(&file).exists();
                    self.add(if exists { file } else { nested }, module);
                }
            }
        }
    }
}

enum Declared {
    Here,
    ByName,
    Elsewhere(String),
}

struct Reader {
    module: ModulePath,
    source: Source,
    declared: Vec<(String, ModulePath, Declared)>,
}

/// True for what only tests compile.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    let is_test = |attribute: &Attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg")
                && attribute.parse_args::<Path>().is_ok_and(|argument| argument.is_ident("test"))
    };
    attributes.iter().any(is_test)
}

/// The file that a `#[path]` names.
fn elsewhere(module: &ItemMod) -> Option<String> {
    let path = module.attrs.iter().find(|attribute| attribute.path().is_ident("path"))?;
    let value = &path.meta.require_name_value().ok()?.value;
    match value {
        syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(file), .. }) => Some(file.value()),
        _ => None,
    }
}

impl Reader {
    fn import(&mut self, tree: &UseTree, before: &[String], exported: bool) {
        let with = |name: &str| [before, &[name.to_owned()]].concat();
        let (path, name) = match tree {
            UseTree::Path(path) => return self.import(&path.tree, &with(&path.ident.to_string()), exported),
            UseTree::Group(group) => {
                return group.items.iter().for_each(|item| self.import(item, before, exported));
            }
            UseTree::Name(name) if name.ident == "self" => (before.to_vec(), before.last().expect("a group's").clone()),
            UseTree::Name(name) => (with(&name.ident.to_string()), name.ident.to_string()),
            UseTree::Rename(rename) => (with(&rename.ident.to_string()), rename.rename.to_string()),
            UseTree::Glob(_) => (with("*"), "*".to_owned()),
        };
        self.source.imports.push(Import { module: self.module.clone(), path, name, exported });
    }

    fn mention(&mut self, path: Vec<String>) {
        if path.len() > 1 {
            self.source.mentions.push(Mention { module: self.module.clone(), path });
        }
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        let (attributes, name): (&[Attribute], _) = match item {
            Item::Fn(item) => (&item.attrs, None),
            Item::Impl(item) => (&item.attrs, None),
            Item::Mod(item) => (&item.attrs, None),
            Item::Use(item) => (&item.attrs, None),
            Item::Static(item) => (&item.attrs, None),
            Item::Const(item) => (&item.attrs, None),
            Item::Struct(item) => (&item.attrs, Some(&item.ident)),
            Item::Enum(item) => (&item.attrs, Some(&item.ident)),
            Item::Union(item) => (&item.attrs, Some(&item.ident)),
            Item::Trait(item) => (&item.attrs, Some(&item.ident)),
            Item::Type(item) => (&item.attrs, Some(&item.ident)),
            _ => (&[], None),
        };
        if is_for_tests(attributes) {
            return;
        }
        self.source.types.extend(name.map(ToString::to_string));
        visit::visit_item(self, item);
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        let name = module.ident.to_string();
        let path = [self.module.as_slice(), std::slice::from_ref(&name)].concat();
        let at = match (&module.content, elsewhere(module)) {
            (Some(_), _) => Declared::Here,
            (None, Some(file)) => Declared::Elsewhere(file),
            (None, None) => Declared::ByName,
        };
        self.declared.push((name, path.clone(), at));
        let outer = std::mem::replace(&mut self.module, path);
        visit::visit_item_mod(self, module);
        self.module = outer;
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.import(&item.tree, &[], !matches!(item.vis, Visibility::Inherited));
    }

    // `pub(in path)` imports nothing.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_path(&mut self, path: &'ast Path) {
        self.mention(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    /// What is in a macro's call are only tokens: paths among them are words between double colons.
    fn visit_macro(&mut self, call: &'ast Macro) {
        let text = call.tokens.to_string().replace(" :: ", "::");
        for word in text.split(|c: char| !c.is_alphanumeric() && !"_:".contains(c)) {
            self.mention(word.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect());
        }
        visit::visit_macro(self, call);
    }

    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.source.functions.push(function.sig.ident.to_string());
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        if !is_for_tests(&function.attrs) {
            self.source.functions.push(function.sig.ident.to_string());
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_trait_item_fn(&mut self, function: &'ast TraitItemFn) {
        self.source.functions.push(function.sig.ident.to_string());
        visit::visit_trait_item_fn(self, function);
    }
}
