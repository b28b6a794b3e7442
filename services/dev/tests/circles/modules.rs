//! The modules of one crate, parsed by `syn`: what each defines and imports, and which names it uses.
//!
//! An approximation in three places: calls of methods name no file and are not seen; within a macro's call, names are
//! seen where they are written with `::`; what a macro defines counts as the file's that names it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};
use syn::{Attribute, Item, ItemMod, ItemUse, Macro, Meta, UseTree, Visibility, visit::Visit};

/// Re-exports of re-exports are followed so far.
const HOPS_MAX: usize = 16;

/// A path as it is written: `["super", "stitch", "Todo"]`.
type Names = Vec<String>;

/// A crate's modules, by path; the root's is empty.
#[derive(Default)]
pub struct Modules(BTreeMap<Names, Module>);

#[derive(Default)]
struct Module {
    file: PathBuf,
    children: BTreeSet<String>,
    /// Items other than modules.
    defined: BTreeSet<String>,
    /// What a name stands for that a `use` brings here.
    imported: BTreeMap<String, Names>,
    /// What is imported by `*`.
    globs: Vec<Names>,
    /// What the module's code names, its imports among it, but not what it only passes on by `pub use`.
    used: BTreeSet<Names>,
}

impl Modules {
    /// Those of the crate whose root is the file `root`. What is under `#[cfg(test)]` is left out.
    pub fn of(root: &Path) -> Self {
        let mut modules = Self::default();
        modules.read(Names::new(), root, root.parent().expect("a file is in a folder"));
        modules
    }

    /// Which file uses what another one defines, and an example of it.
    pub fn edges(&self) -> BTreeMap<(PathBuf, PathBuf), String> {
        let mut edges = BTreeMap::new();
        for (path, module) in &self.0 {
            for names in &module.used {
                if let Some(file) = self.home(path, names, HOPS_MAX)
                    && file != module.file
                {
                    edges.entry((module.file.clone(), file)).or_insert_with(|| names.join("::"));
                }
            }
        }
        edges
    }

    /// The file whose module holds that of `file`; `None` where that is the crate's root.
    pub fn parent(&self, file: &Path) -> Option<&Path> {
        let (path, _) = self.0.iter().find(|(_, module)| module.file == file)?;
        let (_, parent) = path.split_last().filter(|(_, parent)| !parent.is_empty())?;
        Some(&self.0.get(parent)?.file)
    }

    /// Reads the file of a module; its own modules are beneath `folder`.
    fn read(&mut self, path: Names, file: &Path, folder: &Path) {
        let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        self.add(path, parsed.items, file, folder);
    }

    fn add(&mut self, path: Names, items: Vec<Item>, file: &Path, folder: &Path) {
        let mut module = Module { file: file.to_owned(), ..Module::default() };
        let (nested, items): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| matches!(item, Item::Mod(_)));
        for item in &items {
            module.take(item);
        }
        for item in nested {
            let Item::Mod(item) = item else { continue };
            let name = item.ident.to_string();
            if !is_test(&item.attrs) && module.children.insert(name.clone()) {
                self.nested(&[path.as_slice(), std::slice::from_ref(&name)].concat(), item, file, &folder.join(&name));
            }
        }
        self.0.insert(path, module);
    }

    fn nested(&mut self, path: &[String], item: ItemMod, file: &Path, folder: &Path) {
        if let Some((_, items)) = item.content {
            return self.add(path.to_vec(), items, file, folder);
        }
        let beside = file.parent().expect("a file is in a folder");
        let named = item.attrs.iter().find_map(|attribute| path_attribute(attribute).map(|name| beside.join(name)));
        let in_folder = folder.join("mod.rs");
        let (file, folder) = match named {
            Some(named) => (named.clone(), named.with_extension("")),
            None if in_folder.exists() => (in_folder, folder.to_owned()),
            None => (folder.with_extension("rs"), folder.to_owned()),
        };
        self.read(path.to_vec(), &file, &folder);
    }

    /// The file that defines what `names` stands for in the module `from`; `None` for what is of another crate, for
    /// locals, and for a module itself, which only counts by what is used of it.
    fn home(&self, from: &[String], names: &[String], hops: usize) -> Option<PathBuf> {
        let mut at = from.to_vec();
        let mut rest = names;
        // Only these begin at a module; all other names are looked up in the one where they stand.
        loop {
            match rest.first()?.as_str() {
                "crate" => at.clear(),
                "super" => drop(at.pop()?),
                "self" => {}
                _ => break,
            }
            rest = &rest[1..];
        }
        let is_local = rest.len() == names.len();
        loop {
            let (name, after) = rest.split_first()?;
            let module = self.0.get(&at)?;
            if module.children.contains(name) {
                at.push(name.clone());
                rest = after;
                if rest.is_empty() {
                    return None;
                }
                continue;
            }
            if module.defined.contains(name) {
                return Some(module.file.clone());
            }
            let hops = hops.checked_sub(1)?;
            if let Some(import) = module.imported.get(name) {
                return self.home(&at, &[import, after].concat(), hops);
            }
            let of_globs = module.globs.iter().find_map(|glob| {
                let names = [glob.as_slice(), rest].concat();
                self.has(&at, &names, hops).then(|| self.home(&at, &names, hops))
            });
            return match of_globs {
                Some(found) => found,
                // Of another crate, a local, or a prelude's.
                None if is_local && at == from => None,
                // Made by a macro.
                None => Some(module.file.clone()),
            };
        }
    }

    /// Whether `names`, from `from`, is something that is there to be named.
    fn has(&self, from: &[String], names: &[String], hops: usize) -> bool {
        let mut at = from.to_vec();
        let mut rest = names;
        loop {
            match rest.first().map(String::as_str) {
                Some("crate") => at.clear(),
                Some("super") => drop(at.pop()),
                Some("self") => {}
                _ => break,
            }
            rest = &rest[1..];
        }
        while let Some((name, after)) = rest.split_first() {
            let Some(module) = self.0.get(&at) else { return false };
            if module.children.contains(name) {
                at.push(name.clone());
                rest = after;
                continue;
            }
            if module.defined.contains(name) {
                return true;
            }
            let Some(hops) = hops.checked_sub(1) else { return false };
            if let Some(import) = module.imported.get(name) {
                // What is imported from another crate is there too.
                return !matches!(import[0].as_str(), "crate" | "super" | "self") || self.has(&at, import, hops);
            }
            return module.globs.iter().any(|glob| self.has(&at, &[glob.as_slice(), rest].concat(), hops));
        }
        true
    }
}

impl Module {
    fn take(&mut self, item: &Item) {
        let (attributes, name) = match item {
            Item::Use(item) => return self.import(item),
            Item::Const(item) => (&item.attrs, Some(&item.ident)),
            Item::Enum(item) => (&item.attrs, Some(&item.ident)),
            Item::Fn(item) => (&item.attrs, Some(&item.sig.ident)),
            Item::Macro(item) => (&item.attrs, item.ident.as_ref()),
            Item::Static(item) => (&item.attrs, Some(&item.ident)),
            Item::Struct(item) => (&item.attrs, Some(&item.ident)),
            Item::Trait(item) => (&item.attrs, Some(&item.ident)),
            Item::Type(item) => (&item.attrs, Some(&item.ident)),
            Item::Union(item) => (&item.attrs, Some(&item.ident)),
            Item::Impl(item) => (&item.attrs, None),
            _ => return,
        };
        if !is_test(attributes) {
            self.defined.extend(name.map(ToString::to_string));
            Uses(self).visit_item(item);
        }
    }

    fn import(&mut self, item: &ItemUse) {
        if is_test(&item.attrs) {
            return;
        }
        let mut leaves = Vec::new();
        flatten(&item.tree, &mut Names::new(), &mut leaves);
        for (name, names) in leaves {
            match name {
                None => self.globs.push(names),
                Some(name) => {
                    if matches!(item.vis, Visibility::Inherited) {
                        self.used.insert(names.clone());
                    }
                    self.imported.insert(name, names);
                }
            }
        }
    }
}

/// Each name that a `use` brings, `None` for a `*`, and what it stands for.
fn flatten(tree: &UseTree, before: &mut Names, leaves: &mut Vec<(Option<String>, Names)>) {
    let with = |name: String| [before.as_slice(), &[name]].concat();
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            flatten(&path.tree, before, leaves);
            before.pop();
        }
        UseTree::Name(name) if name.ident == "self" => leaves.push((before.last().cloned(), before.clone())),
        UseTree::Name(name) => leaves.push((Some(name.ident.to_string()), with(name.ident.to_string()))),
        UseTree::Rename(rename) => leaves.push((Some(rename.rename.to_string()), with(rename.ident.to_string()))),
        UseTree::Glob(_) => leaves.push((None, before.clone())),
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, before, leaves)),
    }
}

/// Gathers what code names.
struct Uses<'a>(&'a mut Module);

impl Visit<'_> for Uses<'_> {
    fn visit_item_use(&mut self, item: &ItemUse) {
        let mut leaves = Vec::new();
        flatten(&item.tree, &mut Names::new(), &mut leaves);
        self.0.used.extend(leaves.into_iter().map(|(_, names)| names));
    }

    fn visit_path(&mut self, path: &syn::Path) {
        self.0.used.insert(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &Macro) {
        self.visit_path(&called.path);
        self.tokens(called.tokens.clone());
    }
}

impl Uses<'_> {
    /// Paths of more than one name, by their look.
    fn tokens(&mut self, tokens: TokenStream) {
        let (mut names, mut colons) = (Names::new(), 0);
        for token in tokens {
            match &token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.path(&mut names);
                    }
                    names.push(name.to_string());
                    colons = 0;
                }
                _ => {
                    self.path(&mut names);
                    colons = 0;
                }
            }
            if let TokenTree::Group(group) = token {
                self.tokens(group.stream());
            }
        }
        self.path(&mut names);
    }

    fn path(&mut self, names: &mut Names) {
        let names = std::mem::take(names);
        if names.len() > 1 {
            self.0.used.insert(names);
        }
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        _ => false,
    })
}

/// The file that `#[path = "…"]` names.
fn path_attribute(attribute: &Attribute) -> Option<String> {
    let Meta::NameValue(given) = &attribute.meta else { return None };
    let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(name), .. }) = &given.value else { return None };
    given.path.is_ident("path").then(|| name.value())
}
